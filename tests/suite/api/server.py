#!/usr/bin/env python3
"""What a server says of itself, who may ask, and what it does when there is too much to do.

usage: server.py [--sigmoe PROGRAM] [TEST...]
"""
import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import case
from case import TEXT, Api, check_shape, main
from harness import TESTS, Failure
from served import Served

METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*=\"(?:[^\"\\\n]|\\.)*\",?)*\})? (\S+)")


def lint_metrics(text):
    """The rules of Prometheus' exposition format and of promtool check metrics, as far as they touch
    us: HELP and TYPE before the samples, no series twice, counters end in _total and nothing else
    does, base units, histograms with ascending buckets up to +Inf that agree with _count."""
    kinds, helped, seen, buckets, values = {}, set(), set(), {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert name not in helped and words, line
            helped.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name in helped and name not in kinds, line
            assert kind in ("counter", "gauge", "histogram"), line
            assert (kind == "counter") == name.endswith("_total"), line
            assert not re.search(r"(_ms|_milliseconds|_us|_ns|_mb|_minutes)(_|$)", name), line
            kinds[name] = kind
        else:
            m = METRIC.fullmatch(line)
            assert m, line
            name, labels, value = m.groups()
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            base = base if kinds.get(base) == "histogram" else name
            assert base in kinds, line
            assert (name, labels) not in seen, line
            seen.add((name, labels))
            values[name + (labels or "")] = float(value)
            if name.endswith("_bucket") and base != name:
                rest = re.sub(r'le="[^"]*",?', "", labels)
                buckets.setdefault((base, "" if rest == "{}" else rest), []).append(
                    (float(re.search(r'le="([^"]+)"', labels).group(1)), float(value)))
    for (base, rest), got in buckets.items():
        assert got == sorted(got) and got[-1][0] == float("inf"), base
        assert [v for _, v in got] == sorted(v for _, v in got), base
        assert got[-1][1] == values[base + "_count" + rest], base
        assert base + "_sum" + rest in values, base
    return values


class Itself(Api):
    def get(self, path, want=200):
        status, body = self.server.get(path)
        self.assertEqual(status, want, body)
        return json.loads(body)

    def test_models(self):
        models = self.get("/v1/models")
        self.assertEqual((models["object"], [m["id"] for m in models["data"]]), ("list", ["tiny"]))
        check_shape(models["data"][0], {"id": str, "object": str, "created": int, "owned_by": str,
                                        "max_model_len": int,
                                        "meta": {"n_vocab": int, "n_params": int}})
        self.assertEqual(self.get("/v1/models/tiny"), models["data"][0])
        self.assertEqual(self.get("/v1/models/other", 404)["error"]["code"], "model_not_found")
        self.assertEqual(models["data"][0]["max_model_len"], 1024)

    def test_health_in_all_its_names(self):
        for path in ("/health", "/health/live", "/v1/health", "/ping"):
            self.assertEqual(self.get(path), {"status": "ok"})
        for path in ("/ready", "/health/ready"):
            self.assertEqual(self.get(path)["status"], "ready")
        status, headers, body = self.server.request("HEAD", "/health")
        self.assertEqual((status, body), (200, b""))

    def test_version_and_configuration(self):
        self.assertRegex(self.get("/version")["version"], r"^\d+\.\d+\.\d+$")
        info = self.get("/server_info")
        self.assertEqual((info["model"], info["experts"], info["workers"]), ("tiny", 8, 2))
        self.assertEqual(info["limits"]["context"], 1024)

    def test_tokenizer_info_is_what_harnesses_ask_for(self):
        info = self.get("/tokenizer_info")
        self.assertEqual((info["eos_token"], info["bos_token"]), ("<|im_end|>", "<|endoftext|>"))
        self.assertIn("add_generation_prompt", info["chat_template"])

    def test_tokenization_in_both_forms(self):
        ids = self.good("/tokenize", {"prompt": "The gate", "add_special_tokens": False,
                                      "return_token_strs": True})
        self.assertEqual(ids["count"], len(ids["tokens"]))
        self.assertEqual(len(ids["token_strs"]), ids["count"])
        self.assertEqual(ids["max_model_len"], 1024)
        self.assertEqual(self.good("/tokenize", {"content": "The gate"})["tokens"], ids["tokens"])
        special = self.good("/tokenize", {"prompt": "The gate"})["tokens"]
        self.assertNotEqual(special, ids["tokens"])
        back = self.good("/detokenize", {"tokens": ids["tokens"]})
        self.assertEqual((back["prompt"], back["content"]), ("The gate", "The gate"))

    def counted(self):
        """The status with what was computed in it: the cluster's part is sampled twice a second."""
        until = time.monotonic() + 60
        while True:
            time.sleep(0.7)
            s = self.get("/sigmoe/status")
            if all(map(sum, s["load_total"])) or time.monotonic() > until:
                return s

    def test_metrics_are_clean_and_add_up(self):
        for ask in ({"n": 2}, {"stream": True}, {"max_tokens": 3}):
            self.server.request("POST", TEXT, json.dumps({"prompt": "The gate", "temperature": 0,
                                                          "ignore_eos": True, **ask}))
        self.counted()
        status, headers, text = self.server.request("GET", "/metrics")
        self.assertEqual((status, headers["Content-Type"]),
                         (200, "text/plain; version=0.0.4; charset=utf-8"))
        m = lint_metrics(text.decode())
        rows = sum(v for k, v in m.items() if k.startswith("sigmoe_expert_tokens_total{"))
        computed = m['sigmoe_tokens_total{kind="prompt"}'] + m['sigmoe_tokens_total{kind="generated"}']
        self.assertGreater(rows, 0)
        self.assertEqual(rows % 6, 0)  # 3 layers, top 2
        wrong = m["sigmoe_speculated_tokens_total"] - m["sigmoe_speculated_tokens_accepted_total"]
        self.assertGreaterEqual(wrong, 0)
        self.assertLessEqual(rows / 6, computed + wrong)
        self.assertEqual(m["sigmoe_workers_up"], 2)
        self.assertEqual(m["sigmoe_requests_running"], 0)
        for name in ("process_resident_memory_bytes", "sigmoe_time_to_first_token_seconds_count",
                     "sigmoe_inter_token_latency_seconds_count", "sigmoe_request_queue_seconds_sum",
                     "sigmoe_kv_cache_usage_ratio", 'sigmoe_expert_imbalance_ratio{layer="0"}'):
            self.assertIn(name, m)

    def test_metrics_have_vllms_names_too(self):
        self.text(prompt="The gate", n=2, stop=["x"])
        m = lint_metrics(self.server.get("/metrics")[1])
        for theirs, ours in (
                ("num_requests_running", "requests_running"),
                ("num_requests_waiting", "requests_waiting"),
                ("kv_cache_usage_perc", "kv_cache_usage_ratio"),
                ("prefix_cache_queries_total", "prefix_cache_lookup_tokens_total"),
                ("prefix_cache_hits_total", "prefix_cache_hit_tokens_total"),
                ("num_preemptions_total", "preemptions_total"),
                ("time_to_first_token_seconds_sum", "time_to_first_token_seconds_sum"),
                ("inter_token_latency_seconds_count", "inter_token_latency_seconds_count"),
                ("time_per_output_token_seconds_count", "inter_token_latency_seconds_count"),
                ("e2e_request_latency_seconds_sum", "request_duration_seconds_sum"),
                ("request_queue_time_seconds_count", "request_queue_seconds_count"),
                ("prompt_tokens_total", "request_prompt_tokens_sum"),
                ("request_generation_tokens_sum", "request_generated_tokens_sum")):
            self.assertEqual(m[f'vllm:{theirs}{{model_name="tiny"}}'], m[f"sigmoe_{ours}"], theirs)
        self.assertEqual(m['vllm:generation_tokens_total{model_name="tiny"}'],
                         m['sigmoe_tokens_total{kind="generated"}'])
        ended = 'vllm:request_success_total{finished_reason="length",model_name="tiny"}'
        self.assertGreater(m[ended], 0)
        self.assertEqual(m[ended], m['sigmoe_requests_total{finish_reason="length"}'])

    def test_promtool_agrees_where_it_is(self):
        # But for vLLM's names, whose colon it does not like.
        lines = [line for line in self.server.get("/metrics")[1].splitlines(keepends=True)
                 if not re.match(r"(# \w+ )?vllm:", line)]
        try:
            done = subprocess.run(["promtool", "check", "metrics"], capture_output=True, timeout=30,
                                  input="".join(lines).encode())
        except FileNotFoundError:
            self.skipTest("promtool (Debian's prometheus) is not here")
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))

    def test_the_status_shows_the_load(self):
        self.text(prompt="The gate " * 8, max_tokens=20, ignore_eos=True)
        s = self.counted()
        self.assertEqual((s["model"], s["sparse_layers"], s["uncovered"]), ("tiny", [0, 1, 2], 0))
        self.assertEqual([len(row) for row in s["load"]], [8, 8, 8])
        self.assertEqual(s["kv"]["dtype"], "bf16")
        self.assertEqual(s["kv"]["bytes"] % s["kv"]["pages"], 0)
        first, second, last = (sum(row) for row in s["load_total"])
        self.assertEqual(first, second, "each layer routes each row to two experts")
        self.assertTrue(0 < last < first, "the last one only rows that a token is drawn from")
        self.assertEqual([w["state"] for w in s["workers"]], ["up", "up"])
        self.assertAlmostEqual(sum(w["share"] for w in s["workers"]), 1)
        self.assertEqual(sum(w["rows"] for w in s["workers"]), sum(map(sum, s["load_total"])))

    def test_the_page_is_served_and_may_load_nothing_from_elsewhere(self):
        status, headers, body = self.server.request("GET", "/")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertNotIn(b"http://", body.replace(b"http://www.w3.org", b""))
        self.assertNotIn(b"https://", body)

    def test_request_ids_come_back(self):
        status, headers, _ = self.server.request("GET", "/health", headers={"X-Request-Id": "a-7"})
        self.assertEqual(headers["X-Request-Id"], "a-7")
        ids = {self.server.request("GET", "/health")[1]["X-Request-Id"] for _ in range(3)}
        self.assertEqual(len(ids), 3)

    def test_unknown_paths_and_methods_are_errors_in_form(self):
        self.refused("/v1/embeddings", {}, 404, code="unknown_url")
        status, _, body = self.server.request("GET", TEXT)
        self.assertEqual((status, json.loads(body)["error"]["code"]), (405, "method_not_allowed"))

    def test_other_names_and_origins_are_refused(self):
        def ask(**headers):
            return self.server.request("GET", "/v1/models", headers=headers)[0]
        own = f"127.0.0.1:{self.server.port}"
        self.assertEqual(ask(Host="evil.example"), 403)
        self.assertEqual(ask(Host="localhost:1"), 200)
        self.assertEqual(ask(Host=f"[::1]:{self.server.port}"), 200)
        self.assertEqual(ask(Origin="http://evil.example"), 403)
        self.assertEqual(ask(Origin="null"), 403)
        self.assertEqual(ask(Origin=f"http://{own}", Host=own), 200)
        _, headers, _ = self.server.request("GET", "/health")
        self.assertFalse([h for h in headers if h.startswith("Access-Control")])


class Guarded(Api):
    workers = 0

    options = ("--api-key", "s3cret-key", "--cors-origin", "https://page.example",
               "--allow-host", "proxy.example")

    def ask(self, path="/v1/models", method="GET", **headers):
        status, got, _ = self.server.request(method, path, headers=headers)
        return status, got

    def test_every_path_but_health_asks_for_the_key(self):
        for path in ("/v1/models", "/metrics", "/sigmoe/status", "/server_info", "/version", "/",
                     "/tokenizer_info", "/nowhere", "/ui/app.js"):
            self.assertEqual(self.ask(path)[0], 401, path)
        self.assertEqual(self.server.request("POST", TEXT, "{}")[0], 401)
        for path in ("/health", "/ready", "/ping"):
            self.assertEqual(self.ask(path)[0], 200, path)

    def test_only_the_key_opens(self):
        for value, want in (("Bearer s3cret-key", 200), ("bearer s3cret-key", 200),
                            ("Bearer s3cret-kez", 401), ("Bearer s3cret-ke", 401),
                            ("Bearer s3cret-key2", 401), ("Bearer ", 401), ("s3cret-key", 401),
                            ("Basic " + base64.b64encode(b"me:s3cret-key").decode(), 200),
                            ("Basic " + base64.b64encode(b"me:other").decode(), 401),
                            ("Basic !!!", 401), ("Basic " + "A" * 5000, 401)):
            self.assertEqual(self.ask(Authorization=value)[0], want, value)
        status, _, body = self.server.request("GET", "/v1/models")
        error = json.loads(body)["error"]
        self.assertEqual((error["type"], error["code"]), ("authentication_error",
                                                          "invalid_api_key"))

    def test_browsers_are_told_how_to_ask_their_users(self):
        self.assertIn("Basic", self.ask("/")[1]["WWW-Authenticate"])
        self.assertNotIn("Basic", self.ask("/v1/models")[1]["WWW-Authenticate"])

    def test_the_origin_that_was_named_may_call(self):
        status, headers = self.ask(method="OPTIONS", Origin="https://page.example")
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]),
                         (204, "https://page.example"))
        self.assertEqual(self.ask(method="OPTIONS", Origin="https://other.example")[0], 403)
        self.assertEqual(self.ask(Host="proxy.example", Authorization="Bearer s3cret-key")[0], 200)


class Crowded(Api):
    options = ("--max-queue", "4", "--max-seqs", "2", "--kv-tokens", "4096")
    workers = 0

    def test_a_full_queue_says_when_to_come_again(self):
        answers, lock = [], threading.Lock()

        def ask(i):
            got = self.server.request("POST", TEXT, json.dumps(
                {"prompt": "The gate", "max_tokens": 400, "ignore_eos": True, "seed": i}))
            with lock:
                answers.append(got)
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        statuses = [a[0] for a in answers]
        self.assertEqual(set(statuses), {200, 429})
        for status, headers, body in answers:
            if status == 429:
                self.assertEqual(headers["Retry-After"], "1")
                self.assertEqual(json.loads(body)["error"]["type"], "rate_limit_error")
        self.server.wait_idle()

    def test_one_request_may_not_be_the_whole_queue(self):
        self.refused(TEXT, {"prompt": ["a"] * 5, "max_tokens": 1}, 400)


class Loading(Api):
    """From the first moment the server answers, and says 503 until the model is there."""

    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.tmp = tempfile.TemporaryDirectory(prefix="sigmoe-api-")
        cls.addClassCleanup(cls.tmp.cleanup)
        cls.folder = cls.model(cls.tmp.name)

    def test_503_before_it_is_ready(self):
        with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(
                ("127.0.0.1", 0)) as free:
            # A worker that never answers keeps the server loading.
            at = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
            port = free.getsockname()[1]
            free.close()
            process = subprocess.Popen([case.SIGMOE, "serve", self.folder, "--port", str(port),
                                        "--workers-at", at], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            try:
                self.until_listening(port)
                for path, want in (("/health", 200), ("/ready", 503), ("/v1/models", 503),
                                   ("/metrics", 503), ("/version", 200)):
                    status, headers, body = self.get(port, path)
                    self.assertEqual(status, want, (path, body))
                    if want == 503:
                        self.assertEqual(headers["Retry-After"], "1")
                        self.assertEqual(json.loads(body)["error"]["type"], "unavailable_error")
            finally:
                process.terminate()
                status = process.wait(timeout=20)
            self.assertEqual(status, 0, "SIGTERM while loading ends at once")

    @staticmethod
    def get(port, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), body

    def until_listening(self, port):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                return self.get(port, "/health")
            except OSError:
                time.sleep(0.05)
        raise Failure("it does not listen")

    def test_keys_from_a_file_and_the_environment(self):
        path = os.path.join(self.tmp.name, "keys")
        with open(path, "w", encoding="ascii") as f:
            f.write("# ours\nfirst\n\nsecond\n")
        for options, env, good in ((("--api-key-file", path), {"SIGMOE_API_KEY": "third"},
                                    ("first", "second")),
                                   ((), {"SIGMOE_API_KEY": "third"}, ("third",))):
            with Served(case.SIGMOE, self.folder, *options, workers=0, env=env) as server:
                for key in ("first", "second", "third", "# ours"):
                    status, _, _ = server.request("GET", "/v1/models",
                                                  headers={"Authorization": f"Bearer {key}"})
                    self.assertEqual(status, 200 if key in good else 401, key)

    def test_keys_are_read_again_at_sighup_and_requests_go_on(self):
        path = os.path.join(self.tmp.name, "keys")

        def write(text):
            with open(path, "w", encoding="ascii") as f:
                f.write(text)

        def ask(server, key):
            return server.request("GET", "/v1/models",
                                  headers={"Authorization": f"Bearer {key}"})[0]

        def said(server):  # by an offset of our own: the server goes on writing
            with open(f"/proc/{server.process.pid}/fd/2", encoding="utf-8") as f:
                return f.read()

        write("old\n")
        with Served(case.SIGMOE, self.folder, "--api-key-file", path, "--speculate", "off",
                    workers=0) as server:
            stream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            stream.request("POST", TEXT, json.dumps(
                {"prompt": "a", "stream": True, "max_tokens": 900, "ignore_eos": True}),
                {"Authorization": "Bearer old"})
            response = stream.getresponse()
            self.assertEqual((response.status, ask(server, "old"), ask(server, "new")),
                             (200, 200, 401))
            write("one two\n")
            server.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 20
            while "the keys stay as they are" not in said(server) and time.monotonic() < until:
                time.sleep(0.02)
            self.assertIn("the keys stay as they are", said(server))
            self.assertEqual((ask(server, "old"), ask(server, "new")), (200, 401))
            write("new\n")
            server.process.send_signal(signal.SIGHUP)
            while ask(server, "new") != 200 and time.monotonic() < until:
                time.sleep(0.02)
            self.assertEqual((ask(server, "old"), ask(server, "new")), (401, 200))
            self.assertTrue(response.read().endswith(b"data: [DONE]\n\n"))
            stream.close()

    def test_a_model_that_cannot_be_served_is_one_line(self):
        for folder, said in ((os.path.join(self.tmp.name, "none"), "none"),
                             (os.path.join(TESTS, "fixtures", "tiny", "olmoe"), "no tokenizer")):
            done = subprocess.run([case.SIGMOE, "serve", folder, "--port", "0"], timeout=30,
                                  capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (3, b""), done.stderr)
            self.assertIn(said, done.stderr.decode().splitlines()[-1])


if __name__ == "__main__":
    main()
