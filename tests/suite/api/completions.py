#!/usr/bin/env python3
"""/v1/completions: what evaluation harnesses and benchmarks rely on.

usage: completions.py [--sigmoe PROGRAM] [TEST...]
"""
import ast
import base64
import struct

from case import REASONS, TEXT, TEXT_RESPONSE, Api, check_shape, main

PROMPT = "The gate says which"


def read_npy(text):
    """(dtype, shape, values) of a base64 NumPy file of format 1.0."""
    raw = base64.b64decode(text, validate=True)
    assert raw[:8] == b"\x93NUMPY\x01\x00", raw[:8]
    (n,) = struct.unpack_from("<H", raw, 8)
    assert (10 + n) % 64 == 0 and raw[9 + n:10 + n] == b"\n"
    head = ast.literal_eval(raw[10:10 + n].decode())
    assert head["fortran_order"] is False
    code = {"|u1": "B", "<u2": "H", "<i4": "i"}[head["descr"]]
    count = 1
    for side in head["shape"]:
        count *= side
    return head["descr"], head["shape"], struct.unpack(f"<{count}{code}", raw[10 + n:])


class Completions(Api):
    def test_a_response_has_the_published_shape(self):
        for fields in ({}, {"n": 2}, {"logprobs": 3}, {"echo": True, "logprobs": 0},
                       {"stop": ["e"]}, {"max_tokens": 0, "echo": True}):
            answer = self.text(prompt=PROMPT, **fields)
            check_shape(answer, TEXT_RESPONSE)
            self.assertEqual(answer["object"], "text_completion")
            self.assertTrue(answer["id"].startswith("cmpl-"))
            for c in answer["choices"]:
                self.assertIn(c["finish_reason"], REASONS)

    def test_echo_with_logprobs_gives_the_prompts_own(self):
        ids = self.ids(PROMPT)
        for n in (1, 2, len(ids)):
            c = self.choice(prompt=ids[:n], max_tokens=1, echo=True, logprobs=1)
            lp = c["logprobs"]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                self.assertEqual(len(lp[name]), n + 1, name)
            self.assertIsNone(lp["token_logprobs"][0])
            self.assertIsNone(lp["top_logprobs"][0])
            self.assertTrue(all(p < 0 for p in lp["token_logprobs"][1:]))

    def test_the_prompts_logprobs_do_not_depend_on_how_it_was_computed(self):
        ids = self.ids(PROMPT)
        whole = self.choice(prompt=ids, max_tokens=0, echo=True, logprobs=2)["logprobs"]
        for n in range(2, len(ids)):
            part = self.choice(prompt=ids[:n], max_tokens=0, echo=True, logprobs=2)["logprobs"]
            self.assertEqual(part["token_logprobs"], whole["token_logprobs"][:n])
            self.assertEqual(part["top_logprobs"], whole["top_logprobs"][:n])

    def test_a_generated_token_has_the_logprob_it_has_in_a_prompt(self):
        ids = self.ids(PROMPT)
        c = self.choice(prompt=ids, max_tokens=6, logprobs=1, return_token_ids=True)
        again = self.choice(prompt=ids + c["token_ids"], max_tokens=0, echo=True, logprobs=1)
        n = len(ids)
        self.assertEqual(c["logprobs"]["token_logprobs"],
                         again["logprobs"]["token_logprobs"][n:n + len(c["token_ids"])])

    def test_the_tokens_entry_among_the_likeliest_is_the_identical_number(self):
        c = self.choice(prompt=PROMPT, max_tokens=12, echo=True, logprobs=5, temperature=1.3, seed=4)
        lp = c["logprobs"]
        for token, p, top in list(zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]))[1:]:
            self.assertEqual(top[token], p)
            self.assertGreaterEqual(len(top), 5)
        greedy = self.choice(prompt=PROMPT, max_tokens=12, logprobs=1)["logprobs"]
        for token, p, top in zip(greedy["tokens"], greedy["token_logprobs"], greedy["top_logprobs"]):
            self.assertEqual(max(top.values()), p)

    def test_offsets_point_at_the_tokens_in_the_text(self):
        c = self.choice(prompt=PROMPT, max_tokens=10, echo=True, logprobs=0)
        self.assertTrue(c["text"].startswith(PROMPT))
        offsets = c["logprobs"]["text_offset"]
        self.assertEqual(offsets, sorted(offsets))
        self.assertLessEqual(offsets[-1], len(c["text"]))
        for token, at in zip(c["logprobs"]["tokens"], offsets):
            if not token.startswith("bytes:") and "\ufffd" not in token and "<|" not in token:
                self.assertTrue(c["text"][at:].startswith(token), (token, at, c["text"]))
        plain = self.choice(prompt=PROMPT, max_tokens=3, logprobs=0)
        self.assertEqual(plain["logprobs"]["text_offset"][0], 0)

    def test_token_ids_texts_and_batches_of_either_are_prompts(self):
        ids, other = self.ids(PROMPT, special=True), self.ids("worker", special=True)
        one, two = self.choice(prompt=ids)["text"], self.choice(prompt=other)["text"]
        self.assertEqual(self.choice(prompt=PROMPT)["text"], one)
        for batch in ([ids, other], [PROMPT, "worker"], [PROMPT, other]):
            answer = self.text(prompt=batch)
            self.assertEqual([c["index"] for c in answer["choices"]], [0, 1])
            self.assertEqual([c["text"] for c in answer["choices"]], [one, two])
            self.assertEqual(answer["usage"]["prompt_tokens"], len(ids) + len(other))

    def test_choices_of_a_prompt_stand_side_by_side(self):
        answer = self.text(prompt=[PROMPT, "worker"], n=3, temperature=1, seed=11)
        self.assertEqual([c["index"] for c in answer["choices"]], list(range(6)))
        texts = [c["text"] for c in answer["choices"]]
        self.assertGreater(len(set(texts[:3])), 1)
        again = self.text(prompt=[PROMPT, "worker"], n=3, temperature=1, seed=11)
        self.assertEqual([c["text"] for c in again["choices"]], texts)
        other = self.text(prompt=[PROMPT, "worker"], n=3, temperature=1, seed=12)
        self.assertNotEqual([c["text"] for c in other["choices"]], texts)

    def test_the_same_seed_gives_the_same_text_in_any_company(self):
        ask = {"prompt": PROMPT, "temperature": 1, "seed": 5, "max_tokens": 20}
        alone = self.choice(**ask)["text"]
        crowd = self.text(**{**ask, "prompt": ["a", "b", PROMPT, "c"] * 5})
        self.assertEqual({c["text"] for c in crowd["choices"] if c["index"] % 4 == 2}, {alone})

    def test_stop_strings_end_a_choice_before_them(self):
        whole = self.choice(prompt=PROMPT, max_tokens=40, ignore_eos=True)["text"]
        stop = next(whole[i:i + 2] for i in range(4, len(whole) - 2)
                    if "\ufffd" not in whole[i:i + 2] and whole.index(whole[i:i + 2]) == i)
        c = self.choice(prompt=PROMPT, max_tokens=40, ignore_eos=True, stop=["nowhere", stop])
        self.assertEqual((c["text"], c["finish_reason"], c["stop_reason"]),
                         (whole[:whole.index(stop)], "stop", stop))
        c = self.choice(prompt=PROMPT, max_tokens=40, ignore_eos=True, stop=stop,
                        include_stop_str_in_output=True)
        self.assertEqual(c["text"], whole[:whole.index(stop)] + stop)

    def test_stop_tokens_end_a_choice_and_say_so(self):
        ids = self.choice(prompt=PROMPT, max_tokens=20, ignore_eos=True,
                          return_token_ids=True)["token_ids"]
        at = next(i for i in range(3, 20) if ids[i] not in ids[:i])
        c = self.choice(prompt=PROMPT, max_tokens=20, ignore_eos=True, stop_token_ids=[ids[at]],
                        return_token_ids=True)
        self.assertEqual((c["token_ids"], c["finish_reason"], c["stop_reason"]),
                         (ids[:at + 1], "stop", ids[at]))
        # Not before min_tokens: the token is barred until then.
        c = self.choice(prompt=PROMPT, max_tokens=20, ignore_eos=True, stop_token_ids=[ids[at]],
                        min_tokens=at + 3, return_token_ids=True)
        self.assertNotIn(ids[at], c["token_ids"][:at + 2])

    def test_a_stop_string_before_min_tokens_is_text(self):
        whole = self.choice(prompt=PROMPT, max_tokens=12, ignore_eos=True)["text"]
        c = self.choice(prompt=PROMPT, max_tokens=12, ignore_eos=True, stop=[whole[0]],
                        min_tokens=12)
        self.assertTrue(c["text"].startswith(whole[:3]), (c["text"], whole))

    def test_biases_ban_and_force(self):
        ids = self.choice(prompt=PROMPT, return_token_ids=True)["token_ids"]
        c = self.choice(prompt=PROMPT, return_token_ids=True, logit_bias={str(ids[0]): -100})
        self.assertNotIn(ids[0], c["token_ids"])
        c = self.choice(prompt=PROMPT, return_token_ids=True, logit_bias={"77": 100})
        self.assertEqual(set(c["token_ids"]), {77})
        # Logprobs are the model's own, before the bias.
        c = self.choice(prompt=PROMPT, logit_bias={"77": 100}, logprobs=1, max_tokens=1)
        self.assertLess(c["logprobs"]["token_logprobs"][0], max(
            c["logprobs"]["top_logprobs"][0].values()))

    def test_prompt_logprobs_have_the_vllm_form(self):
        ids = self.ids(PROMPT)
        echo = self.choice(prompt=ids, max_tokens=0, echo=True, logprobs=1)["logprobs"]
        lp = self.choice(prompt=ids, max_tokens=1, prompt_logprobs=2)["prompt_logprobs"]
        self.assertEqual(len(lp), len(ids))
        self.assertIsNone(lp[0])
        for i in range(1, len(ids)):
            own = lp[i][str(ids[i])]
            self.assertEqual(own["logprob"], echo["token_logprobs"][i])
            self.assertEqual(set(own), {"logprob", "rank", "decoded_token"})
            self.assertIn(len(lp[i]), (2, 3))
            better = [v for v in lp[i].values() if v["logprob"] > own["logprob"]]
            self.assertTrue(own["rank"] > len(better))
        self.refused(TEXT, {"prompt": PROMPT, "stream": True, "prompt_logprobs": 1}, 400,
                     "prompt_logprobs")

    def test_token_ids_come_back_when_asked_for(self):
        ids = self.ids(PROMPT, special=True)
        c = self.choice(prompt=PROMPT, return_token_ids=True)
        self.assertEqual(c["prompt_token_ids"], ids)
        self.assertEqual(self.good("/detokenize", {"tokens": c["token_ids"]})["prompt"], c["text"])
        c = self.choice(prompt=PROMPT, logprobs=1, return_tokens_as_token_ids=True,
                        return_token_ids=True)
        self.assertEqual(c["logprobs"]["tokens"], [f"token_id:{t}" for t in c["token_ids"]])
        self.assertNotIn("token_ids", self.choice(prompt=PROMPT))

    def test_truncation_keeps_the_end_of_the_prompt(self):
        ids = self.ids(PROMPT, special=True)
        c = self.choice(prompt=PROMPT, truncate_prompt_tokens=3, return_token_ids=True)
        self.assertEqual(c["prompt_token_ids"], ids[-3:])
        c = self.choice(prompt=PROMPT * 400, truncate_prompt_tokens=-1, max_tokens=1,
                        return_token_ids=True)
        self.assertEqual(len(c["prompt_token_ids"]), 1024)
        self.refused(TEXT, {"prompt": PROMPT * 400, "max_tokens": 1}, 400, "prompt",
                     "context_length_exceeded")

    def test_routed_experts_are_a_numpy_file_of_all_positions_but_the_last(self):
        c = self.choice(prompt=PROMPT, max_tokens=5, ignore_eos=True, return_token_ids=True,
                        return_routed_experts=True)
        n = len(c["prompt_token_ids"]) + len(c["token_ids"])
        dtype, shape, values = read_npy(c["routed_experts"])
        self.assertEqual((dtype, shape), ("|u1", (n - 1, 3, 2)))
        self.assertTrue(all(0 <= v < 8 for v in values))
        pairs = [values[i:i + 2] for i in range(0, len(values), 2)]
        self.assertTrue(all(a != b for a, b in pairs), "a token goes to different experts")
        whole = self.choice(prompt=c["prompt_token_ids"] + c["token_ids"], max_tokens=0,
                            return_routed_experts=True)
        self.assertEqual(read_npy(whole["routed_experts"])[2][:len(values)], values)
        self.assertNotIn("routed_experts", self.choice(prompt=PROMPT))

    def test_a_schema_shapes_the_text(self):
        import json
        schema = {"type": "object", "properties": {"n": {"type": "integer"},
                                                   "ok": {"type": "boolean"}},
                  "required": ["n", "ok"]}
        for fields in ({"response_format": {"type": "json_schema",
                                            "json_schema": {"name": "a", "schema": schema}}},
                       {"structured_outputs": {"json": schema}},
                       {"structured_outputs": {"json": json.dumps(schema)}},
                       {"guided_json": schema}):
            c = self.choice(prompt=PROMPT, max_tokens=80, temperature=1, seed=2, **fields)
            self.assertEqual(c["finish_reason"], "stop", c)
            value = json.loads(c["text"])
            self.assertEqual([type(value["n"]), type(value["ok"])], [int, bool])
        c = self.choice(prompt=PROMPT, max_tokens=900, temperature=1, seed=2,
                        response_format={"type": "json_object"})
        if c["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(c["text"]), dict)
        self.assertTrue(c["text"].startswith("{"))

    def test_what_cannot_be_done_is_refused(self):
        for fields, param in (({"best_of": 3}, "best_of"), ({"suffix": "a"}, "suffix"),
                              ({"use_beam_search": True}, "use_beam_search"),
                              ({"chat_template": "{{ 1 }}"}, "chat_template"),
                              ({"n": 17}, "n"), ({"logprobs": 21}, "logprobs"),
                              ({"logprobs": True}, "logprobs"),
                              ({"stream_options": {"include_usage": True}}, "stream_options")):
            self.refused(TEXT, {"prompt": PROMPT, **fields}, 400, param)
        self.refused(TEXT, {"prompt": ["a"] * 200, "n": 16}, 400)
        self.text(prompt=PROMPT, best_of=1, suffix="", user="u", no_such_field={})

    def test_each_answer_says_who_computed_it(self):
        by = self.text(prompt=PROMPT)["sigmoe"]["computed_by"]
        self.assertEqual(len(by), 2)
        self.assertAlmostEqual(sum(w["share"] for w in by), 1)
        n = len(self.ids(PROMPT, special=True)) + 8 - 1
        # Two experts a row; in the last of three layers only of rows that a token is drawn from.
        self.assertEqual(sum(w["rows"] for w in by), (n * 2 + 8) * 2)


if __name__ == "__main__":
    main()
