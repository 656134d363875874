#!/usr/bin/env python3
"""What the prefix cache is worth: time to first token of conversations that begin with the same system
prompt, from a server that remembers and from one that does not (`--no-prefix-cache`).

Both servers run at once and are asked in turn, one request at a time, so that a machine that drifts
drifts for both. Each user's text is another one; the first request to each server is not counted. The
tokens that come back must be the same: a faster answer that differs is no result. Printed: the median of
each, the median of the paired ratios, and how many tokens were found, as the servers say.

  bench/prefix.py --sigmoe build/release/sigmoe                   # a 6-layer bench-m2
  bench/prefix.py --sigmoe build/release/sigmoe --model ./olmoe --shared 512 --own 32
"""
import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKENIZER = os.path.join(ROOT, "tests", "fixtures", "tokenizer", "byte_level.json")
ID_MAX = 600  # any model's vocabulary has as many


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sigmoe", required=True)
    p.add_argument("--model", help="a checkpoint with a tokenizer; made from --shape when absent")
    p.add_argument("--shape", default="bench-m2")
    p.add_argument("--layers", type=int, default=6, help="of the synthetic model")
    p.add_argument("--shared", type=int, default=512, help="tokens of the system prompt")
    p.add_argument("--own", type=int, default=32, help="tokens of each user's text")
    p.add_argument("--tokens", type=int, default=4, help="generated tokens")
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--json", action="store_true")
    return p.parse_args()


def make_model(o, tmp):
    if o.model:
        return o.model
    folder = os.path.join(tmp, "model")
    subprocess.run([o.sigmoe, "synth", o.shape, "--layers", str(o.layers), "-o", folder], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.copy(TOKENIZER, os.path.join(folder, "tokenizer.json"))
    return folder


class Server:
    def __init__(self, o, model, *options):
        self.process = subprocess.Popen(
            [o.sigmoe, "serve", model, "--port", "0", "--admin", "none", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        words = self.process.stdout.readline().decode().split()
        if words[:1] != ["ready"]:
            self.end()
            sys.exit(f"serve said {words}")
        self.port = int(words[1].rsplit(":", 1)[1])

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=60)

    def ask(self, prompt, tokens):
        """(seconds to the first token, the tokens, how many were found)"""
        body = json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                           "stream": True, "return_token_ids": True,
                           "stream_options": {"include_usage": True}})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        start, first, ids, found = time.monotonic(), None, [], 0
        connection.request("POST", "/v1/completions", body)
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"{response.status}: {response.read()[:500]}")
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                sys.exit(f"{event['error']}")
            if event["choices"] and event["choices"][0].get("token_ids"):
                first = first or time.monotonic() - start
                ids += event["choices"][0]["token_ids"]
            if event.get("usage"):
                found = event["usage"]["prompt_tokens_details"]["cached_tokens"]
        connection.close()
        return first, ids, found


def measure(o, remembers, forgets):
    system = [(7 + 131 * i + i // 3) % ID_MAX for i in range(o.shared)]
    pairs, found = [], 0
    for run in range(o.runs + 1):
        prompt = system + [(11 + 17 * run + 29 * i) % ID_MAX for i in range(o.own)]
        order = (remembers, forgets) if run % 2 else (forgets, remembers)
        answer = {server: server.ask(prompt, o.tokens) for server in order}
        if answer[remembers][1] != answer[forgets][1]:
            sys.exit(f"other tokens: {answer[remembers][1]} and {answer[forgets][1]}")
        if run > 0:
            pairs.append((answer[remembers][0], answer[forgets][0]))
            found = answer[remembers][2]
    return pairs, found


def main():
    o = parse()
    with tempfile.TemporaryDirectory(prefix="sigmoe-prefix-") as tmp:
        model = make_model(o, tmp)
        servers = []
        try:
            servers.append(Server(o, model))
            servers.append(Server(o, model, "--no-prefix-cache"))
            pairs, found = measure(o, *servers)
        finally:
            for server in servers:
                server.end()
    on, off = (1e3 * statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratio = statistics.median(b / a for a, b in pairs)
    if o.json:
        print(json.dumps({"ttft_ms": {"on": on, "off": off}, "ratio": ratio, "found": found,
                          "prompt": o.shared + o.own, "pairs": pairs}))
        return
    print(f"{o.shared} shared and {o.own} own tokens, {o.runs} runs in turn, {found} tokens found\n"
          f"first token after {on:.1f} ms with the prefix cache, {off:.1f} ms without: "
          f"{ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
