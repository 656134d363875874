#!/usr/bin/env python3
"""The cluster changes under load and nobody notices: 16 streams run while a placement is turned
round, a worker joins and another is drained and killed. Every request ends well with the tokens of
a run that was left alone, and operators are told the truth and refused in words.

--report prints, for a person, how long steps take meanwhile (steps.py).
"""
import argparse
import json
import os
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
import steps  # noqa: E402
from harness import Failure, Workers, main_of, run_sigmoe, write_json  # noqa: E402
from served import Served, make_model  # noqa: E402

N_STREAM = 16
N_TOKEN = 160
LIMIT_S = 120


class Streams:
    """N_STREAM clients that ask over and over until they are told to stop."""

    def __init__(self, server):
        self.server = server
        self.stop = threading.Event()
        self.answers = [[] for _ in range(N_STREAM)]
        self.failures = []
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(N_STREAM)]

    def body(self, i):
        return {"prompt": [3 + i, 7, 11 + i], "max_tokens": N_TOKEN, "temperature": 0.7,
                "seed": 100 + i, "ignore_eos": True, "return_token_ids": True}

    def ask(self, i):
        while not self.stop.is_set():
            try:
                status, body = self.server.post("/v1/completions", self.body(i), timeout=LIMIT_S)
            except OSError as bad:
                self.failures.append(f"stream {i}: {bad}")
                return
            if status != 200:
                self.failures.append(f"stream {i}: {status} {body}")
                return
            self.answers[i].append(body["choices"][0]["text"])

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join()


def sigmoe(binary, *args, want=0):
    status, out, err = run_sigmoe(binary, args)
    if status != want:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}, wanted {want}: {err}")
    return out.decode(), err


def status_of(binary, path):
    return json.loads(sigmoe(binary, "status", "--admin", path, "--json")[0])


def check_placement(status, expected):
    have = {w["name"]: (w["state"], w["experts"]) for w in status["workers"]}
    for name, what in expected.items():
        if have.get(name) != what:
            raise Failure(f"worker {name} is {have.get(name)}, expected {what}")
    if status["uncovered"]:
        raise Failure(f"{status['uncovered']} experts are held by nobody")


def change_everything(binary, admin, endpoints, tmp):
    """Turns the placement round, joins the third worker, drains the first."""
    a, b, c = endpoints
    turned = os.path.join(tmp, "turned.json")
    write_json(turned, {"workers": {a: "4-7", b: {"0": "0-3", "*": "0-3,5"}}})
    sigmoe(binary, "rebalance", "--admin", admin, "--placement", turned)
    check_placement(status_of(binary, admin), {a: ("up", 12), b: ("up", 14)})
    sigmoe(binary, "join", c, "--admin", admin)
    status = status_of(binary, admin)
    held = {w["name"]: w["experts"] for w in status["workers"]}
    if held[c] < 6:
        raise Failure(f"the worker that joined got {held[c]} experts: {held}")
    sigmoe(binary, "drain", a, "--admin", admin)
    status = status_of(binary, admin)
    states = {w["name"]: w["state"] for w in status["workers"]}
    if states[a] != "drained" or status["uncovered"]:
        raise Failure(f"after the drain: {states}, {status['uncovered']} uncovered")


def check_refusals(binary, admin, endpoints, tmp):
    path = os.path.join(tmp, "bad.json")
    b = endpoints[1]

    def refused(words, *args):
        _, err = sigmoe(binary, *args, "--admin", admin, want=2)
        if words not in err:
            raise Failure(f"'{err.strip()}' lacks '{words}'")

    refused("there is no worker nobody", "drain", "nobody")
    refused("is drained already", "drain", endpoints[0])
    write_json(path, {"workers": {"nobody": "0-7"}})
    refused("names worker nobody", "rebalance", "--placement", path)
    write_json(path, {"workers": {b: "0-3"}})
    refused("to nobody", "rebalance", "--placement", path)
    write_json(path, {"workers": {endpoints[0]: "0-7"}})
    refused("not there", "rebalance", "--placement", path)
    refused("nothing can be cancelled", "rebalance", "--cancel")
    refused("is here already", "join", b)
    status, _, err = run_sigmoe(binary, ["status", "--admin", os.path.join(tmp, "none.sock")])
    if status == 0 or "no coordinator listens at" not in err:
        raise Failure(f"status without a coordinator: {status}, {err}")


def calm_answers(binary, model):
    """What the model says when nothing changes: asked one by one of one process."""
    with Served(binary, model, "--admin", "none", workers=1) as server:
        streams = Streams(server)
        out = []
        for i in range(N_STREAM):
            status, body = server.post("/v1/completions", streams.body(i), timeout=LIMIT_S)
            if status != 200:
                raise Failure(f"calm: {status} {body}")
            out.append(body["choices"][0]["text"])
    if len(set(out)) < N_STREAM // 2:
        raise Failure("the model says the same to everything: no test")
    return out


def check_lines(logs):
    """The debug lines of steps and batches are those that the report reads, and fit each other."""
    every = steps.read_steps(logs[0], logs[1:])
    if len(every) < N_TOKEN:
        raise Failure(f"{len(every)} lines of steps for more than {N_TOKEN} steps")
    for s in every:
        if not 0 <= s.waited <= s.took or s.own <= 0:
            raise Failure(f"a step of {s.took} s waited {s.waited} s, {s.own} s on CPUs")
    for i in range(len(logs) - 1):
        if sum(s.workers[i][1] for s in every) <= 0:
            raise Failure(f"no batch of worker {i} lies within a step")


def check_reasons():
    """A step of 5 s where 2 are usual, with 3 s on CPUs as usual: why?"""
    step = steps.Step(steps.STEP.search("engine step decode rows=16 micros=1 from=7000000 took=5000000 "
                                        "waited=2000000 cpu=2000000"))
    for workers, stolen, others, want in ((1, 0, 0, "waited"), (1, 0.5, 0.6, "CPUs taken"),
                                          (2.2, 0, 0.3, "computed for longer")):
        step.workers = [(workers, workers)]
        reason = steps.reason_of(step, {"stolen": stolen, "others": others}, 2, 3)
        if reason != want:
            raise Failure(f"{workers} s of workers, {stolen} s stolen, {others} s of others: {reason}")


def check(binary):
    check_reasons()
    with tempfile.TemporaryDirectory(prefix="sigmoe-rebalance-") as tmp:
        model = make_model(binary, os.path.join(tmp, "model"))
        admin = os.path.join(tmp, "admin.sock")
        calm = calm_answers(binary, model)
        os.environ["SIGMOE_LOG"] = "debug"
        workers = Workers(binary, model, "bf16", ["0-3", "4-7", "none"])
        with workers as at:
            endpoints = at.split(",")
            with Served(binary, model, "--workers-at", ",".join(endpoints[:2]), "--admin", admin,
                        workers=0) as server:
                with Streams(server) as streams:
                    time.sleep(0.5)
                    change_everything(binary, admin, endpoints, tmp)
                    workers.running[0].kill()  # nobody needs it any more
                    time.sleep(0.5)
                check_refusals(binary, admin, endpoints, tmp)
                said = server.said()
            logs = [steps.text_of(f) for f in (server.stderr, *workers.stderr)]
        if streams.failures:
            raise Failure(f"{len(streams.failures)} requests failed, the first: "
                          f"{streams.failures[0]}\n{said}")
        for i, answers in enumerate(streams.answers):
            if not answers or any(a != calm[i] for a in answers):
                raise Failure(f"stream {i}: other tokens than undisturbed ({len(answers)} answers)")
        check_lines(logs)
        print(f"{sum(map(len, streams.answers))} answers of {N_TOKEN} tokens, all as undisturbed")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--report", metavar="MODEL", nargs="?", default=False,
                   help="measure the pauses, with this model (default: one of 0.8 GB is made)")
    p.add_argument("--seconds", type=float, default=12, help="without a change, for --report (12)")
    args = p.parse_args()
    if args.report is not False:
        steps.report(args.sigmoe, args.report, args.seconds)
    else:
        main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
