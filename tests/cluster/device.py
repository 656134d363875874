#!/usr/bin/env python3
"""Experts on a CUDA device: the same bits as on CPUs, whoever holds what.

Each model and form runs in one process on the CPUs; then with a worker that has a device, alone,
beside one that has none, and as its replica: the rows of --dump-logits, prompt and generated, must be
the same bytes. The device's worker is killed while tokens come; and a coordinator moves experts to it
and away from it while streams run. Skipped where no device can be used.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import Failure, Workers, main_of, read_file, skip, write_json  # noqa: E402
from rebalance import Streams, calm_answers, check_placement, sigmoe, status_of  # noqa: E402
from same_bits import Bits, model_folder, n_expert_of, prompt_of  # noqa: E402
from served import Served, make_model  # noqa: E402
from worker_death import arguments, run_with_death  # noqa: E402

FORMS = {"olmoe": [["--precision", "f32"], ["--precision", "bf16"], ["--wire-dtype", "fp8-both"]],
         "mixtral": [["--precision", "bf16"]],
         "qwen3_moe": [["--precision", "bf16"]],
         "tiny-sigma": [["--precision", "bf16"]],
         "quantised": [["--activations", "int8"], ["--activations", "bf16"]]}
# What each worker holds, and where.
CLUSTERS = [(["0-"], ["cuda"]), (["0-2", "3-"], ["cuda", None]), (["0-", "1-"], [None, "cuda"])]


def device_or_skip(binary, model):
    """A worker with a device is started to see whether there is one."""
    command = [binary, "worker", "--model", model, "--device", "cuda", "--experts", "none",
               "--listen", "tcp://127.0.0.1:*"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ready = worker.stdout.readline()
    worker.terminate()
    said = worker.communicate(timeout=60)[1].decode(errors="replace")
    if ready.startswith(b"ready "):
        return
    if worker.returncode == 2 and "--device cuda:0" in said:
        skip(said.strip())
    raise Failure(f"a worker with --device cuda ended with {worker.returncode}: {said}")


def check_bits(binary, tmp):
    for name, forms in FORMS.items():
        model, n = model_folder(binary, name, tmp), 0
        prompt, last = prompt_of(model), n_expert_of(model) - 1
        for form in forms:
            bits = Bits(binary, model, form, prompt)
            precision = form[1] if form[0] == "--precision" else "bf16"
            told = form if form[0] == "--activations" else []
            for sets, devices in CLUSTERS:
                held = [f"{s}{last}" if s.endswith("-") else s for s in sets]
                with Workers(binary, model, precision, held, told, devices) as at:
                    for batch in (False, True):
                        bits.check({"--workers-at": at, "--no-local": True, "batch": batch},
                                   f" ({held} on {devices})")
                        n += 1
        print(f"{name}: {n} runs gave the CPUs' bytes")


def check_death(binary, tmp):
    model, dump = os.path.join(tmp, "dies"), os.path.join(tmp, "logits.f32")
    sigmoe(binary, "synth", "tiny-moe", "-o", model, "--std", "0.2")
    out, _ = sigmoe(binary, *arguments(model, dump, []))
    calm = (out.strip(), read_file(dump))
    for sets, devices, victims in ((["0-3", "4-7", "0-7"], [None, "cuda", None], [1]),
                                   (["0-3", "4-7"], ["cuda", "cuda"], [0, 1]),
                                   (["0-7", "0-7"], ["cuda", None], [1])):
        ids, logits, log = run_with_death(binary, model, dump, [], sets, victims, signal.SIGKILL,
                                          devices)
        if (ids, logits) != calm:
            raise Failure(f"{victims} of {devices} killed: other tokens or logits\n{log[-2000:]}")
        print(f"{victims} of {devices} killed: the same tokens and logits")


def check_moves(binary, tmp):
    model = make_model(binary, os.path.join(tmp, "moves"))
    admin = os.path.join(tmp, "admin.sock")
    calm = calm_answers(binary, model)
    with Workers(binary, model, "bf16", ["0-7", "none"], devices=[None, "cuda"]) as at:
        cpu, gpu = at.split(",")
        with Served(binary, model, "--workers-at", at, "--admin", admin, workers=0) as server:
            with Streams(server) as streams:
                time.sleep(0.5)
                for there, here, want in (("0-7", "0-3", (24, 12)), ("0-3", "4-7", (12, 12)),
                                          ("1", "0-7", (3, 24))):
                    path = os.path.join(tmp, "placement.json")
                    write_json(path, {"workers": {gpu: there, cpu: here}})
                    sigmoe(binary, "rebalance", "--admin", admin, "--placement", path)
                    check_placement(status_of(binary, admin),
                                    {gpu: ("up", want[0]), cpu: ("up", want[1])})
                    time.sleep(0.3)
            said = server.said()
    if streams.failures:
        raise Failure(f"{len(streams.failures)} requests failed: {streams.failures[0]}\n{said}")
    for i, answers in enumerate(streams.answers):
        if not answers or any(a != calm[i] for a in answers):
            raise Failure(f"stream {i}: other tokens than undisturbed ({len(answers)} answers)")
    print(f"{sum(map(len, streams.answers))} answers while experts moved to the device and back")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-device-") as tmp:
        device_or_skip(binary, model_folder(binary, "olmoe", tmp))
        check_bits(binary, tmp)
        check_death(binary, tmp)
        check_moves(binary, tmp)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", required=True, help="the program to test")
    options = parser.parse_args()
    main_of(lambda: check(os.path.abspath(options.sigmoe)))
