#!/usr/bin/env python3
"""Resident memory of a run, coordinator and workers together, against the packed weights and the keys and
values: the most seen while it loads and runs, and what of it is files of the checkpoint.

Pages that several processes share count once (Pss). Give no packed cache: pages of a mapped cache are the
system's to take back, and the ratio would say little.

  bench/memory.py ./olmoe-int8 --sigmoe build/release/sigmoe
  bench/memory.py ./olmoe-int8 --sigmoe build/release/sigmoe --workers 2 --transport tcp --json
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "suite"))
from served import Process  # noqa: E402

PERIOD_S = 0.5
MIB = 1 << 20


def expected(o):
    """Bytes of (packed weights, keys and values)."""
    told = json.loads(subprocess.run([o.sigmoe, "inspect", o.model, "--json"], check=True,
                                     capture_output=True).stdout)
    return told["total_bytes"], (o.kv_tokens * told["layers"] * 2 * told["kv_heads"]
                                 * told["head_width"] * 2)


def look(pid):
    """(Pss, resident bytes of the checkpoint's files), or nothing once a process is gone."""
    try:
        everyone = [Process(pid), *Process(pid).children()]
        return (sum(p.pss() for p in everyone),
                sum(p.resident_of(".safetensors") for p in everyone))
    except (OSError, AttributeError):
        return None


def measure(o):
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as prompt:
        prompt.write(",".join(str(i % 200 + 1) for i in range(o.prompt_tokens)) + "\n")
        prompt.flush()
        run = subprocess.Popen(
            [o.sigmoe, "run", o.model, "--token-ids-file", prompt.name, "-n", str(o.tokens), "--ignore-eos",
             "--workers", str(o.workers), "--transport", o.transport, "--kv-tokens", str(o.kv_tokens),
             "--no-prefix-cache", "--json"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        seen = []
        while run.poll() is None:
            seen.append(look(run.pid))
            time.sleep(PERIOD_S)
    if run.returncode != 0:
        sys.exit(f"memory: sigmoe run ended with {run.returncode}")
    seen = [s for s in seen if s]
    if not seen:
        sys.exit(f"memory: the run was over within {PERIOD_S} s; give it more --tokens")
    return max(seen)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--transport", default="inproc", choices=("inproc", "ipc", "tcp"))
    p.add_argument("--prompt-tokens", type=int, default=512)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--kv-tokens", type=int, default=1024, help="positions of keys and values (1024)")
    p.add_argument("--json", action="store_true")
    o = p.parse_args()
    weights, kv = expected(o)
    most, of_files = measure(o)
    ratio = most / (weights + kv)
    if o.json:
        print(json.dumps({"weights": weights, "kv": kv, "resident": most, "of_files": of_files,
                          "ratio": ratio}))
        return
    print(f"weights {weights / MIB:.0f} MiB, keys and values {kv / MIB:.0f} MiB; resident at most "
          f"{most / MIB:.0f} MiB, {of_files / MIB:.0f} of it the checkpoint's files: {ratio:.3f} times")


main()
