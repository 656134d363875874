#!/usr/bin/env python3
"""A worker that dies while a model generates changes no token and no bit of a logit.

Workers are killed (SIGKILL) or stopped (SIGSTOP: alive to the kernel, silent to us) once the first
tokens have come. What remains answers: a replica, or the coordinator itself where no replica is left.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import Failure, Workers, main_of, read_file, run_sigmoe  # noqa: E402

N_TOKEN = 900
LIMIT_S = 180


def arguments(model, dump, form, at=None):
    where = ["--workers-at", at] if at else []
    return ["run", model, *form, "--token-ids", "3,1,4,1,5,9,2,6", "--max-tokens", str(N_TOKEN),
            "--ignore-eos", "--dump-logits", dump, *where]


def run_with_death(binary, model, dump, form, sets, victims, sig, devices=()):
    """(ids, logits) of a run whose victims were struck after its first bytes of output."""
    workers = Workers(binary, model, "bf16", sets, devices=devices)
    with workers as at:
        run = subprocess.Popen([binary, *arguments(model, dump, form, at)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, bufsize=0)
        first = run.stdout.read(4)
        for victim in victims:
            workers.running[victim].send_signal(sig)
        alive_when_struck = run.poll() is None
        try:
            out, err = run.communicate(timeout=LIMIT_S)
        finally:
            for victim in victims:
                workers.running[victim].send_signal(signal.SIGCONT)
    if run.returncode != 0:
        raise Failure(f"the run ended with {run.returncode}: {err.decode()[-2000:]}")
    if not alive_when_struck:
        raise Failure("the run was over before the worker was struck; raise N_TOKEN")
    return (first + out).decode().strip(), read_file(dump), err.decode()


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-test-") as tmp:
        model, dump = os.path.join(tmp, "model"), os.path.join(tmp, "logits.f32")
        status, _, err = run_sigmoe(binary, ["synth", "tiny-moe", "-o", model, "--std", "0.2"])
        if status != 0:
            raise Failure(f"synth: {err}")
        alone = ("killed, nobody else holds its experts", ["0-3", "4-7"], [1], signal.SIGKILL)
        check_deaths(binary, model, dump, [], [
            ("killed, a replica answers", ["0-3", "4-7", "0-7"], [0], signal.SIGKILL),
            ("two of three killed, a replica answers", ["0-3", "4-7", "0-7"], [0, 1], signal.SIGKILL),
            alone,
            ("all killed", ["0-3", "4-7"], [0, 1], signal.SIGKILL),
            ("stopped, a replica answers", ["0-7", "0-7"], [0], signal.SIGSTOP),
        ])
        check_deaths(binary, model, dump, ["--wire-dtype", "fp8-both"], [alone])


def check_deaths(binary, model, dump, form, cases):
    status, out, err = run_sigmoe(binary, arguments(model, dump, form))
    if status != 0:
        raise Failure(f"undisturbed run: {err}")
    text = out.decode().strip() if isinstance(out, bytes) else out.strip()
    calm = (text, read_file(dump))
    for what, sets, victims, sig in cases:
        what = " ".join((what, *form))
        ids, logits, log = run_with_death(binary, model, dump, form, sets, victims, sig)
        if logits != calm[1]:
            raise Failure(f"{what}: the logits changed\n{log[-2000:]}")
        if ids != calm[0]:
            raise Failure(f"{what}: the tokens changed: {ids[:80]!r}, not {calm[0][:80]!r}")
        print(f"{what}: the same {N_TOKEN} tokens, the same {len(logits)} bytes of logits")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", required=True, help="the program to test")
    options = parser.parse_args()
    main_of(lambda: check(os.path.abspath(options.sigmoe)))
