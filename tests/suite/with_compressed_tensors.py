#!/usr/bin/env python3
"""What `sigmoe quantize` writes is what other engines read: transformers, by the package
compressed-tensors, loads a quantised checkpoint of each family and has our logits.

Scales are bf16, and compressed-tensors makes weights of the scales' type, so out of the box its weights
are rounded to bf16 once more. With the same scales stored as f32, which changes no value, its weights
are exact, and logits agree to f32's last digits; as they are written, to what that rounding costs. Beside
it, what activations in bf16, the arithmetic of weight-only schemes, and activations made int8 are away.

Skipped (77) without torch, transformers and compressed-tensors; with them: PYTHON THIS --sigmoe BINARY
"""
import argparse
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import Failure, main_of, run_sigmoe, skip, write_json  # noqa: E402

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
COMMON = {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "hidden_act": "silu",
          "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 512,
          "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
          "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}
FAMILIES = {
    "llama": ("LlamaForCausalLM", {"intermediate_size": 256}),
    "olmoe": ("OlmoeForCausalLM", {"intermediate_size": 64, "norm_topk_prob": False, **EXPERTS}),
    "mixtral": ("MixtralForCausalLM", {"intermediate_size": 64, "num_local_experts": 8,
                                       "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2MoeForCausalLM",
                  {"intermediate_size": 256, "moe_intermediate_size": 64, "norm_topk_prob": True,
                   "shared_expert_intermediate_size": 128, "decoder_sparse_step": 1,
                   "mlp_only_layers": [], **EXPERTS}),
    "qwen3_moe": ("Qwen3MoeForCausalLM",
                  {"intermediate_size": 256, "moe_intermediate_size": 64, "norm_topk_prob": True,
                   "head_dim": 32, "decoder_sparse_step": 1, "mlp_only_layers": [], **EXPERTS})}
SHAPES = (["--experts", "int4:32", "--dense", "int8:64", "--head", "int8"],
          ["--experts", "int8:32", "--dense", "int4:32"])


def sigmoe(binary, *args):
    status, _, stderr = run_sigmoe(binary, args)
    if status != 0:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}: {stderr}")


def quantised(binary, tmp, family, shape):
    name, keys = FAMILIES[family]
    config = os.path.join(tmp, "config.json")
    floats, out = os.path.join(tmp, "floats"), os.path.join(tmp, "quantised")
    write_json(config, {"architectures": [name], "model_type": family, **COMMON, **keys})
    sigmoe(binary, "synth", config, "-o", floats, "--std", "0.2")
    sigmoe(binary, "quantize", floats, "-o", out, *shape)
    return out


def our_logits(binary, tmp, model, *how):
    import numpy
    dump = os.path.join(tmp, "logits.f32")
    sigmoe(binary, "run", model, "--token-ids", ",".join(map(str, IDS)), "--max-tokens", "0",
           "--dump-logits", dump, *(how or ("--precision", "f32")))
    return numpy.fromfile(dump, dtype=numpy.float32).reshape(len(IDS), -1)


def their_logits(model):
    import torch
    from transformers import AutoModelForCausalLM
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        return loaded(torch.tensor([IDS])).logits[0].float().numpy()


def scales_widen(model):
    from safetensors.torch import load_file, save_file
    path = os.path.join(model, "model.safetensors")
    tensors = {n: t.float() if n.endswith("_scale") else t for n, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def check_family(binary, family, shape):
    import numpy
    with tempfile.TemporaryDirectory(prefix="sigmoe-ct-") as tmp:
        model = quantised(binary, tmp, family, shape)
        ours = our_logits(binary, tmp, model)
        size = float(numpy.abs(ours).max())
        rounded = float(numpy.abs(ours - their_logits(model)).max())
        scales_widen(model)
        if not numpy.array_equal(ours, our_logits(binary, tmp, model)):
            raise Failure(f"{family}: scales in f32 change our logits")
        exact = float(numpy.abs(ours - their_logits(model)).max())
        bf16, int8 = (float(numpy.abs(ours - our_logits(binary, tmp, model, "--activations", a)).max())
                      for a in ("bf16", "int8"))
        print(f"{family} {' '.join(shape)}: largest logit {size:.2f}, differences {exact:.1e}, with "
              f"weights rounded to bf16 {rounded:.1e}, activations bf16 {bf16:.1e}, int8 {int8:.1e}")
        if not 0 < bf16 < 0.05 * size or not 0 < int8 < 0.1 * size or bf16 == int8:
            raise Failure(f"{family}: activations bf16 {bf16}, int8 {int8} away from {size}")
        if not exact < 1e-4 * size:
            raise Failure(f"{family}: transformers' logits differ by {exact}")


def check(binary):
    for family in FAMILIES:
        for shape in SHAPES:
            check_family(binary, family, shape)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    args = p.parse_args()
    try:
        import compressed_tensors
        import torch
        import transformers
        print(f"transformers {transformers.__version__}, compressed-tensors "
              f"{compressed_tensors.__version__}, torch {torch.__version__}")
    except ImportError as missing:
        skip(f"{missing.name} is not installed")
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
