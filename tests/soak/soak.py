#!/usr/bin/env python3
"""Many streaming clients for a long time, a third of which go away at random, against `sigmoe serve`
and worker processes.

Holds that (1) every answer is, event for event, the answer that the same request got when it was
alone, whatever the company, and a part of it where the client went away; (2) once the clients have
gone every sequence, KV page and file descriptor is free again; (3) the server's memory does not
grow; (4) the server ends with status 0, which under a sanitizer means without a report.

    soak.py --sigmoe build/release/sigmoe --seconds 600 --kill-workers 7 --curve curve.json
"""
import argparse
import asyncio
import json
import os
import random
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "suite"))
from harness import Failure, main_of  # noqa: E402
from mortal import MortalWorkers, total  # noqa: E402
from served import Process, Served, make_model  # noqa: E402

N_KIND = 24       # different requests
WARM_UP = 0.25    # of the time, before memory is compared
MIB = 1 << 20
ERRORS_SHOWN = 5


# ---- what is asked -------------------------------------------------------------------------------


def make_requests(rng):
    """[(path, body)]: chat and completions, greedy and seeded, short and long, with logprobs, stop
    strings, penalties, several choices, and a schema."""
    out = []
    for i in range(N_KIND):
        body = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
                "max_tokens": rng.choice((4, 30, 90, 250)), "seed": i,
                "temperature": rng.choice((0, 0.8, 1.2))}
        words = " ".join(rng.choice(("gate", "专家", "the worker", "\n", "7")) for _ in
                         range(rng.choice((1, 8, 60))))
        body.update(rng.choice((
            {}, {"logprobs": 2}, {"stop": ["gate", "the expert"]}, {"n": 3, "max_tokens": 30},
            {"presence_penalty": 1.0, "repetition_penalty": 1.2}, {"top_k": 20, "top_p": 0.9})))
        if i % 3 == 0:
            body["messages"] = [{"role": "user", "content": words}]
            if "logprobs" in body:
                body.update(logprobs=True, top_logprobs=2)
            out.append(("/v1/chat/completions", body))
        else:
            body["prompt"] = words if i % 3 == 1 else [rng.randrange(600) for _ in range(20)]
            out.append(("/v1/completions", body))
    out.append(("/v1/completions", {
        "stream": True, "prompt": "a", "max_tokens": 200, "seed": 1, "response_format": {
            "type": "json_schema", "json_schema": {"name": "a", "schema": {
                "type": "object", "properties": {"n": {"type": "integer", "maximum": 99},
                                                 "w": {"enum": ["gate", "专家"]}},
                "required": ["n", "w"], "additionalProperties": False}}}}))
    return out


def request_bytes(path, body):
    text = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n").encode() + text


class Events:
    """Reads a chunked response bit by bit into comparable events: without id, time and who computed
    them, and each choice by itself, because in which order choices take turns is free."""

    def __init__(self):
        self.raw, self.body, self.head = b"", b"", None
        self.n, self.ended = 0, False
        self.of_choice = {}

    def add(self, choice, event):
        self.of_choice.setdefault(choice, []).append(event)
        self.n += 1

    def feed(self, data):
        self.raw += data
        if self.head is None:
            head, mark, rest = self.raw.partition(b"\r\n\r\n")
            if not mark:
                return
            self.head, self.raw = head.decode(), rest
            if not self.head.startswith("HTTP/1.1 200"):
                raise Failure(f"{self.head} {rest[:300]}")
        while not self.ended:
            size, mark, rest = self.raw.partition(b"\r\n")
            if not mark or len(rest) < int(size, 16) + 2:
                break
            n = int(size, 16)
            self.body, self.raw = self.body + rest[:n], rest[n + 2:]
            self.ended = n == 0
        *whole, self.body = self.body.split(b"\n\n")
        for event in whole:
            text = event.decode()  # a half character would fail here
            if text.startswith(":"):
                continue
            if text == "data: [DONE]":
                self.add("end", text)
                continue
            value = json.loads(text[6:])
            value.pop("id", None)
            value.pop("created", None)
            value.pop("sigmoe", None)  # who computed it, and how long it took
            (value.get("usage") or {}).pop("prompt_tokens_details", None)  # what others computed
            choices = value.get("choices")
            self.add(choices[0]["index"] if choices else "end", value)


# ---- clients -------------------------------------------------------------------------------------


class Tally:
    def __init__(self):
        self.whole = self.left = self.refused = self.events = 0
        self.wrong = []


def check_part(tally, kind, got, want):
    """got is want, or as much of it as had come."""
    for choice, events in got.of_choice.items():
        lone = want.of_choice.get(choice, [])
        if events != (lone if got.ended else lone[:len(events)]):
            at = next((i for i, (g, w) in enumerate(zip(events, lone)) if g != w), len(events))
            tally.wrong.append(f"request {kind}, choice {choice} differs from the lone answer at "
                               f"event {at} of {len(events)}/{len(lone)}: {events[at:at + 1]} for "
                               f"{lone[at:at + 1]}")
    if got.ended and got.of_choice.keys() != want.of_choice.keys():
        tally.wrong.append(f"request {kind}: choices {list(got.of_choice)}")


async def ask(port, data, rng=None, leaves=False, slow=False):
    """(Events, whether it came whole). One that leaves closes or resets, early or late."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen = Events()
    try:
        cut = rng.choice((0, 0.5, 1, 1, 1)) if leaves else 1
        writer.write(data[:int(len(data) * cut)])
        await writer.drain()
        limit = int(rng.expovariate(1 / 20000)) if leaves and cut == 1 else None
        n = 0
        while cut == 1 and (limit is None or n < limit):
            piece = await asyncio.wait_for(reader.read(rng.choice((64, 4096)) if slow else 65536),
                                           120)
            if not piece:
                break
            n += len(piece)
            seen.feed(piece)
            if slow:
                await asyncio.sleep(0.005)
        if leaves and rng.random() < 0.5:  # a reset
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return seen, seen.ended
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def client(number, port, requests, alone, until, tally, seed):
    rng = random.Random(f"{seed} {number}")
    while time.monotonic() < until and len(tally.wrong) < ERRORS_SHOWN:
        kind = rng.randrange(len(requests))
        leaves, slow = number % 3 == 0, number % 16 == 1
        try:
            seen, ended = await ask(port, requests[kind], rng, leaves, slow)
        except (Failure, OSError, ValueError, asyncio.TimeoutError) as bad:
            tally.wrong.append(f"request {kind}: {type(bad).__name__} {bad}")
            continue
        tally.events += seen.n
        tally.whole += ended
        tally.left += not ended
        if not ended and not leaves:
            tally.wrong.append(f"request {kind} ended after {seen.n} events: {seen.body}")
        check_part(tally, kind, seen, alone[kind])


# ---- workers that die ----------------------------------------------------------------------------


async def die_and_return(workers, every_s, until, rng):
    while time.monotonic() + every_s < until:
        await asyncio.sleep(every_s * rng.uniform(0.6, 1.2))
        i = rng.randrange(2)
        workers.kill(i)
        await asyncio.sleep(rng.choice((0, 0.3, 3)))
        workers.start(i)
        await asyncio.get_running_loop().run_in_executor(None, workers.wait_ready, i)


# ---- what is measured ----------------------------------------------------------------------------


def sample(server, started, tally):
    p, m = server.proc(), server.metrics()
    return {"t": round(time.monotonic() - started, 1), "rss": p.rss(), "fds": p.fds(),
            "threads": p.threads(), "whole": tally.whole, "left": tally.left,
            "events": tally.events, "running": m["sigmoe_requests_running"],
            "waiting": m["sigmoe_requests_waiting"], "kv": m["sigmoe_kv_cache_usage_ratio"],
            "worker_rss": [Process.rss(c) for c in p.children()]}


def show(s):
    print(f"{s['t']:7.1f} s  rss {s['rss'] / MIB:7.1f} MiB  fds {s['fds']:4d}  "
          f"running {s['running']:3.0f}  waiting {s['waiting']:3.0f}  kv {s['kv']:5.1%}  "
          f"whole {s['whole']}  left {s['left']}  events {s['events']}", flush=True)


async def watch(server, started, until, every_s, tally, curve):
    loop = asyncio.get_running_loop()
    while time.monotonic() < until and len(tally.wrong) < ERRORS_SHOWN:
        curve.append(await loop.run_in_executor(None, sample, server, started, tally))
        show(curve[-1])
        await asyncio.sleep(every_s)


async def storm(a, server, workers, requests, alone, tally, curve):
    started = time.monotonic()
    until = started + a.seconds
    jobs = [client(i, server.port, requests, alone, until, tally, a.seed)
            for i in range(a.clients)]
    jobs.append(watch(server, started, until, max(0.5, a.seconds / 60), tally, curve))
    if a.kill_workers:
        jobs.append(die_and_return(workers, a.kill_workers, until, random.Random(a.seed)))
    await asyncio.gather(*jobs)


def judge_memory(curve, grow_mib):
    settled = [s for s in curve if s["t"] >= WARM_UP * curve[-1]["t"]]
    third = max(1, len(settled) // 3)
    first = statistics.median(s["rss"] for s in settled[:third])
    last = statistics.median(s["rss"] for s in settled[-third:])
    print(f"memory: median {first / MIB:.1f} MiB in the first third after warming up, "
          f"{last / MIB:.1f} MiB in the last")
    if last > first + grow_mib * MIB:
        raise Failure(f"the server's memory grew by {(last - first) / MIB:.1f} MiB")


def soak(a, server, workers):
    kinds = make_requests(random.Random(a.seed))
    requests = [request_bytes(*k) for k in kinds]
    alone = []
    for i, data in enumerate(requests):
        seen, ended = asyncio.run(ask(server.port, data))
        if not ended or seen.of_choice["end"][-1] != "data: [DONE]":
            raise Failure(f"request {i} alone: {seen.head} {seen.of_choice}")
        alone.append(seen)
    server.wait_idle(a.idle_s)
    before = sample(server, time.monotonic(), Tally())
    print(f"{len(alone)} kinds of requests, {sum(s.n for s in alone)} events alone; {a.clients} "
          f"clients for {a.seconds} s, seed {a.seed}", flush=True)
    tally, curve = Tally(), []
    asyncio.run(storm(a, server, workers, requests, alone, tally, curve))
    for line in tally.wrong[:ERRORS_SHOWN]:
        print("WRONG:", line[:2000])
    metrics = server.wait_idle(a.idle_s)
    until = time.monotonic() + a.idle_s
    while (after := sample(server, time.monotonic(), tally))["fds"] > before["fds"] + a.extra_fds:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    if a.curve:
        with open(a.curve, "w", encoding="ascii") as f:
            json.dump({"before": before, "curve": curve, "after": after, "metrics": metrics}, f)
    if tally.wrong:
        raise Failure("answers changed by the company, or lost")
    if tally.whole < a.clients or tally.left < a.clients // 3:
        raise Failure(f"only {tally.whole} whole answers, {tally.left} left: this was no storm")
    if after["fds"] > before["fds"] + a.extra_fds or after["threads"] != before["threads"]:
        raise Failure(f"descriptors {before['fds']} -> {after['fds']}, threads "
                      f"{before['threads']} -> {after['threads']}")
    print(f"idle again: kv 0, fds {before['fds']} -> {after['fds']}, threads {after['threads']}, "
          f"rss {before['rss'] / MIB:.1f} -> {after['rss'] / MIB:.1f} MiB")
    if workers:
        left, again, here = (total(metrics, f"sigmoe_{n}_total") for n in (
            "worker_failures", "expert_replans", "expert_local_slots"))
        print(f"{workers.n_killed} workers killed, {left:.0f} times one left the placement, "
              f"{again:.0f} calls planned again, {here:.0f} slots computed here")
        workers.wait_used(server, 2, a.idle_s)
    judge_memory(curve, a.grow_mib)


def check(a):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    with tempfile.TemporaryDirectory(prefix="sigmoe-soak-") as tmp:
        model = make_model(a.sigmoe, os.path.join(tmp, "tiny"))
        options = ["--max-queue", "4096", "--kv-tokens", a.kv_tokens]
        if not a.kill_workers:
            with Served(a.sigmoe, model, *options, workers=2) as server:
                soak(a, server, None)
            return
        with MortalWorkers(a.sigmoe, model) as workers:
            with Served(a.sigmoe, model, *options, "--workers-at", ",".join(workers.endpoints),
                        workers=0) as server:
                soak(a, server, workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--sigmoe", default="build/release/sigmoe", help="the program to test")
    add("--seconds", type=float, default=600)
    add("--clients", type=int, default=64)
    add("--seed", type=int, default=1)
    add("--kill-workers", type=float, default=0, metavar="S",
        help="kill a worker about every S seconds and start it again; 0: never")
    add("--kv-tokens", type=int, default=8192, help="small, so that requests wait for pages")
    add("--grow-mib", type=float, default=4, help="growth of memory that is let pass")
    add("--idle-s", type=float, default=20, help="for the last pages to be free")
    add("--extra-fds", type=int, default=0)
    add("--curve", metavar="FILE", help="write what was measured as JSON")
    a = parser.parse_args()
    main_of(lambda: check(a))


if __name__ == "__main__":
    main()
