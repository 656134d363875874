#!/usr/bin/env python3
"""The simulator against reality: the same requests through a live cluster on this machine and through
`sigmoe loadtest simulate`, for 2 and 4 workers, three placements and two loads: twelve configurations.
Printed side by side: throughput (bar: within 10 %) and p50 and p95 of time to first token and of whole
requests (bar: within 20 %).

The machine is measured first (`sigmoe calibrate`, as many threads as serve), then each configuration is
served and loaded, then simulated; neither sees the other's figures. Run it on an idle machine.
What a server decides by what it measures while it runs, the simulation cannot know: it serves with one
micro-batch, without guessed tokens, and over the transport that was calibrated.

  bench/sim_vs_live.py --sigmoe build/release/sigmoe                  # a 6-layer bench-m2, about 15 minutes
  bench/sim_vs_live.py --sigmoe build/release/sigmoe --tiny           # whether it works, a minute
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(os.path.dirname(ROOT), "shared", "data")
PLACEMENTS = ("contiguous", "round-robin", "doubled")
FIGURES = (("tokens/s", "throughput.tokens_per_s", 0.10), ("TTFT p50", "latency_ms.ttft.p50", 0.20),
           ("TTFT p95", "latency_ms.ttft.p95", 0.20), ("total p50", "latency_ms.total.p50", 0.20),
           ("total p95", "latency_ms.total.p95", 0.20))


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--tiny", action="store_true", help="a model that loads at once, a few seconds a load")
    p.add_argument("--model", help="a served model's folder instead (with its tokenizer)")
    p.add_argument("--layers", type=int, default=6, help="of the synthetic bench-m2")
    p.add_argument("--workers", default="2,4")
    p.add_argument("--placements", default=",".join(PLACEMENTS))
    p.add_argument("--loads", default="0.35,0.7", help="parts of the throughput that the simulator says is all")
    p.add_argument("--rates", help="requests a second instead of --loads")
    p.add_argument("--seconds", type=float, default=40, help="of each load")
    p.add_argument("--prompt", type=int, default=64)
    p.add_argument("--output", type=int, default=24)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--trace", help="recorded routes of the model (docs/TRACE.md); default: they are recorded first")
    p.add_argument("--calibration", help="use this file and do not measure")
    p.add_argument("--budget", type=float, default=80, help="milliseconds for each point that is measured")
    p.add_argument("--keep", help="folder for the reports; default: none are kept")
    p.add_argument("--json", help="write the table as JSON")
    return p.parse_args()


def run(o, *args):
    done = subprocess.run([o.sigmoe, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"sigmoe {' '.join(map(str, args))}: {done.stderr[-2000:]}")
    return done.stdout


def make_model(o, tmp):
    if o.model:
        return o.model
    model = os.path.join(tmp, "model")
    tokenizer = ("stories260k", "tok512.bin", "tok512.bin") if o.tiny else \
        ("tokenizers", "mixtral.tokenizer.model.v1", "tokenizer.model")
    source = os.path.join(DATA, *tokenizer[:2])
    if not os.path.exists(source):
        sys.exit(f"{source} is not there: give --model, a folder with a tokenizer")
    run(o, "synth", *(["tiny-moe"] if o.tiny else ["bench-m2", "--layers", o.layers]), "-o", model)
    shutil.copy(source, os.path.join(model, tokenizer[2]))
    return model


def parts(n_expert, n_worker, placement):
    """The experts of each worker, in every layer."""
    runs = [list(range(n_expert * i // n_worker, n_expert * (i + 1) // n_worker)) for i in range(n_worker)]
    if placement == "round-robin":
        return [list(range(i, n_expert, n_worker)) for i in range(n_worker)]
    if placement == "doubled":  # each expert with two workers
        return [sorted(runs[i] + runs[(i + 1) % n_worker]) for i in range(n_worker)]
    return runs


class Cluster:
    """Workers and a server of this model, ended on leaving."""

    def __init__(self, o, model, held, *more):
        self.o, self.model, self.held, self.more, self.running = o, model, held, more, []

    def start(self, *args):
        process = subprocess.Popen([self.o.sigmoe, *map(str, args)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.running.append(process)
        words = process.stdout.readline().decode().split()
        if len(words) < 2 or words[0] != "ready":
            raise RuntimeError(f"sigmoe {args[0]} said {words} instead of ready")
        return words[1]

    def __enter__(self):
        try:
            ends = [self.start("worker", "--model", self.model, "--experts", ",".join(map(str, held)),
                               "--listen", "tcp://127.0.0.1:*", "--threads", 1) for held in self.held]
            return self.start("serve", self.model, "--port", 0, "--workers-at", ",".join(ends), "--threads", 1,
                              "--kv-tokens", 65536, "--max-seqs", 64, "--max-queue", 1024, "--admin", "none",
                              "--no-prefix-cache", "--micro-batches", 1, "--speculate", "off", "--no-shm", *self.more)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def traffic(o, rate, seconds):
    return ["--rate", rate, "--duration", seconds, "--warmup", seconds / 8, "--drain", 60, "--prompt", o.prompt,
            "--output", o.output, "--length-cv", 0.3, "--prompt-max", 4 * o.prompt, "--output-max", 4 * o.output,
            "--seed", o.seed]


def simulate(o, model, calibration, placement, n_worker, rate, seconds, out):
    run(o, "loadtest", "simulate", os.path.join(model, "config.json"), "--calibration", calibration, "--workers",
        n_worker, "--cores", os.cpu_count(), "--threads", 1, "--worker-threads", 1, "--placement", placement,
        "--micro", 1,
        "--kv-tokens", 65536, "--seqs", 64, "--trace", o.trace, *traffic(o, rate, seconds), "--json", out)
    with open(out, encoding="utf-8") as f:
        return json.load(f)["runs"][0]


def live(o, url, rate, seconds, out):
    run(o, "loadtest", "live", url, *traffic(o, rate, seconds), "--json", out)
    with open(out, encoding="utf-8") as f:
        return json.load(f)["runs"][0]


def record(o, model, n_expert, folder):
    """Which experts the model's tokens choose: a short run of its own, with another seed."""
    routes = os.path.join(folder, "model.routes")
    with Cluster(o, model, [list(range(n_expert))], "--record", routes) as url:
        run(o, "loadtest", "live", url, "--rate", 10, "--duration", 4, "--prompt", o.prompt, "--output", o.output,
            "--seed", o.seed + 1000, "--json", os.path.join(folder, "record.json"))
    return routes


def number(one, path):
    for key in path.split("."):
        one = one[key]
    return one


def rates_of(o, model, calibration, placement, n_worker, out):
    """What the loads are parts of: requests a second that end when more come than can."""
    if o.rates:
        return [float(r) for r in o.rates.split(",")]
    flood = simulate(o, model, calibration, placement, n_worker, 200, 8, out)
    most = number(flood, "throughput.requests_per_s")
    return [round(most * float(part), 3) for part in o.loads.split(",")]


def one_cluster(o, model, calibration, n_expert, n_worker, placement, folder, rows):
    held = parts(n_expert, n_worker, placement)
    table = os.path.join(folder, f"{placement}-{n_worker}.json")
    with open(table, "w", encoding="ascii") as f:
        json.dump({"workers": {f"w{i}": h for i, h in enumerate(held)}}, f)
    rates = rates_of(o, model, calibration, table, n_worker, os.path.join(folder, "flood.json"))
    measured = []
    with Cluster(o, model, held) as url:
        live(o, url, rates[0], 2, os.path.join(folder, "warm.json"))  # pages in, connections open
        for rate in rates:
            measured.append(live(o, url, rate, o.seconds, os.path.join(folder, f"live-{placement}-{n_worker}-{rate}.json")))
    for rate, real in zip(rates, measured):
        told = simulate(o, model, calibration, table, n_worker, rate, o.seconds,
                        os.path.join(folder, f"sim-{placement}-{n_worker}-{rate}.json"))
        row = {"workers": n_worker, "placement": placement, "rate": rate, "failed": real["requests"]["failed"],
               "figures": {name: [number(real, path), number(told, path)] for name, path, _ in FIGURES}}
        rows.append(row)
        print_row(row)


def print_row(row):
    cells = []
    for name, _, bar in FIGURES:
        real, told = row["figures"][name]
        off = told / real - 1 if real else float("nan")
        cells.append(f"{real:9.4g} {told:9.4g} {100 * off:+6.1f} %{' ' if abs(off) <= bar else '!'}")
    print(f"{row['workers']:>2} {row['placement']:<12} {row['rate']:>7.3g} " + " ".join(cells), flush=True)


def verdict(rows):
    print("\n! is outside the bar: 10 % for throughput, 20 % for latency. Each cell: measured, predicted, error.")
    for name, _, bar in FIGURES:
        off = [abs(r["figures"][name][1] / r["figures"][name][0] - 1) for r in rows if r["figures"][name][0]]
        inside = sum(x <= bar for x in off)
        print(f"{name:<10} {inside} of {len(off)} within {100 * bar:.0f} %, worst {100 * max(off):.1f} %")
    failed = sum(r["failed"] for r in rows)
    if failed:
        print(f"{failed} requests failed in the live runs")


def main():
    o = parse()
    if o.tiny:
        o.seconds, o.prompt, o.output, o.budget = min(o.seconds, 3), 24, 8, min(o.budget, 4)
        o.rates = o.rates or "5,20"  # faster ones measure HTTP and the client, not the model
    with tempfile.TemporaryDirectory(prefix="sigmoe-sim-vs-live-") as tmp:
        folder = o.keep or tmp
        os.makedirs(folder, exist_ok=True)
        model = make_model(o, tmp)
        with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        n_expert = config.get("num_experts") or config["num_local_experts"]
        calibration = o.calibration or os.path.join(folder, "calibration.json")
        if not o.calibration:
            print(run(o, "calibrate", model, "-o", calibration, "--threads", 1, "--worker-threads", 1, "--transport",
                      "tcp", "--budget", o.budget))
        o.trace = o.trace or record(o, model, n_expert, folder)
        print("   placement       load " + " ".join(f"{name:^29}" for name, _, _ in FIGURES))
        rows = []
        for n_worker in map(int, o.workers.split(",")):
            for placement in o.placements.split(","):
                one_cluster(o, model, calibration, n_expert, n_worker, placement, folder, rows)
        verdict(rows)
        if o.json:
            with open(o.json, "w", encoding="ascii") as f:
                json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
