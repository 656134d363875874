#!/usr/bin/env python3
"""Models with domains over HTTP: ids, the field, the header, and what answers say.

usage: domains.py [--sigmoe PROGRAM] [TEST...]
"""
import json
import os
import shutil
import sys
import time

import case
from case import CHAT, TEXT, Api, main

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from extract_lossless import CONFIG  # noqa: E402
from harness import write_json  # noqa: E402
from served import CHAT_TEMPLATE, TOKENIZER, run_sigmoe  # noqa: E402

NAMES = [d["name"] for d in CONFIG["domains"]]
PROMPT = "The gate says which"


class Domains(Api):
    @classmethod
    def model(cls, tmp):
        config, folder = os.path.join(tmp, "config.json"), os.path.join(tmp, "sigma")
        write_json(config, {**CONFIG, "vocab_size": 640, "bos_token_id": 620, "eos_token_id": 622,
                            "max_position_embeddings": 256, "default_domain": "en"})
        status, _, stderr = run_sigmoe(case.SIGMOE, ["synth", config, "-o", folder, "--std", "0.2"])
        assert status == 0, stderr
        shutil.copyfile(TOKENIZER, os.path.join(folder, "tokenizer.json"))
        write_json(os.path.join(folder, "tokenizer_config.json"),
                   {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>",
                    "chat_template": CHAT_TEMPLATE})
        return folder

    def ask(self, **fields):
        return self.text(prompt=PROMPT, ignore_eos=True, max_tokens=12, **fields)

    def test_each_domain_is_a_model(self):
        models = json.loads(self.server.get("/v1/models")[1])["data"]
        self.assertEqual([m["id"] for m in models], ["sigma", *(f"sigma:{n}" for n in NAMES)])
        self.assertEqual([m.get("domain") for m in models], [None, *NAMES])
        status, body = self.server.get("/v1/models/sigma:code")
        self.assertEqual((status, json.loads(body)["id"]), (200, "sigma:code"))

    def test_what_one_domain_has_computed_is_not_anothers(self):
        prompt = [(3 * i + i // 7) % 600 for i in range(200)]

        def ask(domain):
            answer = self.text(prompt=prompt, domain=domain, max_tokens=20, ignore_eos=True)
            usage = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            return answer["domain"], answer["choices"][0]["text"], usage

        first = [ask(name) for name in NAMES]
        self.assertEqual([f[2] for f in first], [0] * len(NAMES))
        found = ask("auto")
        again = [ask(name) for name in NAMES]
        self.assertEqual([a[:2] for a in again], [f[:2] for f in first])
        self.assertEqual([a[2] for a in again], [192] * len(NAMES))
        self.assertIn(found[:2], [f[:2] for f in first])
        self.assertEqual(found[2], 192)

    def test_the_id_the_field_and_the_header_pin_the_same_group(self):
        texts = {}
        for name in NAMES:
            by_id, by_field = self.ask(model=f"sigma:{name}"), self.ask(domain=name)
            status, _, body = self.server.request("POST", TEXT, json.dumps(
                {"prompt": PROMPT, "ignore_eos": True, "max_tokens": 12, "temperature": 0}),
                {"X-Sigmoe-Domain": name})
            by_header = json.loads(body)
            self.assertEqual(by_id["model"], f"sigma:{name}")
            self.assertEqual(by_field["model"], "sigma")
            for answer in (by_id, by_field, by_header):
                self.assertEqual(answer["domain"], name)
                self.assertEqual(answer["sigmoe"]["domains"], [{"domain": name, "scores": None}])
            texts[name] = by_id["choices"][0]["text"]
            self.assertEqual(by_field["choices"][0]["text"], texts[name])
            self.assertEqual(by_header["choices"][0]["text"], texts[name])
        self.assertGreater(len(set(texts.values())), 1)

    def test_routes_stay_in_the_group(self):
        import completions
        first = 0
        for d in CONFIG["domains"]:
            c = self.ask(domain=d["name"], return_routed_experts=True)["choices"][0]
            _, shape, values = completions.read_npy(c["routed_experts"])
            sparse = [v for i, v in enumerate(values) if i // shape[2] % shape[1] >= 2]
            self.assertTrue(all(first <= v < first + d["num_experts"] for v in sparse), d)
            first += d["num_experts"]

    def test_nobody_named_one_so_it_is_found_and_the_scores_are_told(self):
        for fields in ({}, {"domain": "auto"}, {"model": "sigma"}, {"model": "sigma:auto"}):
            answer = self.ask(**fields)
            self.assertIn(answer["domain"], NAMES)
            (found,) = answer["sigmoe"]["domains"]
            self.assertEqual(found["domain"], answer["domain"])
            self.assertEqual(list(found["scores"]), NAMES)
            self.assertEqual(max(found["scores"], key=found["scores"].get), found["domain"])

    def test_each_prompt_of_a_batch_has_its_own(self):
        answer = self.text(prompt=[PROMPT, "worker", "a b c"])
        self.assertEqual(len(answer["sigmoe"]["domains"]), 3)

    def test_a_stream_says_it_first_and_tells_the_scores_last(self):
        for path, body in ((TEXT, {"prompt": PROMPT}),
                           (CHAT, {"messages": [{"role": "user", "content": PROMPT}]})):
            for usage in (False, True):
                options = {"stream_options": {"include_usage": True}} if usage else {}
                events = self.server.stream(path, {**body, "max_tokens": 4, "temperature": 0,
                                                   **options})
                self.assertIn(events[0]["domain"], NAMES)
                self.assertEqual([("sigmoe" in e) for e in events[-2:]], [False, True])
                self.assertEqual(events[-1]["sigmoe"]["domains"][0]["domain"], events[0]["domain"])

    def test_unknown_domains_are_refused_with_the_list(self):
        for fields, status, param, code in (
                ({"model": "sigma:latin"}, 404, "model", "model_not_found"),
                ({"domain": "latin"}, 400, "domain", "unknown_domain"),
                ({"domain": 1}, 400, "domain", None),
                ({"model": "sigma:zh", "domain": "en"}, 400, "domain", None),
                ({"model": "sigmaz"}, 404, "model", "model_not_found"),
                ({"model": "sigma:"}, 404, "model", "model_not_found")):
            error = self.refused(TEXT, {"prompt": PROMPT, **fields}, status, param, code)
            if fields.get("domain") == "latin" or fields.get("model") == "sigma:latin":
                self.assertIn("zh, en, code, poetry", error["message"])
        status, _, body = self.server.request("POST", TEXT, json.dumps({"prompt": PROMPT}),
                                              {"X-Sigmoe-Domain": "latin"})
        self.assertEqual((status, json.loads(body)["error"]["code"]), (400, "unknown_domain"))
        self.ask(model="sigma:zh", domain="auto")

    def test_status_and_metrics_count_by_domain(self):
        name = 'sigmoe_domain_requests_total{domain="poetry"}'
        before = self.server.metrics()[name]
        self.ask(domain="poetry", n=2)
        time.sleep(0.1)
        self.assertEqual(self.server.metrics()[name] - before, 2)
        status = json.loads(self.server.get("/sigmoe/status")[1])
        self.assertEqual([(d["name"], d["first"], d["experts"]) for d in status["domains"]],
                         [("zh", 0, 4), ("en", 4, 3), ("code", 7, 5), ("poetry", 12, 2)])


if __name__ == "__main__":
    main()
