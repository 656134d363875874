#!/usr/bin/env python3
"""What the documents promise people: README's commands run as they are written, and the log lines
and metrics of docs/OPERATIONS.md are those that the program prints.

README: a block ```sh is run, in order, by one shell in a folder where models/sigma-tiny and
build/release/sigmoe lie as in the tree; a block ```console shows what needs other machines, or long. A
command that ends in `&` is ended when the test ends; `# -> TEXT` behind a command says what its output
holds. Ports are other ones and /tmp is a folder of this test, so that tests may run side by side.
usage: promises.py --sigmoe BINARY
"""
import argparse
import glob
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import ROOT, Failure, main_of, read_file  # noqa: E402

BLOCK_S = 240


def text_of(*path):
    return read_file(os.path.join(ROOT, *path)).decode()


# docs/OPERATIONS.md ---------------------------------------------------------------------------------


def check_operations():
    document = text_of("docs", "OPERATIONS.md")
    source = "".join(read_file(p).decode() for room in ("worker", "coordinator")
                     for p in glob.glob(os.path.join(ROOT, room, "*.c")))
    said = " ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', source))
    lines = re.findall(r"^\| `((?:serve|pool|http|rebalance|record|worker) [^`]*)` \|", document, re.M)
    if len(lines) < 15:
        raise Failure(f"only {len(lines)} log lines are found in docs/OPERATIONS.md")
    joined = re.sub(r"\s+", " ", re.sub(r"%[a-z0-9.]*|\" PRI\w+ \"", " ", said))
    for line in lines:
        for piece in re.split("…", line.split(" ", 1)[1]):
            words = re.sub(r"\s+", " ", piece).strip(" ,:->")
            if words and words not in joined:
                raise Failure(f"docs/OPERATIONS.md: no process logs {line!r} ({words!r})")
    metrics = set(re.findall(r"sigmoe_\w+", text_of("coordinator", "api_metrics.c")))
    for name in re.findall(r"`(sigmoe_\w+)`", document):
        if name not in metrics:
            raise Failure(f"docs/OPERATIONS.md: there is no metric {name}")
    print(f"OPERATIONS.md: {len(lines)} log lines and the metrics are the program's")


# README.md ------------------------------------------------------------------------------------------


def blocks(document):
    return re.findall(r"^```sh\n(.*?)^```", document, re.M | re.S)


def place(binary, folder):
    """A folder in which README's paths mean what they mean in the tree."""
    here = os.path.join(folder, "tree")
    os.makedirs(os.path.join(here, "build", "release"))
    os.symlink(os.path.abspath(binary), os.path.join(here, "build", "release", "sigmoe"))
    for name in ("README.md", "models", "docs", "bench", "tools", "tests", "scripts"):
        os.symlink(os.path.join(ROOT, name), os.path.join(here, name))
    return here


def script_of(block, n):
    """The block as a script that stops at the first command that fails, and checks `# -> TEXT`."""
    out = [f"echo '== README block {n}'"]
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        command, _, wanted = line.partition("# -> ")
        if wanted:
            out.append(f"said=$({command.strip()}) && printf '%s\\n' \"$said\"\n"
                       f"[[ $said == *{quote(wanted.strip())}* ]] || "
                       f"{{ echo {quote('not in the output: ' + wanted.strip())}; exit 1; }}")
        elif line.rstrip().endswith("&"):
            out.append(f"{line.rstrip()} \nstarted+=($!)")
        else:
            out.append(line)
    return "\n".join(out)


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def elsewhere(script, tmp):
    """The script with ports that are free now and with a folder of its own."""
    held = []
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", script))):
        held.append(socket.socket())
        held[-1].bind(("127.0.0.1", 0))
        free = str(held[-1].getsockname()[1])
        script = re.sub(rf"(127\.0\.0\.1:|--port ){port}\b", rf"\g<1>{free}", script)
        # The default address of sigmoe chat is that port too.
        script = script.replace("| sigmoe chat --", f"| sigmoe chat http://127.0.0.1:{free} --") \
            if port == "8000" else script
    for one in held:
        one.close()
    return script.replace(" /tmp/", f" {tmp}/")


def check_readme(binary):
    found = blocks(text_of("README.md"))
    if len(found) < 3:
        raise Failure(f"only {len(found)} blocks of commands are found in README.md")
    with tempfile.TemporaryDirectory(prefix="sigmoe-readme-") as tmp:
        here = place(binary, tmp)
        os.mkdir(os.path.join(tmp, "tmp"))
        script = "set -euo pipefail\nstarted=()\n" + \
            "trap 'kill ${started[@]} 2>/dev/null; wait' EXIT\n" + \
            "\n".join(script_of(block, i + 1) for i, block in enumerate(found))
        script = elsewhere(script, os.path.join(tmp, "tmp"))
        process = subprocess.Popen(["bash", "-c", script], cwd=here, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True,
                                   env={**os.environ, "XDG_STATE_HOME": tmp, "HOME": tmp})
        try:
            said = process.communicate(timeout=BLOCK_S)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[0].decode(errors="replace")
            raise Failure(f"README's commands did not end in {BLOCK_S} s:\n{said[-3000:]}") from None
        if process.returncode != 0:
            raise Failure(f"README's commands end with {process.returncode}:\n{said[-3000:]}")
    print(said)
    print(f"README.md: {len(found)} blocks of commands run")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()

    def check():
        check_operations()
        check_readme(os.path.abspath(args.sigmoe))

    main_of(check)


if __name__ == "__main__":
    main()
