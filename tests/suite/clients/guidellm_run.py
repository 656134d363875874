#!/usr/bin/env python3
"""guidellm, a load generator, against `sigmoe serve` with worker processes: made-up prompts of a
fixed length, answers of a fixed length (ignore_eos), streamed, several at once, through both routes.
Run by scripts/test-venv load.
"""
import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Failure, main_of  # noqa: E402
from served import Served, make_model  # noqa: E402

N_REQUEST, N_OUTPUT = 24, 12


def run(server, model, route, out):
    command = [
        sys.executable, "-m", "guidellm", "run", "--disable-console-interactive",
        "--backend", f"kind=openai_http,target={server.url},request_format={route}",
        "--profile", "kind=concurrent,streams=6",
        "--constraint", f"kind=max_requests,count={N_REQUEST}",
        "--tokenizer", f"kind=huggingface_auto,model={model}",
        "--data", f"kind=synthetic_text,prompt_tokens=20,output_tokens={N_OUTPUT}",
        "--output", f"kind=json,path={out}"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    if done.returncode != 0:
        raise Failure(f"guidellm: exit {done.returncode}\n{done.stdout[-1500:]}"
                      f"{done.stderr[-1500:]}")
    with open(out, encoding="utf-8") as f:
        return json.load(f)["benchmarks"][0]


def check_route(server, model, route, folder):
    before = server.metrics()
    report = run(server, model, route, os.path.join(folder, "report.json"))
    requests = report["requests"]
    lengths = {r["output_metrics"]["text_tokens"] for r in requests["successful"]}
    got = (len(requests["successful"]), len(requests["errored"]), len(requests["incomplete"]),
           lengths)
    if got != (N_REQUEST, 0, 0, {N_OUTPUT}):
        raise Failure(f"{route}: successful, errored, incomplete, output tokens: {got}")
    after = server.wait_idle()
    name = 'sigmoe_tokens_total{kind="generated"}'
    told = after[name] - before[name]
    if told < N_REQUEST * N_OUTPUT:
        raise Failure(f"{route}: the server counts {told} tokens")
    print(f"{route}: {N_REQUEST} requests of {N_OUTPUT} tokens each, none failed")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-guidellm-") as tmp:
        model = make_model(binary, os.path.join(tmp, "tiny-moe"))
        with Served(binary, model) as server:
            for route in ("/v1/chat/completions", "/v1/completions"):
                check_route(server, model, route, tmp)
            print(f"guidellm {importlib.metadata.version('guidellm')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
