#!/usr/bin/env python3
"""models/sigma-tiny is what its card says: at most 16 MiB, its held-out texts are best predicted by
their own groups of experts, by at least 5 % in perplexity a byte against the mean of the others, the
domain of a prompt of 256 tokens is found out, and a question in a domain is answered.

The texts are cut from ../shared/data/corpora as the training cut them; skipped (77) without these.
"""
import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, ROOT, SHARED, last_json, main_of, run_sigmoe, skip  # noqa: E402

sys.path.insert(0, os.path.join(ROOT, "tools", "train"))
import corpora  # noqa: E402

MODEL = os.path.join(ROOT, "models", "sigma-tiny")
FOLDER = os.path.join(SHARED, "data", "corpora")
TEXTS = {"zh": "zh_health", "en": "en_math", "code": "code_headers",
         "bilingual": "bilingual_sentences", "poetry": "zh_poetry"}
BYTES, PROMPTS = 8000, 10


def texts(tmp):
    for domain, name in TEXTS.items():
        path = os.path.join(tmp, f"{name}.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write(corpora.held_out(FOLDER, name))
        yield from ("--text", f"{domain}={path}")


def check_matrix(binary, tmp):
    status, stdout, stderr = run_sigmoe(binary, [
        "eval", "matrix", MODEL, *texts(tmp), "--window", 512, "--max-bytes", BYTES, "--auto",
        PROMPTS, "--json"])
    if status != 0:
        raise Failure(f"sigmoe eval matrix: {stderr}")
    report = last_json(stdout)["texts"]
    for text in report:
        found = text["detected"]
        print(f"{text['domain']}: best under {text['best']}, {100 * text['own_gain']:.1f} % below the "
              f"others' mean; {found['right']} of {found['prompts']} prompts found out")
        if text["best"] != text["domain"]:
            raise Failure(f"{text['domain']} is best predicted by {text['best']}")
    gain = sum(text["own_gain"] for text in report) / len(report)
    right = sum(text["detected"]["right"] for text in report)
    prompts = sum(text["detected"]["prompts"] for text in report)
    if gain < 0.05 or prompts < 5 * len(TEXTS) or right < 0.95 * prompts:
        raise Failure(f"gain {gain:.3f}, {right} of {prompts} domains found out")


def check_answer(binary):
    question = "<|bos|><|user|>以「春望」為題寫一首詩。<|end|><|assistant|>"
    done = subprocess.run([binary, "tokenize", MODEL, "--special"], input=question.encode(),
                          capture_output=True, timeout=60, check=True)
    ids = ",".join(done.stdout.decode().split())
    status, stdout, stderr = run_sigmoe(binary, ["run", MODEL, "--domain", "poetry", "--token-ids", ids,
                                                 "--json"])
    if status != 0:
        raise Failure(f"sigmoe run: {stderr}")
    tokens = last_json(stdout)["sequences"][0]["tokens"]
    done = subprocess.run([binary, "tokenize", MODEL, "--decode", "--skip-special"],
                          input=" ".join(map(str, tokens)).encode(), capture_output=True, timeout=60,
                          check=True)
    text = done.stdout.decode(errors="replace")
    print(text)
    if not any("\u4e00" <= c <= "\u9fff" for c in text):
        raise Failure(f"a poem was asked for, and {text!r} came")


def check(binary):
    if not os.path.isdir(MODEL) or not os.path.isdir(FOLDER):
        skip("models/sigma-tiny or ../shared/data/corpora is not there")
    size = os.path.getsize(os.path.join(MODEL, "model.safetensors"))
    if size > 16 << 20:
        raise Failure(f"model.safetensors has {size} bytes")
    check_answer(binary)
    with tempfile.TemporaryDirectory(prefix="sigmoe-tiny-") as tmp:
        check_matrix(binary, tmp)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default=os.path.join(ROOT, "build", "release", "sigmoe"))
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
