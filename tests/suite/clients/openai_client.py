#!/usr/bin/env python3
"""The openai Python package against `sigmoe serve` with worker processes: what its users rely on.

Every plain response is checked against the package's own types, which hold the required fields and
the allowed values of OpenAI's description. Run by scripts/test-venv light.
"""
import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import typing

import openai
import pydantic
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Failure, main_of  # noqa: E402
from served import Served, chat_prompt, make_model  # noqa: E402

HELLO = [{"role": "system", "content": "You are a gate."}, {"role": "user", "content": "你好, gate"}]
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}}]
KEY = "a-key-of-this-test"


def claim(what, got, want=True):
    if got != want:
        raise Failure(f"{what}: {got!r} is not {want!r}")
    print(what)


def valid(kind, value):
    """The response again, if it has every field and only values that OpenAI's types allow."""
    try:
        kind.model_validate(value.to_dict(), strict=True)
    except pydantic.ValidationError as bad:
        raise Failure(f"not a {kind.__name__}: {bad}") from None
    return value


def raises(what, kind, call, *words):
    try:
        call()
    except kind as error:
        body = error.body or {}
        missing = [k for k in ("message", "type", "param", "code") if k not in body]
        if missing or not all(w in str(error) for w in words):
            raise Failure(f"{what}: {error} lacks {missing} or one of {words}") from None
        print(f"{what}: {kind.__name__}, {body['message']}")
        return
    raise Failure(f"{what}: no {kind.__name__}")


def check_models(client, name):
    claim("models.list", [m.id for m in client.models.list()][0], name)
    claim("models.retrieve", client.models.retrieve(name).id, name)
    raises("an unknown model", openai.NotFoundError, lambda: client.models.retrieve("gpt-9"))


def check_chat(client, name, server):
    ask = dict(model=name, messages=HELLO, max_tokens=40, seed=7, temperature=0.8)
    whole = valid(ChatCompletion, client.chat.completions.create(**ask))
    text, usage = whole.choices[0].message.content, whole.usage
    claim("a chat answers", (whole.choices[0].message.role, len(text) > 0), ("assistant", True))
    status, tokens = server.post("/tokenize", {"prompt": chat_prompt(HELLO),
                                               "add_special_tokens": False})
    claim("usage counts the rendered prompt",
          (status, usage.prompt_tokens, usage.total_tokens),
          (200, len(tokens["tokens"]), usage.prompt_tokens + usage.completion_tokens))
    again = client.chat.completions.create(**ask)
    claim("a seed gives the same text", again.choices[0].message.content, text)
    other = client.chat.completions.create(**{**ask, "seed": 8})
    claim("another seed gives another", other.choices[0].message.content != text)
    many = valid(ChatCompletion, client.chat.completions.create(**ask, n=3))
    claim("n gives choices in order, the first as alone",
          ([c.index for c in many.choices], many.choices[0].message.content), ([0, 1, 2], text))
    claim("which differ", len({c.message.content for c in many.choices}), 3)
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in HELLO]
    claim("content in parts is the same", client.chat.completions.create(
        **{**ask, "messages": parts}).choices[0].message.content, text)
    short = client.chat.completions.create(**{**ask, "max_tokens": openai.omit,
                                              "max_completion_tokens": 3})
    claim("max_completion_tokens", (short.usage.completion_tokens, short.choices[0].finish_reason),
          (3, "length"))
    return text


def check_chat_stream(client, name, text):
    ask = dict(model=name, messages=HELLO, max_tokens=40, seed=7, temperature=0.8, stream=True)
    chunks = [valid(ChatCompletionChunk, c) for c in client.chat.completions.create(
        **ask, stream_options={"include_usage": True})]
    claim("a stream gives the same text",
          "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), text)
    claim("its first chunk has the role", chunks[0].choices[0].delta.role, "assistant")
    claim("its last has the usage and no choice",
          (chunks[-1].choices, chunks[-1].usage.completion_tokens, chunks[-2].usage), ([], 40, None))
    claim("finish_reason comes once, before it",
          [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason],
          ["length"])
    claim("one id", len({c.id for c in chunks}), 1)
    plain = list(client.chat.completions.create(**ask))
    claim("no usage unasked", [c.usage for c in plain if c.usage], [])
    texts = ["", ""]
    for c in client.chat.completions.create(**ask, n=2):
        texts[c.choices[0].index] += c.choices[0].delta.content or ""
    claim("two choices in one stream", (texts[0], texts[1] != text), (text, True))


def check_logprobs(client, name):
    for temperature in (0, 1):
        r = client.chat.completions.create(model=name, messages=HELLO, max_tokens=12, seed=3,
                                           temperature=temperature, logprobs=True, top_logprobs=4)
        valid(ChatCompletion, r)
        content = r.choices[0].logprobs.content
        raw = b"".join(bytes(t.bytes) for t in content)
        claim("the tokens' bytes are the text", raw.decode(errors="replace"),
              r.choices[0].message.content)
        for t in content:
            tops = [top.logprob for top in t.top_logprobs]
            if len(tops) != 4 or tops != sorted(tops, reverse=True) or tops[0] > 0:
                raise Failure(f"top_logprobs {tops}")
            same = [top.logprob for top in t.top_logprobs if top.bytes == t.bytes]
            if same not in ([], [t.logprob]):
                raise Failure(f"{t.token!r} has {t.logprob} and in top_logprobs {same}")
            if temperature == 0 and t.logprob != tops[0]:
                raise Failure("greedy, but not the likeliest")
    chunks = list(client.chat.completions.create(
        model=name, messages=HELLO, max_tokens=12, seed=3, logprobs=True, top_logprobs=4,
        stream=True))
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    claim("logprobs of a stream are those of the whole", streamed, content)


def check_completions(client, name, server):
    ask = dict(model=name, max_tokens=10, temperature=0)
    one = valid(Completion, client.completions.create(prompt="The gate", **ask))
    text = one.choices[0].text
    ids = server.post("/tokenize", {"prompt": "The gate"})[1]["tokens"]
    claim("token ids as a prompt", client.completions.create(prompt=ids, **ask).choices[0].text, text)
    for prompts in (["The gate", "你好"], [ids, ids[:2]]):
        r = valid(Completion, client.completions.create(prompt=prompts, **ask, n=2))
        claim("a batch, each prompt's choices together",
              ([c.index for c in r.choices], r.choices[0].text), ([0, 1, 2, 3], text))
    streamed = "".join(c.choices[0].text for c in client.completions.create(
        prompt="The gate", stream=True, **ask))
    claim("streamed", streamed, text)
    # Not checked by type: the package's says that the first entry is a number, the interface null.
    lp = client.completions.create(prompt="The gate", echo=True, logprobs=2,
                                   **ask).choices[0].logprobs
    claim("echo has an entry for each token of prompt and answer",
          [len(lp.tokens), len(lp.token_logprobs), len(lp.top_logprobs), len(lp.text_offset)],
          [len(ids) + 10] * 4)
    claim("the first has none", (lp.token_logprobs[0], lp.top_logprobs[0]), (None, None))
    for token, value, top in list(zip(lp.tokens, lp.token_logprobs, lp.top_logprobs))[1:]:
        if top[token] != value or value > 0:
            raise Failure(f"{token!r}: {value} and in the map {top.get(token)}")
    single = client.completions.create(prompt=ids[:1], echo=True, logprobs=1,
                                       **{**ask, "max_tokens": 2}).choices[0].logprobs
    claim("echo of a single token", (len(single.tokens), single.token_logprobs[0]), (3, None))
    none = client.completions.create(prompt=ids, echo=True, logprobs=1, **{**ask, "max_tokens": 0})
    claim("max_tokens 0 only evaluates",
          (none.usage.completion_tokens, none.choices[0].logprobs.token_logprobs),
          (0, lp.token_logprobs[:len(ids)]))


def check_steering(client, name):
    free = client.completions.create(model=name, prompt="a", max_tokens=30, temperature=0)
    text = free.choices[0].text
    stop = text[len(text) // 2:len(text) // 2 + 2]
    r = client.completions.create(model=name, prompt="a", max_tokens=30, temperature=0, stop=[stop])
    claim("a stop string ends the text before itself",
          (r.choices[0].text, r.choices[0].finish_reason), (text[:text.index(stop)], "stop"))
    parts = [c.choices[0].text for c in client.completions.create(
        model=name, prompt="a", max_tokens=30, temperature=0, stop=[stop], stream=True)]
    claim("streamed too", "".join(parts), text[:text.index(stop)])
    r = client.completions.create(model=name, prompt="a", max_tokens=5, logit_bias={"70": 100})
    status = {c for c in r.choices[0].text}
    claim("logit_bias decides", len(status), 1)


class Answer(pydantic.BaseModel):
    town: typing.Literal["Bern", "Basel"]
    warm: bool


def check_formats(client, name):
    ask = dict(model=name, messages=HELLO, seed=1, max_tokens=400)
    schema = {"type": "object", "properties": {"town": {"enum": ["Bern", "Basel"]},
                                               "degrees": {"type": "integer", "minimum": 0,
                                                           "maximum": 30}},
              "required": ["town", "degrees"], "additionalProperties": False}
    r = client.chat.completions.create(**ask, response_format={
        "type": "json_schema", "json_schema": {"name": "w", "schema": schema, "strict": True}})
    value = json.loads(r.choices[0].message.content)
    claim("a schema is kept", (value["town"] in ("Bern", "Basel"), 0 <= value["degrees"] <= 30,
                               r.choices[0].finish_reason), (True, True, "stop"))
    parsed = client.chat.completions.parse(**ask, response_format=Answer)
    claim("parse gives the model's fields", type(parsed.choices[0].message.parsed), Answer)


def check_tools(client, name, server):
    ask = dict(model=name, max_tokens=12, temperature=0.8, seed=2)
    ids = server.post("/tokenize", {"prompt": chat_prompt(HELLO, TOOLS),
                                    "add_special_tokens": False})[1]["tokens"]
    got = client.chat.completions.create(**ask, messages=HELLO, tools=TOOLS)
    want = client.completions.create(**ask, prompt=ids)
    claim("tools go through the template", (got.usage.prompt_tokens,
                                            got.choices[0].message.content),
          (want.usage.prompt_tokens, want.choices[0].text))


def check_errors(client, name, url):
    def chat(**changes):
        return lambda: client.chat.completions.create(**{
            "model": name, "messages": HELLO, "max_tokens": 4, **changes})
    raises("another model", openai.NotFoundError, chat(model="gpt-9"), "tiny-moe")
    raises("temperature 9", openai.BadRequestError, chat(temperature=9), "temperature")
    raises("no messages", openai.BadRequestError, chat(messages=[]), "messages")
    raises("past the context", openai.BadRequestError, chat(
        messages=[{"role": "user", "content": "a " * 3000}]), "context")
    raises("stream_options without stream", openai.BadRequestError, chat(
        stream_options={"include_usage": True}))
    wrong = openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0)
    raises("a wrong key", openai.AuthenticationError, lambda: list(wrong.models.list()))


def check_cancel(client, name, server):
    for way in ("close", "leave"):
        stream = client.chat.completions.create(model=name, messages=HELLO, max_tokens=900,
                                                stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        if way == "close":
            stream.close()
        else:
            stream.response.close()
        del stream
        server.wait_idle()
        print(f"cancelled ({way}): the sequence has ended and its pages are free")


async def check_async(url, name, text):
    client = openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0)

    async def one():
        stream = await client.chat.completions.create(
            model=name, messages=HELLO, max_tokens=40, seed=7, temperature=0.8, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream])
    claim("sixteen at once, each as alone",
          set(await asyncio.gather(*(one() for _ in range(16)))), {text})

    async def endless():
        await client.chat.completions.create(model=name, messages=HELLO, max_tokens=900,
                                             extra_body={"ignore_eos": True})
    tasks = [asyncio.create_task(endless()) for _ in range(8)]
    await asyncio.sleep(0.05)
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-openai-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny-moe"))
        key_file = os.path.join(tmp, "key")
        with open(key_file, "w", encoding="ascii") as f:
            f.write(KEY + "\n")
        # The test's own questions carry no key, hence a second server for them with the same bits.
        with Served(binary, model, "--api-key-file", key_file) as guarded, \
                Served(binary, model) as server:
            name = "tiny-moe"
            client = openai.OpenAI(base_url=guarded.url + "/v1", api_key=KEY, max_retries=0,
                                   timeout=60)
            open_client = openai.OpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0,
                                        timeout=60)
            started = time.monotonic()
            check_models(client, name)
            text = check_chat(client, name, server)
            check_chat_stream(client, name, text)
            check_logprobs(client, name)
            check_completions(client, name, server)
            check_steering(client, name)
            check_formats(client, name)
            check_tools(client, name, server)
            check_errors(client, name, guarded.url)
            check_cancel(open_client, name, server)
            asyncio.run(check_async(server.url, name, text))
            server.wait_idle()
            print(f"openai {openai.__version__}: {time.monotonic() - started:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
