#!/usr/bin/env python3
"""Requests that are wrong in every way a body can be: no JSON, other types in every field, values out
of range, texts that are no text, sizes and depths past any use. Each is a 4xx in OpenAI's form that
names the field, in good time and memory; the server goes on and answers as before.
"""
import argparse
import functools
import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, main_of  # noqa: E402
from served import Served, make_model  # noqa: E402

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "a"}]
GOOD = {CHAT: {"messages": USER, "max_tokens": 2, "temperature": 0},
        TEXT: {"prompt": "a", "max_tokens": 2, "temperature": 0},
        "/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [1]}}
MIB = 1 << 20

# Values of every JSON type; a field refuses all that are not of its own.
BOOL, INT, NUMBER, STRING, LIST, OBJECT = "bool", "int", "number", "string", "list", "object"
SAMPLES = {BOOL: [True], INT: [1], NUMBER: [0.5], STRING: ["a", "1", ""], LIST: [[], [1]],
           OBJECT: [{}, {"a": 1}]}
FIELDS = {  # of both generation routes: (types that are taken, further values that are refused)
    "max_tokens": ([INT], [-1, 1025, 1e30, 2**62]),
    "max_completion_tokens": ([INT], [-1, 1025]),
    "min_tokens": ([INT], [-1, 2**40]),
    "n": ([INT], [0, -1, 17, 2**31, 2**62]),
    "temperature": ([INT, NUMBER], [-0.1, 2.1, 1e300]),
    "top_p": ([INT, NUMBER], [0, -1, 1.01]),
    "top_k": ([INT], [-2, 2**40]),
    "min_p": ([INT, NUMBER], [-0.1, 1.1]),
    "repetition_penalty": ([INT, NUMBER], [0, -1, 1e9]),
    "presence_penalty": ([INT, NUMBER], [-2.1, 2.1]),
    "frequency_penalty": ([INT, NUMBER], [-2.1, 2.1]),
    "seed": ([INT], []),
    "stream": ([BOOL], []),
    "ignore_eos": ([BOOL], []),
    "skip_special_tokens": ([BOOL], []),
    "include_stop_str_in_output": ([BOOL], []),
    "stop": ([STRING, LIST], ["", [""], [1], [None], [["a"]], ["a"] * 17, "a" * 100000]),
    "stop_token_ids": ([LIST], [["1"], [1.5], [-1], [True], [2**40], [1] * 65]),
    "logit_bias": ([OBJECT], [{"a": 1}, {"1": "1"}, {"1": 101}, {"1": True}, {"-1": 0}, {"": 0},
                              {" 1": 1}, {"+1": 1}, {"1x": 1}, {"99999999999999999999": 1}]),
    "response_format": ([OBJECT], [
        {}, {"type": 1}, {"type": "xml"}, {"type": "json_schema"},
        {"type": "json_schema", "json_schema": 1}, {"type": "json_schema", "json_schema": {}},
        {"type": "json_schema", "json_schema": {"schema": 1}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "banana"}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://a/b"}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/none"}}}]),
    "model": ([STRING], ["another", ""]),
}
OF_TEXT = {
    "prompt": ([STRING, LIST], [[], [[]], [1.5], [-1], [640], [2**40], [None], [True],
                                [1, "a"], ["a", 1], [[1, "a"]], [[[1]]], [{}]]),
    "echo": ([BOOL], []),
    "logprobs": ([INT], [-1, 21]),
}
OF_CHAT = {
    "messages": ([LIST], [
        [], [1], [None], [[]], [{}], [{"role": 1, "content": "a"}], [{"content": "a"}],
        [{"role": "user", "content": 1}], [{"role": "user", "content": {}}],
        [{"role": "user", "content": [1]}], [{"role": "user", "content": ["a"]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]]),
    "logprobs": ([BOOL], []),
    "top_logprobs": ([INT], [-1, 21, 5]),
    "tools": ([LIST], [[1], ["a"], [None]]),
    "chat_template_kwargs": ([OBJECT], [{"messages": 1}, {"tools": 1}, {"a": {}}, {"a": []}]),
    "add_generation_prompt": ([BOOL], []),
    "continue_final_message": ([BOOL], []),
}
TOKENS = {"/tokenize": {"prompt": ([STRING], []), "add_special_tokens": ([BOOL], [])},
          "/detokenize": {"tokens": ([LIST], [["a"], [1.5], [-1], [None], [True], [2**40]])}}
# Not in the lists above: an object where a list is asked for, and so on, may be right there.
TAKEN = {"stop": [[], [1]], "prompt": [[1]], "stop_token_ids": [[], [1]],
         "logit_bias": [{}], "tools": [[]], "chat_template_kwargs": [{}, {"a": 1}],
         "model": []}

NO_JSON = [b"", b" ", b"{", b"}", b"[", b"{}}", b"{'prompt': 'a'}", b"{\"prompt\": \"a\",}",
           b"{\"prompt\" \"a\"}", b"nul", b"{\"prompt\": nan}", b"{\"prompt\": 01}",
           b"{\"prompt\": \"a\"} x", b"{\"prompt\": \"a\", \"prompt\": \"b\"}",
           b"{\"prompt\": \"\n\"}", b"{\"prompt\": \"\\x\"}", b"{\"n\": 1e999, \"prompt\": \"a\"}",
           b"{\"n\": 99999999999999999999, \"prompt\": \"a\"}", b"\xef\xbb\xbf{\"prompt\": \"a\"}",
           b"{\"prompt\": \"a\"}".decode().encode("utf-16"), b"1", b"null", b"\"a\"", b"[]",
           b"[{\"prompt\": \"a\"}]", b"\0", b"{\"prompt\": \"a\"}\0", b"/*{}*/"]
NO_TEXT = [b"\xff", b"\xc3", b"\xc0\x80", b"\xe4\xbd", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\0",
           b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ud83d", b"\\ud83da", b"\\u12", b"\\ud800\\u0041"]


class Judge:
    """Sends what is wrong and keeps count; one line a kind of mistake in the end."""

    def __init__(self, server):
        self.server, self.n, self.wrong = server, 0, []

    def refused(self, what, path, body, statuses=(400,), param=None, timeout=30):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        started = time.monotonic()
        try:
            status, headers, answer = self.server.request(
                "POST", path, data, {"Content-Type": "application/json"}, timeout)
        except OSError as bad:
            raise Failure(f"{what}: {type(bad).__name__} {bad}; {self.server.said()}") from None
        took = time.monotonic() - started
        self.n += 1
        why = self.fault(status, headers, answer, statuses, param)
        if took > 10:
            why = f"took {took:.1f} s"
        if why:
            self.wrong.append(f"{path} {what}: {why}: {status} {answer[:200]!r}")

    @staticmethod
    def fault(status, headers, answer, statuses, param):
        if status not in statuses:
            return f"not {statuses}"
        try:
            error = json.loads(answer)["error"]
            if headers["Content-Type"] != "application/json" or not error["message"]:
                return "no words"
            if {"message", "type", "param", "code"} - error.keys():
                return "not all of message, type, param, code"
            if status == 400 and error["type"] != "invalid_request_error":
                return "another type"
            if param and error["param"] not in (None, param):
                return f"blames {error['param']}, not {param}"
            if param and error["param"] is None and not any(
                    w in error["message"] for w in (param, "context length", "token id")):
                return f"does not name {param}"
        except (ValueError, KeyError, TypeError) as bad:
            return f"not OpenAI's form ({bad!r})"
        return None

    def taken(self, what, path, body):
        status, answer = self.server.post(path, body)
        self.n += 1
        if status != 200:
            self.wrong.append(f"{path} {what}: must be taken: {status} {answer}")


def values_for(name, types):
    for kind, values in SAMPLES.items():
        for v in values:
            if kind not in types and not (NUMBER in types and kind == INT):
                yield v


def check_fields(judge):
    routes = {CHAT: {**FIELDS, **OF_CHAT}, TEXT: {**FIELDS, **OF_TEXT}, **TOKENS}
    for path, fields in routes.items():
        for name, (types, more) in fields.items():
            statuses = (400, 404) if name == "model" else (400,)
            for v in [*values_for(name, types), *more]:
                judge.refused(f"{name}: {json.dumps(v)[:80]}", path, {**GOOD[path], name: v},
                              statuses, name)
            for v in TAKEN.get(name, []):
                if name not in ("stop", "prompt") or v != [1] or path == TEXT and name == "prompt":
                    judge.taken(f"{name}: {json.dumps(v)}", path, {**GOOD[path], name: v})
            if name not in GOOD[path] or name in ("max_tokens", "temperature"):
                judge.taken(f"{name}: null", path, {**GOOD[path], name: None})
        for name in ("prompt", "messages", "tokens"):
            if name in GOOD[path]:
                judge.refused(f"no {name}", path, {k: v for k, v in GOOD[path].items()
                                                   if k != name}, (400,), name)
                judge.refused(f"{name}: null", path, {**GOOD[path], name: None}, (400,), name)
    for path in (CHAT, TEXT):
        judge.refused("stream_options alone", path, {**GOOD[path], "stream_options": {}}, (400,),
                      "stream_options")
        for v in (1, True, "a", [], {"include_usage": 1}, {"include_usage": "true"}):
            judge.refused(f"stream_options {v}", path, {**GOOD[path], "stream": True,
                                                        "stream_options": v}, (400,),
                          "stream_options")
        judge.taken("unknown fields", path, {**GOOD[path], "user": "u", "store": False,
                                             "metadata": {"a": "b"}, "no_such_field": [1]})


def check_no_json(judge):
    for path in GOOD:
        for body in NO_JSON:
            judge.refused(repr(body), path, body)
    for text in NO_TEXT:
        judge.refused(f"prompt {text!r}", TEXT, b"{\"prompt\": \"a" + text + b"\"}")
        judge.refused(f"message {text!r}", CHAT,
                      b"{\"messages\":[{\"role\":\"user\",\"content\":\"" + text + b"\"}]}")
        judge.refused(f"name {text!r}", TEXT, b"{\"prompt\": \"a\", \"b" + text + b"\": 1}")
        judge.refused(f"tokenize {text!r}", "/tokenize", b"{\"prompt\": \"" + text + b"\"}")


def check_depth(judge):
    for deep in (b"[" * 100000, b"{\"a\":" * 100000, b"[" * 3000 + b"]" * 3000):
        judge.refused(f"depth {deep[:8]}...", TEXT, b"{\"prompt\": " + deep + b"}")
    nested = 1
    for _ in range(900):
        nested = [nested]
    schema = {"type": "integer"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    judge.refused("prompt 900 deep", TEXT, {"prompt": nested})
    judge.refused("content 900 deep", CHAT, {"messages": [{"role": "user", "content": nested}]})
    judge.refused("a schema 400 deep", TEXT, {
        "prompt": "a", "max_tokens": 1, "response_format": {
            "type": "json_schema", "json_schema": {"schema": schema}}}, (200, 400))


def check_context(judge):
    judge.refused("a text past the context", TEXT, {"prompt": "gate " * 3000})
    judge.refused("ids past the context", TEXT, {"prompt": [5] * 1025, "max_tokens": 0})
    judge.refused("prompt and answer past the context", TEXT, {"prompt": [5] * 1000,
                                                               "max_tokens": 26})
    judge.taken("just the context", TEXT, {"prompt": [5] * 1000, "max_tokens": 25,
                                           "ignore_eos": True})
    judge.refused("a conversation past it", CHAT, {"messages": USER * 400})
    judge.refused("too many prompts", TEXT, {"prompt": ["a"] * 257}, (400,), "prompt")


def check_large(judge, limit):
    rss = judge.server.proc().rss()
    for what, text in (("letters", "a"), ("blanks", " "), ("lines", "\n"), ("quotes", "'"),
                       ("marks", "\u0301"), ("marks in disorder", "\u0315\u0300\u05ae"),
                       ("digits", "1"), ("kana", "\u30ab\u3099"), ("joiners", "\u200d"),
                       ("specials", "<|im_start|>"), ("nearly specials", "<|im_start|")):
        n = (limit - 1000) // (len(json.dumps(text)) - 2)
        judge.taken(f"{n} {what}", "/tokenize", {"prompt": "e" + text * n})
        body = json.dumps({"prompt": "e" + text * n}, ensure_ascii=False).encode()
        judge.refused(f"{n} {what}", TEXT, body)
        judge.refused(f"{n} {what} in a message", CHAT, json.dumps(
            {"messages": [{"role": "user", "content": "e" + text * n}]},
            ensure_ascii=False).encode())
    parts = [{"type": "text", "text": "a"}] * (limit // 40)
    judge.refused("many parts", CHAT, {"messages": [{"role": "user", "content": parts}]})
    parts = [{"type": "text", "text": "a" * (limit // 3)}] + [
        {"type": "text", "text": ""}] * (limit // 80)
    judge.refused("many parts behind a long one", CHAT,
                  {"messages": [{"role": "user", "content": parts}]})
    judge.refused("many messages", CHAT, {"messages": USER * (limit // 40)})
    judge.refused("many ids", TEXT, {"prompt": [1] * (limit // 4)})
    judge.refused("many prompts", TEXT, {"prompt": [[1]] * (limit // 6)}, (400,), "prompt")
    judge.refused("many tools", CHAT, {"messages": USER, "tools": [
        {"type": "function", "function": {"name": "f"}}] * (limit // 60)})
    judge.refused("long stop strings of many choices", TEXT, {
        "prompt": [[1]] * 16, "n": 16, "max_tokens": 1, "stop": ["a" * (limit // 20)] * 16},
        (400,), "stop")
    judge.refused("a schema of many names", TEXT, {
        "prompt": "a", "max_tokens": 1, "response_format": {
            "type": "json_schema", "json_schema": {"schema": {
                "type": "object", "properties": {f"p{i}": {"type": "integer"} for i in
                                                 range(limit // 40)}}}}}, (200, 400))
    judge.refused("a schema with a long enum", TEXT, {
        "prompt": "a", "max_tokens": 1, "response_format": {
            "type": "json_schema", "json_schema": {"schema": {
                "enum": [f"v{i}" for i in range(limit // 12)]}}}}, (200, 400))
    judge.refused("past the size", TEXT, b" " * (limit + 1), (413,))
    grown = judge.server.proc().rss() - rss
    if grown > 100 * MIB + 100 * limit:
        judge.wrong.append(f"the server grew by {grown / MIB:.0f} MiB")


def check_routes(judge):
    server = judge.server
    for method, path, want in (
            ("GET", CHAT, 405), ("GET", TEXT, 405), ("POST", "/health", 405), ("PUT", TEXT, 405),
            ("DELETE", "/v1/models", 405), ("POST", "/v1/models", 405), ("GET", "/", 404),
            ("GET", "/v1", 404), ("POST", "/v1/completions/", 404), ("POST", "/V1/completions", 404),
            ("GET", "/v1/models/", 404), ("GET", "/v1/models/a/b", 404), ("GET", "/v1/modelsx", 404),
            ("GET", "/%00", 400), ("GET", "/a/../v1/models", 400), ("GET", "/" + "a" * 9000, 414)):
        status, _, body = server.request(method, path, b"" if method in ("POST", "PUT") else None)
        judge.n += 1
        allowed = (want, 404) if want == 405 else (want,)
        if path == "/" and status == 200:  # a page for people may be there
            continue
        if status not in allowed or "error" not in json.loads(body):
            judge.wrong.append(f"{method} {path[:40]}: {status} {body[:200]!r}, not {want}")


def check(binary, limit):
    ask = {"prompt": "The gate", "max_tokens": 20, "temperature": 0}
    with tempfile.TemporaryDirectory(prefix="sigmoe-bad-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny"))
        with Served(binary, model, "--max-body", limit) as server:
            text = server.post(TEXT, ask)[1]["choices"][0]["text"]
            judge = Judge(server)
            for part in (check_fields, check_no_json, check_depth, check_context, check_routes,
                         functools.partial(check_large, limit=limit)):
                started, n = time.monotonic(), judge.n
                part(judge)
                print(f"{getattr(part, '__name__', 'check_large')}: {judge.n - n} requests, "
                      f"{time.monotonic() - started:.1f} s", flush=True)
                if server.get("/health")[0] != 200:
                    raise Failure("not healthy any more")
            for line in judge.wrong:
                print("WRONG:", line)
            again = server.post(TEXT, ask)[1]["choices"][0]["text"]
            server.wait_idle()
            if judge.wrong:
                raise Failure(f"{len(judge.wrong)} of {judge.n} requests")
            if again != text:
                raise Failure(f"afterwards the answer is another: {again!r}, before {text!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--max-body", type=int, default=8 * MIB)
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe, args.max_body))


if __name__ == "__main__":
    main()
