#!/usr/bin/env python3
"""The same bits: whatever the cluster's shape, one prompt's logits are equal byte for byte.

For one model and each precision (and int8 KV, of the models in INT8_KV; and rows that travel in fp8, of
those in FP8; of a quantised model both kinds
of activations instead), the baseline is the prompt alone, in one process's threads, with one worker, whole prefill and one thread. Each other run changes the options below, and may put the
prompt into a batch of 16 others; its rows of --dump-logits, prompt and generated, must be the
baseline's bytes. The batch's other prompts are compared too, from run to run.

The default run takes a covering selection of the product: every pair of values of two options
occurs in some run. --full takes the whole product. Two more runs use workers that already run
(--workers-at), with experts split unevenly and with replicas; and each instruction set of this CPU
must agree with the baseline where it says that it is of the same numerics class.

Of a model with domains the batch is mixed: each prompt has one of them, or its domain is found out
(whose scores must be the same too), and the target's is in another embedding slot than its
neighbours'.

The prompt goes on with the fixture's first generated tokens, so that chunks of 5 are many and
rotary scalings pass their original context inside the prompt.
"""
import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools", "fixtures"))
import stories  # noqa: E402
from harness import (Failure, TINY, Workers, floats, generate, main_of, run_sigmoe,  # noqa: E402
                     vocab_of)
from upcycle_mixtral import upcycle  # noqa: E402

N_GENERATED = 10
N_OTHER = 16
TARGET_AT = 6  # the prompt's place in the batch
SEED = 20261124
STORIES = {"stories_mixtral": {"family": "mixtral", "n_expert": 8, "top_k": 2, "seed": 1},
           "stories_qwen2_moe": {"family": "qwen2_moe", "n_expert": 8, "top_k": 3, "seed": 2}}
FP8 = {"olmoe": "fp8", "mixtral": "fp8-both"}
INT8_KV = ("qwen3_moe", "mixtral_sliding")
SYNTHETIC = ("tiny-sigma", "tiny-pangu")  # shapes of sigmoe synth
# Groups of 32, 64 and 128, int4 and int8, by the name of the test.
QUANTISED = {"quantised": ("qwen2_moe", ["--experts", "int4:32", "--dense", "int8:64", "--head", "int8"])}


def axes(n_expert, domains=()):
    """Option: its values, the baseline's first. None: the option is not given."""
    place = {"--place": [None, "colocated", "spread"]} if domains else {}
    return {**place,
            "--workers": [1, 2, 3, 8] if n_expert else [1], "--transport": ["inproc", "ipc", "tcp"],
            "batch": [False, True], "--prefill-chunk": [None, 5], "--threads": [1, 2],
            "--worker-threads": [1, 2], "--micro-batches": [1, 2], "--no-shm": [False, True],
            "--speculate": ["off", "ngram", "ngram:2"],
            "--max-batch-rows": [None, 24]}


def covering(values, rng):
    """Few rows in which each pair of values of two axes occurs; greedy, candidates at random."""
    names = list(values)
    todo = {(a, x, b, y) for a, b in itertools.combinations(names, 2)
            for x in range(len(values[a])) for y in range(len(values[b]))}

    def gain(row):
        return sum((a, row[a], b, row[b]) in todo for a, b in itertools.combinations(names, 2))

    rows = []
    while todo:
        a, x, b, y = min(todo)
        tries = [{n: rng.randrange(len(values[n])) for n in names} | {a: x, b: y}
                 for _ in range(60)]
        best = max(tries, key=gain)
        rows.append({n: values[n][i] for n, i in best.items()})
        todo -= {(p, best[p], q, best[q]) for p, q in itertools.combinations(names, 2)}
    return rows


def product(values):
    return [dict(zip(values, row)) for row in itertools.product(*values.values())]


def options_of(row):
    given = [(name, value) for name, value in row.items() if name.startswith("--")]
    return [word for name, value in given if value is not None and value is not False
            for word in ((name,) if value is True else (name, str(value)))]


def words(row):
    return " ".join(options_of(row)) + (" in a batch" if row["batch"] else " alone")


def first_difference(got, want, vocab):
    for i, (g, w) in enumerate(zip(floats(got), floats(want))):
        if g != w and not (g != g and w != w):
            return f"position {i // vocab}, token {i % vocab}: {g!r} is not {w!r}"
    return f"{len(got)} bytes, not {len(want)}, or the bits of a NaN or a zero's sign"


class Bits:
    """One model at one precision: the prompts, the baseline, and what the batch gave first."""

    def __init__(self, binary, model, form, prompt):
        self.binary, self.model, self.vocab = binary, model, vocab_of(model)
        self.common = ["--ignore-eos", *form]
        rng = random.Random(SEED)
        others = [[rng.randrange(3, self.vocab) for _ in range(rng.randint(1, 40))]
                  for _ in range(N_OTHER)]
        self.prompts = [*others[:TARGET_AT], prompt, *others[TARGET_AT:]]
        names = domains_of(model) and [*domains_of(model), "auto"]
        self.domains = [names[(i - TARGET_AT + 1) % len(names)] for i in range(N_OTHER + 1)
                        ] if names else []
        self.label = " ".join((os.path.basename(model), *form))
        self.batch = None
        first = {name: values[0] for name, values in axes(0).items()}
        self.baseline = self.run(first)
        if len(set(map(bytes, self.rows(self.baseline.logits[0])))) < 2:
            raise Failure(f"{self.label}: all rows of the baseline are one row")

    def rows(self, raw):
        return [raw[i:i + 4 * self.vocab] for i in range(0, len(raw), 4 * self.vocab)]

    def run(self, row, env=None):
        prompts = self.prompts if row["batch"] else [self.prompts[TARGET_AT]]
        domains = self.domains if row["batch"] else self.domains[TARGET_AT:TARGET_AT + 1]
        given = ["--domain", ",".join(domains)] if domains else []
        return generate(self.binary, self.model, prompts, *self.common, *given, *options_of(row),
                        max_tokens=N_GENERATED, env=env)

    def same(self, what, out, at, want, want_at):
        if out.logits[at] != want.logits[want_at]:
            why = first_difference(out.logits[at], want.logits[want_at], self.vocab)
            raise Failure(f"{self.label}: {what}: {why}")
        if out.tokens[at] != want.tokens[want_at]:
            raise Failure(f"{self.label}: {what}: same logits, other tokens")
        if out.domains[at] != want.domains[want_at]:
            raise Failure(f"{self.label}: {what}: domain {out.domains[at]}, not "
                          f"{want.domains[want_at]}")

    def check(self, row, extra_words=""):
        out = self.run(row)
        what = words(row) + extra_words
        if not row["batch"]:
            self.same(what, out, 0, self.baseline, 0)
            if out.report.get("logits_hash") != self.baseline.report.get("logits_hash"):
                raise Failure(f"{self.label}: {what}: same logits, other logits_hash")
            return
        self.same(what, out, TARGET_AT, self.baseline, 0)
        self.batch = self.batch or out
        for i in range(len(self.prompts)):
            self.same(f"{what}: prompt {i} of the batch", out, i, self.batch, i)


def expert_sets(n_expert):
    """An uneven split, and one where every expert has two holders."""
    last, cut = n_expert - 1, n_expert // 3
    return [[f"0-{cut - 1}", f"{cut}-{last}"],
            [f"0-{last - 1}", f"0,{cut}-{last}", f"1-{last}"]]


def check_running_workers(bits, binary, model, form, n_expert):
    for sets in expert_sets(n_expert):
        for batch in (False, True):
            precision = form[1] if form[0] == "--precision" else "bf16"
            told = form if form[0] == "--activations" else []
            with Workers(binary, model, precision, sets, told) as at:
                bits.check({"--workers-at": at, "batch": batch}, f" (experts {' | '.join(sets)})")


def check_instruction_sets(bits):
    """SIGMOE_ISA forces one; what this CPU lacks is refused as a mistake of usage (2)."""
    for isa in ("portable", "avx2", "avx512", "amx"):
        try:
            out = bits.run({"batch": False}, {"SIGMOE_ISA": isa})
        except Failure as failure:
            if not str(failure).startswith("exit 2:"):
                raise
            print(f"{isa}: not on this CPU")
            continue
        if out.report["stats"]["numerics"] == bits.baseline.report["stats"]["numerics"]:
            bits.same(f"instruction set {isa}", out, 0, bits.baseline, 0)


def config_of(model):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def n_expert_of(model):
    config = config_of(model)
    if "domains" in config:
        return sum(domain["num_experts"] for domain in config["domains"])
    return config.get("num_local_experts", config.get("num_experts", 0))


def domains_of(model):
    return [domain["name"] for domain in config_of(model).get("domains", [])]


def prompt_of(model):
    expected = os.path.join(model, "expected.json")
    if not os.path.exists(expected):
        rng = random.Random(SEED + 1)
        return [1, *(rng.randrange(3, 512) for _ in range(36))]
    with open(expected, encoding="ascii") as f:
        expected = json.load(f)
    return expected["prompt"] + expected["greedy"][:20]


def model_folder(binary, name, tmp):
    if name in SYNTHETIC:
        folder = os.path.join(tmp, name)
        status, _, stderr = run_sigmoe(binary, ["synth", name, "-o", folder, "--std", "0.2"])
        if status != 0:
            raise Failure(f"sigmoe synth {name}: {stderr}")
        return folder
    if name in QUANTISED:
        source, kinds = QUANTISED[name]
        folder = os.path.join(tmp, name)
        status, _, stderr = run_sigmoe(binary, ["quantize", os.path.join(TINY, source), "-o", folder,
                                                *kinds])
        if status != 0:
            raise Failure(f"sigmoe quantize {source}: {stderr}")
        shutil.copy(os.path.join(TINY, source, "expected.json"), folder)
        return folder
    if name not in STORIES:
        return os.path.join(TINY, name)
    dense = stories.make_dense(os.path.join(tmp, "dense"))
    upcycle(dense, os.path.join(tmp, name), **STORIES[name])
    return os.path.join(tmp, name)


def check(binary, name, full):
    with tempfile.TemporaryDirectory(prefix="sigmoe-bits-") as tmp:
        model = model_folder(binary, name, tmp)
        n_expert, prompt = n_expert_of(model), prompt_of(model)
        values = axes(n_expert, domains_of(model))
        rows = product(values) if full else covering(values, random.Random(SEED))
        failures = []
        forms = [["--precision", "f32"], ["--precision", "bf16"]]
        if name in INT8_KV:
            forms.append(["--kv", "int8"])
        if name in FP8:
            forms.append(["--wire-dtype", FP8[name]])
        if name in QUANTISED:
            forms = [["--activations", "int8"], ["--activations", "bf16"]]
        baselines = set()
        for form in forms:
            bits = Bits(binary, model, form, prompt)
            baselines.add(bits.baseline.logits[0])
            for row in rows:
                try:
                    bits.check(row)
                except Failure as failure:
                    failures.append(str(failure))
                    print(f"differs: {failure}", flush=True)
            check_instruction_sets(bits)
            if n_expert:
                check_running_workers(bits, binary, model, form, n_expert)
        if len(baselines) != len(forms):
            raise Failure(f"two of {forms} have the same logits: one of them was not used")
        if failures:
            raise Failure(f"{len(failures)} of {len(forms) * len(rows)} runs differ")
        print(f"{name}: {len(forms) * len(rows)} runs of {len(prompt) + N_GENERATED - 1} rows, "
              f"{len(forms)} forms, gave the baseline's bytes")


def self_test():
    """The selection must cover every pair, and the comparison must see one flipped bit."""
    values = axes(8)
    rows = covering(values, random.Random(SEED))
    for a, b in itertools.combinations(values, 2):
        seen = {(row[a], row[b]) for row in rows}
        if len(seen) != len(values[a]) * len(values[b]):
            raise Failure(f"{a} and {b}: a pair is not covered")
    if len(rows) * 10 > len(product(values)):
        raise Failure(f"{len(rows)} rows are no selection")
    bits = Bits.__new__(Bits)
    bits.label, bits.vocab = "self-test", 4

    class Out:
        def __init__(self, raw):
            self.logits, self.tokens, self.domains = [raw], [[1]], [None]

    raw = bytes(range(32))
    bits.same("equal", Out(raw), 0, Out(raw), 0)
    for wrong in (raw[:-1] + b"\x00", raw[:-4]):
        try:
            bits.same("flipped", Out(wrong), 0, Out(raw), 0)
        except Failure:
            continue
        raise Failure("self-test: a difference went unseen")
    print(f"{len(rows)} runs cover the pairs of {len(product(values))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--full", action="store_true", help="the whole product of options")
    parser.add_argument("--self-test", action="store_true", help="test this script, not sigmoe")
    parser.add_argument("name", nargs="?", help="a folder of tests/fixtures/tiny, or one of "
                        + ", ".join((*STORIES, *SYNTHETIC, *QUANTISED)))
    args = parser.parse_args()
    if args.self_test:
        main_of(self_test)
    elif args.name:
        main_of(lambda: check(args.sigmoe, args.name, args.full))
    else:
        parser.error("name a model")


if __name__ == "__main__":
    main()
