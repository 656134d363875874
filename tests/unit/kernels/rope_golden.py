#!/usr/bin/env python3
"""Writes rope_golden.h: cosines and sines as transformers computes them (torch and transformers needed).

usage: rope_golden.py > rope_golden.h
"""
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

POSITIONS = (0, 1, 17, 4095, 70000)
# name, d_rot, theta, max_context, rope_scaling
CASES = (
    ("ROPE_NONE", 64, 10000.0, 2048, None),
    ("ROPE_NONE", 18, 1000000.0, 2048, None),
    ("ROPE_LINEAR", 32, 10000.0, 2048, {"factor": 2.5}),
    ("ROPE_DYNAMIC", 24, 10000.0, 2048, {"factor": 4.0}),
    ("ROPE_YARN", 64, 150000.0, 131072,
     {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
      "original_max_position_embeddings": 4096}),
    ("ROPE_YARN", 64, 10000.0, 163840,
     {"factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.7,
      "original_max_position_embeddings": 4096}),
    ("ROPE_YARN", 20, 1000000.0, 32768, {"factor": 4.0, "attention_factor": 1.25}),
    ("ROPE_LLAMA3", 64, 500000.0, 131072,
     {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}),
)


def angles(name, d_rot, theta, context, scaling, pos):
    kind = name[5:].lower().replace("none", "default")
    config = LlamaConfig(hidden_size=2 * d_rot, num_attention_heads=2, head_dim=d_rot,
                         rope_theta=theta, max_position_embeddings=context)
    if scaling:
        config.rope_scaling = {"rope_type": kind, **scaling}
    # What dynamic_frequency_update hands over once a sequence is longer than the context.
    seq_len = torch.tensor(pos + 1) if kind == "dynamic" and pos + 1 > context else None
    inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=seq_len)
    freqs = inv_freq.float() * float(pos)
    return (freqs.cos() * factor).tolist(), (freqs.sin() * factor).tolist()


def main():
    print("/* Written by rope_golden.py from transformers' modeling_rope_utils.py; not edited by hand. */")
    print("static const struct golden golden[] = {")
    for name, d_rot, theta, context, scaling in CASES:
        s = scaling or {}
        fields = [f".d_rot = {d_rot}", f".theta = {theta}", f".scaling = {name}",
                  f".max_context = {context}", f".truncate = {int(s.get('truncate', True))}",
                  f".original_context = {s.get('original_max_position_embeddings', 0)}"]
        fields += [f".{key} = {s[key]}" for key in
                   ("factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor",
                    "attention_factor", "mscale", "mscale_all_dim") if key in s]
        for pos in POSITIONS:
            cos, sin = angles(name, d_rot, theta, context, scaling, pos)
            print(f"    {{{{{', '.join(fields)}}},\n     {pos},")
            print("     {" + ", ".join(f"{x:.9g}" for x in cos) + "},")
            print("     {" + ", ".join(f"{x:.9g}" for x in sin) + "}},")
    print("};")


main()
