#!/usr/bin/env python3
"""Checkpoints whose chat template means harm: it never ends, calls itself, grows without bound, or
reaches for what is outside. `sigmoe serve` refuses what it cannot read, in words, before it serves;
the others cost their own conversations a 4xx in good time, and nothing else.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, main_of, run_sigmoe  # noqa: E402
from served import Served, make_model  # noqa: E402

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
HOSTILE = {  # all in one template, chosen by what the user says, so that one server meets them all
    "endless": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "ranges": "{% for a in range(9223372036854775807) %}{% endfor %}",
    "deep": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "wide": "{% macro g(n) %}{% for i in range(9) %}{{ g(n + 1) }}{% endfor %}{% endmacro %}"
            "{{ g(0) }}",
    "giant": "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "exponential": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
                   "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "paths": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
             "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "raises": "{{ raise_exception('no such conversation, <b>\"\\u2028') }}",
    "outside": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attribute": "{{ cycler.__init__.__globals__ }}",
    "division": "{{ 1 // 0 }}",
    "long": "{{ 'word ' * 100000 }}",
    "empty": "",
}
UNREADABLE = ["{% for %}", "{{ '", "{% include '/etc/passwd' %}", "{{ " + "(" * 100000,
              "{{ " + "-" * 100000 + "1 }}", "{% if 1 %}" * 5000, "{% raw %}", "{{ a.b. }}"]


def template():
    parts = "".join(f"{{% {'if' if i == 0 else 'elif'} w == '{word}' %}}{text}"
                    for i, (word, text) in enumerate(HOSTILE.items()))
    return "{% set w = messages[0].content %}" + parts + "{% else %}{{ w }}{% endif %}"


def check_served(binary, model):
    with Served(binary, model, workers=0) as server:
        want = server.post(CHAT, ASK)
        if want[0] != 200:
            raise Failure(f"an ordinary conversation: {want}")
        for word in HOSTILE:
            started = time.monotonic()
            status, answer = server.post(CHAT, {**ASK, "messages": [
                {"role": "user", "content": word}]})
            took = time.monotonic() - started
            error = answer.get("error", {})
            if status != 400 or not error.get("message"):
                raise Failure(f"{word}: {status} {str(answer)[:300]}")
            if took > 10:
                raise Failure(f"{word}: took {took:.1f} s")
            if server.get("/health")[0] != 200:
                raise Failure(f"not healthy after {word}")
            print(f"{word}: {error['message'][:100]!r}")
        status, again = server.post(CHAT, ASK)
        if status != 200:
            raise Failure(f"afterwards: {status} {again}")


def check_unreadable(binary, model):
    config = os.path.join(model, "tokenizer_config.json")
    with open(config, encoding="utf-8") as f:
        value = json.load(f)
    for source in UNREADABLE:
        with open(config, "w", encoding="utf-8") as f:
            json.dump({**value, "chat_template": source}, f)
        status, _, stderr = run_sigmoe(binary, ["serve", model, "--port", "0"], timeout=30)
        if status != 3 or "chat template" not in stderr:
            raise Failure(f"{source[:40]!r}: exit {status}: {stderr[-400:]}")
    print(f"{len(UNREADABLE)} unreadable templates: refused in words")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-templates-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny"), template())
        check_served(binary, model)
        other = os.path.join(tmp, "other")
        shutil.copytree(model, other)
        check_unreadable(binary, other)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
