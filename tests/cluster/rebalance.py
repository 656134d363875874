#!/usr/bin/env python3
"""The cluster changes under load and nobody notices: 16 streams run while a placement is turned
round, a worker joins and another is drained and killed. Every request ends well with the tokens of
a run that was left alone, and operators are told the truth and refused in words.

--report prints, for a person, how the pauses between tokens compare with the median.
"""
import argparse
import json
import os
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
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


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-rebalance-") as tmp:
        model = make_model(binary, os.path.join(tmp, "model"))
        admin = os.path.join(tmp, "admin.sock")
        calm = calm_answers(binary, model)
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
        if streams.failures:
            raise Failure(f"{len(streams.failures)} requests failed, the first: "
                          f"{streams.failures[0]}\n{said}")
        for i, answers in enumerate(streams.answers):
            if not answers or any(a != calm[i] for a in answers):
                raise Failure(f"stream {i}: other tokens than undisturbed ({len(answers)} answers)")
        print(f"{sum(map(len, streams.answers))} answers of {N_TOKEN} tokens, all as undisturbed")


class Pauses:
    """N_STREAM streams read by one thread with as little work as can be, since it shares the machine:
    at[i] has when each piece of stream i came. A stream that ends is begun anew."""

    def __init__(self, server, n_token):
        self.server, self.n_token = server, n_token
        self.stop = threading.Event()
        self.at = []
        self.thread = threading.Thread(target=self.run)

    def begin(self, selector, i):
        body = json.dumps({"prompt": [5 + i, 6], "max_tokens": self.n_token, "ignore_eos": True,
                           "stream": True}).encode()
        connection = socket.create_connection(("127.0.0.1", self.server.port))
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                           b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                           % (len(body), body))
        self.at.append([])
        selector.register(connection, selectors.EVENT_READ, (i, self.at[-1]))

    def run(self):
        with selectors.DefaultSelector() as selector:
            for i in range(N_STREAM):
                self.begin(selector, i)
            while not self.stop.is_set():
                for key, _ in selector.select(0.1):
                    i, at = key.data
                    data = key.fileobj.recv(65536)
                    if b"data: {" in data:
                        at.append(time.monotonic())
                    if not data:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        self.begin(selector, i)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def between(self, begun, ended):
        """Pauses that ended within the time, ascending; the first token of a stream has none."""
        return sorted(b - a for at in self.at for a, b in zip(at[1:], at[2:]) if begun <= b <= ended)


def show(name, values, median):
    print(f"{name:7} {len(values):7} tokens: median {statistics.median(values) * 1e3:.2f} ms, "
          f"p99 {values[int(len(values) * 0.99)] * 1e3:.2f}, longest {values[-1] * 1e3:.2f} ms "
          f"({values[-1] / median:.2f} x the median before), "
          f"{sum(v > 2 * median for v in values) / len(values):.2%} longer than 2 x")


def report(binary, model):
    """Pauses between tokens with 16 streams, before and while the placement is turned round."""
    with tempfile.TemporaryDirectory(prefix="sigmoe-rebalance-") as tmp:
        admin = os.path.join(tmp, "admin.sock")
        config = json.load(open(os.path.join(model, "config.json"), encoding="utf-8"))
        half = config["num_experts"] // 2
        sets = [f"0-{half - 1}", f"{half}-{2 * half - 1}"]
        with Workers(binary, model, "bf16", sets) as at:
            endpoints = at.split(",")
            # Steps that are alike: no guessed tokens, no trying out of micro-batches.
            with Served(binary, model, "--workers-at", at, "--admin", admin, "--speculate", "off",
                        "--micro-batches", 1, workers=0) as server:
                pauses = Pauses(server, config.get("max_position_embeddings", 1024) - 24)
                pauses.thread.start()
                time.sleep(3)
                calm_from = time.monotonic()
                time.sleep(8)
                begun = time.monotonic()
                for _ in range(3):
                    sets.reverse()
                    path = os.path.join(tmp, "turned.json")
                    write_json(path, {"workers": dict(zip(endpoints, sets))})
                    sigmoe(binary, "rebalance", "--admin", admin, "--placement", path)
                ended = time.monotonic()
                pauses.stop.set()
                pauses.thread.join()
    calm, during = pauses.between(calm_from, begun), pauses.between(begun, ended)
    median = statistics.median(calm)
    show("before", calm, median)
    show("during", during, median)
    print(f"three changes of the whole placement took {ended - begun:.1f} s")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--report", metavar="MODEL", help="measure the pauses with this model")
    args = p.parse_args()
    if args.report:
        report(args.sigmoe, args.report)
    else:
        main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
