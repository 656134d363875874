#!/usr/bin/env python3
"""Writes sigma-tiny as a checkpoint that sigmoe serves and transformers loads: bf16 safetensors,
config.json, the tokenizer, and the modelling files of tools/hf.

  python tools/train/export.py --data DIR --out models/sigma-tiny

Needs torch and safetensors."""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from model import config_of
from prepare import BOS, EOS

LIMIT = 16 * 1024 * 1024
HF = Path(__file__).resolve().parent.parent / "hf"


def config_json():
    config = config_of().to_dict()
    keep = ("block", "vocab_size", "hidden_size", "intermediate_size", "expert_intermediate_size",
            "num_hidden_layers", "num_dense_layers", "num_attention_heads", "num_key_value_heads",
            "head_dim", "hidden_act", "max_position_embeddings", "initializer_range",
            "rms_norm_eps", "rope_theta", "attention_bias", "mlp_bias", "domains",
            "default_domain", "num_experts_per_tok", "num_embedding_slots", "routing_seed",
            "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "model_type")
    return {**{key: config[key] for key in keep}, "architectures": ["PanguSigmaForCausalLM"],
            "auto_map": {"AutoConfig": "configuration_pangu_sigma.PanguSigmaConfig",
                         "AutoModelForCausalLM": "modeling_pangu_sigma.PanguSigmaForCausalLM"},
            "dtype": "bfloat16"}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="where train.py wrote")
    parser.add_argument("--out", default="models/sigma-tiny")
    args = parser.parse_args()
    data, out = Path(args.data), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    state = torch.load(data / "weights.pt", weights_only=True)
    state = {name: tensor.contiguous() for name, tensor in sorted(state.items())
             if name != "lm_head.weight"}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    size = (out / "model.safetensors").stat().st_size
    if size > LIMIT:
        raise SystemExit(f"model.safetensors has {size} bytes, more than {LIMIT}")
    write_json(out / "config.json", config_json())
    write_json(out / "generation_config.json",
               {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(data / "tokenizer" / name, out / name)
    for name in ("configuration_pangu_sigma.py", "modeling_pangu_sigma.py"):
        shutil.copyfile(HF / name, out / name)
    (out / "model.safetensors").chmod(0o644)
    print(f"{out}: {size} bytes, {sum(t.numel() for t in state.values())} numbers")


if __name__ == "__main__":
    main()
