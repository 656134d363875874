#!/usr/bin/env python3
"""What a day of `--rebalance-every` does, in seconds: the placement goes back and forth N_CHANGE times while
requests run. No request fails, the tokens stay, and neither the coordinator nor a worker has more memory,
descriptors or threads than after the first few changes: each copy that comes is one that goes.
"""
import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import Failure, Workers, main_of  # noqa: E402
from served import Process, Served, make_model  # noqa: E402

N_CHANGE, N_WARM = 50, 8
N_STREAM = 4
DEADLINE_S = 60
MIB = 1 << 20
# A change moves 12 copies of 768 KiB onto each worker: what stays of one change in ten would show.
GROWTH = 32 * MIB


def ask(path, command):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(DEADLINE_S)
        s.connect(path)
        s.sendall(json.dumps(command).encode() + b"\n")
        answer = json.loads(s.makefile("rb").readline())
    if not answer["ok"]:
        raise Failure(f"{command}: {answer['error']}")
    return answer


def change(path, sets):
    """Begins a change and waits until it is over."""
    ask(path, {"do": "rebalance", "placement": {"workers": sets}})
    until = time.monotonic() + DEADLINE_S
    while True:
        rebalance = ask(path, {"do": "status"})["rebalance"]
        if rebalance["state"] == "idle":
            return rebalance
        if time.monotonic() > until:
            raise Failure(f"a change has not ended: {rebalance}")
        time.sleep(0.005)


class Streams:
    """N_STREAM clients that ask the same over and over."""

    def __init__(self, server):
        self.server = server
        self.stop = threading.Event()
        self.answers = [set() for _ in range(N_STREAM)]
        self.count, self.failures = 0, []
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(N_STREAM)]

    def run(self, i):
        body = {"prompt": [3 + i, 7, 11 + i], "max_tokens": 40, "temperature": 0.7, "seed": i,
                "ignore_eos": True, "return_token_ids": True}
        while not self.stop.is_set():
            status, answer = self.server.post("/v1/completions", body, timeout=DEADLINE_S)
            if status != 200:
                self.failures.append(f"stream {i}: {status} {answer}")
                return
            self.answers[i].add(tuple(answer["choices"][0]["token_ids"]))
            self.count += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def taken(processes):
    """(memory, descriptors, threads) of each."""
    return [(p.rss("RssAnon"), p.fds(), p.threads()) for p in processes]


def settled(processes, before):
    """What is taken once the last copies have gone, which go bit by bit."""
    until = time.monotonic() + DEADLINE_S / 6
    while True:
        now = taken(processes)
        if time.monotonic() > until or all(n[0] <= b[0] + GROWTH and n[1:] <= b[1:]
                                           for n, b in zip(now, before)):
            return now
        time.sleep(0.05)


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-back-") as tmp:
        model = make_model(binary, os.path.join(tmp, "model"), hidden_size=512, intermediate_size=256)
        admin = os.path.join(tmp, "admin.sock")
        workers = Workers(binary, model, "bf16", ["0-3", "4-7"])
        with workers as at:
            a, b = at.split(",")
            with Served(binary, model, "--workers-at", at, "--admin", admin, "--no-prefix-cache",
                        workers=0) as server:
                processes = [Process(p.pid) for p in (server.process, *workers.running)]
                undone = []
                with Streams(server) as streams:
                    for i in range(N_CHANGE):
                        if i == N_WARM:
                            before = taken(processes)
                        sets = {a: "4-7", b: "0-3"} if i % 2 == 0 else {a: "0-3", b: "4-7"}
                        end = change(admin, sets)
                        if end["outcome"]:
                            undone.append(f"change {i + 1}: {end['outcome']}")
                after = settled(processes, before)
                said = server.said()
    if streams.failures:
        raise Failure(f"{len(streams.failures)} requests failed, the first: {streams.failures[0]}\n{said}")
    if any(len(answers) != 1 for answers in streams.answers):
        raise Failure(f"the same request had {[len(s) for s in streams.answers]} answers")
    if end["done"] != N_CHANGE or end["failed"]:
        raise Failure(f"{N_CHANGE} changes were begun: {end}\n" + "\n".join([*undone, said]))
    for name, then, now in zip(("coordinator", "worker", "worker"), before, after):
        print(f"{name}: {then[0] / MIB:.1f} MiB, {then[1]} descriptors, {then[2]} threads after {N_WARM} "
              f"changes; {now[0] / MIB:.1f}, {now[1]}, {now[2]} after {N_CHANGE}")
        if now[0] > then[0] + GROWTH or now[1] > then[1] or now[2] > then[2]:
            raise Failure(f"the {name} grows with each change of the placement")
    print(f"{streams.count} answers, all as ever")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    args = p.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
