#!/usr/bin/env python3
"""A worker that dies in the middle costs time, never bits.

One of the workers is killed, ended or stopped once the first token is out. The run goes on, through
replicas or, where none is left, by computing the experts itself; it exits with 0 and its logits are
the bytes of a run that lost nobody.

Skipped (77) where ../shared/data/stories260k is absent: its context is long enough to die in.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools", "fixtures"))
import stories  # noqa: E402
from harness import Failure, Workers, generate, main_of, read_file  # noqa: E402
from upcycle_mixtral import upcycle  # noqa: E402

N_TOKEN = 400
PROMPT = [1]
SETS = {"two halves": ["0-3", "4-7"], "replicas": ["0-7", "0-7", "2-5"]}
# A stopped worker is silent, not gone: it is given up after the ping's time, ten seconds.
DEATHS = [("SIGKILL", "two halves"), ("SIGKILL", "replicas"), ("SIGTERM", "two halves"),
          ("SIGSTOP", "replicas")]
END_S = 240


def run_and_hurt(binary, model, at, dump, process, how):
    """Runs, hurts `process` when the first byte of output comes, and returns (status, stderr)."""
    with tempfile.TemporaryFile() as log:
        run = subprocess.Popen([binary, "run", model, "--workers-at", at, "--precision", "f32",
                                "--token-ids", ",".join(map(str, PROMPT)), "--max-tokens",
                                str(N_TOKEN), "--ignore-eos", "--dump-logits", dump],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        first = run.stdout.read(1)
        alive = run.poll() is None
        process.send_signal(how)
        try:
            run.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            raise Failure(f"the run did not end within {END_S} s") from None
        finally:
            if how == signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)
        log.seek(0)
        stderr = log.read().decode(errors="replace")
    if run.returncode == 0 and not (first and alive):
        raise Failure("the run was over before the worker could die in it")
    return run.returncode, stderr


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-dying-") as tmp:
        dense = stories.make_dense(os.path.join(tmp, "dense"))
        model, dump = os.path.join(tmp, "moe"), os.path.join(tmp, "logits.f32")
        upcycle(dense, model, seed=5)
        whole = generate(binary, model, [PROMPT], "--precision", "f32", "--ignore-eos",
                         max_tokens=N_TOKEN).logits[0]
        for how, sets in DEATHS:
            workers = Workers(binary, model, "f32", SETS[sets])
            with workers as at:
                status, stderr = run_and_hurt(binary, model, at, dump, workers.running[0],
                                              getattr(signal, how))
            if status != 0:
                raise Failure(f"{how}, {sets}: exit {status}: {stderr[-2000:]}")
            if read_file(dump) != whole:
                raise Failure(f"{how}, {sets}: other logits; {stderr[-1000:]}")
            print(f"{how} of one worker, {sets}: the same bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
