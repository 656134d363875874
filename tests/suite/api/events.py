#!/usr/bin/env python3
"""Streams: what clients see event by event, and what happens when they go away.

usage: events.py [--sigmoe PROGRAM] [TEST...]
"""
import http.client
import json
import os
import signal
import socket
import time

import case
from case import CHAT, CHUNK, TEXT, TEXT_RESPONSE, Api, check_shape, main
from served import Served, make_model

PROMPT = "The gate says which"
USER = [{"role": "user", "content": PROMPT}]


class Events(Api):
    options = ("--ping-interval", "0.3")

    def ask(self, path, **fields):
        value = {"temperature": 0, "max_tokens": 10, "ignore_eos": True, **fields}
        value.update({"messages": USER} if path == CHAT else {"prompt": PROMPT})
        return value

    def stream(self, path, **fields):
        return self.server.stream(path, self.ask(path, **fields))

    def test_the_pieces_make_the_whole(self):
        for path, key in ((CHAT, "delta"), (TEXT, "text")):
            for n in (1, 3):
                ask = self.ask(path, n=n, temperature=1, seed=5, max_tokens=30)
                whole = self.good(path, ask)["choices"]
                texts = [""] * n
                for e in self.server.stream(path, ask):
                    for c in e["choices"]:
                        piece = c[key] if path == TEXT else c[key].get("content", "")
                        texts[c["index"]] += piece
                want = [c["text"] if path == TEXT else c["message"]["content"] for c in whole]
                self.assertEqual(texts, want)

    def test_a_chat_begins_with_the_role_and_ends_with_a_reason(self):
        events = self.stream(CHAT, n=2)
        for e in events:
            check_shape(e, CHUNK)
            self.assertEqual(e["object"], "chat.completion.chunk")
            self.assertNotIn("usage", e)
        for i in (0, 1):
            own = [c for e in events for c in e["choices"] if c["index"] == i]
            self.assertEqual(own[0]["delta"], {"role": "assistant", "content": ""})
            self.assertTrue(all("role" not in c["delta"] for c in own[1:]))
            self.assertEqual(own[-1]["delta"], {})
            self.assertEqual([c["finish_reason"] for c in own[-2:]], [None, "length"])
        self.assertEqual(len({e["id"] for e in events}), 1)

    def test_usage_comes_once_at_the_end_and_is_null_before(self):
        for path in (CHAT, TEXT):
            *before, last = self.stream(path, stream_options={"include_usage": True})
            self.assertTrue(all(e["usage"] is None for e in before))
            self.assertEqual(last["choices"], [])
            self.assertEqual(last["usage"]["completion_tokens"], 10)
            self.assertIsNotNone(before[-1]["choices"][0]["finish_reason"])
            counts = [e["usage"]["completion_tokens"] for e in self.stream(path, stream_options={
                "include_usage": True, "continuous_usage_stats": True})]
            self.assertEqual((counts, counts[-1]), (sorted(counts), 10))
            self.refused(path, {**self.ask(path), "stream_options": {}}, 400, "stream_options")

    def test_a_completion_chunk_has_the_published_shape(self):
        for e in self.stream(TEXT, stream_options={"include_usage": True}):
            check_shape(e, {k: v for k, v in TEXT_RESPONSE.items() if k != "usage"})

    def test_echo_and_logprobs_stream_what_they_return(self):
        for path, fields in ((TEXT, {"echo": True, "logprobs": 2}),
                             (CHAT, {"logprobs": True, "top_logprobs": 2})):
            whole = self.good(path, self.ask(path, **fields))["choices"][0]
            parts = [c["logprobs"] for e in self.stream(path, **fields) for c in e["choices"]
                     if c["logprobs"]]
            for name in whole["logprobs"]:
                if whole["logprobs"][name] is not None:
                    joined = [x for p in parts for x in p[name]]
                    self.assertEqual(joined, whole["logprobs"][name], name)

    def test_token_ids_and_routes_stream_too(self):
        whole = self.good(TEXT, self.ask(TEXT, return_token_ids=True, return_routed_experts=True))
        whole = whole["choices"][0]
        events = [c for e in self.stream(TEXT, return_token_ids=True, return_routed_experts=True)
                  for c in e["choices"]]
        self.assertEqual([t for c in events for t in c["token_ids"]], whole["token_ids"])
        self.assertEqual(events[0]["prompt_token_ids"], whole["prompt_token_ids"])
        self.assertEqual([c["routed_experts"] for c in events if "routed_experts" in c],
                         [whole["routed_experts"]])

    def test_half_a_character_is_never_sent(self):
        # Three-byte characters in pieces: the vocabulary spells most of them byte by byte.
        for seed in range(6):
            for e in self.server.stream(TEXT, self.ask(TEXT, temperature=2, seed=seed,
                                                       max_tokens=60)):
                json.dumps(e).encode()

    def test_headers_are_those_of_events(self):
        status, headers, body = self.server.request(
            "POST", CHAT, json.dumps({**self.ask(CHAT), "stream": True}))
        self.assertEqual((status, headers["Content-Type"], headers["Cache-Control"],
                          headers["X-Accel-Buffering"]),
                         (200, "text/event-stream", "no-cache", "no"))
        self.assertTrue(body.endswith(b"\n\ndata: [DONE]\n\n"))

    def test_what_is_wrong_from_the_start_has_a_status(self):
        status, headers, body = self.server.request("POST", TEXT, json.dumps(
            {"prompt": [5] * 2000, "stream": True}))
        self.assertEqual((status, headers["Content-Type"]), (400, "application/json"))
        self.assertEqual(json.loads(body)["error"]["code"], "context_length_exceeded")


class Leaving(Api):
    # Streams so long that whoever leaves, leaves in the middle, however slow this test is: a small
    # model gives thousands of tokens a second, and guesses more.
    TOKENS = 20000
    options = ("--max-seqs", "4", "--ping-interval", "0.2", "--speculate", "off")

    @classmethod
    def model(cls, tmp):
        return make_model(case.SIGMOE, os.path.join(tmp, "tiny"), max_position_embeddings=32768)

    def begin(self, **fields):
        """A raw connection with a long stream begun on it."""
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
        body = json.dumps({"prompt": PROMPT, "max_tokens": self.TOKENS, "ignore_eos": True, "stream": True,
                           **fields}).encode()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                     + str(len(body)).encode() + b"\r\n\r\n" + body)
        return sock

    def test_who_leaves_is_cancelled_and_its_pages_come_back(self):
        before = self.server.metrics()
        for reset in (False, True):
            socks = [self.begin() for _ in range(6)]
            for sock in socks:
                sock.recv(100)
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            self.server.wait_idle(5)
        after = self.server.metrics()
        name = 'sigmoe_requests_total{finish_reason="abort"}'
        self.assertEqual(after[name] - before[name], 12)
        generated = 'sigmoe_tokens_total{kind="generated"}'
        self.assertLess(after[generated] - before[generated], 12 * self.TOKENS * 0.8)

    def test_who_waits_hears_comments(self):
        # Four run at once; a fifth gets nothing but comments until one of them has ended.
        socks = [self.begin() for _ in range(4)]
        for sock in socks:
            sock.recv(100)
        late = self.begin()
        got = b""
        until = time.monotonic() + 15
        while b": ping\n\n" not in got and b"data:" not in got and time.monotonic() < until:
            got += late.recv(4096)
        self.assertIn(b"text/event-stream", got)
        self.assertIn(b": ping\n\n", got)
        for sock in socks:
            sock.close()
        while b"data: {" not in got and time.monotonic() < until:
            got += late.recv(4096)
        self.assertIn(b"data: {", got)
        late.close()
        self.server.wait_idle(5)


class Ending(Api):
    """The server's end: what runs may finish, or is cut off in words."""

    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.tmp = tempfile.TemporaryDirectory(prefix="sigmoe-api-")
        cls.addClassCleanup(cls.tmp.cleanup)
        cls.folder = make_model(case.SIGMOE, os.path.join(cls.tmp.name, "tiny"),
                                max_position_embeddings=32768)

    @staticmethod
    def begin(server, path, ask):
        """(connection, response) of a stream that has begun."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", path, json.dumps({
            "max_tokens": 300, "ignore_eos": True, "stream": True, "temperature": 0, **ask}))
        response = connection.getresponse()
        assert response.status == 200 and response.peek(), response.status
        return connection, response

    @staticmethod
    def kill_workers(server):
        for child in server.proc().children():
            os.kill(child.pid, signal.SIGKILL)

    def test_a_failure_is_an_event_when_the_stream_has_begun(self):
        asks = {TEXT: {"prompt": PROMPT}, CHAT: {"messages": USER}}
        with Served(case.SIGMOE, self.folder, "--no-local", "--speculate", "off") as server:
            begun = [self.begin(server, path, {**asks[path], "n": n, "max_tokens": 20000})
                     for path in asks for n in (1, 2)]
            self.kill_workers(server)
            for connection, response in begun:
                events = response.read().decode().split("\n\n")
                connection.close()
                self.assertEqual(events[-2:], ["data: [DONE]", ""])
                self.assertIn('"finish_reason":null', events[-4])
                error = json.loads(events[-3][len("data: "):])["error"]
                self.assertRegex(error.pop("message"), "held by no worker")
                self.assertEqual(error, {"type": "unavailable_error", "param": None, "code": 503})
            for path, ask in asks.items():
                for stream in (False, True):  # nothing has been sent: a status can be
                    status, headers, body = server.request("POST", path, json.dumps(
                        {**ask, "max_tokens": 3, "stream": stream}))
                    self.assertEqual(status, 503, body)
                    self.assertIn("Retry-After", headers)
                    self.assertEqual(json.loads(body)["error"]["type"], "unavailable_error")
            failed = server.wait_idle()['sigmoe_requests_total{finish_reason="error"}']
            # A second choice fails too, or goes with the first one's request.
            self.assertGreaterEqual(failed, 2 * 2 + 4)
            self.assertLessEqual(failed, 2 * 3 + 4)

    def test_a_lost_cluster_is_computed_here(self):
        # Workers are gone; the coordinator takes their experts over, so the stream goes on.
        with Served(case.SIGMOE, self.folder) as server:
            connection, response = self.begin(server, TEXT, {"prompt": PROMPT})
            self.kill_workers(server)
            rest = response.read()
            self.assertTrue(rest.endswith(b"data: [DONE]\n\n"), rest[-200:])
            self.assertIn(b'"finish_reason":"length"', rest)
            self.assertIn(b'"worker":"coordinator"', rest)
            status, text = server.get("/ready")
            self.assertEqual(status, 503, text)
            connection.close()

    def test_the_end_waits_for_streams(self):
        with Served(case.SIGMOE, self.folder) as server:
            connection, response = self.begin(server, TEXT, {"prompt": PROMPT})
            server.process.send_signal(signal.SIGTERM)
            self.assertTrue(response.read().endswith(b"data: [DONE]\n\n"))
            connection.close()
            self.assertEqual(server.process.wait(timeout=20), 0)


if __name__ == "__main__":
    main()
