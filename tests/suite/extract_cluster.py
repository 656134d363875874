#!/usr/bin/env python3
"""A submodel taken out of a running cluster is the one taken from disk, and the cluster goes on serving.

The folder has the dense part only: every expert comes over the wire from three workers. The tensors are
the same bytes as those of an extraction from disk, and the proof runs through the very workers. A run
beside it gives its usual logits. A worker that is killed in the middle is replaced by another that holds
the same experts. Experts that nobody holds, workers of another model and workers that give nothing away
are refused in one line, with nothing left behind.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, Workers, generate, main_of, read_file, run_sigmoe,  # noqa: E402
                     safetensors_read, safetensors_write, write_json)
from extract_lossless import CONFIG, call, make_model, read_json  # noqa: E402

PROMPTS = [[3 + i, 40 - i, 7, 2 * i] for i in range(8)]


def make_dense_part(model, folder):
    """The checkpoint without its experts."""
    os.makedirs(folder)
    tensors = safetensors_read(os.path.join(model, "model.safetensors"))
    safetensors_write(os.path.join(folder, "model.safetensors"),
                      {n: t for n, t in tensors.items() if ".experts." not in n})
    shutil.copy(os.path.join(model, "config.json"), folder)
    return folder


def tensors(folder):
    return read_file(os.path.join(folder, "model.safetensors"))


class Slow(Workers):
    """Workers that give weights away at a bound rate."""

    def __init__(self, binary, model, precision, sets, rate):
        super().__init__(binary, model, precision, sets)
        for command in self.commands:
            command += ["--fetch-rate", str(rate)]


def check_same(binary, tmp, model, dense):
    key = os.path.join(tmp, "cluster.key")
    call(binary, "keys", "new", key)
    with Workers(binary, model, "bf16", ["0-4", "4-9", "10-13"], ["--wire-key", key]) as at:
        want = generate(binary, model, PROMPTS, "--workers-at", at, "--wire-key", key,
                        "--domain", "en", max_tokens=20)
        for domain in ("zh", "en,code", "poetry"):
            wire, disk = os.path.join(tmp, f"wire-{domain}"), os.path.join(tmp, f"disk-{domain}")
            beside = subprocess.Popen([binary, "run", model, "--workers-at", at, "--wire-key", key,
                                       "--token-ids", "3,40,7,0", "--domain", "en", "--max-tokens", "20"],
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            call(binary, "extract", dense, "--domain", domain, "-o", wire, "--from", at,
                 "--wire-key", key, "--verify")
            call(binary, "extract", model, "--domain", domain, "-o", disk)
            text, _ = beside.communicate(timeout=120)
            if tensors(wire) != tensors(disk):
                raise Failure(f"{domain}: the tensors are not those from disk")
            for name in ("full_fingerprint", "submodel_fingerprint"):
                a, b = read_json(wire, "proof.json")[name], read_json(disk, "proof.json")[name]
                if a != b:
                    raise Failure(f"{domain}: {name} is {a}, from disk {b}")
            if not text.startswith(",".join(map(str, want.tokens[0])).encode()):
                raise Failure(f"the run beside it said {text!r}, not {want.tokens[0]}")
            print(f"{domain}: from three workers as from disk")


def connected(endpoint):
    """Somebody is connected to this TCP endpoint of the host."""
    port = ":%04X" % int(endpoint.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as f:
        rows = [line.split() for line in f]
    return any(row[1].endswith(port) and row[3] == "01" for row in rows[1:])


def check_death(binary, tmp, model, dense):
    """Two workers hold all; one is killed while it gives. The rate makes that moment certain."""
    out = os.path.join(tmp, "death")
    workers = Slow(binary, model, "bf16", ["0-13", "0-13"], "40K")
    with workers as at:
        started = time.monotonic()
        process = subprocess.Popen([binary, "extract", dense, "--domain", "code", "-o", out,
                                    "--from", at, "--no-proof"], stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while not connected(at.split(",")[0]) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        workers.running[0].kill()
        _, stderr = process.communicate(timeout=120)
        spent = time.monotonic() - started
    if process.returncode != 0:
        raise Failure(f"a worker died: exit {process.returncode}: {stderr}")
    if tensors(out) != tensors(os.path.join(tmp, "disk-code")):
        raise Failure("a worker died: the tensors differ")
    if spent < 2:
        raise Failure(f"180 KiB at 40 KiB/s took {spent:.1f} s: the rate is not kept")
    print(f"a worker was killed: the other gave the rest, {spent:.1f} s")


def refused(binary, tmp, word, *args):
    before = sorted(os.listdir(tmp))
    status, stdout, stderr = run_sigmoe(binary, ["extract", *args, "-o",
                                                 os.path.join(tmp, "refused")])
    if status == 0 or stdout or stderr.count("\n") != 1 or word not in stderr:
        raise Failure(f"{args}: exit {status}: {stderr!r}; expected one line with {word!r}")
    if sorted(os.listdir(tmp)) != before:
        raise Failure(f"{args}: left {sorted(os.listdir(tmp))}")
    print(f"refused: {stderr.strip()}")


def check_refusals(binary, tmp, model, dense):
    other = os.path.join(tmp, "other")
    write_json(os.path.join(tmp, "other.json"), CONFIG)
    call(binary, "synth", os.path.join(tmp, "other.json"), "-o", other, "--seed", "7")
    with Workers(binary, model, "bf16", ["0-3"]) as at:
        refused(binary, tmp, "no worker gives expert 7", dense, "--domain", "code", "--from", at)
        refused(binary, tmp, "the workers hold model", other, "--domain", "zh", "--from", at)
        refused(binary, tmp, "missing", dense, "--domain", "zh")
        with Workers(binary, other, "bf16", ["0-3"]) as second:
            refused(binary, tmp, "holds model", dense, "--domain", "zh", "--from",
                    f"{at},{second}")
    with Slow(binary, model, "bf16", ["0-13"], 0) as at:
        refused(binary, tmp, "gives no weights away", dense, "--domain", "zh", "--from", at)
    refused(binary, tmp, "endpoint", dense, "--domain", "zh", "--from", "127.0.0.1:1")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-cluster-") as tmp:
        model = make_model(binary, tmp)
        dense = make_dense_part(model, os.path.join(tmp, "dense"))
        check_same(binary, tmp, model, dense)
        call(binary, "extract", model, "--domain", "code", "-o", os.path.join(tmp, "disk-code"))
        check_death(binary, tmp, model, dense)
        check_refusals(binary, tmp, model, dense)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
