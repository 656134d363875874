#!/usr/bin/env python3
"""`sigmoe upcycle` makes a model sparse and leaves its function alone.

Tiny dense models of each family become models with domains whose f32 logits are the dense model's bit
for bit, whatever the number of workers and the domain. Behind a learned gate the slot weights add up
to 1 only up to rounding: the greedy tokens are the same and the logits close. stories260k, upcycled
to 5 domains of 4 experts and to a mixtral, tells its published story. What cannot be done is refused
in one line with nothing left behind.
"""
import argparse
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, TINY, floats, generate, main_of, run_sigmoe,  # noqa: E402
                     safetensors_read, write_json)
import stories  # noqa: E402

DOMAINS = ["zh", "en", "code", "bilingual", "poetry"]
GATED = {"llama": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
F32 = ["--precision", "f32"]


def upcycle(binary, dense, out, *options):
    status, stdout, stderr = run_sigmoe(binary, ["upcycle", dense, "-o", out, *options])
    if status != 0:
        raise Failure(f"upcycle {dense} {options}: exit {status}: {stderr}")
    return stdout.decode()


def config_of(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def tensors_of(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(safetensors_read(os.path.join(folder, name)))
    return out


def prompts_of(vocab):
    return [[(7 * i + 13 * j + 3) % vocab for j in range(n)] for i, n in enumerate((1, 5, 17))]


def equal(what, got, want):
    if got != want:
        raise Failure(f"{what}: not the same")
    print(f"{what}: the same")


PANGU_ALPHA = {
    "model_type": "pangu_alpha", "hidden_size": 48, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 131,
    "max_position_embeddings": 64, "torch_dtype": "float32"}


def make_pangu_alpha(binary, tmp):
    """Random weights: no dense model of PanGu-alpha's own block is among the fixtures."""
    config, dense = os.path.join(tmp, "pangu.json"), os.path.join(tmp, "pangu_alpha")
    write_json(config, PANGU_ALPHA)
    status, _, stderr = run_sigmoe(binary, ["synth", config, "-o", dense, "--std", "0.2",
                                            "--dtype", "f32"])
    if status != 0:
        raise Failure(f"synth: {stderr}")
    return dense


def check_groups(binary, tmp, family, options, n_workers=(1, 3)):
    dense = family if os.path.isabs(family) else os.path.join(TINY, family)
    family = os.path.basename(family)
    out = os.path.join(tmp, f"rre-{family}-{len(os.listdir(tmp))}")
    upcycle(binary, dense, out, "--domains", "zh,en,code", *options)
    config = config_of(out)
    vocab = config["vocab_size"]
    want = generate(binary, dense, prompts_of(vocab), *F32, max_tokens=6)
    for domain in ("zh", "code"):
        for n in n_workers:
            got = generate(binary, out, prompts_of(vocab), *F32, "--domain", domain, "--workers", n,
                           max_tokens=6)
            equal(f"{family} {' '.join(options)}: {domain}, {n} workers, logits",
                  (got.logits, got.tokens), (want.logits, want.tokens))
    return out


def check_tables(binary, tmp):
    """The tables depend on the seed; counts differ by one at most."""
    dense = os.path.join(TINY, "llama")
    tables = []
    for seed in ("a", "a", "b"):
        out = os.path.join(tmp, f"tables{len(tables)}")
        upcycle(binary, dense, out, "--domains", "zh,en", "--domain-sizes", "5,3", "--seed", seed)
        tables.append({name: t for name, t in tensors_of(out).items()
                       if name.endswith("routing_table")})
    equal("tables of one seed", tables[0], tables[1])
    if tables[0] == tables[2]:
        raise Failure("two seeds drew the same tables")
    for name, (dtype, shape, raw) in tables[0].items():
        if dtype != "U16" or shape[0] != 2:
            raise Failure(f"{name} is {dtype} {shape}")
        row = list(memoryview(raw).cast("H"))
        for first, n in ((0, 5), (shape[1], 3)):
            part = row[first:first + shape[1]]
            count = [part.count(e) for e in range(n)]
            if sum(count) != shape[1] or max(count) - min(count) > 1:
                raise Failure(f"{name}: experts have {count} tokens")
    print("tables are balanced and differ between seeds")


def check_counts(binary, tmp):
    """With token counts every expert gets about as much text."""
    dense, out, path = os.path.join(TINY, "llama"), os.path.join(tmp, "by-counts"), \
        os.path.join(tmp, "counts")
    vocab = config_of(dense)["vocab_size"]
    counts = [1000000 // (t + 1) for t in range(vocab)]
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"{t} {n}\n" for t, n in enumerate(counts))
    upcycle(binary, dense, out, "--domains", "zh", "--experts-per-domain", "2", "--token-counts",
            path)
    for name, (_, _, raw) in tensors_of(out).items():
        if name.endswith("routing_table"):
            row = memoryview(raw).cast("H")
            share = sum(n for t, n in enumerate(counts) if row[t] == 0) / sum(counts)
            if not 0.49 < share < 0.51:
                raise Failure(f"{name}: one of two experts gets {share:.3f} of the text")
    print("tables are balanced by counts")


def check_gated(binary, tmp):
    for family, form in GATED.items():
        dense, out = os.path.join(TINY, family), os.path.join(tmp, form)
        options = [] if form == "mixtral" else ["--sparse-layers", "1"]
        upcycle(binary, dense, out, "--form", form, "--experts", "6", "--top-k", "3", *options)
        config = config_of(out)
        if config["model_type"] != form or "auto_map" in config:
            raise Failure(f"{form}: config.json says {config}")
        prompts = prompts_of(config["vocab_size"])
        want = generate(binary, dense, prompts, *F32, max_tokens=6)
        got = generate(binary, out, prompts, *F32, "--workers", 2, max_tokens=6)
        equal(f"{family} as {form}: greedy tokens", got.tokens, want.tokens)
        for a, b in zip(got.logits, want.logits):
            worst = max(abs(x - y) for x, y in zip(floats(a), floats(b)))
            if worst > 1e-4:
                raise Failure(f"{form}: logits differ by {worst}")


def refused(binary, args, word, out):
    before = sorted(os.listdir(os.path.dirname(out)))
    status, stdout, stderr = run_sigmoe(binary, args)
    if status not in (2, 3) or stdout or stderr.count("\n") != 1 or word not in stderr:
        raise Failure(f"{args}: exit {status}, stderr {stderr!r}; expected one line with {word!r}")
    if sorted(os.listdir(os.path.dirname(out))) != before:
        raise Failure(f"{args}: left {sorted(os.listdir(os.path.dirname(out)))} behind")
    print(f"refused: {stderr.strip()}")


def check_refusals(binary, tmp):
    dense, out = os.path.join(TINY, "llama"), os.path.join(tmp, "refused")
    full = os.path.join(tmp, "full")
    os.makedirs(full)
    with open(os.path.join(full, "keep"), "w", encoding="ascii") as f:
        f.write("mine")
    moe = os.path.join(TINY, "mixtral")
    counts = os.path.join(tmp, "bad-counts")
    with open(counts, "w", encoding="ascii") as f:
        f.write("1 2\n3\n")
    names = ["--domains", "zh,en"]
    for args, word in (
            ([dense, "-o", full, *names], "not empty"),
            ([moe, "-o", out, *names], "experts already"),
            ([dense, "-o", out], "--domains"),
            ([dense, "-o", out, "--domains", "zh,zh"], "two domains"),
            ([dense, "-o", out, "--domains", "zh,"], "--domains"),
            ([dense, "-o", out, "--domains", "Zh"], "a-z"),
            ([dense, "-o", out, "--domains", "auto"], "auto"),
            ([dense, "-o", out, *names, "--domain-sizes", "4"], "--domain-sizes"),
            ([dense, "-o", out, *names, "--domain-sizes", "4,4,4"], "--domain-sizes"),
            ([dense, "-o", out, *names, "--sparse-layers", "400"], "layers"),
            ([dense, "-o", out, *names, "--default-domain", "fr"], "fr"),
            ([dense, "-o", out, *names, "--top-k", "5"], "num_experts"),
            ([dense, "-o", out, *names, "--token-counts", counts], "bad-counts:2"),
            ([dense, "-o", out, *names, "--form", "mixtral"], "--form rre"),
            ([dense, "-o", out, "--form", "qwen3_moe"], "mixtral"),
            ([dense, "-o", out, "--form", "gpt"], "--form"),
            ([os.path.join(TINY, "qwen2"), "-o", out, "--form", "mixtral"], "qwen2_moe"),
            ([dense, *names], "-o OUT")):
        refused(binary, ["upcycle", *args], word, out)


def check_stories(binary, tmp):
    dense = os.path.join(tmp, "stories")
    if not os.path.isdir(stories.DATA):
        print("stories260k is not here: not told")
        return
    stories.make_dense(dense)
    mixtral, groups = os.path.join(tmp, "stories-mixtral"), os.path.join(tmp, "stories-groups")
    upcycle(binary, dense, mixtral, "--form", "mixtral")
    for n in (1, 3):
        stories.tell(binary, f"mixtral, {n} workers", mixtral, "--workers", n)
    upcycle(binary, dense, groups, "--domains", ",".join(DOMAINS), "--experts-per-domain", "4",
            "--sparse-layers", "3")
    for n in (1, 2, 3, 8):
        stories.tell(binary, f"5 x 4 experts, {n} workers", groups, "--workers", n)
    for domain in DOMAINS:
        stories.tell(binary, f"domain {domain}", groups, "--workers", 2, "--domain", domain)


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-upcycle-") as tmp:
        check_refusals(binary, tmp)
        check_tables(binary, tmp)
        check_counts(binary, tmp)
        check_gated(binary, tmp)
        for family in GATED:
            check_groups(binary, tmp, family, ["--experts-per-domain", "4"])
        check_groups(binary, tmp, "llama", ["--domain-sizes", "2,7,3", "--top-k", "2",
                                            "--own-embeddings", "--sparse-layers", "1"])
        check_groups(binary, tmp, "qwen2", ["--shard-size", "4096", "--default-domain", "en"])
        check_groups(binary, tmp, make_pangu_alpha(binary, tmp), ["--sparse-layers", "2"])
        check_stories(binary, tmp)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
