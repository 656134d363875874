#!/usr/bin/env python3
"""Keys keep strangers out of a cluster and hide what passes in it.

With one key for all, and with a key a host, logits are those of a run in one process. A coordinator
without the key, with another key, or before a worker with another key ends with 4 and a line that
says so. What passes between a coordinator and a worker is taken down by a relay: in the clear its
bytes show Hello's text and the rows' zeros, with keys neither, and a bit turned on the way ends the
connection and not in another result (on one host rows would take another way: --no-shm). Workers that `sigmoe run` starts get its key.
"""
import argparse
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import Failure, TINY, Workers, main_of, run_sigmoe  # noqa: E402

MODEL = os.path.join(TINY, "mixtral")
HALVES = ["0-2", "3-5"]


def new_key(binary, path):
    status, out, err = run_sigmoe(binary, ["keys", "new", path])
    if status:
        raise Failure(f"sigmoe keys new: exit {status}: {err}")
    public = out.decode().split()[-1]
    shown = run_sigmoe(binary, ["keys", "show", path])[1].decode().strip()
    if not re.fullmatch("[0-9a-f]{64}", public) or shown != public:
        raise Failure(f"sigmoe keys show says {shown!r} of a key whose public half is {public!r}")
    return public


def logits(binary, tmp, *options):
    """The logits of a run, in bytes."""
    dump = os.path.join(tmp, "logits.f32")
    status, _, err = run_sigmoe(binary, ["run", MODEL, "--token-ids", "3,4,5,6", "--max-tokens", "8",
                                         "--ignore-eos", "--dump-logits", dump, *options])
    if status:
        raise Failure(f"run {' '.join(options)}: exit {status}: {err}")
    with open(dump, "rb") as f:
        return f.read()


def refused(binary, what, says, *options):
    status, _, err = run_sigmoe(binary, ["run", MODEL, "--token-ids", "3", "--max-tokens", "1",
                                         *options], timeout=120)
    if status != 4 or says not in err:
        raise Failure(f"{what}: exit {status}, not 4 with {says!r}: {err!r}")
    print(f"{what}: {err.strip().splitlines()[-1][:200]}")


class Relay:
    """A relay before an endpoint, which takes down what passes and may turn a bit of it."""

    def __init__(self, endpoint, turn_after=None):
        host, port = endpoint[len("tcp://"):].rsplit(":", 1)
        self.to, self.seen, self.turn_after, self.turned = (host, int(port)), bytearray(), turn_after, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here = self.listener.accept()[0]
                there = socket.create_connection(self.to)
            except OSError:
                return
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        passed = 0
        try:
            while data := a.recv(65536):
                passed += len(data)
                self.seen += data
                if self.turn_after and passed > self.turn_after and not self.turned:
                    self.turned = 1
                    data = data[:-1] + bytes([data[-1] ^ 1])
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def check_one_key(binary, tmp, calm):
    key, other = os.path.join(tmp, "cluster.key"), os.path.join(tmp, "other.key")
    new_key(binary, key)
    new_key(binary, other)
    with Workers(binary, MODEL, "bf16", HALVES, ["--wire-key", key]) as at:
        if logits(binary, tmp, "--workers-at", at, "--wire-key", key) != calm:
            raise Failure("with keys the logits are others")
        refused(binary, "a coordinator without a key", "--wire-key", "--workers-at", at)
        refused(binary, "a coordinator with another key", "key", "--workers-at", at,
                "--wire-key", other)
        for encrypted in (1, 0):
            check_relay(binary, tmp, calm, at if encrypted else None, key)
    if logits(binary, tmp, "--workers", "2", "--transport", "tcp", "--wire-key", key) != calm:
        raise Failure("with workers started with a key the logits are others")


def check_relay(binary, tmp, calm, at, key):
    """Through a relay before the first worker; at None: of a cluster in the clear."""
    if at is None:
        with Workers(binary, MODEL, "bf16", HALVES) as clear:
            relay, rest = relayed(clear)
            same = logits(binary, tmp, "--workers-at", rest, "--no-shm") == calm
        if not same or b"coordinator" not in relay.seen or bytes(16) not in relay.seen:
            raise Failure("the relay sees nothing in the clear: it cannot judge")
        return
    relay, rest = relayed(at)
    if logits(binary, tmp, "--workers-at", rest, "--wire-key", key, "--no-shm") != calm:
        raise Failure("through a relay the logits are others")
    body = bytes(relay.seen)
    handshake = body.find(b"READY")  # CURVE's own command; before it come its padded greetings
    if b"coordinator" in body or handshake < 0 or bytes(16) in body[handshake + 200:]:
        raise Failure("what passes is not encrypted")
    relay, rest = relayed(at, turn_after=4000)
    if logits(binary, tmp, "--workers-at", rest, "--wire-key", key,
              "--no-shm") != calm or not relay.turned:
        raise Failure("a bit turned on the way changed the logits, or none was turned")


def relayed(at, turn_after=None):
    first, rest = at.split(",", 1)
    relay = Relay(first, turn_after)
    return relay, f"{relay.endpoint},{rest}"


def check_key_a_host(binary, tmp, calm):
    keys = [os.path.join(tmp, f"host{i}.key") for i in range(3)]
    public = [new_key(binary, key) for key in keys]
    allow = os.path.join(tmp, "coordinators.pub")
    with open(allow, "w") as f:
        f.write(f"# who may ask\n{public[2]} the coordinator\n")
    workers = [Workers(binary, MODEL, "bf16", [half], ["--wire-key", key, "--allow", allow])
               for half, key in zip(HALVES, keys)]
    with workers[0] as a:
        with workers[1] as b:
            at = f"{a}#{public[0]},{b}#{public[1]}"
            if logits(binary, tmp, "--workers-at", at, "--wire-key", keys[2]) != calm:
                raise Failure("with a key a host the logits are others")
            refused(binary, "a host that is not allowed", "--allow", "--workers-at", at,
                    "--wire-key", keys[1])
            refused(binary, "workers that took each other's place", "key", "--workers-at",
                    f"{a}#{public[1]},{b}#{public[0]}", "--wire-key", keys[2])
            check_allowed_later(binary, tmp, calm, workers, allow, public[1],
                                "--workers-at", at, "--wire-key", keys[1])


def check_allowed_later(binary, tmp, calm, workers, allow, public, *options):
    """SIGHUP: a wrong file changes nothing, one with a line more lets another in."""
    before = open(allow).read()
    for text in ("no key\n", f"{before}{public} one more\n"):
        with open(allow, "w") as f:
            f.write(text)
        for w in workers:
            w.running[0].send_signal(signal.SIGHUP)
        if text.startswith("no key"):
            refused(binary, "a host that a wrong file does not allow", "--allow", *options)
    until = time.monotonic() + 20
    while True:  # when the signal arrives is the system's business
        try:
            if logits(binary, tmp, *options) == calm:
                return
            raise Failure("after SIGHUP the logits are others")
        except Failure:
            if time.monotonic() > until:
                raise


def test():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmoe", required=True)
    binary = os.path.abspath(parser.parse_args().sigmoe)
    with tempfile.TemporaryDirectory(prefix="sigmoe-keys-") as tmp:
        calm = logits(binary, tmp)
        check_one_key(binary, tmp, calm)
        check_key_a_host(binary, tmp, calm)
    print("strangers stay out, and nothing is read on the way")


if __name__ == "__main__":
    main_of(test)
