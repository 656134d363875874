#!/usr/bin/env python3
"""/v1/chat/completions: the model's template, tools and their calls, shapes.

usage: chat.py [--sigmoe PROGRAM] [TEST...]
"""
import json
import os

import case
from case import (CALL, CHAT, CHAT_RESPONSE, CHUNK, REASONS, TEXT, Api, check_shape, main)
from served import chat_prompt, make_model

USER = [{"role": "user", "content": "The gate"}]
WEATHER = {"type": "function", "function": {
    "name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Kyiv", "Oslo"]}}, "required": ["city"]}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "parameters": {
        "type": "object", "properties": {"h24": {"type": "boolean"}}, "required": ["h24"]}}}


class Chat(Api):
    def test_a_response_has_the_published_shape(self):
        for fields in ({}, {"n": 2}, {"logprobs": True, "top_logprobs": 3}, {"max_tokens": 0}):
            answer = self.talk(**fields)
            check_shape(answer, CHAT_RESPONSE)
            self.assertEqual(answer["object"], "chat.completion")
            self.assertTrue(answer["id"].startswith("chatcmpl-"))
            for c in answer["choices"]:
                self.assertIn(c["finish_reason"], REASONS)
                self.assertEqual(c["message"]["role"], "assistant")

    def test_the_template_makes_the_prompt(self):
        talk = [{"role": "system", "content": "Be short."}, *USER]
        text = self.choice(prompt=chat_prompt(talk), add_special_tokens=False)["text"]
        answer = self.good(CHAT, {"messages": talk, "temperature": 0, "max_tokens": 8})
        self.assertEqual(answer["choices"][0]["message"]["content"], text)
        self.assertEqual(answer["usage"]["prompt_tokens"], len(self.ids(chat_prompt(talk))))

    def test_rendering_shows_it_without_answering(self):
        for path in ("/v1/chat/completions/render", "/apply-template"):
            shown = self.good(path, {"messages": USER})
            self.assertEqual(shown["prompt"], chat_prompt(USER))
            self.assertEqual(shown["prompt_token_ids"], self.ids(chat_prompt(USER)))
        ids = self.good("/tokenize", {"messages": USER})["tokens"]
        self.assertEqual(ids, self.ids(chat_prompt(USER)))

    def test_tools_go_through_the_template(self):
        shown = self.good("/apply-template", {"messages": USER, "tools": [WEATHER]})["prompt"]
        self.assertIn("weather", shown)
        none = self.good("/apply-template", {"messages": USER, "tools": [WEATHER],
                                             "tool_choice": "none"})["prompt"]
        self.assertEqual(none, chat_prompt(USER))
        more = self.talk(tools=[WEATHER])["usage"]["prompt_tokens"]
        self.assertGreater(more, self.talk()["usage"]["prompt_tokens"])

    def test_a_content_of_parts_is_their_text(self):
        parts = [{"type": "text", "text": "The "}, {"type": "text", "text": "gate"}]
        self.assertEqual(self.talk(parts)["choices"][0]["message"],
                         self.talk("The gate")["choices"][0]["message"])

    def test_generation_prompt_and_final_message(self):
        def shown(messages, **fields):
            return self.good("/apply-template", {"messages": messages, **fields})["prompt"]
        head = chat_prompt(USER).removesuffix("<|im_start|>assistant\n")
        self.assertEqual(shown(USER, add_generation_prompt=False), head)
        begun = [*USER, {"role": "assistant", "content": "It is"}]
        self.assertEqual(shown(begun, continue_final_message=True),
                         head + "<|im_start|>assistant\nIt is")
        self.refused(CHAT, {"messages": begun, "continue_final_message": True,
                            "add_generation_prompt": True}, 400)

    def test_template_values_are_plain_and_the_template_is_the_models(self):
        self.talk(chat_template_kwargs={"enable_thinking": False, "x": 1, "y": "z", "n": None})
        for value in ({"a": []}, {"a": {}}, {"messages": 1}, 1):
            self.refused(CHAT, {"messages": USER, "chat_template_kwargs": value}, 400,
                         "chat_template_kwargs")
        self.refused(CHAT, {"messages": USER, "chat_template": "{{ 1 }}"}, 400, "chat_template")

    def test_logprobs_have_the_chat_form(self):
        c = self.talk(logprobs=True, top_logprobs=4, return_token_ids=True)["choices"][0]
        content = c["logprobs"]["content"]
        self.assertEqual(len(content), len(c["token_ids"]))
        for entry in content:
            self.assertEqual(len(entry["top_logprobs"]), 4)
            self.assertEqual(entry["logprob"], entry["top_logprobs"][0]["logprob"])
            if not entry["token"].startswith("bytes:"):
                self.assertEqual(bytes(entry["bytes"]).decode(), entry["token"])
        plain = self.talk(logprobs=True)["choices"][0]["logprobs"]["content"]
        self.assertEqual([e["top_logprobs"] for e in plain], [[]] * len(plain))
        self.refused(CHAT, {"messages": USER, "top_logprobs": 2}, 400, "top_logprobs")

    def test_without_max_tokens_the_context_is_the_limit(self):
        answer = self.good(CHAT, {"messages": USER, "temperature": 0, "ignore_eos": True})
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["total_tokens"], 1025)

    def test_a_named_tool_is_called(self):
        named = {"type": "function", "function": {"name": "weather"}}
        for choice in (named, "required"):
            answer = self.talk(tools=[WEATHER], tool_choice=choice, max_tokens=60, temperature=1,
                               seed=3)
            message = answer["choices"][0]["message"]
            check_shape(message["tool_calls"], [CALL])
            (call,) = message["tool_calls"]
            self.assertEqual((message["content"], call["function"]["name"]), (None, "weather"))
            self.assertIn(json.loads(call["function"]["arguments"])["city"], ("Kyiv", "Oslo"))

    def test_one_of_several_required_tools_is_called(self):
        c = self.talk(tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=120,
                      temperature=1, seed=3)["choices"][0]
        (call,) = c["message"]["tool_calls"]
        self.assertEqual(c["finish_reason"], "tool_calls")
        arguments = json.loads(call["function"]["arguments"])
        self.assertEqual(set(arguments), {"weather": {"city"}, "clock": {"h24"}}[
            call["function"]["name"]])

    def test_a_called_tools_arguments_stream(self):
        ask = {"messages": USER, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 60,
               "temperature": 1, "seed": 3}
        whole = self.good(CHAT, ask)["choices"][0]["message"]["tool_calls"][0]
        pieces = []
        for e in self.server.stream(CHAT, ask):
            check_shape(e, CHUNK)
            for c in e["choices"]:
                pieces += c["delta"].get("tool_calls", [])
        self.assertEqual({p["index"] for p in pieces}, {0})
        self.assertEqual([p["function"]["name"] for p in pieces if "name" in p["function"]],
                         ["weather"])
        self.assertEqual([p["type"] for p in pieces if "id" in p], ["function"])
        self.assertEqual("".join(p["function"]["arguments"] for p in pieces),
                         whole["function"]["arguments"])
        self.assertGreater(len(pieces), 2)

    def test_wrong_tools_are_refused(self):
        for tools, choice, param in (
                ([{"type": "function"}], None, "tools"), ([1], None, "tools"),
                ([WEATHER], "sometimes", "tool_choice"), (None, "required", "tool_choice"),
                ([WEATHER], {"function": {"name": "other"}}, "tool_choice"),
                ([WEATHER], {"function": {}}, "tool_choice")):
            self.refused(CHAT, {"messages": USER, "tools": tools, "tool_choice": choice}, 400, param)

    def test_calls_of_earlier_turns_are_taken(self):
        turns = [*USER, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather",
                                                         "arguments": "{\"city\": \"Oslo\"}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"}]
        self.good(CHAT, {"messages": turns, "max_tokens": 2})


class WithoutTemplate(Api):
    workers = 0

    @classmethod
    def model(cls, tmp):
        return make_model(case.SIGMOE, os.path.join(tmp, "bare"), chat_template=None)

    def test_it_is_said_in_words(self):
        error = self.refused(CHAT, {"messages": USER}, 400, "messages", "no_chat_template")
        self.assertIn("/v1/completions", error["message"])
        self.good(TEXT, {"prompt": "a", "max_tokens": 1})


class FromAFile(Api):
    """chat_template.jinja beside the tokenizer, and one that raises."""
    workers = 0

    @classmethod
    def model(cls, tmp):
        folder = make_model(case.SIGMOE, os.path.join(tmp, "jinja"), chat_template=None)
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as f:
            f.write("{% for m in messages %}{% if m.role == 'robot' %}"
                    "{{ raise_exception('no robots') }}{% endif %}[{{ m.role }}]{{ m.content }}"
                    "{% endfor %}{% if loud %}!{% endif %}"
                    "{% if m is undefined %}{% for i in range(bomb or 0) %}{% for k in range(9999) %}"
                    "{% for l in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}{% endif %}")
        return folder

    def test_it_is_rendered(self):
        shown = self.good("/apply-template", {"messages": USER,
                                              "chat_template_kwargs": {"loud": True}})
        self.assertEqual(shown["prompt"], "[user]The gate!")

    def test_what_it_raises_is_said(self):
        error = self.refused(CHAT, {"messages": [{"role": "robot", "content": "a"}]}, 400,
                             "messages")
        self.assertIn("no robots", error["message"])

    def test_one_that_runs_on_is_ended(self):
        self.refused(CHAT, {"messages": USER, "chat_template_kwargs": {"bomb": 9999}}, 400,
                     "messages")
        self.talk()


if __name__ == "__main__":
    main()
