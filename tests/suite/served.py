"""A served model for tests: `sigmoe serve` with worker processes over a tiny random MoE that is made
here, so that nothing outside of the tree is needed. Standard library only.

    with Served(binary, folder) as server:
        status, body = server.post("/v1/completions", {"prompt": "a"})
"""
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import TESTS, Failure, run_sigmoe, write_json

TOKENIZER = os.path.join(TESTS, "fixtures", "tokenizer", "byte_level.json")
CONFIG = {
    "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 8,
    "num_experts_per_tok": 2, "vocab_size": 640, "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "bos_token_id": 620, "eos_token_id": 622, "torch_dtype": "bfloat16"}
# ChatML with the tools as JSON in a system message.
CHAT_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools:{% for t in tools %} {{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
READY_S = 60
END_S = 30


def make_model(binary, folder, chat_template=CHAT_TEMPLATE, **changes):
    """Writes the checkpoint into folder (new) and returns it. The deviation of the weights is large:
    answers of near-uniform models are one token again and again."""
    with tempfile.TemporaryDirectory(prefix="sigmoe-config-") as tmp:
        config = os.path.join(tmp, "config.json")
        write_json(config, {**CONFIG, **changes})
        status, _, stderr = run_sigmoe(binary, ["synth", config, "-o", folder, "--std", "0.15"])
    if status != 0:
        raise Failure(f"sigmoe synth: {stderr}")
    shutil.copyfile(TOKENIZER, os.path.join(folder, "tokenizer.json"))
    write_json(os.path.join(folder, "tokenizer_config.json"),
               {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>",
                **({"chat_template": chat_template} if chat_template is not None else {})})
    return folder


def chat_prompt(messages, tools=()):
    """What CHAT_TEMPLATE makes of a conversation. Text only, no escapes inside of the tools."""
    head = ""
    if tools:
        head = "<|im_start|>system\nTools:" + "".join(
            " " + json.dumps(t) for t in tools) + "<|im_end|>\n"
    return head + "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"
                          for m in messages) + "<|im_start|>assistant\n"


class Process:
    """What /proc says of a process."""

    def __init__(self, pid):
        self.pid = pid

    def rss(self, kind="VmRSS"):
        """kind: RssAnon is what it has allocated, without files and shared memory."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(rf"{kind}:\s+(\d+)", f.read()).group(1)) * 1024

    def pss(self):
        """Resident bytes, those it shares with n processes as an n-th each."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as f:
            return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1)) * 1024

    def resident_of(self, ending):
        """Resident bytes of mapped files whose name ends so."""
        found, mine = 0, False
        with open(f"/proc/{self.pid}/smaps", encoding="utf-8") as f:
            for line in f:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    mine = line.rstrip().endswith(ending)
                elif mine and line.startswith("Rss:"):
                    found += int(line.split()[1]) * 1024
        return found

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def children(self):
        """Of all its threads: the workers are started by the one that loads the model."""
        out = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/children", encoding="ascii") as f:
                out += [Process(int(pid)) for pid in f.read().split()]
        return sorted(out, key=lambda process: process.pid)


class Served:
    """A running server. Entering waits until it says "ready URL"; leaving ends it and fails unless
    it ended well: a crash, or a leak that a sanitizer reports, fails the test that was served."""

    def __init__(self, binary, model, *options, workers=2, env=None, ready_s=READY_S):
        at = ["--workers", workers, "--transport", "tcp"] if workers else []
        self.command = [binary, "serve", model, "--port", "0", "--threads", "1",
                        "--worker-threads", "1", *map(str, at), *map(str, options)]
        self.env = {**os.environ, **(env or {})}
        self.ready_s = ready_s
        self.process = self.url = self.port = None
        self.stderr = tempfile.TemporaryFile()

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, env=self.env,
                                        stdout=subprocess.PIPE, stderr=self.stderr)
        watchdog = signal.signal(signal.SIGALRM, self.too_late)
        signal.alarm(self.ready_s)
        try:
            words = self.process.stdout.readline().decode(errors="replace").split()
        except Failure:
            self.process.kill()
            raise
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, watchdog)
        if len(words) != 2 or words[0] != "ready":
            self.process.kill()
            self.process.wait()
            raise Failure(f"{' '.join(self.command)}: said {words}; {self.said()}")
        self.url = words[1]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def too_late(self, *_):
        raise Failure(f"{' '.join(self.command)}: not ready after {self.ready_s} s; {self.said()}")

    def said(self):
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace")[-20000:]

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            status = self.process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = f"no end {END_S} s after SIGTERM"
        self.process.stdout.close()
        said = self.said()
        report = re.search(r"runtime error: |ERROR: \w+Sanitizer|WARNING: ThreadSanitizer", said)
        if report and status == 0:
            status = f"status 0 and a sanitizer's report ({report.group()})"
            said = said[max(0, report.start() - 200):]
        if status != 0 and kind is None:
            raise Failure(f"the server ended with {status}:\n{said}")
        if status != 0:
            print(f"besides, the server ended with {status}:\n{said}")

    def alive(self):
        return self.process.poll() is None

    def proc(self):
        return Process(self.process.pid)

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, bytes) on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.request("GET", path)
        return status, body.decode()

    def post(self, path, value, timeout=60):
        """(status, JSON)."""
        status, _, body = self.request("POST", path, json.dumps(value),
                                       {"Content-Type": "application/json"}, timeout)
        return status, json.loads(body)

    def stream(self, path, value, timeout=60):
        """The JSON of each event of an SSE response, until [DONE]; a Failure when it is missing."""
        status, headers, body = self.request("POST", path, json.dumps({**value, "stream": True}),
                                             {"Content-Type": "application/json"}, timeout)
        if status != 200 or not headers["Content-Type"].startswith("text/event-stream"):
            raise Failure(f"no stream: {status} {headers} {body[:300]}")
        events = [e for e in body.decode().split("\n\n") if e and not e.startswith(":")]
        if events[-1] != "data: [DONE]" or any(not e.startswith("data: ") for e in events):
            raise Failure(f"not a stream of events that ends in [DONE]: {body[-300:]}")
        return [json.loads(e[6:]) for e in events[:-1]]

    def metrics(self):
        """{name or name{labels}: value}"""
        _, text = self.get("/metrics")
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text,
                                                                 re.M)}

    def wait_idle(self, timeout_s=10):
        """Waits until nothing runs and every KV page is free; a Failure when that does not come."""
        until = time.monotonic() + timeout_s
        names = ("sigmoe_requests_running", "sigmoe_requests_waiting", "sigmoe_kv_cache_usage_ratio")
        while True:
            m = self.metrics()
            busy = {n: m[n] for n in names if m[n] != 0}
            if not busy:
                return m
            if time.monotonic() > until:
                raise Failure(f"still busy after {timeout_s} s without a client: {busy}")
            time.sleep(0.05)
