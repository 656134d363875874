#!/usr/bin/env python3
"""The domain of a conversation is that of its last question, whatever was said before, and one
question has the domain that it has alone. Served by models/sigma-tiny."""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import ROOT, Failure, main_of  # noqa: E402
from served import Served  # noqa: E402

MODEL = os.path.join(ROOT, "models", "sigma-tiny")
QUESTIONS = {
    "zh": ["高血压患者平时要注意什么？", "糖尿病患者的饮食需要注意哪些方面？"],
    "en": ["What is asthma and how is it treated?", "The heart pumps blood through the body. Why?"],
    "poetry": ["以「春望」為題寫一首詩。"],
}
ANSWERS = {"zh": "您好，建议您注意休息，饮食清淡，多喝水，必要时到医院检查。" * 3,
           "en": "It is a disease of the lungs that makes breathing difficult. " * 5,
           "poetry": "春風吹綠柳，夜雨落花多。" * 6}


def domain(server, messages):
    status, answer = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    if status != 200:
        raise Failure(f"{status} {answer}")
    return answer["domain"]


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def check(binary):
    with Served(binary, MODEL, "--admin", "none", workers=1) as server:
        alone = {q: domain(server, turns(("user", q))) for qs in QUESTIONS.values() for q in qs}
        for name, questions in QUESTIONS.items():
            for question in questions:
                if alone[question] != name:
                    raise Failure(f"'{question}' alone is {alone[question]}")
                for other, history in QUESTIONS.items():
                    said = turns(*(turn for _ in range(3) for q in history
                                   for turn in (("user", q), ("assistant", ANSWERS[other]))))
                    got = domain(server, [*said, *turns(("user", question))])
                    if got != name:
                        raise Failure(f"'{question}' after {other} is {got}")
        # Too short to tell: what was talked about counts.
        short = [*turns(("user", QUESTIONS["zh"][0]), ("assistant", ANSWERS["zh"])),
                 *turns(("user", "ok"))]
        if domain(server, short) != "zh":
            raise Failure(f"'ok' after zh is {domain(server, short)}")
        # The same text twice: the last one counts. A long answer after it is cut off as asked.
        twice = turns(("user", QUESTIONS["en"][0]), ("assistant", ANSWERS["zh"]),
                      ("user", QUESTIONS["en"][0]))
        if domain(server, twice) != "en":
            raise Failure(f"the question said twice is {domain(server, twice)}")
        status, answer = server.post("/v1/chat/completions", {
            "messages": [*short[:2], *turns(("user", QUESTIONS["en"][1]))], "max_tokens": 1,
            "truncate_prompt_tokens": 4})
        if status != 200:
            raise Failure(f"cut to four tokens: {status} {answer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmoe", default=os.path.join(ROOT, "build", "release", "sigmoe"))
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
