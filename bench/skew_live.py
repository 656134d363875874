#!/usr/bin/env python3
"""What the balancer is worth under skew on live workers: the order that bench/skew.py shows in simulation.

A model whose experts are most of the work runs on worker processes of one thread each, its rows sent to
experts by Zipf(1.0) and by k-hot 0.9 (sigmoe run --route). One run is recorded; `sigmoe plan` makes a
placement with copies from it; workers with that placement and workers with contiguous parts then compute
the same prompts in turn. Logits must be the same: only who computes differs. Prints prompt tokens a
second, the median of paired ratios, and the imbalance that the plan predicts. As many workers as CPUs,
or they share what they should show; and one micro-batch, since a second one is computed on the CPU that a worker
with less to do leaves idle, and hides what balance is for.

  bench/skew_live.py --sigmoe build/release/sigmoe            # about two minutes
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

CONFIG = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu",
          "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 6,
          "num_attention_heads": 8, "num_key_value_heads": 2, "num_local_experts": 8,
          "num_experts_per_tok": 2, "vocab_size": 1000, "max_position_embeddings": 8192,
          "rms_norm_eps": 1e-5, "rope_theta": 1e6, "tie_word_embeddings": False,
          "torch_dtype": "bfloat16"}
ROUTES = ("zipf,zipf=1.0", "k-hot,hot-share=0.9")


def call(o, *args):
    done = subprocess.run([o.sigmoe, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"sigmoe {' '.join(map(str, args))}: {done.stderr[-1000:]}")
    return done.stdout


class Workers:
    def __init__(self, o, model, options):
        self.running = [subprocess.Popen(
            [o.sigmoe, "worker", "--model", model, "--listen", "tcp://127.0.0.1:*", "--threads", "1",
             "--name", f"w{i}", *map(str, options(i))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True) for i in range(o.workers)]
        self.at = ",".join(p.stdout.readline().split()[1] for p in self.running)

    def stop(self):
        for p in self.running:
            p.terminate()
        for p in self.running:
            p.wait()


def run(o, model, prompts, route, at, *more):
    out = call(o, "run", model, "--workers-at", at, "--token-ids-file", prompts, "--max-tokens", 1,
               "--threads", o.threads, "--max-batch-rows", o.rows, "--micro-batches", 1, "--route", route, "--json", *more)
    report = json.loads(out)
    return report["logits_hash"], report["stats"]["prompt_tokens_per_s"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--workers", type=int, default=os.cpu_count())
    p.add_argument("--threads", type=int, default=1, help="of the coordinator")
    p.add_argument("--redundant", type=int, default=4, help="copies a layer")
    p.add_argument("--rows", type=int, default=1024, help="rows a step")
    p.add_argument("--prompts", type=int, default=8)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--runs", type=int, default=3)
    o = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="sigmoe-skew-", dir=os.environ.get("TMPDIR")) as tmp:
        config, model = os.path.join(tmp, "config.json"), os.path.join(tmp, "model")
        prompts, routes = os.path.join(tmp, "prompts"), os.path.join(tmp, "r.routes")
        with open(config, "w", encoding="ascii") as f:
            json.dump(CONFIG, f)
        with open(prompts, "w", encoding="ascii") as f:
            for i in range(o.prompts):
                f.write(",".join(str((7 + 131 * i + 17 * j * j) % 999) for j in range(o.prompt)) + "\n")
        call(o, "synth", config, "-o", model)
        print(f"{o.workers} workers of one thread, {o.redundant} copies a layer, steps of {o.rows} rows, "
              f"{o.prompts} prompts of {o.prompt}, median of {o.runs} pairs")
        print(f"  {'route':<22}{'contiguous':>16}{'balanced':>16}{'gain':>8}   predicted imbalance")
        gains = []
        for route in ROUTES:
            plan = os.path.join(tmp, "plan.json")
            contiguous = Workers(o, model, lambda i: ["--part", f"{i}/{o.workers}"])
            run(o, model, prompts, route, contiguous.at, "--record", routes)
            said = json.loads(call(o, "plan", "--model", model, "--loads", routes, "--place", "balanced",
                                   *[x for i in range(o.workers) for x in ("--worker", f"w{i},speed=1")],
                                   "--redundant", o.redundant, "--out", plan, "--json"))
            balanced = Workers(o, model, lambda i: ["--placement", plan])
            got = [(run(o, model, prompts, route, contiguous.at), run(o, model, prompts, route, balanced.at))
                   for _ in range(o.runs)]
            contiguous.stop()
            balanced.stop()
            if len({h for pair in got for h, _ in pair}) != 1:
                sys.exit("logits differ between the placements")
            gain = statistics.median(b[1] / a[1] for a, b in got)
            gains.append(gain)
            predicted = said["imbalance"][0]
            print(f"  {route:<22}{statistics.median(a[1] for a, _ in got):>10.0f} tok/s"
                  f"{statistics.median(b[1] for _, b in got):>10.0f} tok/s{gain:>7.2f}x   "
                  f"{predicted['before']:.2f} -> {predicted['after']:.2f}", flush=True)
        if min(gains) <= 1:
            sys.exit("the balancer does not gain")


if __name__ == "__main__":
    main()
