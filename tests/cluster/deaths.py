#!/usr/bin/env python3
"""A server whose workers are killed under load again and again answers every request as it did
before, and keeps neither memory nor descriptors of the dead.

What it has allocated is compared at rest, after some deaths and after as many more: what a death
left behind would be there as often as workers died.
"""
import argparse
import os
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import Failure, main_of  # noqa: E402
from mortal import MortalWorkers, total  # noqa: E402
from served import Served, make_model  # noqa: E402

WARM_UP, N_ROUND = 3, 5  # both workers die in each
GROW_BYTES = 1 << 20  # for all of N_ROUND: heaps settle slowly
GROW_FDS = N_ROUND - 1  # less than one a round: a connection may be about to close
N_CLIENT = 4
WAIT_S = 30


def ask(server, i, answers):
    status, body = server.post("/v1/completions", {
        "prompt": "the worker " * 20, "max_tokens": 150, "ignore_eos": True, "seed": i,
        "temperature": 1})
    answers[i] = (status, body["choices"][0]["text"] if status == 200 else body)


def ask_all(server, meanwhile=None):
    answers = [None] * N_CLIENT
    clients = [threading.Thread(target=ask, args=(server, i, answers)) for i in range(N_CLIENT)]
    for c in clients:
        c.start()
    if meanwhile:
        meanwhile()
    for c in clients:
        c.join()
    return answers


def die(server, workers, calm):
    """Both die while clients wait, one after the other, and return."""
    def strike():
        until = time.monotonic() + WAIT_S
        while not total(server.metrics(), "sigmoe_requests_running"):
            if time.monotonic() > until:
                raise Failure(f"no request runs after {WAIT_S} s")
            time.sleep(0.002)
        for i in (0, 1):
            workers.kill(i)
            workers.wait_used(server, 1 - i, WAIT_S)

    answers = ask_all(server, strike)
    if answers != calm:
        raise Failure(f"death {workers.n_killed} changed answers: {answers}, not {calm}")
    for i in (0, 1):
        workers.start(i)
    for i in (0, 1):
        workers.wait_ready(i)
    workers.wait_used(server, 2, WAIT_S)


def at_rest(server):
    server.wait_idle()
    p = server.proc()
    return p.rss("RssAnon"), p.fds()


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-deaths-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny"))
        with MortalWorkers(binary, model) as workers:
            with Served(binary, model, "--workers-at", ",".join(workers.endpoints),
                        workers=0) as server:
                calm = ask_all(server)
                if any(status != 200 for status, _ in calm):
                    raise Failure(f"undisturbed: {calm}")
                for _ in range(WARM_UP):
                    die(server, workers, calm)
                before, fds = at_rest(server)
                for _ in range(N_ROUND):
                    die(server, workers, calm)
                after, fds_after = at_rest(server)
                lost = total(server.metrics(), "sigmoe_worker_failures_total")
    print(f"{workers.n_killed} workers killed, {lost:.0f} seen; allocated after {2 * WARM_UP} deaths "
          f"{before / 1024:.0f} KiB, after {2 * N_ROUND} more {after / 1024:.0f} KiB; descriptors "
          f"{fds} and {fds_after}")
    if lost < workers.n_killed:
        raise Failure("deaths went unseen: nothing was tried")
    if after > before + GROW_BYTES or fds_after > fds + GROW_FDS:
        raise Failure(f"of {2 * N_ROUND} deaths {(after - before) / 1024:.0f} KiB and "
                      f"{fds_after - fds} descriptors were left behind")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", required=True, help="the program to test")
    options = parser.parse_args()
    main_of(lambda: check(os.path.abspath(options.sigmoe)))
