#!/usr/bin/env python3
"""What a cluster refuses, it refuses in one line that says what and where.

A worker with other weights, another model or another precision; workers that leave experts
uncovered; an occupied port; an address where nobody or a stranger answers. sigmoe exits with 4
(network) or 3 (model), never hangs, never crashes; of what it writes to stderr one line starts with
"sigmoe" (a log line starts with its time) and holds the words asked for.
"""
import argparse
import os
import shutil
import socket
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import (Failure, TINY, Workers, main_of, run_sigmoe, safetensors_read,  # noqa: E402
                     safetensors_write)

EXIT_USAGE, EXIT_MODEL, EXIT_NET = 2, 3, 4
CRASH_WORDS = ("Sanitizer", "runtime error:", "Assertion")
MODEL = os.path.join(TINY, "mixtral")
HANG_S = 120


def judge(what, result, statuses, says):
    status, _, stderr = result
    if status < 0 or any(word in stderr for word in CRASH_WORDS):
        raise Failure(f"{what}: crashed (status {status}): {stderr[-2000:]}")
    if status not in statuses:
        raise Failure(f"{what}: exit {status}, not {' or '.join(map(str, statuses))}: {stderr!r}")
    lines = [line for line in stderr.splitlines() if line.startswith("sigmoe")]
    if len(lines) != 1:
        raise Failure(f"{what}: {len(lines)} lines that start with sigmoe, not one: {stderr!r}")
    absent = [word for word in says if word not in lines[0]]
    if absent:
        raise Failure(f"{what}: {absent} not in {lines[0]!r}")
    print(f"{what}: {lines[0]}")


def run_at(binary, model, at, *options):
    return run_sigmoe(binary, ["run", model, "--workers-at", at, "--token-ids", "3,4",
                               "--max-tokens", "2", *options], timeout=HANG_S)


def other_weights(folder):
    """The same model but for one weight of one expert."""
    shutil.copytree(MODEL, folder)
    path = os.path.join(folder, "model.safetensors")
    tensors = safetensors_read(path)
    name = "model.layers.0.block_sparse_moe.experts.5.w1.weight"
    dtype, shape, raw = tensors[name]
    tensors[name] = (dtype, shape, raw[:4] + bytes(4) + raw[8:])
    safetensors_write(path, tensors)
    return folder


def check_models(binary, tmp):
    twin = other_weights(os.path.join(tmp, "twin"))
    with Workers(binary, twin, "f32", ["0-5"]) as at:
        judge("worker with other weights", run_at(binary, MODEL, at, "--precision", "f32"),
              [EXIT_MODEL, EXIT_NET], [at])
    with Workers(binary, os.path.join(TINY, "olmoe"), "f32", ["0-9"]) as at:
        judge("worker of another model", run_at(binary, MODEL, at, "--precision", "f32"),
              [EXIT_MODEL, EXIT_NET], [at])
    with Workers(binary, MODEL, "bf16", ["0-5"]) as at:
        judge("worker of another precision", run_at(binary, MODEL, at, "--precision", "f32"),
              [EXIT_MODEL, EXIT_NET], [at, "f32"])
    check_activations(binary, tmp)


def check_activations(binary, tmp):
    """Rows made integers here and not there: refused, whichever side is told; floats do not care."""
    model = os.path.join(tmp, "quantised")
    status, _, stderr = run_sigmoe(binary, ["quantize", MODEL, "-o", model])
    if status != 0:
        raise Failure(f"sigmoe quantize: {stderr}")
    for theirs, ours in (("bf16", "int8"), ("int8", "bf16")):
        with Workers(binary, model, "bf16", ["0-5"], ["--activations", theirs]) as at:
            judge(f"worker of {theirs} activations",
                  run_at(binary, model, at, "--activations", ours), [EXIT_MODEL, EXIT_NET],
                  [at, "--activations", theirs, ours])
    with Workers(binary, MODEL, "bf16", ["0-5"], ["--activations", "bf16"]) as at:
        status, _, stderr = run_at(binary, MODEL, at)
        if status != 0:
            raise Failure(f"a float model, for which --activations means nothing: {stderr}")


def check_holdings(binary):
    with Workers(binary, MODEL, "f32", ["2"]) as at:
        judge("worker that holds nothing asked for",
              run_at(binary, MODEL, at, "--precision", "f32"), [EXIT_NET], ["expert"])
    for device, says in (("gpu", "neither cpu nor cuda"), ("cuda:x", "neither cpu nor cuda"),
                         ("cuda:99", "--device cuda:99")):
        result = run_sigmoe(binary, ["worker", "--model", MODEL, "--device", device, "--listen",
                                     "tcp://127.0.0.1:*"], timeout=HANG_S)
        judge(f"device {device}", result, [EXIT_USAGE], [says])
    result = run_sigmoe(binary, ["worker", "--model", MODEL, "--experts", "6-9",
                                 "--listen", "tcp://127.0.0.1:*"], timeout=HANG_S)
    judge("worker asked for experts the model has not", result, [EXIT_USAGE, EXIT_MODEL], ["6"])
    result = run_sigmoe(binary, ["worker", "--model", os.path.join(TINY, "llama"),
                                 "--experts", "0", "--listen", "tcp://127.0.0.1:*"],
                        timeout=HANG_S)
    judge("worker of a dense model", result, [EXIT_USAGE, EXIT_MODEL], [])


def check_addresses(binary):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run_sigmoe(binary, ["worker", "--model", MODEL, "--experts", "0-5",
                                     "--listen", f"tcp://127.0.0.1:{port}"], timeout=HANG_S)
        judge("occupied port", result, [EXIT_NET], [port])
    for listen in ("tcp://127.0.0.1", "tcp://127.0.0.1:99999", "carrier://pigeon", "",
                   "ipc:///no/such/folder/socket"):
        result = run_sigmoe(binary, ["worker", "--model", MODEL, "--experts", "0-5",
                                     "--listen", listen], timeout=HANG_S)
        judge(f"listen at {listen!r}", result, [EXIT_USAGE, EXIT_NET], [listen])
    for at in ("carrier://pigeon", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:1,,"):
        judge(f"workers at {at!r}", run_at(binary, MODEL, at), [EXIT_USAGE, EXIT_NET], [])


def check_silence(binary):
    """Nobody listens; and one who listens but speaks no ZeroMQ."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        at = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        judge("nobody there", run_at(binary, MODEL, at), [EXIT_NET], [at])
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        at = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        threading.Thread(target=answer_noise, args=(stranger,), daemon=True).start()
        judge("a stranger answers", run_at(binary, MODEL, at), [EXIT_NET], [at])


def answer_noise(listener):
    try:
        while True:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8)
    except OSError:
        return  # the listener was closed: the test is over


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-refusals-") as tmp:
        check_models(binary, tmp)
    check_holdings(binary)
    check_addresses(binary)
    check_silence(binary)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
