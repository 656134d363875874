#!/usr/bin/env python3
"""Checks the tree against rules.toml: include direction, symbols, forbidden words, getenv, opening
comments. Each check is a function from a tree to findings, so that the self-test can run the same
functions on a bad sample and demand that every rule finds its mistake.

usage: lint.py CHECK [--root DIR] [--archives ROOM=LIB...]     CHECK: includes words opening symbols
       lint.py self-test [--cc CC]
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
RULES = tomllib.loads((HERE / "rules.toml").read_text())


class Tree:
    """The files under a root that are ours."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.skip = RULES["skip"]["paths"]

    def files(self, patterns):
        found = set()
        for pattern in patterns:
            for path in self.root.glob(pattern):
                name = path.relative_to(self.root).as_posix()
                if path.is_file() and not any(name.startswith(s) for s in self.skip):
                    found.add(name)
        return sorted(found)

    def read(self, name):
        return (self.root / name).read_text(errors="replace")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(name, text):
    """Comments become blanks, so that line numbers stay; strings are left alone."""
    if name.endswith((".c", ".h", ".cu", ".cuh")):
        token = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*'
        keep = lambda m: m.group(0) if m.group(0)[0] in "\"'" else blank(m)
        return re.sub(token, keep, text, flags=re.S)
    if name.endswith((".cmake", ".txt")):
        return re.sub(r"#[^\n]*", blank, text)
    return text


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def room_of(name):
    head = name.split("/", 1)[0]
    return head if head in RULES["rooms"] else None


def excepted(name, header):
    return any(e["file"] == name and e["header"] == header for e in RULES["include_exceptions"])


def check_includes(tree):
    for name in tree.files(["**/*.[ch]", "**/*.cu", "**/*.cuh"]):
        room = room_of(name)
        if room is None:
            continue
        text = without_comments(name, tree.read(name))
        for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', text, re.M):
            header, where = m.group(1), f"{name}:{line_of(text, m.start())}"
            other = room_of(header)
            if header in RULES["headers"] and room not in RULES["headers"][header]:
                yield f"{where}: {room} must not include {header}"
            elif (other and other != room and other not in RULES["rooms"][room]
                  and not excepted(name, header)):
                yield f"{where}: {room} must not include {header}: {other} is not below it"


def check_words(tree):
    for rule in RULES["words"]:
        for name in tree.files(rule["files"]):
            text = tree.read(name)
            if not rule.get("comments"):
                text = without_comments(name, text)
            for m in re.finditer(rule["pattern"], text):
                yield f"{name}:{line_of(text, m.start())}: {rule['name']}: {m.group(0)}: {rule['why']}"
    yield from check_getenv(tree)


def check_getenv(tree):
    for name in tree.files(["**/*.[ch]", "**/*.cu"]):
        room = room_of(name)
        if room is None:
            continue
        text = without_comments(name, tree.read(name))
        for m in re.finditer(r"\b(?:secure_)?getenv\s*\(\s*([^)]*)\)", text):
            allowed = RULES["getenv"].get(room, [])
            if m.group(1).strip().strip('"') not in allowed or not m.group(1).startswith('"'):
                yield (f"{name}:{line_of(text, m.start())}: getenv: {room} may read "
                       f"{', '.join(allowed) or 'no variable'}; options come from the command line")


def check_opening(tree):
    for name in tree.files(RULES["opening"]["files"]):
        if not re.match(r"/[*/]\s*\w[^\n]{10,}", tree.read(name)):
            yield f"{name}:1: no opening comment that says what the file holds"


def symbols_of(archive):
    """(defined, undefined) names; what one member defines is not undefined in the library."""
    out = subprocess.run(["nm", "-P", "-g", archive], check=True, capture_output=True, text=True)
    defined, undefined = set(), set()
    for line in out.stdout.splitlines():
        part = line.split()
        if len(part) < 2 or len(part[1]) != 1:
            continue
        (undefined if part[1] in "Uw" else defined).add(part[0].split("@")[0])
    return defined, undefined - defined


def check_symbols(archives):
    table = {room: symbols_of(path) for room, path in archives.items()}
    for room, (_, undefined) in sorted(table.items()):
        for pattern in RULES["symbols"].get(room, []):
            for symbol in sorted(undefined):
                if re.fullmatch(pattern, symbol):
                    yield f"{room}: uses {symbol}, which this room must not"
        for other, (defined, _) in sorted(table.items()):
            if other != room and other not in RULES["rooms"][room]:
                for symbol in sorted(undefined & defined):
                    yield f"{room}: uses {symbol} of {other}, which is not below it"


TREE_CHECKS = {"includes": check_includes, "words": check_words, "opening": check_opening}


def compile_bad(cc, folder):
    """The bad sample's rooms as archives; a compiler is needed because symbols are of objects."""
    archives = {}
    for source in sorted((HERE / "bad").glob("*/*_symbols.c")):
        room = source.parent.name
        target = folder / f"{room}.o"
        subprocess.run([cc, "-std=gnu17", "-O1", "-fno-builtin", "-c", source, "-o", target], check=True)
        archives[room] = str(target)
    return archives


def self_test(cc):
    """Every line of bad/expected must be found, and nothing else."""
    expected = [line for line in (HERE / "bad" / "expected").read_text().splitlines() if line]
    bad = Tree(HERE / "bad")
    bad.skip = []
    found = [line for check in TREE_CHECKS.values() for line in check(bad)]
    with tempfile.TemporaryDirectory() as folder:
        found += check_symbols(compile_bad(cc, pathlib.Path(folder)))
    missing = [e for e in expected if not any(f.startswith(e) for f in found)]
    extra = [f for f in found if not any(f.startswith(e) for e in expected)]
    for line in missing:
        print(f"the lint did not find: {line}")
    for line in extra:
        print(f"the lint found what is no mistake: {line}")
    print(f"{len(expected) - len(missing)} of {len(expected)} mistakes found")
    return 1 if missing or extra or not expected else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("check", choices=[*TREE_CHECKS, "symbols", "self-test"])
    parser.add_argument("--root", default=HERE.parent.parent)
    parser.add_argument("--archives", nargs="*", default=[])
    parser.add_argument("--cc", default="cc")
    args = parser.parse_args()
    if args.check == "self-test":
        return self_test(args.cc)
    if args.check == "symbols":
        if not args.archives:
            parser.error("symbols needs --archives ROOM=LIB...")
        findings = list(check_symbols(dict(a.split("=", 1) for a in args.archives)))
    else:
        findings = list(TREE_CHECKS[args.check](Tree(args.root)))
    for line in findings:
        print(line)
    print(f"{args.check}: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
