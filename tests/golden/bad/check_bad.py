#!/usr/bin/env python3
"""Malformed checkpoints are refused in one line, never by a crash.

For each case of cases.json, `sigmoe run` exits with 3 and says one line on stderr that starts with
"sigmoe", holds the words of `says`, no control character and no path of a file that does not exist
in the folder; `sigmoe inspect` does the same or, for what only the whole model can tell, shows the
checkpoint (exit 0). A sanitizer's report counts as a crash.
"""
import argparse
import json
import os
import random
import shutil
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "..", "suite"))
from harness import Failure, main_of, read_file, run_sigmoe  # noqa: E402
from make_bad import BUILDS, WEIGHTS, build, copy_good, put  # noqa: E402

EXIT_USAGE, EXIT_MODEL = 2, 3
CRASH_WORDS = ("Sanitizer", "runtime error:", "Assertion")
N_MUTATION = 60
USAGE = {
    "token_outside_vocabulary": ["run", "DIR", "--token-ids", "3,97"],
    "token_negative": ["run", "DIR", "--token-ids", "-1"],
    "token_no_number": ["run", "DIR", "--token-ids", "3,x"],
    "token_absurd": ["run", "DIR", "--token-ids", "99999999999999999999"],
    "option_unknown": ["run", "DIR", "--token-idz", "3"],
    "workers_zero": ["run", "DIR", "--token-ids", "3", "--workers", "0"],
    "precision_unknown": ["run", "DIR", "--token-ids", "3", "--precision", "f17"],
    "activations_unknown": ["run", "DIR", "--token-ids", "3", "--activations", "int7"],
    "transport_unknown": ["run", "DIR", "--token-ids", "3", "--transport", "pigeon"],
    "domain_unknown": ["run", "DOMAINS", "--token-ids", "3", "--domain", "klingon"],
    "domain_empty": ["run", "DOMAINS", "--token-ids", "3", "--domain", ""],
    "domain_of_a_model_without": ["run", "DIR", "--token-ids", "3", "--domain", "code"],
    "domains_more_than_prompts": ["run", "DOMAINS", "--token-ids", "3", "--domain", "auto,auto"],
    "domain_of_a_worker": ["worker", "--model", "DOMAINS", "--domain", "klingon",
                           "--listen", "tcp://127.0.0.1:*"],
    "place_unknown": ["run", "DIR", "--token-ids", "3", "--place", "upstairs"],
    "no_model": ["run"],
    "no_prompt": ["run", "DIR"],
    "expert_outside_model": ["worker", "--model", "DIR", "--experts", "4-6",
                             "--listen", "tcp://127.0.0.1:*"],
    "expert_set_no_number": ["worker", "--model", "DIR", "--experts", "a-b",
                             "--listen", "tcp://127.0.0.1:*"],
}


def judge(what, status, stderr, statuses, says):
    """The claim: one line, starting with the program's name, holding the words; no crash."""
    if status < 0 or any(word in stderr for word in CRASH_WORDS):
        return f"{what}: crashed (status {status}): {stderr[-1500:]}"
    if status not in statuses:
        return f"{what}: exit {status}, not {' or '.join(map(str, statuses))}: {stderr.strip()!r}"
    if status == 0:
        return None
    lines = stderr.splitlines()
    if len(lines) != 1 or not stderr.endswith("\n"):
        return f"{what}: {len(lines)} lines on stderr, not one: {stderr!r}"
    if not lines[0].startswith("sigmoe"):
        return f"{what}: the line does not start with sigmoe: {lines[0]!r}"
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in lines[0]):
        return f"{what}: control characters reach the terminal: {lines[0]!r}"
    absent = [word for word in says if word not in lines[0]]
    return f"{what}: {absent} not in: {lines[0]!r}" if absent else None


def checkpoint_problems(binary, name, case, tmp):
    folder = os.path.join(tmp, name)
    build(case, folder)
    run = run_sigmoe(binary, ["run", folder, "--token-ids", "3", "--max-tokens", "1"])
    show = run_sigmoe(binary, ["inspect", folder])
    shutil.rmtree(folder)
    return [p for p in (
        judge(f"{name}: run", run[0], run[2], [EXIT_MODEL], case["says"]),
        judge(f"{name}: inspect", show[0], show[2], [0, EXIT_MODEL], case["says"])) if p]


def usage_problems(binary, tmp):
    folder = os.path.join(tmp, "good")
    copy_good("mixtral", folder)
    domains = os.path.join(tmp, "domains")
    copy_good("pangu_sigma", domains)
    problems = []
    for name, args in USAGE.items():
        args = [{"DIR": folder, "DOMAINS": domains}.get(a, a) for a in args]
        status, _, stderr = run_sigmoe(binary, args)
        problems.append(judge(f"usage {name}", status, stderr, [EXIT_USAGE], []))
    status, _, stderr = run_sigmoe(binary, ["run", os.path.join(tmp, "nowhere"),
                                            "--token-ids", "3"])
    problems.append(judge("no such folder", status, stderr, [EXIT_MODEL], ["nowhere"]))
    return [p for p in problems if p]


def mutate(rng, raw, n_header):
    """One to four changed, dropped or doubled bytes within the first n_header."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(n_header)
        kind = rng.randrange(3)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] = ord(rng.choice('{}[],:"0123456789-.eE'))
        else:
            out[at:at + 1] = rng.choice([b"", bytes(out[at:at + 1]) * 2])
    return bytes(out)


def mutation_problems(binary, tmp, seed):
    """Random damage: refused in one line or, where it harmed nothing, accepted."""
    folder = os.path.join(tmp, "mutated")
    copy_good("mixtral", folder)
    rng, problems = random.Random(seed), []
    for i in range(N_MUTATION):
        name = ("config.json", WEIGHTS)[i % 2]
        good = read_file(os.path.join(folder, name))
        n = len(good) if i % 2 == 0 else 8 + struct.unpack_from("<Q", good)[0]
        put(folder, name, mutate(rng, good, n))
        status, _, stderr = run_sigmoe(binary, ["inspect", folder])
        problems.append(judge(f"mutation {i} of {name}, seed {seed}", status, stderr,
                              [0, EXIT_MODEL], []))
        put(folder, name, good)
    return [p for p in problems if p]


def load_cases():
    with open(os.path.join(HERE, "cases.json"), encoding="ascii") as f:
        cases = json.load(f)
    unused = set(BUILDS) - {c.get("build") for c in cases.values()}
    if unused:
        raise Failure(f"built by no case: {sorted(unused)}")
    return cases


def check(binary, only, seed):
    cases = load_cases()
    with tempfile.TemporaryDirectory(prefix="sigmoe-bad-") as tmp:
        problems = []
        for name, case in cases.items():
            if not only or name in only:
                problems += checkpoint_problems(binary, name, case, tmp)
        if not only:
            problems += usage_problems(binary, tmp)
            problems += mutation_problems(binary, tmp, seed)
    for problem in problems:
        print(problem)
    if problems:
        raise Failure(f"{len(problems)} refusals are not as they must be")
    print(f"{len(only or cases)} malformed checkpoints, each refused in one line")


def self_test():
    """judge must refuse what it is there to refuse; and every case must differ from its base."""
    good = "sigmoe: model.safetensors is cut; copy it again\n"
    if judge("t", 3, good, [3], ["model.safetensors"]):
        raise Failure("self-test: a good refusal is refused")
    for status, stderr in ((0, good), (-11, good), (1, good), (3, ""), (3, good + good),
                           (3, "error: model.safetensors\n"), (3, "sigmoe: no\n"),
                           (3, "sigmoe: model.safetensors \x1b[2J\n"),
                           (3, "sigmoe: model.safetensors runtime error: x\n")):
        if not judge("t", status, stderr, [3], ["model.safetensors"]):
            raise Failure(f"self-test: {status} {stderr!r} passes")
    cases = load_cases()
    with tempfile.TemporaryDirectory(prefix="sigmoe-bad-") as tmp:
        for name, case in cases.items():
            folder, base = os.path.join(tmp, "bad"), os.path.join(tmp, "good")
            build(case, folder)
            copy_good(case.get("base", "mixtral"), base)
            if contents(folder) == contents(base):
                raise Failure(f"self-test: {name} changes nothing")
            shutil.rmtree(folder)
            shutil.rmtree(base)
    print(f"{len(cases)} cases build")


def contents(folder):
    paths = sorted(os.listdir(folder))
    return [(p, os.path.isfile(os.path.join(folder, p)) and read_file(os.path.join(folder, p)))
            for p in paths]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--seed", type=int, default=1, help="of the random damage")
    parser.add_argument("--self-test", action="store_true", help="test this script, not sigmoe")
    parser.add_argument("cases", nargs="*", help="cases of cases.json; default: all, and usage")
    args = parser.parse_args()
    main_of(self_test if args.self_test else lambda: check(args.sigmoe, args.cases, args.seed))


if __name__ == "__main__":
    main()
