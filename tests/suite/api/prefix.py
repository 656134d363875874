#!/usr/bin/env python3
"""What is computed once and found again, and sequences that give way: the answers are the same.

usage: prefix.py [--sigmoe PROGRAM] [TEST...]
"""
import concurrent.futures
import os
import re
import sys
import time

import case
from case import CHAT, TEXT, Api, main

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import run_sigmoe  # noqa: E402
from served import Served  # noqa: E402

PAGE = 64


def ids(seed, n=300):
    return [(seed * 101 + 7 * i + i // 5) % 600 for i in range(n)]


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


class Found(Api):
    options = ("--speculate", "off")  # rows are counted

    def ask(self, prompt, server=None, **fields):
        body = {"prompt": prompt, "max_tokens": 70, "temperature": 0.9, "seed": 5,
                "ignore_eos": True, "logprobs": 3, **fields}
        status, answer = (server or self.server).post(TEXT, body)
        self.assertEqual(status, 200, answer)
        return answer

    def test_the_same_prompt_is_found_and_answered_alike(self):
        before = self.server.wait_idle()
        first, second = self.ask(ids(1)), self.ask(ids(1))
        self.assertEqual((cached(first), cached(second)), (0, 4 * PAGE))
        self.assertEqual(first["choices"], second["choices"])
        # Whole pages, and never the last token.
        self.assertEqual(cached(self.ask(ids(1, 4 * PAGE))), 3 * PAGE)
        self.assertEqual(cached(self.ask(ids(1, 4 * PAGE + 1))), 4 * PAGE)
        self.assertEqual(cached(self.ask(ids(1)[:PAGE + 9] + ids(2))), PAGE)
        after = self.server.wait_idle()
        hits, looked = (after[n] - before[n] for n in (
            "sigmoe_prefix_cache_hit_tokens_total", "sigmoe_prefix_cache_lookup_tokens_total"))
        self.assertEqual(hits, 12 * PAGE)
        self.assertEqual(looked, 600 + 8 * PAGE + 1 + PAGE + 9 + 300)
        self.assertGreater(after["sigmoe_kv_pages_cached"], 4)
        self.assertEqual(after["sigmoe_kv_pages_free"], after["sigmoe_kv_pages"])
        time.sleep(1)  # the server counts twice a second
        status, out, err = run_sigmoe(case.SIGMOE, ["top", self.server.url, "--once"])
        self.assertEqual(status, 0, err)
        self.assertRegex(out.decode(), re.compile(r"^prefixes +[\d.]+% of prompt tokens found", re.M))

    def test_without_the_cache_it_is_the_same(self):
        prompts = [ids(1), ids(3), ids(1)[:200] + ids(4), ids(3)]
        with Served(case.SIGMOE, os.path.join(self.tmp.name, "tiny"), "--no-prefix-cache") as plain:
            for prompt in prompts:
                self.ask(prompt)  # so that the next one finds it
                found, computed = self.ask(prompt), self.ask(prompt, plain)
                self.assertEqual(found["choices"], computed["choices"])
                self.assertEqual(cached(computed), 0)
                self.assertEqual(cached(found), (len(prompt) - 1) // PAGE * PAGE)
            self.assertEqual(plain.metrics()["sigmoe_prefix_cache_lookup_tokens_total"], 0)

    def test_the_next_turn_finds_the_conversation(self):
        talk = [{"role": "user", "content": "the gate and the worker " * 12}]
        answer = self.good(CHAT, {"messages": talk, "max_tokens": 40, "temperature": 0})
        self.assertEqual(cached(answer), 0)
        talk += [answer["choices"][0]["message"], {"role": "user", "content": "and then?"}]
        talk = [{"role": m["role"], "content": m["content"]} for m in talk]
        *_, last = self.server.stream(CHAT, {"messages": talk, "max_tokens": 4, "temperature": 0,
                                             "stream_options": {"include_usage": True}})
        self.assertGreaterEqual(cached(last), answer["usage"]["prompt_tokens"] // PAGE * PAGE)

    def test_what_is_told_of_every_position_is_computed(self):
        self.ask(ids(6))
        for fields in ({"echo": True, "logprobs": 2}, {"prompt_logprobs": 1},
                       {"return_routed_experts": True}):
            first, second = (self.ask(ids(6), max_tokens=3, **fields) for _ in range(2))
            self.assertEqual((cached(first), cached(second)), (0, 0))
            self.assertEqual(first["choices"], second["choices"])
        self.assertEqual(cached(self.ask(ids(6))), 4 * PAGE)

    def test_choices_compute_their_prompt_once(self):
        rows = "sigmoe_rows_total"
        before = self.server.wait_idle()[rows]
        answer = self.ask(ids(8), n=4, max_tokens=2)
        self.assertEqual(cached(answer), 0)
        # 300 and one generated row, and three times what is behind the last full page.
        self.assertEqual(self.server.wait_idle()[rows] - before, 300 + 3 * (300 - 4 * PAGE) + 4)
        again = self.ask(ids(8), n=4, max_tokens=2)
        self.assertEqual(cached(again), 4 * PAGE)
        self.assertEqual(again["choices"], answer["choices"])


class Short(Api):
    """Pages for hardly more than one of the requests at its longest."""
    options = ("--kv-tokens", "768", "--max-seqs", "8")

    def ask(self, i):
        kind = ({}, {"repetition_penalty": 1.2}, {"response_format": {"type": "json_object"}},
                {"logprobs": 2}, {"prompt_logprobs": 1, "max_tokens": 300})[i % 5]
        return self.good(TEXT, {"prompt": ids(i % 3, 20 + 9 * i), "max_tokens": 500, "seed": i,
                                "temperature": 1, "ignore_eos": True, **kind}, 120)

    def test_who_gives_way_answers_as_if_alone(self):
        alone = [self.ask(i)["choices"] for i in range(10)]
        self.assertEqual(self.server.metrics()["sigmoe_preemptions_total"], 0)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            got = [a["choices"] for a in pool.map(self.ask, range(10))]
        self.assertEqual(got, alone)
        metrics = self.server.wait_idle()
        self.assertGreater(metrics["sigmoe_preemptions_total"], 0)

    def test_what_can_never_fit_is_refused(self):
        self.refused(TEXT, {"prompt": ids(1), "max_tokens": 600}, 400)


if __name__ == "__main__":
    main()
