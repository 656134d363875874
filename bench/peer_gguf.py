#!/usr/bin/env python3
"""Writes a GGUF with random weights in the shape of a config.json, for bench/peer.py, which runs this
with the Python that has the packages gguf and numpy.

  peer_gguf.py CONFIG.json OUT.gguf Q8_0|Q4_0|BF16

Matrices are windows of one table of normal numbers (0.02), quantised once; norms are 1, gates f32. The
output matrix of a Q4_0 file is Q8_0, as in the checkpoint it is compared with. The tokenizer is made up:
tokens are short ASCII words, so that whatever is generated is valid text.
"""
import json
import os
import sys

import gguf
import numpy as np

TABLE = 1 << 22  # elements; every row length of our shapes divides it


class Table:
    """Blocks of one type, from which tensors take windows."""

    def __init__(self, kind):
        values = np.random.default_rng(7).standard_normal(TABLE, dtype=np.float32) * 0.02
        self.kind = getattr(gguf.GGMLQuantizationType, kind)
        if kind == "F32":
            self.blocks = values.view(np.uint8)
        elif kind == "BF16":
            self.blocks = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            self.blocks = gguf.quants.quantize(values, self.kind).view(np.uint8).reshape(-1)
        self.size = {"F32": (1, 4), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18)}[kind]
        self.rng = np.random.default_rng(11)

    def bytes_of(self, n):
        return n // self.size[0] * self.size[1]

    def window(self, n):
        """n elements as bytes, beginning at a random block."""
        want, have = self.bytes_of(n), len(self.blocks)
        start = int(self.rng.integers(0, have // self.size[1])) * self.size[1]
        times = -(-(want + start) // have)
        return np.tile(self.blocks, times)[start:start + want] if times > 1 else \
            self.blocks[start:start + want]


def tensors_of(c, kind):
    """(name, shape as numpy sees it, type) of all tensors, in order."""
    d, vocab, heads, kv = (c["hidden_size"], c["vocab_size"], c["num_attention_heads"],
                           c["num_key_value_heads"])
    d_head = c.get("head_dim") or d // heads
    experts = c["num_experts"]
    ff = c.get("moe_intermediate_size") or c["intermediate_size"]
    qwen = c["model_type"] == "qwen3_moe"
    yield "token_embd.weight", (vocab, d), "BF16"
    yield "output_norm.weight", (d,), "F32"
    yield "output.weight", (vocab, d), "Q8_0" if kind == "Q4_0" else kind
    for i in range(c["num_hidden_layers"]):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (d,), "F32"
        yield b + "attn_q.weight", (heads * d_head, d), kind
        yield b + "attn_k.weight", (kv * d_head, d), kind
        yield b + "attn_v.weight", (kv * d_head, d), kind
        yield b + "attn_output.weight", (d, heads * d_head), kind
        yield b + "attn_q_norm.weight", (d_head if qwen else d,), "F32"
        yield b + "attn_k_norm.weight", (d_head if qwen else d,), "F32"
        yield b + "ffn_norm.weight", (d,), "F32"
        yield b + "ffn_gate_inp.weight", (experts, d), "F32"
        yield b + "ffn_gate_exps.weight", (experts, ff, d), kind
        yield b + "ffn_up_exps.weight", (experts, ff, d), kind
        yield b + "ffn_down_exps.weight", (experts, d, ff), kind


def vocabulary(n):
    ascii_tokens = [chr(i) for i in range(33, 127)] + ["\u0120", "\u010a"]  # space, newline
    return ascii_tokens + [f"t{i}" for i in range(n - len(ascii_tokens))]


def keys(w, c):
    d, heads = c["hidden_size"], c["num_attention_heads"]
    d_head = c.get("head_dim") or d // heads
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(d)
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    if "moe_intermediate_size" in c:
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(d_head)
    w.add_value_length(d_head)
    w.add_rope_dimension_count(d_head)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_expert_count(c["num_experts"])
    w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_vocab_size(c["vocab_size"])
    tokens = vocabulary(c["vocab_size"])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    w.add_token_merges(["! !"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_bos_token_id(c["bos_token_id"] if c.get("bos_token_id") is not None else 1)
    w.add_add_bos_token(False)


def main():
    config, out, kind = sys.argv[1:4]
    with open(config, encoding="utf-8") as f:
        c = json.load(f)
    arch = {"olmoe": "olmoe", "qwen3_moe": "qwen3moe"}[c["model_type"]]
    w = gguf.GGUFWriter(out + ".tmp", arch)
    keys(w, c)
    todo = list(tensors_of(c, kind))
    table = {k: Table(k) for k in {t[2] for t in todo}}
    for name, shape, k in todo:
        t = table[k]
        raw = shape[:-1] + (t.bytes_of(shape[-1]),)
        w.add_tensor_info(name, raw if k != "F32" else shape,
                          np.dtype(np.uint8 if k != "F32" else np.float32),
                          t.bytes_of(int(np.prod(shape))), t.kind if k != "F32" else None)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, shape, k in todo:
        n = int(np.prod(shape))
        norm = len(shape) == 1
        w.write_tensor_data(np.ones(n, dtype=np.float32) if norm else table[k].window(n))
    w.close()
    os.rename(out + ".tmp", out)


if __name__ == "__main__":
    main()
