#!/usr/bin/env python3
"""An extracted domain computes what the full cluster computes, byte for byte.

For every domain of a model: `sigmoe extract --verify` compares both in one process, then the very
prompts of its proof.json run once more through `sigmoe run`: the full model behind three workers over
tcp, the submodel alone. The dumped logits must be the same bytes. The size table is checked and
printed, and how fast both decode.

  extract_lossless.py                          a small model with random weights
  extract_lossless.py --model models/sigma-tiny --text zh=held-out/zh.txt --text code=...
"""
import argparse
import json
import os
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, generate, last_json, main_of, run_sigmoe, write_json)  # noqa: E402

CONFIG = {
    "architectures": ["PanguSigmaForCausalLM"], "model_type": "pangu_sigma", "block": "qwen3",
    "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 96,
    "expert_intermediate_size": 64, "num_hidden_layers": 4, "num_dense_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 307,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None,
    "num_experts_per_tok": 2, "num_embedding_slots": 2, "routing_seed": "lossless",
    "domains": [{"name": "zh", "num_experts": 4, "embedding_slot": 0},
                {"name": "en", "num_experts": 3, "embedding_slot": 1},
                {"name": "code", "num_experts": 5, "embedding_slot": 1},
                {"name": "poetry", "num_experts": 2, "embedding_slot": 0}]}


def call(binary, *args):
    status, stdout, stderr = run_sigmoe(binary, args, timeout=1200)
    if status != 0:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}: {stderr}")
    return stdout


def make_model(binary, tmp):
    write_json(os.path.join(tmp, "config.json"), CONFIG)
    model = os.path.join(tmp, "full")
    call(binary, "synth", os.path.join(tmp, "config.json"), "-o", model, "--std", "0.2")
    return model


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


def ids_of(text):
    return [int(t) for t in text.split(",")]


def rerun(binary, model, out, proof, domain, collapsed):
    """Both models again, on the prompts that proof.json names; the bytes of all logits."""
    prompts = [ids_of(p["tokens"]) for p in proof["prompts"]]
    common = ["--precision", proof["precision"]]
    full = generate(binary, model, prompts, *common, "--domain", domain, "--workers", 3,
                    "--transport", "tcp", max_tokens=0, timeout=1200)
    part = generate(binary, out, prompts, *common, max_tokens=0, timeout=1200)
    if full.logits != part.logits:
        bad = [i for i, (a, b) in enumerate(zip(full.logits, part.logits)) if a != b]
        raise Failure(f"{domain}: prompts {bad} differ{' (collapsed)' if collapsed else ''}")
    if len(set(full.logits)) < len({tuple(p) for p in prompts}):
        raise Failure(f"{domain}: different prompts gave the same logits")
    return sum(map(len, full.logits))


def speeds(binary, n_round, n_token, *runs):
    """Tokens a second of one sequence for each command, the median of rounds in which they take
    turns, so that all meet the same load of the machine. Nothing is guessed: how well that goes is a
    matter of the text."""
    got = [[] for _ in runs]
    for _ in range(n_round):
        for i, run in enumerate(runs):
            out = call(binary, "run", *run, "--token-ids", "1,2,3", "--max-tokens", n_token,
                       "--ignore-eos", "--workers", 1, "--speculate", "off", "--json")
            got[i].append(last_json(out)["stats"]["decode_tokens_per_s"])
    return [statistics.median(g) for g in got]


def check_domain(binary, model, domain, n_prompt, text, tmp, n_round):
    out = os.path.join(tmp, f"only-{domain}")
    options = ["--prompts", text] if text else []
    report = last_json(call(binary, "extract", model, "--domain", domain, "-o", out, "--verify",
                            "--n-prompts", n_prompt, "--workers", 3, "--json", *options))
    proof = read_json(out, "proof.json")
    if report["proof"]["equal"] != n_prompt or len(proof["prompts"]) != n_prompt:
        raise Failure(f"{domain}: {report['proof']}")
    if report["submodel_bytes"] != report["dense_bytes"] + report["group_bytes"]:
        raise Failure(f"{domain}: the sizes do not add up: {report}")
    for name in ("README.md", "config.json"):
        if not os.path.getsize(os.path.join(out, name)):
            raise Failure(f"{domain}: {name} is empty")
    n_byte = rerun(binary, model, out, proof, domain, report["collapsed"])
    n_token = min(read_json(model, "config.json")["max_position_embeddings"], 1000) - 3
    whole, alone = speeds(binary, n_round, n_token, [model, "--domain", domain], [out])
    print(f"{domain:<12} {report['full_bytes']:>12} {report['dense_bytes']:>12} "
          f"{report['group_bytes']:>12} {report['submodel_bytes']:>12} {report['ratio']:>8.4f} "
          f"{n_byte:>14} {whole:>9.0f} {alone:>9.0f}")
    return out


def check(binary, model, n_prompt, texts, n_round):
    with tempfile.TemporaryDirectory(prefix="sigmoe-lossless-") as tmp:
        model = model or make_model(binary, tmp)
        print(f"{'domain':<12} {'full':>12} {'dense part':>12} {'group':>12} {'submodel':>12} "
              f"{'ratio':>8} {'logits, bytes':>14} {'full t/s':>9} {'alone t/s':>9}")
        for domain in read_json(model, "config.json")["domains"]:
            name = domain["name"]
            check_domain(binary, model, name, n_prompt, texts.get(name), tmp, n_round)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--model", help="a model with domains; default: a small random one")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--text", action="append", default=[], metavar="DOMAIN=FILE",
                        help="cut the domain's prompts from this text")
    parser.add_argument("--rounds", type=int, default=1, help="of the two speeds; the median")
    args = parser.parse_args()
    texts = dict(t.split("=", 1) for t in args.text)
    main_of(lambda: check(args.sigmoe, args.model, args.prompts, texts, args.rounds))


if __name__ == "__main__":
    main()
