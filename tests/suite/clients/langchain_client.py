#!/usr/bin/env python3
"""langchain-openai against `sigmoe serve` with worker processes: invoke, stream, batch, tools,
structured output, logprobs and the completions interface. Run by scripts/test-venv light.
"""
import argparse
import asyncio
import importlib.metadata
import os
import sys
import tempfile
import typing

import pydantic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Failure, main_of  # noqa: E402
from served import Served, chat_prompt, make_model  # noqa: E402

NAME = "tiny-moe"
HELLO = [SystemMessage("You are a gate."), HumanMessage("你好, gate")]
PLAIN = [{"role": "system", "content": "You are a gate."}, {"role": "user", "content": "你好, gate"}]


def claim(what, got, want=True):
    if got != want:
        raise Failure(f"{what}: {got!r} is not {want!r}")
    print(what)


class Answer(pydantic.BaseModel):
    """A town and whether it is warm there."""
    town: typing.Literal["Bern", "Basel"]
    warm: bool


def weather(town: str) -> str:
    """Tells the weather of a town."""
    return town


def check_chat(server):
    chat = ChatOpenAI(model=NAME, base_url=server.url + "/v1", api_key="-", max_tokens=30, seed=4,
                      temperature=0.8, max_retries=0, stream_usage=True)
    want = server.post("/v1/chat/completions", {
        "messages": PLAIN, "max_tokens": 30, "seed": 4, "temperature": 0.8})[1]
    text = want["choices"][0]["message"]["content"]
    whole = chat.invoke(HELLO)
    claim("invoke", (whole.content, whole.response_metadata["finish_reason"],
                     whole.usage_metadata["output_tokens"],
                     whole.usage_metadata["input_tokens"]),
          (text, "length", 30, want["usage"]["prompt_tokens"]))
    chunks = list(chat.stream(HELLO))
    total = chunks[0]
    for c in chunks[1:]:
        total += c
    claim("stream", (total.content, total.usage_metadata["output_tokens"], len(chunks) > 3),
          (text, 30, True))
    claim("batch", [m.content for m in chat.batch([HELLO] * 4)], [text] * 4)
    chain = ChatPromptTemplate.from_messages([("system", "You are a gate."), ("user", "{w}, gate")])
    claim("a chain", (chain | chat).invoke({"w": "你好"}).content, text)

    async def stream():
        return "".join([c.content async for c in chat.astream(HELLO)])
    claim("astream", asyncio.run(stream()), text)
    probs = chat.bind(logprobs=True, top_logprobs=2).invoke(HELLO).response_metadata["logprobs"]
    claim("logprobs", (len(probs["content"]), len(probs["content"][0]["top_logprobs"])), (30, 2))


def check_tools(server):
    chat = ChatOpenAI(model=NAME, base_url=server.url + "/v1", api_key="-", max_tokens=5,
                      temperature=0, max_retries=0)
    bound = chat.bind_tools([weather])
    got = bound.invoke(HELLO)
    ids = server.post("/tokenize", {"prompt": chat_prompt(PLAIN, bound.kwargs["tools"]),
                                    "add_special_tokens": False})[1]["tokens"]
    claim("bind_tools goes through the template", got.usage_metadata["input_tokens"], len(ids))
    chat = ChatOpenAI(model=NAME, base_url=server.url + "/v1", api_key="-", max_tokens=400, seed=1,
                      max_retries=0)
    claim("with_structured_output", type(
        chat.with_structured_output(Answer, method="json_schema").invoke(HELLO)), Answer)


def check_completions(server):
    llm = OpenAI(model=NAME, base_url=server.url + "/v1", api_key="-", max_tokens=8, temperature=0,
                 max_retries=0)
    text = server.post("/v1/completions", {"prompt": "The gate", "max_tokens": 8,
                                           "temperature": 0})[1]["choices"][0]["text"]
    claim("completions", llm.invoke("The gate"), text)
    claim("completions streamed", "".join(llm.stream("The gate")), text)
    claim("completions in a batch", llm.batch(["The gate", "a", "The gate"])[::2], [text, text])


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-langchain-") as tmp:
        with Served(binary, make_model(binary, os.path.join(tmp, NAME))) as server:
            check_chat(server)
            check_tools(server)
            check_completions(server)
            server.wait_idle()
            print(f"langchain-openai {importlib.metadata.version('langchain-openai')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
