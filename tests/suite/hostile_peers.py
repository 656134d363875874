#!/usr/bin/env python3
"""Peers that mean harm or know no better, against `sigmoe serve`: requests that two parsers could
read differently, garbage, connections cut anywhere, senders and readers that are slow for ever.
Each gets one error or is cut off, nobody else waits for it, and afterwards nothing is left of it.
A server that is asked to end lets streams come to their end.
"""
import argparse
import json
import os
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, main_of  # noqa: E402
from served import Served, make_model  # noqa: E402

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"  # must never be answered
ASK = json.dumps({"prompt": "a", "max_tokens": 3}).encode()


def sized(body, *fields):
    return HEAD + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


# What proxies and servers are known to read differently. One answer, 4xx or 5xx, and the end.
DOUBTFUL = {
    "two lengths": sized(ASK + HIDDEN, b"Content-Length: %d" % len(ASK),
                         b"Content-Length: %d" % len(ASK + HIDDEN)),
    "length and chunked": sized(b"0\r\n\r\n" + HIDDEN, b"Content-Length: 5",
                                b"Transfer-Encoding: chunked"),
    "chunked and length": sized(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding: chunked",
                                b"Content-Length: 5"),
    "chunked twice": sized(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding: chunked, chunked"),
    "another coding": sized(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding: gzip, chunked"),
    "a coding with a tab": sized(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding: \x0bchunked"),
    "a blank before the colon": sized(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding : chunked"),
    "a folded field": sized(b"0\r\n\r\n" + HIDDEN, b"X: a", b" Transfer-Encoding: chunked"),
    "a plus sign": sized(ASK + HIDDEN, b"Content-Length: +%d" % len(ASK)),
    "a negative length": sized(ASK + HIDDEN, b"Content-Length: -1"),
    "a length in hex": sized(ASK + HIDDEN, b"Content-Length: 0x5"),
    "a list of lengths": sized(ASK + HIDDEN, b"Content-Length: 5, 5"),
    "a length past 64 bits": sized(ASK + HIDDEN, b"Content-Length: 18446744073709551621"),
    "a chunk with an extension": sized(b"0;a=\r\n\r\n" + HIDDEN, b"Transfer-Encoding: chunked"),
    "a chunk size with a sign": sized(b"-1\r\n\r\n" + HIDDEN, b"Transfer-Encoding: chunked"),
    "a chunk size past 64 bits": sized(b"1" * 17 + b"\r\n\r\n" + HIDDEN,
                                       b"Transfer-Encoding: chunked"),
    "a chunk without its end": sized(b"5\r\nabcdefg\r\n0\r\n\r\n" + HIDDEN,
                                     b"Transfer-Encoding: chunked"),
    "a trailer": sized(b"0\r\nContent-Length: 9\r\n\r\n" + HIDDEN, b"Transfer-Encoding: chunked"),
    "lone line feeds": b"GET /health HTTP/1.1\nHost: localhost\n\n" + HIDDEN,
    "a lone carriage return": b"GET /health HTTP/1.1\r\nHost: a\rX: b\r\n\r\n" + HIDDEN,
    "a NUL in a field": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n" + HIDDEN,
    "no host": b"GET /health HTTP/1.1\r\n\r\n" + HIDDEN,
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n" + HIDDEN,
    "an absolute target": b"GET http://b/health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /health\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(range(200)) + HIDDEN,
    "many fields": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 5000 + b"\r\n" + HIDDEN,
    "a long line": b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a body past the limit": sized(b"", b"Content-Length: 99999999999"),
}


def talk(port, data, timeout=20):
    """Everything that is answered until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        try:
            s.sendall(data)
        except OSError:
            pass  # refused while we were sending: what it said is there
        out = b""
        try:
            while piece := s.recv(65536):
                out += piece
        except ConnectionResetError:
            pass
        except TimeoutError:
            raise Failure(f"the connection stays open after {data[:60]!r}: {out[:200]!r}") from None
        return out


def statuses_in(out):
    return re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", out)


def check_doubtful(server):
    for what, data in DOUBTFUL.items():
        out = talk(server.port, data)
        status = out[9:12]
        if len(statuses_in(out)) != 1 or status[:1] not in (b"4", b"5") or b'"list"' in out:
            raise Failure(f"{what}: {out[:300]!r}")
        if b"Connection: close" not in out or "error" not in json.loads(
                out.split(b"\r\n\r\n", 1)[1]):
            raise Failure(f"{what}: no error in words and an end: {out[:300]!r}")
    print(f"{len(DOUBTFUL)} doubtful requests: one error each, and closed")


def check_pipelining(server):
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    last = get + b"Connection: close\r\n\r\n"
    wrong_body = sized(b"{]", b"Content-Length: 2")
    out = talk(server.port, get + b"\r\n" + wrong_body + wrong_body + last)
    statuses = statuses_in(out)
    if statuses != [b"200", b"400", b"400", b"200"]:
        raise Failure(f"a wrong body between good requests: {statuses}")
    out = talk(server.port, get + b"\r\n" + b"BAD\r\n\r\n" + last)
    statuses = statuses_in(out)
    if statuses != [b"200", b"400"]:
        raise Failure(f"after a broken request another is read: {statuses}")
    stream = sized(json.dumps({"prompt": "a", "max_tokens": 30, "stream": True,
                               "ignore_eos": True}).encode(), b"Content-Length: 71")
    length = len(stream.split(b"\r\n\r\n", 1)[1])
    stream = stream.replace(b": 71", b": %d" % length)
    out = talk(server.port, stream + stream + last)
    if out.count(b"data: [DONE]") != 2 or statuses_in(out) != [b"200"] * 3:
        raise Failure(f"two streams pipelined: {out[-300:]!r}")
    print("pipelining: in order, on after wrong bodies, never on after a broken request")


def check_names(server):
    """A page may give its own name loopback's address and then ask in its own name."""
    get = "GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
    port = server.port
    for name, want in (("127.0.0.1", b"200"), (f"127.0.0.1:{port}", b"200"), ("[::1]:1", b"200"),
                       ("LOCALHOST:80", b"200"), ("127.9.8.7", b"200"),
                       ("evil.example", b"403"), ("127.evil.example", b"403"),
                       ("127.0.0.1.evil.example:80", b"403"), ("localhost.evil.example", b"403"),
                       ("127.0.0.1.", b"403"), ("10.0.0.1", b"403"), ("[::2]", b"403"),
                       ("notlocalhost", b"403"), ("127.1", b"403")):
        got = statuses_in(talk(port, (get % name).encode()))
        if got != [want]:
            raise Failure(f"asked in the name of {name}: {got}, not {want}")
    out = talk(port, (get % "localhost").encode().replace(
        b"\r\nConn", b"\r\nOrigin: http://evil.example\r\nConn"))
    if statuses_in(out) != [b"403"]:
        raise Failure(f"a page of another origin: {out[:200]!r}")
    print("only loopback's own names are answered to")


def hang_up(s, rng):
    if rng.random() < 0.5:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def check_cut(server, rng):
    body = json.dumps({"prompt": ["a"] * 3, "n": 2, "max_tokens": 200, "stream": True,
                       "ignore_eos": True}).encode()
    whole = sized(body, b"Content-Length: %d" % len(body), b"Connection: close")
    for i in range(400):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        kind = i % 4
        if kind == 0:
            s.sendall(whole[:rng.randrange(len(whole))])
        elif kind == 1:
            s.sendall(rng.randbytes(rng.randrange(1, 3000)))
        elif kind == 2:
            s.sendall(whole)
        else:
            s.sendall(whole)
            s.recv(rng.randrange(1, 20000))
        hang_up(s, rng)
    server.wait_idle()
    print("400 connections cut anywhere: nothing runs any more")


class Slow(threading.Thread):
    """Peers that send a byte now and then, heads and bodies, and peers that never read."""

    def __init__(self, server, n):
        super().__init__(daemon=True)
        self.server, self.n, self.stopped, self.still_open = server, n, False, None

    def open(self, data, small=False):
        s = socket.socket()
        if small:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", self.server.port))
        s.sendall(data)
        return s

    def run(self):
        body = json.dumps({"prompt": "a", "max_tokens": 1000, "ignore_eos": True,
                           "logprobs": 20, "stream": True}).encode()
        senders = [self.open(b"GET /health HTTP/1.1\r\nX: ") for _ in range(self.n)]
        senders += [self.open(sized(b"{", b"Content-Length: 100000")) for _ in range(self.n)]
        readers = [self.open(sized(body, b"Content-Length: %d" % len(body)), True)
                   for _ in range(8)]
        while not self.stopped:
            for s in senders:
                try:
                    s.send(b"a")
                except OSError:
                    pass
            time.sleep(0.5)
        self.still_open = 0
        for s in senders[:self.n]:
            s.settimeout(5)
            try:
                while s.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            except TimeoutError:
                self.still_open += 1
        for s in senders + readers:
            s.close()


def check_slow(server, head_timeout_s):
    slow = Slow(server, 60)
    started = time.monotonic()
    slow.start()
    longest = 0.0
    while time.monotonic() < started + head_timeout_s + 3:
        before = time.monotonic()
        status, _ = server.post("/v1/completions", {"prompt": "a", "max_tokens": 5})
        if status != 200:
            raise Failure(f"beside slow peers: {status}")
        longest = max(longest, time.monotonic() - before)
        time.sleep(0.05)
    slow.stopped = True
    slow.join(60)
    if slow.still_open != 0:
        raise Failure(f"{slow.still_open} slow heads are still open after {head_timeout_s} s")
    if longest > 5:
        raise Failure(f"beside slow peers an answer took {longest:.1f} s")
    server.wait_idle()
    print(f"120 slow senders and 8 that never read: others wait {longest:.2f} s at most")


def check_end(binary, model):
    with Served(binary, model) as server:
        got = []
        body = {"prompt": "a", "max_tokens": 900, "ignore_eos": True, "n": 8}

        def read():
            got.append(server.stream("/v1/completions", body))
        readers = [threading.Thread(target=read) for _ in range(4)]
        for r in readers:
            r.start()
        until = time.monotonic() + 20
        # All four are there: one that only connects now would rightly be turned away.
        while server.metrics()["sigmoe_http_jobs"] < 4 and time.monotonic() < until:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for r in readers:
            r.join(60)
        tokens = [sum(1 for e in events if e["choices"][0]["finish_reason"]) for events in got]
        if tokens != [8] * 4:
            raise Failure(f"asked to end, the server cut streams: {tokens}")
        server.process.wait(timeout=30)
        print("asked to end, it lets streams end")


def check(binary):
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="sigmoe-hostile-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny"))
        with Served(binary, model, "--max-body", "1M") as server:
            server.post("/v1/completions", {"prompt": "a"})
            server.wait_idle()
            before = server.proc().fds()
            check_doubtful(server)
            check_pipelining(server)
            check_names(server)
            check_cut(server, rng)
            check_slow(server, 10)
            until = time.monotonic() + 10
            while server.proc().fds() > before and time.monotonic() < until:
                time.sleep(0.1)
            if server.proc().fds() > before:
                raise Failure(f"descriptors: {before} before, {server.proc().fds()} after")
        check_end(binary, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
