#!/usr/bin/env python3
"""sigmoe top: one frame for a pipe, frames in a terminal until q, and the terminal as it was.

usage: top.py --sigmoe BINARY
"""
import argparse
import os
import pty
import re
import select
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import Failure, main_of, run_sigmoe  # noqa: E402
from served import Served, make_model  # noqa: E402


def check_one_frame(binary, server):
    status, answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 30,
                                                     "temperature": 0, "ignore_eos": True})
    if status != 200:
        raise Failure(f"no answer: {answer}")
    until = time.monotonic() + 60
    while True:
        time.sleep(1)  # the server counts twice a second
        status, out, err = run_sigmoe(binary, ["top", server.url])
        frame = out.decode()
        if "1 finished" in frame or time.monotonic() > until:
            break
    if status != 0 or "\x1b" in frame:
        raise Failure(f"exit {status}, {err}:\n{frame!r}")
    for wanted in (r"^tiny +olmoe, 3 layers, 8 experts, 2 a token", r"^ready$", r"1 finished",
                   r"^KV cache .* of \d+ pages", r"^    0 [·▁▂▃▄▅▆▇█]{16}$"):
        if not re.search(wanted, frame, re.M):
            raise Failure(f"no {wanted!r} in\n{frame}")
    shares = [float(x) for x in re.findall(r" up +([\d.]+)% \|", frame)]
    if len(shares) != 2 or abs(sum(shares) - 100) > 0.2:
        raise Failure(f"shares of the load: {shares}\n{frame}")
    print(frame)


def check_terminal(binary, server):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(binary, [binary, "top", server.url, "--every", "0.2"])
    said, limit = b"", time.monotonic() + 30
    while said.count(b"\x1b[H") < 3 and time.monotonic() < limit:
        if select.select([fd], [], [], 0.2)[0]:
            said += os.read(fd, 65536)
    os.write(fd, b"q")
    while time.monotonic() < limit:
        try:
            said += os.read(fd, 65536)
        except OSError:  # its end
            break
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    if status != 0 or not said.startswith(b"\x1b[?1049h") or not said.endswith(b"\x1b[?1049l"):
        raise Failure(f"exit {status}; on the terminal: {said[:200]!r} ... {said[-200:]!r}")
    if said.count(b"KV cache") < 3:
        raise Failure("fewer frames than were drawn")


def test(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-top-") as tmp:
        with Served(binary, make_model(binary, os.path.join(tmp, "tiny"))) as server:
            check_one_frame(binary, server)
            check_terminal(binary, server)
        status, _, err = run_sigmoe(binary, ["top", server.url])
        if status != 4 or server.url not in err:
            raise Failure(f"without a server: exit {status}, {err}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: test(os.path.abspath(args.sigmoe)))


if __name__ == "__main__":
    main()
