#!/usr/bin/env python3
"""What `sigmoe run` promises about generation, beyond the logits.

Draws depend on the seed alone: the same tokens again, in a batch, and through other workers; another
seed gives others. The end token ends a sequence, --ignore-eos goes past it. --max-tokens 0 only
evaluates. One prompt many times is one answer many times. --trace-hash names the first stage that
differs and finds none between one worker and three. --kv int8 moves logits a little, and not in
--precision f32.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, TINY, floats, generate, last_json, main_of,  # noqa: E402
                     run_sigmoe, write_json)

MODEL = os.path.join(TINY, "olmoe")
SAMPLING = ["--temperature", "1.5", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.01",
            "--repetition-penalty", "1.1", "--ignore-eos"]


def expected():
    with open(os.path.join(MODEL, "expected.json"), encoding="ascii") as f:
        return json.load(f)


def claim(what, got, want):
    if got != want:
        raise Failure(f"{what}: {got!r} is not {want!r}")
    print(what)


def check_draws(binary, prompt):
    def draw(seed, prompts, *options):
        return generate(binary, MODEL, prompts, "--seed", seed, *SAMPLING, *options,
                        max_tokens=40).tokens

    first = draw(7, [prompt])[0]
    if len(set(first)) < 10:
        raise Failure(f"draws at temperature 1.5 are nearly constant: {first}")
    claim("the same seed draws the same tokens", draw(7, [prompt])[0], first)
    claim("through three workers too", draw(7, [prompt], "--workers", 3)[0], first)
    others = [[3 + i, 40 - i] for i in range(9)]
    claim("in a batch too", draw(7, [*others[:4], prompt, *others[4:]])[4], first)
    claim("another seed draws others", draw(8, [prompt])[0] == first, False)


def check_end(binary, tmp, prompt, greedy):
    """The end token is one that greedy decoding gives for the first time at some step."""
    at = next(i for i in range(8, len(greedy)) if greedy[i] not in greedy[:i])
    folder = os.path.join(tmp, "ends")
    shutil.copytree(MODEL, folder)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    for eos in (greedy[at], [5000 % config["vocab_size"], greedy[at]]):
        write_json(os.path.join(folder, "config.json"), {**config, "eos_token_id": eos})
        out = generate(binary, folder, [prompt], "--precision", "f32")
        claim(f"eos_token_id {eos} ends the sequence",
              (out.report["sequences"][0]["finish_reason"], out.tokens[0][:at],
               out.tokens[0][at:] in ([], [greedy[at]])), ("stop", greedy[:at], True))
        out = generate(binary, folder, [prompt], "--precision", "f32", "--ignore-eos")
        claim("--ignore-eos goes past it",
              (out.report["sequences"][0]["finish_reason"], out.tokens[0]), ("length", greedy))


def check_evaluation(binary, prompt):
    whole = generate(binary, MODEL, [prompt], max_tokens=1)
    none = generate(binary, MODEL, [prompt], max_tokens=0)
    claim("--max-tokens 0 generates nothing", none.tokens, [[]])
    claim("and evaluates the prompt", none.logits == whole.logits, True)
    many = generate(binary, MODEL, [prompt] * 70, max_tokens=5)
    claim("70 times one prompt is one answer",
          (len(set(many.logits)), len({tuple(t) for t in many.tokens})), (1, 1))
    one = generate(binary, MODEL, [prompt], max_tokens=5)
    claim("which is the answer alone", many.logits[0] == one.logits[0], True)


def check_trace(binary, tmp, prompt):
    traces = []
    for n_worker in (1, 3):
        path = os.path.join(tmp, f"trace{n_worker}")
        args = ["run", MODEL, "--token-ids", ",".join(map(str, prompt)), "--max-tokens", 4,
                "--workers", n_worker, "--trace-hash", path, "--json"]
        status, stdout, stderr = run_sigmoe(binary, args)
        if status != 0:
            raise Failure(f"--trace-hash: exit {status}: {stderr}")
        last_json(stdout)
        with open(path, encoding="ascii") as f:
            traces.append(sorted(f.read().splitlines()))
    n_row = len(prompt) + 3
    if len(traces[0]) < 3 * n_row:
        raise Failure(f"--trace-hash wrote {len(traces[0])} lines for {n_row} rows of 3 layers")
    claim("--trace-hash of three workers is that of one", traces[1] == traces[0], True)


def check_int8_kv(binary, prompt):
    """A token's K and V are off by up to a 254th of their largest value."""
    def logits(*options):
        return floats(generate(binary, MODEL, [prompt], *options, max_tokens=0).logits[0])

    exact, near, far = logits("--precision", "f32"), logits(), logits("--kv", "int8")

    def miss(x):
        return (sum((a - b) ** 2 for a, b in zip(x, exact)) / sum(b * b for b in exact)) ** 0.5

    print(f"error of logits: bf16 {miss(near):.4f}, with int8 KV {miss(far):.4f}")
    claim("--kv int8 moves the logits", far == near, False)
    claim("by little", miss(far) < 2 * miss(near) + 0.01, True)
    status, _, stderr = run_sigmoe(binary, ["run", MODEL, "--token-ids", "1,2", "--kv", "int8",
                                            "--precision", "f32"])
    claim("--kv int8 is refused beside --precision f32", (status, "--kv" in stderr), (2, True))


def check(binary):
    prompt, greedy = expected()["prompt"], expected()["greedy"]
    with tempfile.TemporaryDirectory(prefix="sigmoe-generation-") as tmp:
        check_draws(binary, prompt)
        check_end(binary, tmp, prompt, greedy)
        check_evaluation(binary, prompt)
        check_trace(binary, tmp, prompt)
        check_int8_kv(binary, prompt)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
