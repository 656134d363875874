"""sigma-tiny: its shape and its first weights."""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hf import modeling_pangu_sigma as modeling  # noqa: E402
from hf import tables  # noqa: E402
from hf.configuration_pangu_sigma import PanguSigmaConfig  # noqa: E402

from corpora import DOMAINS  # noqa: E402
from prepare import BOS, EOS, VOCAB  # noqa: E402

SHAPE = {
    "block": "llama", "vocab_size": VOCAB, "hidden_size": 192, "intermediate_size": 640,
    "expert_intermediate_size": 400, "num_hidden_layers": 6, "num_dense_layers": 4,
    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64,
    "max_position_embeddings": 1024, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "num_experts_per_tok": 1, "routing_seed": "sigma-tiny",
    "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0,
}


def config_of(**changes):
    domains = [{"name": name, "num_experts": 2} for name in DOMAINS]
    return PanguSigmaConfig(domains=domains, default_domain=DOMAINS[0], **{**SHAPE, **changes})


def build(seed=1, **changes):
    torch.manual_seed(seed)
    model = modeling.PanguSigmaForCausalLM(config_of(**changes))
    model.tie_weights()
    tables.fill(model)
    with torch.no_grad():  # what a block adds starts at nothing
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
    return model
