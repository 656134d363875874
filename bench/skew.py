#!/usr/bin/env python3
"""What the balancer with replicas is worth under skew, in simulation: throughput against contiguous
placement for Zipf(1.0) and k-hot 0.9, where rows bound the work (long prompts, large steps), over seeds.

The gain needs three things that the table lets you vary: experts that compute rather than read weights
(rows a step), few experts a worker (many average out), and one coordinator (steps of several coordinators
are in different layers, whose hot experts lie elsewhere, so that they even each other out).

  bench/skew.py --sigmoe build/release/sigmoe            # about two minutes
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

CASES = (  # shape, workers, redundant experts a layer, coordinators, hardware of the workers, rows a step
    ("mixtral-8x7b", 8, 8, 1, "cpu-16core", 4096),
    ("qwen3-30b-a3b", 32, 32, 1, "cpu-2core", 4096),
    ("qwen3-30b-a3b", 8, 16, 1, "cpu-2core", 4096),
    ("qwen3-30b-a3b", 8, 16, 4, "cpu-2core", 4096),
    ("qwen3-30b-a3b", 8, 16, 1, "cpu-2core", 512),
)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--cases", type=int, default=len(CASES), help="only the first N")
    p.add_argument("--bar", type=float, default=0, help="exit 1 when the first case gains less, times")
    o = p.parse_args()
    print(f"{'shape':<15} workers copies coords rows  {'route':<6} {'contiguous':>12} {'balanced':>12}   gain  "
          "balancedness")
    gains = []
    for shape, workers, copies, coordinators, hardware, rows in CASES[:o.cases]:
        for route in ("zipf", "k-hot"):
            with tempfile.TemporaryDirectory(prefix="sigmoe-skew-") as tmp:
                out = os.path.join(tmp, "r.json")
                command = [o.sigmoe, "loadtest", "simulate", shape, "--workers", workers, "--coordinators",
                           coordinators, "--coordinator-hw", "h100", "--worker-hw", hardware, "--link-gbps", 400,
                           "--link-us", 10, "--prompt", 512, "--output", 2, "--rate", 40, "--duration", 12, "--drain", 0,
                           "--rows", rows, "--route", route, "--placement", "contiguous,balanced", "--redundant", copies,
                           "--seeds", o.seeds, "--fast", 6, "--json", out]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                with open(out, encoding="utf-8") as f:
                    runs = json.load(f)["runs"]
            mean = {}
            for place in ("contiguous", "balanced"):
                mine = [r for r in runs if r["placement"] == place]
                mean[place] = (sum(r["cluster"]["steps"] * r["cluster"]["rows_a_step"] for r in mine) / len(mine) / 12,
                               sum(r["cluster"]["balancedness"] for r in mine) / len(mine))
            gain = mean["balanced"][0] / mean["contiguous"][0]
            gains.append(gain)
            print(f"{shape:<15} {workers:>7} {copies:>6} {coordinators:>6} {rows:>4}  {route:<6} "
                  f"{mean['contiguous'][0]:>7.0f} tok/s {mean['balanced'][0]:>7.0f} tok/s {gain:>5.2f}x "
                  f"{mean['contiguous'][1]:>6.2f} -> {mean['balanced'][1]:.2f}", flush=True)
    if o.bar and min(gains[:2]) < o.bar:
        sys.exit(f"the balancer gains {min(gains[:2]):.2f}x, expected {o.bar}x")


if __name__ == "__main__":
    main()
