#!/usr/bin/env python3
"""The commands in the documents do what they say, as they are written there.

From each section named below, the indented lines that begin with `sigmoe` run one after another, with
/tmp/ replaced by a folder of this test. Lines with a word in capitals for the reader to fill in are left
out.
"""
import argparse
import os
import re
import shlex
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, ROOT, main_of, run_sigmoe  # noqa: E402

SECTIONS = {"docs/PANGU_SIGMA.md": ["From a dense model: `sigmoe upcycle`",
                                    "A domain alone: `sigmoe extract`"]}


def commands(path, titles):
    """[(section, command)] in order."""
    out, title = [], None
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        for line in f:
            heading = re.match(r"##+ (.*)", line)
            title = heading.group(1).strip() if heading else title
            if title in titles and line.startswith("    sigmoe "):
                words = shlex.split(line, comments=True)
                if not any(re.fullmatch(r"[A-Z]+", word) for word in words):
                    out.append((title, words[1:]))
    missing = [t for t in titles if t not in {title for title, _ in out}]
    if missing:
        raise Failure(f"{path} has no commands under {missing}")
    return out


def logits_hash(stderr):
    found = re.search(r"^logits\s+(\S+)", stderr, re.M)
    return found.group(1) if found else None


def check(binary):
    for path, titles in SECTIONS.items():
        with tempfile.TemporaryDirectory(prefix="sigmoe-documents-") as tmp:
            hashes = {}
            for title, words in commands(path, titles):
                args = [re.sub(r"^/tmp/", tmp + "/", word) for word in words]
                status, _, stderr = run_sigmoe(binary, args)
                if status != 0:
                    raise Failure(f"{path}: sigmoe {' '.join(words)}: exit {status}: {stderr}")
                if words[0] == "run":
                    hashes.setdefault(title, []).append(logits_hash(stderr))
                print(f"{path}: sigmoe {' '.join(words)}")
            for title in ("From a dense model: `sigmoe upcycle`",):
                if title in hashes and (len(hashes[title]) < 2 or len(set(hashes[title])) != 1):
                    raise Failure(f"{path}: {title}: the hashes should be equal: {hashes[title]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
