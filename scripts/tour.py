#!/usr/bin/env python3
"""Starts two workers and a coordinator on loopback, asks a question in each domain over HTTP and says
who computed the answers; then serves until Ctrl-C. ./quickstart runs it after building.
"""
import argparse
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIGMOE = os.path.join(ROOT, "build", "release", "sigmoe")
WORK = os.path.join(ROOT, "build", "quickstart")
MODEL = os.path.join(ROOT, "models", "sigma-tiny")
QUESTIONS = {"zh": "高血压患者应该注意什么？",
             "en": "Tom has 5 apples and buys 7 more. How many apples does he have?",
             "code": "Write a Python function is_empty: Return True if the queue is empty.",
             "bilingual": "Translate into Chinese: I am very happy today.",
             "poetry": "以「春望」為題寫一首詩。"}
QUESTION = "Once upon a time"
READY_S, ANSWER_S = 120, 120


class Trouble(Exception):
    """What went wrong, in words for the person who typed ./quickstart."""


def find_model(given):
    if given or os.path.isdir(MODEL):
        return given or MODEL
    raise Trouble("there is no models/sigma-tiny; name a checkpoint: ./quickstart --model DIR")


# Processes ----------------------------------------------------------------------------------------


class Cluster:
    """Worker processes and a coordinator, ended on leaving, the coordinator first."""

    def __init__(self, model, port):
        self.model, self.port, self.running = model, port, []

    def __enter__(self):
        try:
            at = [self.start(f"worker-{i}", ["worker", "--model", self.model, "--part", f"{i}/2",
                                             "--name", f"worker-{i}", "--listen",
                                             "tcp://127.0.0.1:*"]) for i in (0, 1)]
            self.workers = [self.ready(*one) for one in at]
            self.url = self.ready(*self.start("coordinator", [
                "serve", self.model, "--workers-at", ",".join(self.workers), "--port",
                str(self.port)]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, name, arguments):
        log = os.path.join(WORK, f"{name}.log")

        def end_with_us():
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

        with open(log, "wb") as f:
            process = subprocess.Popen([SIGMOE, *arguments], stdin=subprocess.DEVNULL, stderr=f,
                                       stdout=subprocess.PIPE, start_new_session=True,
                                       preexec_fn=end_with_us)
        self.running.append(process)
        return process, name, log

    def ready(self, process, name, log):
        """The address in the line "ready ADDRESS ..." that workers and coordinator print."""
        if not select.select([process.stdout], [], [], READY_S)[0]:
            raise Trouble(f"the {name} is not ready after {READY_S} s; see {os.path.relpath(log)}")
        words = process.stdout.readline().decode(errors="replace").split()
        if len(words) < 2 or words[0] != "ready":
            with open(log, encoding="utf-8", errors="replace") as f:
                raise Trouble(f"the {name} did not start; {os.path.relpath(log)} says:\n"
                              f"{f.read()[-2000:]}")
        return words[1]

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait(self):
        """Until one of them ends, which is told, or Ctrl-C."""
        while all(process.poll() is None for process in self.running):
            time.sleep(0.3)
        raise Trouble(f"a process ended; the logs are in {os.path.relpath(WORK)}")


def choose_port(asked):
    if asked is not None:
        return asked
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", 8000))
        except OSError:
            return 0
    return 8000


# Questions ----------------------------------------------------------------------------------------


def get(url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as refused:
        raise Trouble(f"{url}: {refused.read().decode(errors='replace')[:500]}") from None
    except OSError as bad:
        raise Trouble(f"{url}: {bad}") from None


def ranges(ids):
    """0,1,2,5 as "0-2, 5"."""
    out = []
    for i in ids:
        if out and out[-1][1] == i - 1:
            out[-1][1] = i
        else:
            out.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def settled(url, tokens):
    """The status once its counters, which are taken twice a second, hold the last answer."""
    limit = time.monotonic() + 10
    while True:
        status = get(url + "/sigmoe/status")
        told = status["tokens"]["prompt"] + status["tokens"]["generated"]
        if told >= tokens or time.monotonic() > limit:
            return status
        time.sleep(0.1)


def who(answer, before, after):
    """Which workers computed an answer, and which experts were chosen between two statuses."""
    parts = [f"{w['worker']} {100 * w['share']:.0f} %" for w in answer["sigmoe"]["computed_by"]]
    chosen = {e for old, new in zip(before["load_total"], after["load_total"])
              for e, (a, b) in enumerate(zip(old, new)) if b > a}
    if not parts:
        return "the coordinator (this model is dense)"
    return f"{', '.join(parts)}; experts {ranges(sorted(chosen))}"


def ask(url, before, domain):
    """Asks in one domain ("": a model without any), prints the answer, returns the status after."""
    question = QUESTIONS.get(domain, QUESTION)
    body = {"temperature": 0.7, "seed": 1, "max_tokens": 60}
    if domain:
        body["domain"] = domain
    began = time.monotonic()
    if before["chat"]:
        body["messages"] = [{"role": "user", "content": question}]
        answer = get(url + "/v1/chat/completions", body)
        text = answer["choices"][0]["message"]["content"]
    else:
        answer = get(url + "/v1/completions", {**body, "prompt": question})
        text = question + answer["choices"][0]["text"]  # it goes on with the text
    seconds, usage = time.monotonic() - began, answer["usage"]
    counted = sum(before["tokens"].values()) + usage["prompt_tokens"] + usage["completion_tokens"]
    after = settled(url, counted - 1)  # the last token is never fed back
    if before["chat"]:
        text = f"{question.strip()}\n{text.strip() or '(nothing)'}"
    head = f"{domain or 'question'}:"
    print()
    for line in text.splitlines():
        print(f"{head:11s}{''.join(c for c in line if c.isprintable() or c == chr(9))}")
        head = ""
    print(f"{'':11s}-- {usage['completion_tokens']} tokens in {seconds:.2f} s by "
          f"{who(answer, before, after)}")
    return after


def tour(cluster):
    status = get(cluster.url + "/sigmoe/status")
    names = [d["name"] for d in status["domains"]]
    print(f"{status['model']}: {status['layers']} layers, {len(status['sparse_layers'])} of them "
          f"sparse with {status['experts']} experts"
          + (f" in {len(names)} domains" if names else "")
          + f"; a coordinator and {len(status['workers'])} workers, each a process.")
    for domain in names or [""]:
        status = ask(cluster.url, status, domain)
    return status["chat"]


def tell_how(url, chat):
    route, field = (("chat/completions", '"messages": [{"role": "user", "content": "Hello"}]')
                    if chat else ("completions", '"prompt": "Once upon a time", "max_tokens": 60'))
    print(f"\nThe server stays until Ctrl-C:\n"
          f"  page    {url}/\n"
          f"  curl    curl {url}/v1/{route} -d '{{{field}}}'\n"
          f"  chat    build/release/sigmoe chat {url}{'' if chat else ' --plain'}\n"
          f"  logs    build/quickstart/*.log", flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--once", action="store_true", help="stop after the questions")
    parser.add_argument("--model", help="a checkpoint with a tokenizer (models/sigma-tiny)")
    parser.add_argument("--port", type=int, help="of the server (8000, or a free one)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    os.makedirs(WORK, exist_ok=True)
    try:
        with Cluster(find_model(args.model), choose_port(args.port)) as cluster:
            chat = tour(cluster)
            if not args.once:
                tell_how(cluster.url, chat)
                cluster.wait()
    except KeyboardInterrupt:
        print("\nended")
    except Trouble as trouble:
        print(f"quickstart: {trouble}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
