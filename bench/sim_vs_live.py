#!/usr/bin/env python3
"""The simulator against reality: the same requests through a live cluster on this machine and through
`sigmoe loadtest simulate`, for 2 and 4 workers, three placements and two loads: twelve configurations.
Printed side by side: throughput (bar: within 10 %) and p50 and p95 of time to first token and of whole
requests (bar: within 20 %).

The machine is measured first (`sigmoe calibrate`, as many threads as serve), then each configuration is
served and loaded, then simulated; neither sees the other's figures. What both have in common are the requests and how
much others on the machine slowed its CPUs in these seconds: `sigmoe loadtest pace` watches that beside each live run,
within 1 % of the CPUs' time, and each repeat is predicted with its own. Coordinator, workers and client are
declared to share this machine's CPUs (--cores). Run it on an idle machine: the same live run is made
--repeats times, medians are compared, and how far apart the repeats lie stands beside (spread: largest over
smallest), since no prediction can be closer than reality is to itself. A run beside which others took more
than --others of the CPUs' time is made again, twice at most, and told when it counts all the same.
Errors are medians of such pairs. The model must be much larger than the machine's last-level cache: how much of a
smaller one lies there is up to others too, and nothing watches that.
What a server decides by what it measures while it runs, the simulation cannot know: it serves with one
micro-batch, without guessed tokens, and over the transport that was calibrated.

  bench/sim_vs_live.py --sigmoe build/release/sigmoe                  # a 16-layer bench-m2, about 20 minutes
  bench/sim_vs_live.py --sigmoe build/release/sigmoe --tiny           # whether it works, a minute
"""
import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

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
    p.add_argument("--layers", type=int, default=16, help="of the synthetic bench-m2")
    p.add_argument("--workers", default="2,4")
    p.add_argument("--placements", default=",".join(PLACEMENTS))
    p.add_argument("--loads", default="0.35,0.7", help="parts of the throughput that the simulator says is all")
    p.add_argument("--rates", help="requests a second instead of --loads")
    p.add_argument("--seconds", type=float, default=20, help="of each load")
    p.add_argument("--repeats", type=int, default=3, help="of each live run")
    p.add_argument("--others", type=float, default=0.03, help="part of the CPUs' time that disturbs a live run")
    p.add_argument("--parts", action="store_true", help="steps, waits and ways too, predicted beside measured")
    p.add_argument("--prompt", type=int, default=64)
    p.add_argument("--output", type=int, default=24)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--trace", help="recorded routes of the model (docs/TRACE.md); default: they are recorded first")
    p.add_argument("--calibration", help="use this file and do not measure")
    p.add_argument("--budget", type=float, default=160, help="milliseconds for each point that is measured")
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
                              "--kv-tokens", 65536, "--max-seqs", 64, "--max-queue", 1024, "--max-batch-rows", 512,
                              "--admin", "none", "--no-prefix-cache", "--micro-batches", 1, "--speculate", "off", "--no-shm", *self.more)
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


def simulate(o, model, calibration, placement, n_worker, rate, seconds, out, pace=None):
    run(o, "loadtest", "simulate", os.path.join(model, "config.json"), "--calibration", calibration, "--workers",
        n_worker, "--cores", os.cpu_count(), "--threads", 1, "--worker-threads", 1, "--placement", placement,
        "--micro", 1,
        "--kv-tokens", 65536, "--seqs", 64, "--trace", o.trace, *(["--pace", pace] if pace else []),
        *traffic(o, rate, seconds), "--json", out)
    with open(out, encoding="utf-8") as f:
        return json.load(f)["runs"][0]


def live(o, url, rate, seconds, out):
    run(o, "loadtest", "live", url, *traffic(o, rate, seconds), "--json", out)
    with open(out, encoding="utf-8") as f:
        return json.load(f)["runs"][0]


def calibrate(o, model, out):
    return run(o, "calibrate", model, "-o", out, "--threads", 1, "--worker-threads", 1, "--transport", "tcp",
               "--budget", o.budget)


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
    flood = simulate(o, model, calibration, placement, n_worker, 20, 60, out)
    most = number(flood, "throughput.requests_per_s")
    return [round(most * float(part), 3) for part in o.loads.split(",")]


def metrics(url):
    """The server's own counters: sums over labels, and by phase."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as f:
        text = f.read().decode()
    out = {}
    for name, label, value in re.findall(r'^(sigmoe_\w+)(\{[^}]*\})? (\S+)$', text, re.M):
        if 'le="' not in label:
            phase = re.search(r'phase="(\w+)"', label)
            name += "." + phase.group(1) if phase else ""
            out[name] = out.get(name, 0) + float(value)
    return out


SPENT = ("coordinator", "coordinator_wire", "front", "workers", "workers_wire", "client")


def cpu_by_thread(processes):
    """Seconds of CPU: the server's threads that compute, move messages and speak HTTP, the workers', and of
    children that have ended (the client). processes: workers first, the server last."""
    out = dict.fromkeys(SPENT, 0.0)
    for process in processes:
        server = process is processes[-1]
        for tid in os.listdir(f"/proc/{process.pid}/task"):
            with open(f"/proc/{process.pid}/task/{tid}/comm", encoding="ascii") as f:
                moves = f.read().startswith("ZMQbg")
            with open(f"/proc/{process.pid}/task/{tid}/schedstat", encoding="ascii") as f:
                spent = int(f.read().split()[0]) / 1e9
            kind = ("coordinator_wire" if moves else "front" if int(tid) == process.pid else "coordinator") \
                if server else ("workers_wire" if moves else "workers")
            out[kind] += spent
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    out["client"] = ended.ru_utime + ended.ru_stime
    return out


def parts_of(before, after, spent, run):
    """What a step is made of, in milliseconds: as the server counted it, and as the simulator did."""
    d = {name: after[name] - before.get(name, 0) for name in after}
    steps = max(d["sigmoe_steps_total"], 1)
    return {"rows a step": d["sigmoe_rows_total"] / steps, "step": 1e3 * d["sigmoe_step_seconds_total"] / steps,
            "waiting, of a step": 1e3 * d["sigmoe_expert_wait_seconds_total"] / steps,
            "TPOT mean": number(run, "latency_ms.tpot.mean"),
            **{f"CPU {kind}": 1e3 * spent[kind] / steps for kind in SPENT}}


def parts_told(run):
    c = run["cluster"]
    return {"rows a step": c["rows_a_step"], "step": c["step_ms"], "waiting, of a step": c["stalled"] * c["step_ms"],
            "TPOT mean": number(run, "latency_ms.tpot.mean"),
            **{f"CPU {kind}": 1e3 * c["cpu_s"][kind] / c["steps"] for kind in SPENT}}


def cpu_seconds(pids):
    """Of the whole machine, hypervisor's share included; of these processes and of the children that have ended."""
    tick = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", encoding="ascii") as f:
        every = list(map(int, f.readline().split()[1:9]))
    mine = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            mine += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15]))
    return (sum(every) - every[3] - every[4]) / tick, mine / tick


class Watch:
    """`sigmoe loadtest pace` while this is open; then cpu_s is what it took itself."""

    def __init__(self, o, seconds, out):
        self.command = [o.sigmoe, "loadtest", "pace", "-o", out, "--seconds", str(seconds), "--bin", "20"]
        self.cpu_s = 0

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime


def live_run(o, cluster, url, rate, out, pace):
    """One run of one load: (what others took of the CPUs, the client's report, the server's counters, the pace)."""
    pids = [p.pid for p in cluster.running] + [os.getpid()]
    before, (every, mine), spent = metrics(url), cpu_seconds(pids), cpu_by_thread(cluster.running)
    begun = time.monotonic()
    with Watch(o, o.seconds + 60, pace) as watch:
        run_ = live(o, url, rate, o.seconds, out)
    took = time.monotonic() - begun
    every_now, mine_now = cpu_seconds(pids)
    others = max(0, every_now - every - (mine_now - mine)) / (took * os.cpu_count())
    spent = {kind: now - spent[kind] for kind, now in cpu_by_thread(cluster.running).items()}
    spent["client"] -= watch.cpu_s
    return others, run_, parts_of(before, metrics(url), spent, run_), pace


def quiet_run(o, cluster, url, rate, name):
    """live_run, again where others took much, twice at most: the quietest."""
    kept = []
    while len(kept) < 3 and not (kept and kept[-1][0] <= o.others):
        again = f"{name}-{len(kept)}"
        kept.append(live_run(o, cluster, url, rate, f"{again}.json", f"{again}-pace.json"))
    return min(kept, key=lambda k: k[0])


def compared(runs, told):
    """One row of the table: figures are medians, the error that of the pairs. told: a simulation for each run."""
    real = [run for _, run, _, _ in runs]
    row = {"others": max(k[0] for k in runs), "failed": sum(run["requests"]["failed"] for run in real),
           "figures": {}, "spread": {}, "error": {}}
    for name, path, _ in FIGURES:
        pairs = [(number(run, path), number(t, path)) for run, t in zip(real, told)]
        each = sorted(a for a, _ in pairs)
        row["figures"][name] = [statistics.median(each), statistics.median(b for _, b in pairs)]
        row["error"][name] = statistics.median(b / a for a, b in pairs) - 1 if each[0] else float("nan")
        row["spread"][name] = each[-1] / each[0] - 1 if each[0] else 0
    middle = sorted(range(len(runs)), key=lambda i: runs[i][2]["step"])[len(runs) // 2]
    row["parts"] = {name: [runs[middle][2][name], x] for name, x in parts_told(told[middle]).items()}
    return row


def one_cluster(o, model, calibration, n_expert, n_worker, placement, folder, rows):
    held = parts(n_expert, n_worker, placement)
    name = os.path.join(folder, f"{placement}-{n_worker}")
    table = name + ".json"
    with open(table, "w", encoding="ascii") as f:
        json.dump({"workers": {f"w{i}": h for i, h in enumerate(held)}}, f)
    rates = rates_of(o, model, calibration, table, n_worker, os.path.join(folder, "flood.json"))
    cluster = Cluster(o, model, held)
    with cluster as url:
        live(o, url, 2, 3, os.path.join(folder, "warm.json"))  # pages in, connections open
        measured = [[] for _ in rates]
        for i in range(o.repeats):
            for k, rate in enumerate(rates):
                measured[k].append(quiet_run(o, cluster, url, rate, f"{name}-{rate}-live-{i}"))
    for rate, runs in zip(rates, measured):
        told = [simulate(o, model, calibration, table, n_worker, rate, o.seconds, f"{name}-{rate}-sim-{i}.json", pace)
                for i, (_, _, _, pace) in enumerate(runs)]
        row = compared(runs, told)
        rows.append({"workers": n_worker, "placement": placement, "rate": rate, **row})
        print_row(o, rows[-1])


def print_row(o, row):
    cells = []
    for name, _, bar in FIGURES:
        real, told = row["figures"][name]
        off = row["error"][name]
        cells.append(f"{real:7.4g} {told:7.4g} {100 * off:+6.1f} %{' ' if abs(off) <= bar else '!'}"
                     f" ({100 * row['spread'][name]:2.0f} %)")
    disturbed = f"  others took {100 * row['others']:.0f} %" if row["others"] > o.others else ""
    print(f"{row['workers']:>2} {row['placement']:<12} {row['rate']:>6.3g} " + " ".join(cells) + disturbed, flush=True)
    if o.parts:
        print("     " + ", ".join(f"{name} {real:.3g} {told:.3g}" for name, (real, told) in row["parts"].items()),
              flush=True)


def verdict(rows):
    print("\n! is outside the bar: 10 % for throughput, 20 % for latency. Each cell: measured and predicted (medians\n"
          "of the repeats), error (median of each repeat's own), (spread of the repeats: largest over smallest).")
    for name, _, bar in FIGURES:
        off = [abs(r["error"][name]) for r in rows if r["figures"][name][0]]
        inside = sum(x <= bar for x in off)
        spread = statistics.median(r["spread"][name] for r in rows)
        print(f"{name:<10} {inside} of {len(off)} within {100 * bar:.0f} %, worst {100 * max(off):.1f} %; "
              f"median {100 * statistics.median(off):.1f} %, of the repeats' spreads {100 * spread:.1f} %")
    failed = sum(r["failed"] for r in rows)
    if failed:
        print(f"{failed} requests failed in the live runs")


def main():
    o = parse()
    if o.tiny:
        o.seconds, o.prompt, o.output, o.budget, o.repeats = min(o.seconds, 3), 24, 8, min(o.budget, 4), 1
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
            print(calibrate(o, model, calibration))
        o.trace = o.trace or record(o, model, n_expert, folder)
        print("   placement      load " + " ".join(f"{name:^32}" for name, _, _ in FIGURES))
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
