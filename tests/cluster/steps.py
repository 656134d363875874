"""How even the steps of a server are while its placement changes, for a person: `rebalance.py
--report`. N_STREAM streams run; some seconds nothing happens, then the placement is turned round three
times. What counts is the server's own line a step (SIGMOE_LOG=debug) and the pauses between tokens as
a client sees them. Steps with prompts are of another kind than steps that decode, and told apart.

A host that others use stretches steps by itself. So three things are printed beside: how even the same
copying of memory is on two processors before anything of ours runs; what the calm seconds had; and for
the longest steps how long threads of ours stood ready and got no processor (/proc/PID/task/*/schedstat),
how long the host took the processors away (steal, /proc/stat), and how often somebody waited while the
system moved pages to make huge ones (compact_stall, /proc/vmstat).
"""
import glob
import json
import os
import re
import selectors
import socket
import tempfile
import threading
import time

from harness import Failure, Workers, run_sigmoe, write_json
from served import Served, make_model

# Steps of some 50 ms on two CPUs, as bound by memory as those of large models.
MODEL = {"hidden_size": 1024, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16,
         "num_key_value_heads": 16, "num_experts": 32, "num_experts_per_tok": 4}
N_STREAM = 16
SETTLE_S, SAMPLE_S = 3, 0.05
LONGEST = 5
PROBE_S, PROBE_COPIES, PROBE_BYTES = 4, 8, 48 << 20
STEP = re.compile(r"engine step (decode|prompt) rows=(\d+) micros=\d+ from=(\d+) took=(\d+) waited=(\d+)")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


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


class Host:
    """What the system did, every SAMPLE_S: (when, stolen s, s that threads of ours stood ready,
    compactions that somebody waited for)."""

    def __init__(self, pids):
        self.files = [f for pid in pids for f in glob.glob(f"/proc/{pid}/task/*/schedstat")]
        self.stop = threading.Event()
        self.samples = []
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.wait(SAMPLE_S):
            ready = 0
            for name in self.files:
                try:
                    with open(name, encoding="ascii") as f:
                        ready += int(f.read().split()[1])
                except OSError:
                    pass  # the thread has ended
            with open("/proc/stat", encoding="ascii") as f:
                stolen = int(f.readline().split()[8]) * TICK_S
            with open("/proc/vmstat", encoding="ascii") as f:
                words = dict(line.split() for line in f)
            self.samples.append((time.monotonic(), stolen, ready / 1e9,
                                 int(words.get("compact_stall", 0))))

    def during(self, begun, ended):
        """(stolen, stood ready, compactions) from the sample before to the sample after."""
        before = [s for s in self.samples if s[0] <= begun] or self.samples[:1]
        after = [s for s in self.samples if s[0] >= ended] or self.samples[-1:]
        return tuple(after[0][i] - before[-1][i] for i in (1, 2, 3))


def probe(seconds):
    """Times of the same copying, in this process and in a child at once."""
    source, times = bytearray(PROBE_BYTES), []
    target = memoryview(bytearray(PROBE_BYTES))
    child = os.fork()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        for _ in range(PROBE_COPIES):
            target[:] = source
        times.append(time.monotonic() - begun)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return times


class Step:
    def __init__(self, match):
        self.kind, self.rows = match[1], int(match[2])
        self.begun, self.took, self.waited = (int(match[i]) / 1e6 for i in (3, 4, 5))


def at(values, share):
    return values[min(int(len(values) * share), len(values) - 1)]


def show(what, values, calm):
    """One line of a distribution; calm is the median of the same thing without a change."""
    if not values:
        print(f"  {what:24} none")
        return
    values = sorted(values)
    median = at(values, 0.5)
    print(f"  {what:24} {len(values):6}: p50 {median * 1e3:7.2f} ms, p99 {at(values, 0.99) / median:5.2f} x, "
          f"longest {values[-1] / median:5.2f} x ({values[-1] / calm:5.2f} x the calm p50), "
          f"{sum(v > 2 * median for v in values)} above 2 x")


def median_of(values):
    return at(sorted(values), 0.5) if values else 1.0


def show_longest(steps, host):
    for s in sorted(steps, key=lambda s: -s.took)[:LONGEST]:
        stolen, ready, moved = host.during(s.begun, s.begun + s.took)
        print(f"    {s.took * 1e3:8.2f} ms ({s.waited * 1e3:.2f} of it for experts); about then "
              f"{stolen * 1e3:.0f} ms stolen, {ready * 1e3:.0f} ms ready without a processor, "
              f"{moved} compactions")


def change(binary, admin, endpoints, sets, tmp):
    path = os.path.join(tmp, "turned.json")
    write_json(path, {"workers": dict(zip(endpoints, sets))})
    status, _, err = run_sigmoe(binary, ["rebalance", "--admin", admin, "--placement", path])
    if status != 0:
        raise Failure(f"sigmoe rebalance: {err}")


def measure(binary, model, seconds, tmp):
    """(steps, pauses, host, begin of the calm, begin and end of the changes)"""
    admin = os.path.join(tmp, "admin.sock")
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    half = config["num_experts"] // 2
    sets = [f"0-{half - 1}", f"{half}-{2 * half - 1}"]
    # Steps that are alike: no guessed tokens, no trying out of micro-batches.
    options = ["--admin", admin, "--speculate", "off", "--micro-batches", 1]
    workers = Workers(binary, model, "bf16", sets)
    with workers as where:
        endpoints = where.split(",")
        with Served(binary, model, "--workers-at", where, *options, workers=0,
                    env={"SIGMOE_LOG": "debug"}) as server:
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
            server.stderr.seek(0)
            log = server.stderr.read().decode(errors="replace")
    return [Step(m) for m in STEP.finditer(log)], pauses, host, calm, begun, ended


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
    for name, low, high in (("calm", calm, begun), ("during the change", begun, ended)):
        stolen, ready, moved = host.during(low, high)
        print(f"{name}: {high - low:.1f} s, {stolen:.2f} s stolen by the host, {ready:.2f} s that threads "
              f"stood ready without a processor, {moved} compactions")
        within = [s for s in steps if low <= s.begun + s.took <= high]
        decode = [s for s in within if s.kind == "decode" and s.rows == N_STREAM]
        other = [s for s in within if s.kind != "decode" or s.rows != N_STREAM]
        for what, values in ((f"steps, {N_STREAM} rows decoded", [s.took for s in decode]),
                             ("steps, prompts or fewer", [s.took for s in other]),
                             ("pauses between tokens", pauses.between(low, high))):
            show(what, values, medians.setdefault(what, median_of(values)))
        show_longest(decode, host)
    print(f"three changes of the whole placement took {ended - begun:.1f} s")
