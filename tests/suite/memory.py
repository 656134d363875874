#!/usr/bin/env python3
"""What is resident of a served model, coordinator and workers together: the packed weights and the
keys and values, once, and next to nothing of the files they came from.

What a program costs without weights (code, stacks, buffers, the tokenizer) is taken off by serving
a tiny model of the same kind beside, so that the bound is on what grows with the model.

usage: memory.py --sigmoe SIGMOE
"""
import argparse
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, main_of, run_sigmoe  # noqa: E402
from served import Served, make_model  # noqa: E402

SHAPE = {"hidden_size": 512, "intermediate_size": 512, "num_experts": 32, "num_hidden_layers": 3}
KV_TOKENS = 1024
# Buffers are as large as a step has rows, whatever the model weighs: of few rows, they are small.
STEP_ROWS = 64
MIB = 1 << 20
# Buffers of a step are wider in the larger model, and a mapping ends in a whole huge page.
SLACK = 16 * MIB
# Of the files stays what is read in place (the embedding), headers, and ends of fault-around windows.
FILE_SLACK = 1 * MIB


def sigmoe(binary, *args):
    status, out, err = run_sigmoe(binary, args)
    if status != 0:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: {err}")
    return out


def expected(binary, model):
    """(bytes of packed weights and of keys and values, bytes of the embedding)."""
    told = json.loads(sigmoe(binary, "inspect", model, "--json"))
    kv = KV_TOKENS * told["layers"] * 2 * told["kv_heads"] * told["head_width"] * 2
    return told["total_bytes"] + kv, told["vocabulary"] * told["hidden"] * 2


def resident(binary, model, workers):
    """Bytes of all processes after an answer that touched every part: (in all, of model files)."""
    with Served(binary, model, "--kv-tokens", KV_TOKENS, "--max-batch-rows", STEP_ROWS,
                "--no-prefix-cache", "--max-seqs", 4, workers=workers) as server:
        status, body = server.post("/v1/completions", {"prompt": "a b c " * 40, "max_tokens": 4})
        if status != 200:
            raise Failure(f"status {status}: {body}")
        all_of_them = [server.proc(), *server.proc().children()]
        if len(all_of_them) != 1 + workers:
            raise Failure(f"{len(all_of_them)} processes where {1 + workers} were to be")
        return (sum(p.pss() for p in all_of_them),
                sum(p.resident_of(".safetensors") for p in all_of_them))


def check(binary, folder, workers):
    models = []
    for name, shape in (("tiny", {}), ("large", SHAPE)):
        floats, out = os.path.join(folder, name), os.path.join(folder, name + "-int4")
        if not os.path.exists(out):
            make_model(binary, floats, **shape)
            sigmoe(binary, "quantize", floats, "-o", out, "--experts", "int4:32", "--dense", "int8")
        models.append(out)
    (tiny, _), (large, embedding) = (expected(binary, m) for m in models)
    (tiny_rss, _), (rss, of_files) = (resident(binary, m, workers) for m in models)
    ratio = (rss - tiny_rss) / (large - tiny)
    print(f"{workers} workers: {(rss - tiny_rss) / MIB:.1f} MiB more for {(large - tiny) / MIB:.1f} "
          f"of weights, keys and values: {ratio:.3f}; of files {of_files / MIB:.2f} MiB, the "
          f"embedding is {embedding / MIB:.2f}")
    if of_files > (1 + workers) * FILE_SLACK + embedding:
        raise Failure(f"{of_files} bytes of the checkpoint stayed resident: what is packed is let go")
    if rss - tiny_rss > 1.05 * (large - tiny) + SLACK:
        raise Failure(f"{ratio:.3f} times the weights and the keys and values are resident")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmoe", required=True)
    binary = parser.parse_args().sigmoe
    with tempfile.TemporaryDirectory(prefix="sigmoe-memory-") as folder:
        for workers in (0, 2):
            check(binary, folder, workers)


main_of(main)
