#!/usr/bin/env python3
"""A real trained model tells its published story: stories260k, greedy, from an empty prompt.

The text is the expected output of llama2.c's test_all.py (karpathy/llama2.c, MIT): 200 steps at
temperature 0. So must a Mixtral and a Qwen2-MoE copy whose experts all are the dense FFN, with any
gate and through any number of workers (tools/fixtures/upcycle_mixtral.py says why).

Skipped (77) where ../shared/data/stories260k is absent.
"""
import argparse
import os
import shutil
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools", "fixtures"))
from harness import (Failure, SHARED, generate, main_of, read_file, run_sigmoe, skip,  # noqa: E402
                     write_json)
from upcycle_mixtral import upcycle  # noqa: E402

DATA = os.path.join(SHARED, "data", "stories260k")
BOS = 1
N_STEP = 200
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She "
    "said, \"I want to play with your ball, but I can't find it.\"\n"
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    "do.\"\n"
    "Lily didn't want to help her mom, so she")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}


def make_dense(folder):
    """The checkpoint of ../shared with the config.json it lacks, or a skip."""
    if not os.path.isdir(DATA):
        skip(f"{DATA} is not here")
    os.makedirs(folder, exist_ok=True)
    for name in ("model.safetensors", "tok512.bin"):
        shutil.copyfile(os.path.join(DATA, name), os.path.join(folder, name))
    write_json(os.path.join(folder, "config.json"), CONFIG)
    return folder


def pieces(path):
    """tok512.bin: int32 longest piece, then for each token float32 score, int32 length, bytes."""
    raw, at, out = read_file(path), 4, []
    while at < len(raw):
        _, n = struct.unpack_from("<fi", raw, at)
        out.append(raw[at + 8:at + 8 + n])
        at += 8 + n
    return out


def decode(tokens, vocabulary):
    """As llama2.c does: no space after BOS, <0x0A> is a byte."""
    out, previous = b"", BOS
    for token in tokens:
        piece = vocabulary[token]
        if previous == BOS:
            piece = piece.removeprefix(b" ")
        if piece.startswith(b"<0x") and len(piece) == 6:
            piece = bytes([int(piece[3:5], 16)])
        out, previous = out + piece, token
    return out.decode()


def expect(what, got, want=STORY):
    if got != want:
        at = next((i for i, (g, w) in enumerate(zip(got, want)) if g != w),
                  min(len(got), len(want)))
        raise Failure(f"{what}: the text differs at character {at}: ...{got[at - 20:at + 40]!r}, "
                      f"published ...{want[at - 20:at + 40]!r}")


def tell(binary, label, model, *options):
    out = generate(binary, model, [[BOS]], "--precision", "f32", "--temperature", "0", *options,
                   max_tokens=N_STEP)
    expect(f"{label} tokens", decode(out.tokens[0], pieces(os.path.join(model, "tok512.bin"))))
    expect(f"{label} text", out.text[0])
    print(f"{label}: the published text")


def check_printed(binary, model):
    """What a person sees: the text on stdout, as it comes."""
    for start in (["--token-ids", str(BOS)], ["--prompt", ""]):
        status, stdout, stderr = run_sigmoe(binary, ["run", model, *start, "--max-tokens", N_STEP,
                                                     "--precision", "f32"])
        if status != 0 or STORY not in stdout.decode(errors="replace"):
            raise Failure(f"sigmoe run {' '.join(map(repr, start))} (exit {status}) does not print "
                          f"the story:\n{stdout[-400:]!r}\n{stderr[-800:]}")
        print(f"stdout of run {' '.join(map(repr, start))}: the published text")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-stories-") as tmp:
        dense = make_dense(os.path.join(tmp, "dense"))
        tell(binary, "dense", dense)
        check_printed(binary, dense)
        for seed in (1, 2):
            moe = os.path.join(tmp, f"mixtral{seed}")
            upcycle(dense, moe, seed=seed)
            for n_worker in (1, 2, 3, 8) if seed == 1 else (3,):
                tell(binary, f"mixtral copy, gate {seed}, {n_worker} workers", moe,
                     "--workers", n_worker)
        moe = os.path.join(tmp, "qwen2_moe")
        upcycle(dense, moe, family="qwen2_moe", n_expert=7, top_k=3, seed=3)
        for n_worker in (1, 3):
            tell(binary, f"qwen2_moe copy, {n_worker} workers", moe, "--workers", n_worker)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
