"""How even the steps of a server are while its placement changes, for a person: `rebalance.py
--report`. N_STREAM streams run; some seconds nothing happens, then the placement is turned round three
times. What counts is the server's own line a step (SIGMOE_LOG=debug) and the pauses between tokens as
a client sees them. Steps with prompts are of another kind than steps that decode, and told apart.

A host that others use stretches steps by itself. So each step is measured twice: by the clock, and by the
time on CPUs that the coordinator's and the workers' teams had in it, which does not count what the host or
a neighbour took, and which is what a change itself costs. Every step above twice the calm median is listed
with what the machine did about then (host.py), and put down to the larger of two things, if without both it
would not be listed:

  computed for longer   the CPU time that it had beyond the median: the same work was slower. Where calm
                        steps and the host's copying have it too, it is the host's memory;
  CPUs taken            what the host stole and other processes had;
  waited                neither of them: for something that another thread held.
"""
import json
import os
import re
import selectors
import socket
import tempfile
import threading
import time

from harness import Failure, Workers, run_sigmoe, write_json
from host import Host, probe
from served import Served, make_model

# Steps of some 50 ms on two CPUs, as bound by memory as those of large models.
MODEL = {"hidden_size": 1024, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16,
         "num_key_value_heads": 16, "num_experts": 32, "num_experts_per_tok": 4}
N_STREAM = 16
SETTLE_S, PROBE_S = 3, 4
LISTED = 12
STEP = re.compile(r"engine step (decode|prompt) rows=(\d+) micros=\d+ from=(\d+) took=(\d+) waited=(\d+) cpu=(\d+)")
BATCH = re.compile(r"worker batch layer=\d+ calls=\d+ rows=\d+ from=(\d+) took=(\d+) cpu=(\d+)")


class Pauses:
    """N_STREAM streams read by one thread with as little work as can be, since it shares the machine:
    at[i] has when each token of stream i came (its id: text waits for whole characters). A stream that ends is begun anew."""

    def __init__(self, server, n_token):
        self.server, self.n_token = server, n_token
        self.stop = threading.Event()
        self.at = []
        self.thread = threading.Thread(target=self.run)

    def begin(self, selector, i):
        body = json.dumps({"prompt": [5 + i, 6], "max_tokens": self.n_token, "ignore_eos": True,
                           "return_token_ids": True, "stream": True}).encode()
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
                    if b'"token_ids"' in data:
                        at.append(time.monotonic())
                    if not data:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        self.begin(selector, i)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def between(self, begun, ended):
        """Pauses that ended within the time; the first token of a stream has none."""
        return [b - a for at in self.at for a, b in zip(at[1:], at[2:]) if begun <= b <= ended]


class Step:
    """A step of the coordinator, and what each worker computed in it: (took, on CPUs), seconds."""

    def __init__(self, match):
        self.kind, self.rows = match[1], int(match[2])
        self.begun, self.took, self.waited, self.own = (int(match[i]) / 1e6 for i in (3, 4, 5, 6))
        self.ended = self.begun + self.took
        self.workers = []

    @property
    def cpu(self):
        return self.own + sum(cpu for _, cpu in self.workers)


def read_steps(log, worker_logs):
    """The steps of a coordinator's log with the batches of its workers' logs."""
    steps = [Step(m) for m in STEP.finditer(log)]
    for text in worker_logs:
        batches = [tuple(int(x) / 1e6 for x in m.groups()) for m in BATCH.finditer(text)]
        i = 0
        for s in steps:
            while i < len(batches) and batches[i][0] < s.begun:
                i += 1
            first = i
            while i < len(batches) and batches[i][0] < s.ended:
                i += 1
            s.workers.append(tuple(sum(b[k] for b in batches[first:i]) for k in (1, 2)))
    return steps


def at(values, share):
    return values[min(int(len(values) * share), len(values) - 1)]


def median_of(values):
    return at(sorted(values), 0.5) if values else 1.0


def show(what, values, calm):
    """One line of a distribution; calm is the median of the same thing without a change."""
    if not values:
        print(f"  {what:24} none")
        return
    values = sorted(values)
    median = at(values, 0.5)
    print(f"  {what:24} {len(values):6}: p50 {median * 1e3:7.2f} ms ({median / calm:4.2f} x calm), "
          f"p99 {at(values, 0.99) / median:5.2f} x, longest {values[-1] / median:5.2f} x "
          f"({values[-1] / calm:5.2f} x the calm p50), {sum(v > 2 * median for v in values)} above 2 x")


def reason_of(step, did, took, cpu):
    """Why a step is above twice `took`, the calm median; cpu: that of its time on CPUs."""
    slower, taken = max(0, step.cpu - cpu), did["stolen"] + did["others"]
    if step.took - slower - taken > 2 * took:
        return "waited"
    return "computed for longer" if slower >= taken else "CPUs taken"


def show_long(name, steps, host, took, cpu):
    """Lists the steps above twice the calm median, and counts them by their reasons."""
    reasons = {}
    long = sorted((s for s in steps if s.took > 2 * took), key=lambda s: -s.took)
    for i, s in enumerate(long):
        did = host.during(s.begun, s.ended)
        reason = reason_of(s, did, took, cpu)
        reasons[reason] = reasons.get(reason, 0) + 1
        if i >= LISTED:
            continue
        ms = {kind: f"{1e3 * value:.0f}" for kind, value in did.items()}
        slowest = max(range(len(s.workers)), key=lambda w: s.workers[w][0])
        print(f"    {s.took * 1e3:6.1f} ms ({s.took / took:.2f} x), on CPUs {s.cpu * 1e3:6.1f} ms "
              f"({s.cpu / cpu:.2f} x): {reason}\n"
              f"           waited {s.waited * 1e3:.1f} ms for experts, longest for worker {slowest} "
              f"({s.workers[slowest][0] * 1e3:.1f} ms, {s.workers[slowest][1] * 1e3:.1f} on CPUs)\n"
              f"           about then {ms['stolen']} ms stolen, {ms['others']} of other processes, "
              f"{ms['ours']} of ours, {ms['ready']} ready without a CPU, {did['compactions']} compactions")
    words = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
    print(f"  {name}: {len(long)} of {len(steps)} steps above twice the calm median"
          + (f": {words}" if words else ""))


def change(binary, admin, endpoints, sets, tmp):
    path = os.path.join(tmp, "turned.json")
    write_json(path, {"workers": dict(zip(endpoints, sets))})
    status, _, err = run_sigmoe(binary, ["rebalance", "--admin", admin, "--placement", path])
    if status != 0:
        raise Failure(f"sigmoe rebalance: {err}")


def text_of(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def measure(binary, model, seconds, tmp):
    """(steps, pauses, host, begin of the calm, begin and end of the changes)"""
    admin = os.path.join(tmp, "admin.sock")
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    half = config["num_experts"] // 2
    sets = [f"0-{half - 1}", f"{half}-{2 * half - 1}"]
    # Steps that are alike: no guessed tokens, no trying out of micro-batches.
    options = ["--admin", admin, "--speculate", "off", "--micro-batches", 1]
    os.environ["SIGMOE_LOG"] = "debug"
    workers = Workers(binary, model, "bf16", sets)
    with workers as where:
        endpoints = where.split(",")
        with Served(binary, model, "--workers-at", where, *options, workers=0) as server:
            pauses = Pauses(server, config.get("max_position_embeddings", 1024) - 24)
            pauses.thread.start()
            time.sleep(SETTLE_S)
            host = Host([server.process.pid, *(w.pid for w in workers.running)])
            host.thread.start()
            calm = time.monotonic()
            time.sleep(seconds)
            begun = time.monotonic()
            for _ in range(3):
                sets.reverse()
                change(binary, admin, endpoints, sets, tmp)
            ended = time.monotonic()
            pauses.stop.set()
            host.stop.set()
            pauses.thread.join()
            host.thread.join()
            logs = [text_of(f) for f in (server.stderr, *workers.stderr)]
    return read_steps(logs[0], logs[1:]), pauses, host, calm, begun, ended


def report(binary, model, seconds):
    """model: a folder with a tokenizer; None: one is made, 0.8 GB."""
    times = probe(PROBE_S)
    print("the host alone")
    show("copies of memory", times, median_of(times))
    with tempfile.TemporaryDirectory(prefix="sigmoe-steps-") as tmp:
        if model is None:
            model = make_model(binary, os.path.join(tmp, "model"), **MODEL)
        steps, pauses, host, calm, begun, ended = measure(binary, model, seconds, tmp)
    medians = {}
    for name, low, high in (("calm", calm, begun), ("during the changes", begun, ended)):
        did = host.during(low, high)
        print(f"{name}: {high - low:.1f} s, {did['stolen']:.2f} s stolen by the host, {did['others']:.2f} s of "
              f"other processes, {did['ready']:.2f} s that threads stood ready without a CPU, "
              f"{did['compactions']} compactions")
        within = [s for s in steps if low <= s.begun and s.ended <= high]
        decode = [s for s in within if s.kind == "decode" and s.rows == N_STREAM]
        other = [s for s in within if s.kind != "decode" or s.rows != N_STREAM]
        for what, values in ((f"steps, {N_STREAM} rows decoded", [s.took for s in decode]),
                             ("the same on CPUs", [s.cpu for s in decode]),
                             ("steps, prompts or fewer", [s.took for s in other]),
                             ("pauses between tokens", pauses.between(low, high))):
            show(what, values, medians.setdefault(what, median_of(values)))
        show_long(name, decode, host, medians[f"steps, {N_STREAM} rows decoded"],
                  medians["the same on CPUs"])
    print(f"three changes of the whole placement took {ended - begun:.1f} s")
