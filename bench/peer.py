#!/usr/bin/env python3
"""sigmoe beside llama.cpp: the same shape with random weights of the same bytes, run alternately on this
machine, because shared machines drift; medians, and medians of the paired ratios.

  bench/peer.py --sigmoe build/release/sigmoe --quick            # a small shape, minutes
  bench/peer.py --sigmoe build/release/sigmoe --shape olmoe-1b-7b --types int8 --only decode

llama.cpp comes from PyPI and is built once (bench/peer_build.py), which takes up to an hour; --build-only
does just that. Models of both kinds are made in the same folder and kept.

Cases: prefill-512, prefill-2048 (prompt tokens a second); decode, decode-4096 (one sequence, behind an
empty context and behind 4,096 tokens); parallel-1, -4, -16, -32 (sequences of 32 tokens prompt, all their
tokens a second); remote-decode, remote-prefill (two processes over tcp on this host, one thread each:
workers with experts, RPC servers with layers); http-8 (8 streams, tokens a second, and the time to the
first token, for which the ratio is llama.cpp over sigmoe). sigmoe guesses no tokens and remembers no
prompts here.
Types: int8 beside Q8_0, int4 beside Q4_0 (output Q8_0), bf16 beside BF16.

What to know of the peer's figures: llama-bench warms up before it measures, sigmoe's runs include the
first touch of everything; sigmoe int8 has a scale for 128 weights (8.1 bits), Q8_0 for 32 (8.5 bits),
both int4 kinds for 32; llama.cpp rounds activations to int8 for quantised weights (a scale for 32), sigmoe
too (for 128; its rows stay bf16 on the wire and between products); llama.cpp's BF16 and expert products do
not use AMX; its RPC splits by layers, one server at a time.
"""
import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from peer_build import Peer

TYPES = {"int8": ("Q8_0", ["--experts", "int8", "--dense", "int8", "--head", "int8"]),
         "int4": ("Q4_0", ["--experts", "int4:32", "--dense", "int4:32", "--head", "int8"]),
         "bf16": ("BF16", None)}
CASES = ["prefill-512", "prefill-2048", "decode", "decode-4096", "parallel-1", "parallel-4",
         "parallel-16", "parallel-32", "remote-decode", "remote-prefill", "http-8"]
# Random weights repeat themselves, and repeated prompts are remembered: neither is what is compared.
PLAIN = ["--speculate", "off", "--no-prefix-cache"]
STREAMS, STREAM_PROMPT, STREAM_TOKENS = 8, 32, 64


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", default="build/release/sigmoe")
    p.add_argument("--shape", default="bench-m2", help="bench-m2 (default), olmoe-1b-7b")
    p.add_argument("--types", default="int8,int4,bf16")
    p.add_argument("--only", default="", help="regular expression over the cases")
    p.add_argument("--quick", action="store_true",
                   help="one run of a shape of four layers: does everything work?")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--cache", default="~/.cache/sigmoe/peer", help="build, models")
    p.add_argument("--build-only", action="store_true")
    p.add_argument("--models-only", action="store_true", help="build, and make the models")
    p.add_argument("--jobs", type=int, default=1, help="compilers at once")
    p.add_argument("--json", action="store_true")
    return p.parse_args()


def run(command, **more):
    done = subprocess.run(command, capture_output=True, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: "
                           f"{done.stderr.decode(errors='replace')[-600:]}")
    return done.stdout.decode(errors="replace")


class Server:
    """A process that says on one of its streams where it listens, or is asked until it answers."""

    def __init__(self, command, port=None, ready=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE if ready else self.log,
                                        stderr=self.log)
        self.port = port
        if ready:
            line = self.process.stdout.readline().decode()
            found = re.search(ready, line)
            if not found:
                self.stop()
                raise RuntimeError(f"{' '.join(command)}: said {line!r}")
            self.port = int(found.group(1))

    def wait(self, path, limit=300):
        end = time.monotonic() + limit
        while time.monotonic() < end and self.process.poll() is None:
            try:
                c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                c.request("GET", path)
                if c.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("a server did not become ready")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- models ----

def models(o, peer, kind):
    """(folder for sigmoe, GGUF), made where they are missing."""
    folder = os.path.join(peer.cache, "models", o.shape + ("-quick" if o.quick else ""))
    os.makedirs(folder, exist_ok=True)
    gguf, quantize = TYPES[kind]
    floats, mine = os.path.join(folder, "bf16"), os.path.join(folder, kind)
    theirs = os.path.join(folder, gguf + ".gguf")
    if not os.path.exists(floats) and (kind == "bf16" or not os.path.exists(mine)):
        run([o.sigmoe, "synth", o.shape, "-o", floats] + (["--layers", "4"] if o.quick else []))
        context_widen(os.path.join(floats, "config.json"))
    if not os.path.exists(mine):
        run([o.sigmoe, "quantize", floats, "-o", mine, *quantize])
    if not os.path.exists(os.path.join(mine, "tokenizer.json")):
        tokenizer_put(mine)
    if not os.path.exists(theirs):
        run([peer.python, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_gguf.py"),
             os.path.join(mine, "config.json"), theirs, gguf])
    return mine, theirs


def context_widen(path):
    """Room for what is measured behind 4,096 tokens; no weight depends on it."""
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["max_position_embeddings"] = max(config["max_position_embeddings"], 8192)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)


def tokenizer_put(folder):
    """Words that stand for ids, so that a server has text to send; the GGUF's are alike."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        vocab = json.load(f)["vocab_size"]
    tokens = [chr(i) for i in range(33, 127)] + ["\u0120", "\u010a"]
    tokens += [f"t{i}" for i in range(vocab - len(tokens))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "truncation": None,
                   "padding": None, "post_processor": None, "pre_tokenizer": byte_level,
                   "decoder": byte_level,
                   "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
                             "merges": []}}, f)


def ids(n, i=0):
    return [(7 + 131 * i + 17 * j) % 500 + 1 for j in range(n)]


# ---- sigmoe ----

class Sigmoe:
    def __init__(self, o, model):
        self.o, self.model = o, model

    def _run(self, lengths, tokens, *more):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
            for i, n in enumerate(lengths):
                f.write(",".join(map(str, ids(n, i))) + "\n")
            f.flush()
            out = run([self.o.sigmoe, "run", self.model, "--token-ids-file", f.name, "--max-tokens",
                       str(tokens), "--ignore-eos", "--json", *PLAIN, *more])
        return json.loads(out)["stats"]

    def _threads(self):
        return ["--threads", str(self.o.threads), "--worker-threads", str(self.o.threads)]

    def prefill(self, n):
        return {"": self._run([n], 1, *self._threads())["prompt_tokens_per_s"]}

    def decode(self, depth, n):
        return {"": self._run([depth or 1], n + 1, *self._threads())["decode_tokens_per_s"]}

    def parallel(self, n):
        return {"": self._run([32] * n, 33, *self._threads())["decode_tokens_per_s"]}

    def remote(self, what):
        where = ["--workers", "2", "--transport", "tcp", "--threads", "1", "--worker-threads", "1"]
        if what == "prefill":
            return {"": self._run([512], 1, *where)["prompt_tokens_per_s"]}
        return {"": self._run([1], 65, *where)["decode_tokens_per_s"]}

    def http(self):
        s = Server([self.o.sigmoe, "serve", self.model, "--port", "0", *PLAIN, *self._threads()],
                   ready=r"ready http://[^:]*:(\d+)")
        try:
            s.wait("/ready")
            return streams(s.port, "/v1/completions",
                           lambda i: {"prompt": ids(STREAM_PROMPT, i), "max_tokens": STREAM_TOKENS,
                                      "ignore_eos": True, "stream": True, "temperature": 0})
        finally:
            s.stop()


# ---- llama.cpp ----

class Llama:
    def __init__(self, o, peer, model):
        self.o, self.peer, self.model = o, peer, model

    def _bench(self, *more, threads=None):
        out = run([self.peer.tool("llama-bench"), "-m", self.model, "-r", "1", "-o", "json", "-t",
                   str(threads or self.o.threads), *more])
        return json.loads(out)[0]["avg_ts"]

    def prefill(self, n):
        return {"": self._bench("-p", str(n), "-n", "0", "-ub", "512")}

    def decode(self, depth, n):
        return {"": self._bench("-p", "0", "-n", str(n), "-d", str(depth))}

    def parallel(self, n):
        out = run([self.peer.tool("llama-batched-bench"), "-m", self.model, "-c", str(n * 64 + 64),
                   "-npp", "32", "-ntg", "32", "-npl", str(n), "-t", str(self.o.threads),
                   "--output-format", "jsonl"])
        lines = [json.loads(x) for x in out.splitlines() if x.startswith("{")]
        return {"": lines[-1]["speed_tg"]}

    def remote(self, what):
        ports = [free_port(), free_port()]
        servers = [Server([self.peer.tool("ggml-rpc-server"), "-t", "1", "-p", str(p)], port=p)
                   for p in ports]
        try:
            time.sleep(1)
            how = ["-p", "512", "-n", "0"] if what == "prefill" else ["-p", "0", "-n", "64"]
            return {"": self._bench(*how, "-ngl", "99", "--rpc",
                                    ",".join(f"127.0.0.1:{p}" for p in ports), threads=1)}
        finally:
            for s in servers:
                s.stop()

    def http(self):
        port = free_port()
        s = Server([self.peer.tool("llama-server"), "-m", self.model, "-t", str(self.o.threads), "-np",
                    str(STREAMS), "-c", str(STREAMS * 256), "--port", str(port), "--host",
                    "127.0.0.1", "--no-webui"], port=port)
        try:
            s.wait("/health")
            return streams(port, "/completion",
                           lambda i: {"prompt": ids(STREAM_PROMPT, i), "n_predict": STREAM_TOKENS,
                                      "ignore_eos": True, "stream": True, "temperature": 0,
                                      "cache_prompt": False})
        finally:
            s.stop()


# ---- streams ----

def one_stream(port, path, body, start, out):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start.wait()
    begin = time.monotonic()
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply, first, n = c.getresponse(), None, 0
    for line in reply:
        if line.startswith(b"data: {"):
            first = first or time.monotonic() - begin
            n += 1
    out.append((reply.status, first, n, time.monotonic()))


def streams(port, path, body_of):
    """Tokens a second of all, from the first request to the last event; median time to first token."""
    out, start = [], threading.Barrier(STREAMS + 1)
    threads = [threading.Thread(target=one_stream, args=(port, path, body_of(i), start, out))
               for i in range(STREAMS)]
    for t in threads:
        t.start()
    start.wait()
    begin = time.monotonic()
    for t in threads:
        t.join()
    if len(out) != STREAMS or any(s != 200 or not f or n < STREAM_TOKENS // 2 for s, f, n, _ in out):
        raise RuntimeError(f"streams ended early: {out}")
    wall = max(end for *_, end in out) - begin
    return {"": STREAMS * STREAM_TOKENS / wall,
            " first token s": statistics.median(first for _, first, _, _ in out)}


# ---- all ----

def measure(case, side):
    name, _, n = case.partition("-")
    if case == "decode":
        return side.decode(0, 128)
    if name == "decode":
        return side.decode(int(n), 32)
    if name == "prefill":
        return side.prefill(int(n))
    if name == "parallel":
        return side.parallel(int(n))
    return side.remote(n) if name == "remote" else side.http()


def compare(o, case, ours, theirs):
    """{what: {"sigmoe": [...], "llama.cpp": [...]}}, alternating; or {"failed": why}."""
    got = {}
    try:
        for _ in range(1 if o.quick else o.runs):
            for name, side in (("sigmoe", ours), ("llama.cpp", theirs)):
                for what, value in measure(case, side).items():
                    got.setdefault(what, {}).setdefault(name, []).append(value)
    except RuntimeError as e:
        return {"failed": str(e)}
    for what, g in got.items():
        pairs = list(zip(g["sigmoe"], g["llama.cpp"]))
        g["ratio"] = statistics.median(b / a if what else a / b for a, b in pairs)
    return got


def report(case, kind, got):
    if "failed" in got:
        print(f"{kind:<6}{case:<28}failed: {got['failed']}")
        return
    for what, g in got.items():
        print(f"{kind:<6}{case + what:<28}{statistics.median(g['sigmoe']):>10.2f}"
              f"{statistics.median(g['llama.cpp']):>12.2f}{g['ratio']:>8.2f}   "
              f"{min(g['sigmoe']):.2f}-{max(g['sigmoe']):.2f} / "
              f"{min(g['llama.cpp']):.2f}-{max(g['llama.cpp']):.2f}", flush=True)


def main():
    o = parse()
    peer = Peer(o.cache)
    peer.build(o.jobs)
    if o.build_only:
        return
    out = {"shape": o.shape, "threads": o.threads, "peer": peer.about, "results": {}}
    if not o.json:
        print(f"{peer.about}\n{o.shape}{', 4 layers' if o.quick else ''}, {o.threads} threads, median of "
              f"{1 if o.quick else o.runs} alternating runs; what to know of them: --help\n")
        print(f"{'type':<6}{'case':<28}{'sigmoe':>10}{'llama.cpp':>12}{'ratio':>8}   ranges", flush=True)
    for kind in o.types.split(","):
        mine, gguf = models(o, peer, kind)
        if o.models_only:
            continue
        for case in (c for c in CASES if re.search(o.only, c)):
            got = compare(o, case, Sigmoe(o, mine), Llama(o, peer, gguf))
            out["results"].setdefault(kind, {})[case] = got
            if not o.json:
                report(case, kind, got)
    if o.json:
        json.dump(out, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
