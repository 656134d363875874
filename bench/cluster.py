#!/usr/bin/env python3
"""What the wire costs: the same model with its experts in this process and in worker processes.

Runs alternate (in-process, tcp, in-process, tcp, ...) because shared machines drift; medians and the
median of the paired ratios are printed, with the microseconds that a layer's experts are away split
into serialise (gather rows, build messages), wire (round trip less the worker's own time), queue and
compute, and the bytes that went both ways. Logits hashes of all runs whose rows travel as the same must be
equal: a faster run with other bits is no result.

A way to reach the workers is a transport; `+shm` lets rows pass through shared memory, `+curve` encrypts
the wire, `+fp8` and `+fp8-both` are --wire-dtype, `@N` sets --spin-us to N on both sides (0: park at once),
`/1` and `/2` fix the number of micro-batches, which is otherwise found out while it runs. A batch is a number
of sequences, then `xPROMPT` and `xTOKENS` where --prompt and --tokens are not meant:

  bench/cluster.py --sigmoe build/release/sigmoe                  # synthesizes OLMoE-1B-7B, 13.8 GB
  bench/cluster.py --sigmoe build/release/sigmoe --layers 4       # a quarter of the layers, quick
  bench/cluster.py --sigmoe build/release/sigmoe --layers 4 --ways tcp,tcp+shm@0,tcp+shm@20,tcp+shm@50
  bench/cluster.py --sigmoe build/release/sigmoe --layers 4 --batches 1,16 --ways tcp,tcp+curve,tcp+shm,tcp/1,tcp/2
  bench/cluster.py --sigmoe build/release/sigmoe --layers 4 --batches 1,16,1x512x1 --ways tcp,tcp+fp8,tcp+fp8-both,tcp+curve,tcp+curve+fp8-both
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--model", help="checkpoint; made from --shape when absent")
    p.add_argument("--shape", default="olmoe-1b-7b")
    p.add_argument("--layers", type=int, default=0, help="layers of the synthetic model; 0: all")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--ways", "--transports", default="tcp,tcp+shm", help="how workers are reached: tcp or ipc, then +shm, +curve, +fp8, +fp8-both, @SPIN_US and /MICRO_BATCHES as wanted")
    p.add_argument("--threads", type=int, default=0, help="of the coordinator; 0: one a CPU")
    p.add_argument("--worker-threads", type=int, default=0, help="of each worker; 0: one a CPU")
    p.add_argument("--batches", default="1,8", help="sequences at once: 1, 16, 1x512x1")
    p.add_argument("--prompt", type=int, default=64, help="prompt tokens of each sequence")
    p.add_argument("--tokens", type=int, default=64, help="generated tokens of each sequence")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--precision", default="bf16")
    p.add_argument("--spin-us", type=int, default=-1, help="where a way does not say; -1: the default")
    p.add_argument("--json", action="store_true")
    return p.parse_args()


def model_of(o, folder):
    """The checkpoint that was given, or one made from the shape."""
    if o.model is not None:
        return o.model
    model = os.path.join(folder, "model")
    layers = ["--layers", str(o.layers)] if o.layers else []
    subprocess.run([o.sigmoe, "synth", o.shape, "-o", model, *layers], check=True)
    return model


def prompts_file(folder, n, length):
    path = os.path.join(folder, f"prompts-{n}x{length}.txt")
    with open(path, "w", encoding="ascii") as f:
        for i in range(n):
            f.write(",".join(str((7 + 131 * i + 17 * j) % 500 + 1) for j in range(length)) + "\n")
    return path


def run(o, model, prompts, tokens, where):
    command = [o.sigmoe, "run", model, "--token-ids-file", prompts, "--max-tokens", str(tokens),
               "--ignore-eos", "--json", "--precision", o.precision, "--threads", str(o.threads),
               "--worker-threads", str(o.worker_threads), "--speculate", "off", *where]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode()[-1000:]}")
    report = json.loads(done.stdout)
    return {"hash": report["logits_hash"], **report["stats"]}


def options_of(o, way, folder):
    """The options of `sigmoe run` for tcp, tcp+shm, tcp+curve, tcp+shm+curve@50/2, ..."""
    path, _, micro = way.partition("/")
    path, _, spin = path.partition("@")
    transport, *more = path.split("+")
    rows = [m for m in more if m.startswith("fp8")]
    if (transport not in ("tcp", "ipc") or not set(more) <= {"shm", "curve", "fp8", "fp8-both"}
            or micro not in ("", "1", "2")):
        sys.exit(f"--ways: {way} is not tcp or ipc, then +shm, +curve, +fp8 or +fp8-both, @MICROSECONDS and /1 or /2 "
                 "as wanted")
    key = os.path.join(folder, "wire.key")
    if "curve" in more and not os.path.exists(key):
        subprocess.run([o.sigmoe, "keys", "new", key], check=True, capture_output=True)
    return ["--workers", str(o.workers), "--transport", transport,
            *([] if "shm" in more else ["--no-shm"]), *(["--wire-key", key] if "curve" in more else []),
            *(["--wire-dtype", rows[0]] if rows else []),
            "--spin-us", spin or str(o.spin_us), "--micro-batches", micro or "0"]


def batch_of(o, text):
    """Sequences, prompt tokens and generated tokens of 16, 1x512 or 1x512x1."""
    n, *rest = map(int, text.split("x"))
    return n, rest[0] if rest else o.prompt, rest[1] if len(rest) > 1 else o.tokens


def measure(o, model, folder, batch):
    """{name: [stats of each run]}, in-process first, alternating."""
    n, prompt, tokens = batch_of(o, batch)
    ways = {"inproc": ["--spin-us", str(o.spin_us)]}
    for way in o.ways.split(","):
        ways[way] = options_of(o, way, folder)
    prompts = prompts_file(folder, n, prompt)
    got = {name: [] for name in ways}
    for _ in range(o.runs):
        for name, where in ways.items():
            got[name].append(run(o, model, prompts, tokens, where))
    hashes = {(r["numerics"], r["hash"]) for runs in got.values() for r in runs}
    if len(hashes) != len({numerics for numerics, _ in hashes}):
        sys.exit("logits differ between the runs")
    return got


def median(runs, *keys):
    def value(r):
        for k in keys:
            r = r[k]
        return r
    return statistics.median(value(r) for r in runs)


def ratio(got, name, key):
    pairs = [(a[key], b[key]) for a, b in zip(got[name], got["inproc"])]
    return statistics.median(a / b if b else 0 for a, b in pairs)  # one token: nothing is decoded


def table(o, batch, got):
    n, prompt, tokens = batch_of(o, batch)
    print(f"\n{n} sequence{'s' if n > 1 else ''}, prompt {prompt}, {tokens} tokens each, "
          f"{o.precision}, median of {o.runs} (ratio to in-process, paired)")
    print(f"  {'experts':<28}{'prefill/s':>10}{'ratio':>7}{'decode/s':>10}{'ratio':>7}"
          f"{'away us':>9}{'serial.':>9}{'wire':>7}{'queue':>7}{'compute':>9}{'waiting':>9}{'MB':>9}")
    for name, runs in got.items():
        label = "in-process" if name == "inproc" else f"{o.workers} workers {name}"
        us = [median(runs, "us_per_layer", k)
              for k in ("away", "serialise", "wire", "queue", "compute")]
        print(f"  {label:<28}{median(runs, 'prompt_tokens_per_s'):>10.1f}"
              f"{ratio(got, name, 'prompt_tokens_per_s'):>7.3f}"
              f"{median(runs, 'decode_tokens_per_s'):>10.2f}"
              f"{ratio(got, name, 'decode_tokens_per_s'):>7.3f}"
              f"{us[0]:>9.0f}{us[1]:>9.1f}{us[2]:>7.0f}{us[3]:>7.0f}{us[4]:>9.0f}"
              f"{median(runs, 'wait_share'):>9.0%}"
              f"{(median(runs, 'bytes_sent') + median(runs, 'bytes_received')) / 1e6:>9.1f}")


def main():
    o = parse()
    with tempfile.TemporaryDirectory(prefix="sigmoe-bench-", dir=os.environ.get("TMPDIR")) as folder:
        model = model_of(o, folder)
        out = {}
        for batch in o.batches.split(","):
            out[batch] = measure(o, model, folder, batch)
            if not o.json:
                table(o, batch, out[batch])
        if o.json:
            json.dump(out, sys.stdout)
            print()


if __name__ == "__main__":
    main()
