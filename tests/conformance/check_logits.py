#!/usr/bin/env python3
"""Compares sigmoe with what transformers computed for one fixture (tools/fixtures/make_tiny.py).

  f32: every row of logits, prompt and generated, within 1e-4 of the reference, and the 64 greedy
       tokens identical.
  bf16: the prompt's rows within 5e-2, except those where two experts nearly tie: there rounding may
       rightly choose the other one. A wrong expert or scale shows as an error of order one.

A model with domains has a reference for each: expected.json is the first domain's, expected.NAME.json
that of domain NAME.

The error of a row is its largest absolute difference over the reference row's largest value.
"""
import argparse
import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "suite"))
from harness import Failure, cut, floats, generate, main_of, read_file  # noqa: E402

F32_BOUND = 1e-4
BF16_BOUND = 5e-2


def row_error(got, want):
    if not all(map(math.isfinite, got)):
        return math.inf
    return max(abs(g - w) for g, w in zip(got, want)) / max(map(abs, want))


def errors(got_raw, want_raw, vocab, n_row):
    got, want = floats(got_raw), floats(want_raw)
    if len(got) < n_row * vocab or len(want) < n_row * vocab:
        raise Failure(f"{len(got)} and {len(want)} logits where {n_row} rows of {vocab} were due")
    return [row_error(got[i * vocab:(i + 1) * vocab], want[i * vocab:(i + 1) * vocab])
            for i in range(n_row)]


def judge(label, row_errors, bound, positions=None):
    """row_errors of all rows; judged are those at positions (default: all)."""
    judged = {i: row_errors[i] for i in positions or range(len(row_errors))}
    worst = max(judged, key=judged.get)
    print(f"{label}: {len(judged)} rows, worst {judged[worst]:.3g} at position {worst}, mean of "
          f"{len(row_errors)} is {sum(row_errors) / len(row_errors):.3g}, bound {bound:g}")
    bad = [i for i, e in judged.items() if not e <= bound]
    if bad:
        raise Failure(f"{label}: {len(bad)} of {len(judged)} rows differ from transformers by more "
                      f"than {bound:g}; the first is position {bad[0]} ({judged[bad[0]]:.3g})")
    if not sum(row_errors) / len(row_errors) <= bound:
        raise Failure(f"{label}: the mean of all rows' errors is above {bound:g}")


def judge_tokens(got, want):
    for i, (g, w) in enumerate(zip(got, want)):
        if g != w:
            raise Failure(f"greedy token {i} is {g}, transformers says {w}")
    if len(got) != len(want):
        raise Failure(f"{len(got)} greedy tokens, {len(want)} were due")


def load(folder, suffix=""):
    with open(os.path.join(folder, f"expected{suffix}.json"), encoding="ascii") as f:
        expected = json.load(f)
    raw = read_file(os.path.join(folder, f"expected_logits{suffix}.f32"))
    n_row = expected["n_prompt"] + len(expected["greedy"]) - 1
    (rows,) = cut(raw, expected["vocab"], [n_row])
    return expected, rows, n_row


def suffixes(folder):
    names = sorted(name for name in os.listdir(folder)
                   if name.startswith("expected.") and name.endswith(".json"))
    return [name[len("expected"):-len(".json")] for name in names]


def check(binary, folder, options):
    for suffix in suffixes(folder):
        check_one(binary, folder, suffix, options)


def check_one(binary, folder, suffix, options):
    expected, want, n_row = load(folder, suffix)
    n_prompt, vocab = expected["n_prompt"], expected["vocab"]
    greedy = expected["greedy"]
    if "domain" in expected:
        print(f"domain {expected['domain']}")
        options = [*options, "--domain", expected["domain"]]
    out = generate(binary, folder, [expected["prompt"]], "--precision", "f32", "--ignore-eos",
                   *options, max_tokens=len(greedy))
    judge("f32 prompt", errors(out.logits[0], want, vocab, n_prompt), F32_BOUND)
    judge_tokens(out.tokens[0], greedy)
    judge("f32 all", errors(out.logits[0], want, vocab, n_row), F32_BOUND)
    print(f"{len(greedy)} greedy tokens identical")
    out = generate(binary, folder, [expected["prompt"]], "--precision", "bf16", "--ignore-eos",
                   *options, max_tokens=1)
    judge("bf16 prompt", errors(out.logits[0], want, vocab, n_prompt), BF16_BOUND,
          expected["bf16_rows"])


def refuses(claim, *args):
    try:
        claim(*args)
    except Failure:
        return
    raise Failure(f"self-test: {claim.__name__} accepted what it must refuse")


def self_test(folder):
    """The comparison itself must fail on a slightly wrong answer."""
    expected, want, n_row = load(folder)
    vocab = expected["vocab"]
    judge("same", errors(want, want, vocab, n_row), F32_BOUND)
    wrong = floats(want)
    row = wrong[7 * vocab:8 * vocab]
    wrong[7 * vocab] += 3e-4 * max(map(abs, row))
    refuses(judge, "wrong", errors(wrong.tobytes(), want, vocab, n_row), F32_BOUND)
    wrong[7 * vocab] = math.nan
    refuses(judge, "nan", errors(wrong.tobytes(), want, vocab, n_row), F32_BOUND)
    refuses(judge, "mean", [1.0, 0.0, 0.0], F32_BOUND, [1, 2])
    refuses(errors, want[:-4], want, vocab, n_row)
    refuses(judge_tokens, expected["greedy"][:-1], expected["greedy"])
    refuses(judge_tokens, [*expected["greedy"][:-1], -1], expected["greedy"])
    refuses(cut, want, vocab, [n_row + 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--self-test", action="store_true", help="test the comparison, not sigmoe")
    parser.add_argument("folder", help="a folder of tests/fixtures/tiny")
    parser.add_argument("options", nargs="*", help="after --: more options for sigmoe run")
    args = parser.parse_args()
    if args.self_test:
        main_of(lambda: self_test(args.folder))
    else:
        main_of(lambda: check(args.sigmoe, args.folder, args.options))


if __name__ == "__main__":
    main()
