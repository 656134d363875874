#!/usr/bin/env python3
"""`sigmoe eval` says what the logits say.

Perplexities are computed again in Python from the logits that `sigmoe run` dumps for the same windows.
They do not depend on the workers. A text longer than one piece is read whole. The matrix of a model
with domains holds the perplexity of each text under each domain, and submodels give the same.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, TESTS, floats, generate, last_json, main_of, run_sigmoe,  # noqa: E402
                     write_json)

TOKENIZERS = os.path.join(TESTS, "fixtures", "tokenizer")
F32 = ["--precision", "f32"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "float32"}


def call(binary, *args):
    status, stdout, stderr = run_sigmoe(binary, args)
    if status != 0:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}: {stderr}")
    return stdout


def make_model(binary, folder, tokenizer, vocab, bos=None, **more):
    """Random weights with a tokenizer of the fixtures."""
    config = folder + ".json"
    ids = {"bos_token_id": bos, "eos_token_id": 2} if bos is not None else {"eos_token_id": None}
    write_json(config, {**CONFIG, "vocab_size": vocab, **ids, **more})
    call(binary, "synth", config, "-o", folder, "--dtype", "f32", "--std", "0.2")
    shutil.copy(os.path.join(TOKENIZERS, tokenizer), os.path.join(folder, "tokenizer.json"))
    return folder


def tokens_of(binary, model, text):
    done = subprocess.run([binary, "tokenize", model, "--json"], input=json.dumps(text).encode(),
                          capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)


def logprob(row, token):
    top = max(row)
    return row[token] - top - math.log(sum(math.exp(x - top) for x in row))


def expected_nll(binary, model, ids, bos, window, stride):
    """(nll, tokens predicted) by the rule that --help states."""
    lead = [bos] if bos is not None else []
    windows, begin, done = [], 0, 0
    while True:
        end = min(begin + window - len(lead), len(ids))
        if end <= done:
            break
        windows.append((lead + ids[begin:end], max(done - begin + len(lead), 1)))
        done, begin = end, begin + stride
    out = generate(binary, model, [w for w, _ in windows], *F32, max_tokens=0)
    nll, n = 0.0, 0
    for (tokens, first), raw in zip(windows, out.logits):
        vocab = len(raw) // 4 // len(tokens)
        logits = floats(raw)
        for i in range(first, len(tokens)):
            row = logits[(i - 1) * vocab:i * vocab]
            nll -= logprob(row, tokens[i])
            n += 1
    return nll, n


def scores(binary, model, path, *options):
    return last_json(call(binary, "eval", "perplexity", model, "--text", path, "--json", *options))


def close(what, got, want, tolerance=2e-5):
    if abs(got - want) > tolerance * abs(want):
        raise Failure(f"{what}: {got} is not {want}")
    print(f"{what}: {got:.6f}")


def check_perplexity(binary, tmp, tokenizer, vocab, bos):
    model = make_model(binary, os.path.join(tmp, tokenizer), tokenizer, vocab, bos)
    with open(os.path.join(TESTS, "suite", "harness.py"), encoding="utf-8") as f:
        text = f.read()[:900]
    path = os.path.join(tmp, "text")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    ids = tokens_of(binary, model, text)
    for window, stride in ((64, 32), (17, 5), (64, 63)):
        nll, n = expected_nll(binary, model, ids, bos, window, stride)
        report = scores(binary, model, path, *F32, "--window", window, "--stride", stride)
        if report["tokens"] != n:
            raise Failure(f"{report['tokens']} tokens were predicted, {n} can be")
        row = report["scores"][0]
        close(f"{tokenizer} window {window}, stride {stride}: nll", row["nll"], nll)
        close("  per token", row["perplexity_per_token"], math.exp(nll / n))
        close("  per byte", row["perplexity_per_byte"], math.exp(nll / report["bytes"]))
    return model, path


def check_long(binary, tmp, model):
    """A text of several pieces: as many tokens as its lines have, and the same score twice."""
    path = os.path.join(tmp, "long")
    line = "to be or not to be, that is the question\n"
    with open(path, "w", encoding="utf-8") as f:
        f.write(line * 13000)
    options = ["--window", 64, "--stride", 63]
    first = scores(binary, model, path, *options)
    if first["bytes"] != len(line) * 13000 - 1:
        raise Failure(f"{first['bytes']} of {len(line) * 13000} bytes were read")
    part = scores(binary, model, path, *options, "--max-bytes", 3000)
    if part["bytes"] >= 3000 or part["bytes"] < 2990:
        raise Failure(f"--max-bytes 3000 read {part['bytes']}")
    print(f"a text of {first['bytes']} bytes: {first['tokens']} tokens predicted")


def check_domains(binary, tmp):
    """The matrix is perplexity for perplexity, group for group, and submodels give the same."""
    domains = [{"name": "zh", "num_experts": 2}, {"name": "en", "num_experts": 3},
               {"name": "code", "num_experts": 2}]
    model = make_model(binary, os.path.join(tmp, "domains"), "byte_level.json", 640,
                       model_type="pangu_sigma", num_dense_layers=1, domains=domains)
    with open(os.path.join(TESTS, "suite", "harness.py"), encoding="utf-8") as f:
        text = f.read()
    paths = {}
    for i, name in enumerate(("zh", "en", "code")):
        paths[name] = os.path.join(tmp, f"text-{name}")
        with open(paths[name], "w", encoding="utf-8") as f:
            f.write(text[700 * i:700 * i + 700])
    options = ["--window", "32", "--stride", "16"]
    texts = [a for name, path in paths.items() for a in ("--text", f"{name}={path}")]
    folder = os.path.join(tmp, "submodels")
    matrix = last_json(call(binary, "eval", "matrix", model, *texts, *options, "--json", "--auto",
                            "5", "--auto-tokens", "32", "--submodels", folder))
    for row in matrix["texts"]:
        path = paths[row["domain"]]
        each = scores(binary, model, path, *options, "--domain", "all", "--workers", 3)["scores"]
        groups = {s["domain"]: s["perplexity_per_byte"] for s in each}
        if len(set(groups.values())) != 3:
            raise Failure(f"groups do not differ: {groups}")
        one = scores(binary, model, path, *options, "--domain", "en")["scores"][0]
        for name, want in (*groups.items(), ("en", one["perplexity_per_byte"])):
            close(f"text {row['domain']} under {name}",
                  row["groups"][name]["perplexity_per_byte"], want, 1e-9)
            if row["submodels"][name] != row["groups"][name]:
                raise Failure(f"submodel {name} differs: {row}")
        if row["best"] != min(groups, key=groups.get):
            raise Failure(f"{row['best']} is not the best of {groups}")
        others = [v for name, v in groups.items() if name != row["domain"]]
        close("  own gain", row["own_gain"], 1 - groups[row["domain"]] * 2 / sum(others), 1e-9)
        found = row["detected"]
        if sum(found["found"].values()) != found["prompts"] or \
                found["right"] != found["found"].get(row["domain"], 0):
            raise Failure(f"detected: {found}")
        auto = scores(binary, model, path, *options)
        if not auto["detected"] or auto["scores"][0]["perplexity_per_byte"] != \
                groups[auto["scores"][0]["domain"]]:
            raise Failure(f"auto: {auto}")
    call(binary, "eval", "matrix", model, *texts, *options, "--submodels", folder)
    other = make_model(binary, os.path.join(tmp, "others"), "byte_level.json", 640,
                       model_type="pangu_sigma", num_dense_layers=0, domains=domains)
    refused(binary, "another model", "eval", "matrix", other, *texts, "--submodels", folder)
    refused(binary, "domains are zh, en, code", "eval", "matrix", model, "--text", f"fr={path}")
    refused(binary, "DOMAIN=FILE", "eval", "matrix", model, "--text", path)


def refused(binary, word, *args):
    status, stdout, stderr = run_sigmoe(binary, args)
    if status not in (1, 2, 3) or stdout or stderr.count("\n") != 1 or word not in stderr:
        raise Failure(f"{args}: exit {status}, stderr {stderr!r}; expected one line with {word!r}")
    print(f"refused: {stderr.strip()}")


def check_refusals(binary, tmp, model, path):
    empty = os.path.join(tmp, "empty")
    with open(empty, "w", encoding="utf-8"):
        pass
    evaluate = ("eval", "perplexity", model)
    refused(binary, "--text", *evaluate)
    refused(binary, "MODEL", "eval", "perplexity", "--text", path)
    refused(binary, "too short", *evaluate, "--text", empty)
    refused(binary, "cannot read", *evaluate, "--text", os.path.join(tmp, "nothing"))
    refused(binary, "context", *evaluate, "--text", path, "--window", "65")
    refused(binary, "below the window", *evaluate, "--text", path, "--window", "8", "--stride", "8")
    refused(binary, "no domain 'zh'", *evaluate, "--text", path, "--domain", "zh")
    refused(binary, "no domains", "eval", "matrix", model, "--text", f"zh={path}")
    refused(binary, "did you mean 'perplexity'", "eval", "perplexty", model)


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-eval-") as tmp:
        check_perplexity(binary, tmp, "byte_fallback.json", 701, 1)
        model, path = check_perplexity(binary, tmp, "byte_level.json", 640, None)
        check_domains(binary, tmp)
        check_long(binary, tmp, model)
        check_refusals(binary, tmp, model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
