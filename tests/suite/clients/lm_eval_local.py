#!/usr/bin/env python3
"""lm-evaluation-harness (local-completions) against `sigmoe serve` with worker processes.

Three small tasks that are made here, so that nothing is downloaded: choices by log-likelihood, the
rolling log-likelihood of texts, and generation. Every number is held against the logits that
`sigmoe run --dump-logits` writes for the same tokens. Run by scripts/test-venv heavy.
"""
import argparse
import importlib.metadata
import json
import math
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Failure, floats, generate, main_of  # noqa: E402
from served import CONFIG, Served, make_model  # noqa: E402

NAME = "tiny-moe"
DOCS = [
    {"q": "The gate picks", "choices": [" an expert", " 专家", " the worker", " 7"], "gold": 0},
    {"q": "每个词元", "choices": ["选择专家", " any", "\n", " Hello World"], "gold": 1},
    {"q": "Workers hold", "choices": [" weights", " state", " <b>&amp;</b>", "don't"], "gold": 2},
]
CHOICES = {"task": "tiny_choices", "output_type": "multiple_choice", "doc_to_text": "{{q}}",
           "doc_to_target": "gold", "doc_to_choice": "{{choices}}", "target_delimiter": "",
           "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
ROLLING = {"task": "tiny_rolling", "output_type": "loglikelihood_rolling", "doc_to_text": "",
           "doc_to_target": "{{q}}{{choices[1]}}",
           "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}]}
GENERATE = {"task": "tiny_generate", "output_type": "generate_until", "doc_to_text": "{{q}}",
            "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16, "temperature": 0},
            "metric_list": [{"metric": "exact_match"}]}


def claim(what, got, want=True):
    if got != want:
        raise Failure(f"{what}: {got!r} is not {want!r}")
    print(what)


def evaluate(server, tasks, **model_args):
    """{task: the samples' answers, in the order of DOCS}"""
    import lm_eval
    result = lm_eval.simple_evaluate(
        model="local-completions", tasks=tasks, log_samples=True, bootstrap_iters=0,
        model_args={"model": NAME, "base_url": server.url + "/v1/completions", "max_retries": 1,
                    "max_length": CONFIG["max_position_embeddings"], **model_args})
    out = {}
    for name, samples in result["samples"].items():
        samples = sorted(samples, key=lambda s: s["doc_id"])
        out[name] = [[r for group in s["resps"] for r in group] for s in samples]
    return out


class Reference:
    """Log-likelihoods from the logits that `sigmoe run` writes, without the server."""

    def __init__(self, binary, model, server):
        self.binary, self.model, self.server, self.known = binary, model, server, {}

    def ids(self, text):
        return self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False}
                                )[1]["tokens"]

    def rows(self, ids):
        """The logits of every position, one after the other."""
        key = tuple(ids)
        if key not in self.known:
            self.known[key] = floats(generate(self.binary, self.model, [ids], "--threads", 1,
                                              max_tokens=0).logits[0])
        return self.known[key]

    def of(self, context, continuation):
        """(sum of log-probabilities of continuation, whether greedy decoding gives it)"""
        ids, vocab = context + continuation, CONFIG["vocab_size"]
        rows = self.rows(ids)
        total, greedy = 0.0, True
        for at in range(len(context), len(ids)):
            row = rows[(at - 1) * vocab:at * vocab]
            top = max(row)
            total += row[ids[at]] - top - math.log(math.fsum(math.exp(v - top) for v in row))
            greedy &= row[ids[at]] == top
        return total, greedy


def same(got, want):
    return abs(got[0] - want[0]) < 1e-3 and bool(got[1]) == want[1]


def check_choices(answers, reference):
    for doc, answer in zip(DOCS, answers):
        for choice, got in zip(doc["choices"], answer):
            context = reference.ids(doc["q"])
            whole = reference.ids(doc["q"] + choice)
            want = reference.of(context, whole[len(context):])
            if not same(got, want):
                raise Failure(f"log-likelihood of {choice!r} after {doc['q']!r}: {got} for {want}")
            print(f"log-likelihood of {choice!r} after {doc['q']!r}: {want[0]:.4f}")


def check_rolling(answers, reference):
    for doc, answer in zip(DOCS, answers):
        text = doc["q"] + doc["choices"][1]
        want = reference.of([CONFIG["bos_token_id"]], reference.ids(text))[0]
        got = answer[0][0] if isinstance(answer[0], (tuple, list)) else answer[0]
        claim(f"rolling log-likelihood of {text!r}: {want:.4f}", abs(got - want) < 1e-3)


def check_generated(answers, reference, with_bos):
    server = reference.server
    for doc, answer in zip(DOCS, answers):
        prompt = reference.ids(doc["q"]) if not with_bos else doc["q"]
        text = server.post("/v1/completions", {
            "prompt": prompt, "max_tokens": 16, "temperature": 0,
            "stop": ["\n\n"]})[1]["choices"][0]["text"]
        claim(f"generated after {doc['q']!r}: {text!r}", answer[0], text)


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-lm-eval-") as tmp:
        os.environ["HF_HOME"] = os.path.join(tmp, "hf")
        docs = os.path.join(tmp, "docs.jsonl")
        with open(docs, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(d) + "\n" for d in DOCS)
        data = {"dataset_path": "json", "test_split": "test",
                "dataset_kwargs": {"data_files": {"test": docs}}}
        model = make_model(binary, os.path.join(tmp, NAME))
        with Served(binary, model) as server:
            reference = Reference(binary, model, server)
            for batch, concurrent in ((1, 1), (4, 3)):
                print(f"-- remote tokenizer, batches of {batch}, {concurrent} at once")
                got = evaluate(server, [{**t, **data} for t in (CHOICES, ROLLING, GENERATE)],
                               tokenizer_backend="remote", batch_size=batch,
                               num_concurrent=concurrent)
                check_choices(got["tiny_choices"], reference)
                check_rolling(got["tiny_rolling"], reference)
                check_generated(got["tiny_generate"], reference, False)
            print("-- no tokenizer: prompts as text")
            got = evaluate(server, [{**GENERATE, **data}], tokenizer_backend="none",
                           eos_string="<|im_end|>")
            check_generated(got["tiny_generate"], reference, True)
            server.wait_idle()
        print(f"lm-eval {importlib.metadata.version('lm-eval')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
