#!/usr/bin/env python3
"""What `sigmoe extract` writes: forms, vocabularies, and nothing at all when it fails.

A group of one expert becomes a plain dense checkpoint with the full model's f32 logits. Several
domains stay several. A smaller vocabulary reads its text as the whole one does, with the full model's
logits of the kept tokens, for byte-level, byte-fallback and unigram tokenizers. Rounded weights are
seen by the proof. Bad requests, and a signal in the middle, leave nothing behind. stories260k,
upcycled, tells its story in each extracted domain.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (Failure, TESTS, floats, generate, last_json, main_of, run_sigmoe,  # noqa: E402
                     safetensors_read, safetensors_write, write_json)
import stories  # noqa: E402
from extract_lossless import CONFIG, call, ids_of, read_json  # noqa: E402

TOKENIZERS = os.path.join(TESTS, "fixtures", "tokenizer")
F32 = ["--precision", "f32"]
TEXT = "Sigmoe serves mixture-of-experts models.\nThe table says which expert a token has: 12345.\n"
PROMPTS = [[5, 9, 2, 2, 70], [1], list(range(20, 45))]


def make(binary, folder, tokenizer=None, **more):
    write_json(folder + ".json", {**CONFIG, **more})
    call(binary, "synth", folder + ".json", "-o", folder, "--std", "0.2", "--dtype", "f32")
    if tokenizer:
        shutil.copy(os.path.join(TOKENIZERS, tokenizer), os.path.join(folder, "tokenizer.json"))
    return folder


def same(what, got, want):
    if got != want:
        raise Failure(f"{what}: not the same")
    print(f"{what}: the same")


def check_collapse(binary, tmp):
    domains = [{"name": "zh", "num_experts": 1, "embedding_slot": 1},
               {"name": "en", "num_experts": 3}]
    for block, more in (("llama", {"head_dim": None}), ("qwen2", {"head_dim": None}),
                        ("qwen3", {})):
        model = make(binary, os.path.join(tmp, f"one-{block}"), block=block, domains=domains,
                     num_experts_per_tok=1, expert_intermediate_size=96, **more)
        out = model + "-zh"
        call(binary, "extract", model, "--domain", "zh", "-o", out, "--shard-size", "8192")
        config = read_json(out, "config.json")
        if config["model_type"] != block or {"domains", "block", "auto_map"} & set(config) or \
                os.path.exists(os.path.join(out, "modeling_pangu_sigma.py")):
            raise Failure(f"the collapsed {block} is not plain: {config}")
        want = generate(binary, model, PROMPTS, *F32, "--domain", "zh", "--workers", 3,
                        max_tokens=8)
        got = generate(binary, out, PROMPTS, *F32, max_tokens=8)
        same(f"a group of one expert as {block}: logits", (got.logits, got.tokens),
             (want.logits, want.tokens))
    kept = model + "-group"
    call(binary, "extract", model, "--domain", "zh", "-o", kept, "--no-collapse")
    want = generate(binary, model, PROMPTS, "--domain", "zh", max_tokens=8)
    got = generate(binary, kept, PROMPTS, "--workers", 2, max_tokens=8)
    same("--no-collapse, bf16: logits", (got.logits, got.tokens), (want.logits, want.tokens))


def check_several(binary, tmp):
    """Named out of order; domains keep their order, experts and slots get new numbers."""
    model = make(binary, os.path.join(tmp, "four"), default_domain="code")
    out = os.path.join(tmp, "two")
    call(binary, "extract", model, "--domain", "code,en", "-o", out, "--workers", 2)
    config = read_json(out, "config.json")
    same("domains of two", (config["domains"], config["num_embedding_slots"],
                            config["default_domain"]),
         ([{"name": "en", "num_experts": 3, "embedding_slot": 0},
           {"name": "code", "num_experts": 5, "embedding_slot": 0}], 1, "code"))
    for domain in ("en", "code"):
        want = generate(binary, model, PROMPTS, "--domain", domain, "--workers", 3, max_tokens=8)
        got = generate(binary, out, PROMPTS, "--domain", domain, max_tokens=8)
        same(f"{domain} of two domains: logits", (got.logits, got.tokens),
             (want.logits, want.tokens))
    again = os.path.join(tmp, "one-of-two")
    call(binary, "extract", out, "--domain", "code", "-o", again)
    straight = os.path.join(tmp, "one-of-four")
    call(binary, "extract", model, "--domain", "code", "-o", straight)
    with open(os.path.join(again, "model.safetensors"), "rb") as a, \
            open(os.path.join(straight, "model.safetensors"), "rb") as b:
        same("extracted in two steps and in one: tensors", a.read(), b.read())


def encode(binary, model, text):
    done = subprocess.run([binary, "tokenize", model, "--json"], input=json.dumps(text).encode(),
                          capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)


def check_trim(binary, tmp, tokenizer, vocab, **ids):
    model = make(binary, os.path.join(tmp, "whole-" + tokenizer), tokenizer, vocab_size=vocab,
                 tie_word_embeddings=False, **ids)
    write_json(os.path.join(model, "generation_config.json"), {"eos_token_id": [2, vocab - 1]})
    write_json(os.path.join(model, "tokenizer_config.json"),
               {"model_max_length": 10 ** 30, "added_tokens_decoder": {"2": {"content": "x"}}})
    text, out = os.path.join(tmp, "domain.txt"), os.path.join(tmp, "small-" + tokenizer)
    with open(text, "w", encoding="utf-8") as f:
        f.write(TEXT)
    report = last_json(call(binary, "extract", model, "--domain", "en", "-o", out, "--trim-vocab",
                            text, "--verify", "--json"))
    config, proof = read_json(out, "config.json"), read_json(out, "proof.json")
    if not config["vocab_size"] == report["vocabulary"] < vocab or report["proof"]["equal"] != 100:
        raise Failure(f"{tokenizer}: {report}")
    whole, small = encode(binary, model, TEXT), encode(binary, out, TEXT)
    if len(whole) != len(small) or max(small) >= config["vocab_size"]:
        raise Failure(f"{tokenizer}: {whole} became {small}")
    old = dict(pair for p in proof["prompts"]
               for pair in zip(ids_of(p["submodel_tokens"]), ids_of(p["tokens"])))
    if [old[t] for t in small] != whole:
        raise Failure(f"{tokenizer}: other tokens: {whole} became {small}")
    want = generate(binary, model, [whole[:40]], *F32, "--domain", "en", max_tokens=0).logits[0]
    got = generate(binary, out, [small[:40]], *F32, max_tokens=0).logits[0]
    wide, narrow, n = floats(want), floats(got), config["vocab_size"]
    for pos in range(40):
        for new, before in old.items():
            if wide[pos * vocab + before] != narrow[pos * n + new]:
                raise Failure(f"{tokenizer}: logit of token {before} at {pos} differs")
    eos = read_json(out, "generation_config.json")["eos_token_id"]
    if eos[0] not in range(n) or len(set(eos)) != len(eos):
        raise Failure(f"{tokenizer}: eos {eos}")
    print(f"{tokenizer}: {n} of {vocab} tokens, the full model's logits")


def left(folder):
    return sorted(os.listdir(folder))


def check_tables(binary, tmp, model, out):
    """A table that no draw could have made, in a model that is otherwise whole."""
    tensors = safetensors_read(os.path.join(model, "model.safetensors"))
    name = next(n for n in tensors if n.endswith("routing_table"))
    dtype, shape, raw = tensors[name]
    bad = os.path.join(tmp, "bad-table")
    shutil.copytree(model, bad)
    before = left(tmp)
    for what, table, word in (("out of range", b"\xff\xff" + raw[2:], "65535"),
                              ("unbalanced", bytes(len(raw)), "routing_table"),
                              ("truncated", None, "routing_table")):
        changed = {**tensors, name: (dtype, shape, table)}
        if table is None:
            del changed[name]
        safetensors_write(os.path.join(bad, "model.safetensors"), changed)
        status, stdout, stderr = run_sigmoe(binary, ["extract", bad, "--domain", "zh", "-o", out])
        if status != 3 or stdout or stderr.count("\n") != 1 or word not in stderr or \
                left(tmp) != before:
            raise Failure(f"a table {what}: exit {status}: {stderr!r}, {left(tmp)}")
        print(f"refused: {stderr.strip()}")
    shutil.rmtree(bad)


def check_quantised(binary, tmp):
    """--quantize gives what extracting and then quantising gives, and leaves nothing beside it."""
    folder = os.path.join(tmp, "quantised")
    os.mkdir(folder)
    model = make(binary, os.path.join(folder, "full"))
    domain = CONFIG["domains"][0]["name"]
    floats_dir, one, two = (os.path.join(folder, n) for n in ("floats", "one", "two"))
    call(binary, "extract", model, "--domain", domain, "-o", floats_dir, "--no-collapse")
    call(binary, "quantize", floats_dir, "-o", two, "--experts", "int4:32", "--dense", "int8:64")
    before = set(os.listdir(folder))
    call(binary, "extract", model, "--domain", domain, "-o", one, "--no-collapse", "--quantize",
         "int4:32,int8:64")
    if set(os.listdir(folder)) != before | {"one"}:
        raise Failure(f"left beside the output: {set(os.listdir(folder)) - before}")
    for name in ("model.safetensors", "config.json"):
        with open(os.path.join(one, name), "rb") as a, open(os.path.join(two, name), "rb") as b:
            same(f"extract --quantize, {name}", a.read() == b.read(), True)
    if "## Integers" not in open(os.path.join(one, "README.md"), encoding="utf-8").read():
        raise Failure("the card does not speak of integers")
    for out, kinds, words in ((one, "int4:32", "not empty"),
                              (os.path.join(folder, "no"), "int5", "int8, int4 or none")):
        status, _, err = run_sigmoe(binary, ["extract", model, "--domain", domain, "-o", out,
                                             "--quantize", kinds])
        if status == 0 or words not in err:
            raise Failure(f"--quantize {kinds} into {out}: exit {status}, {err}")


def check_refusals(binary, tmp):
    model = make(binary, os.path.join(tmp, "model"))
    plain, out = os.path.join(TESTS, "fixtures", "tiny", "mixtral"), os.path.join(tmp, "refused")
    text = os.path.join(tmp, "text")
    with open(text, "w", encoding="utf-8") as f:
        f.write(TEXT)
    before = left(tmp)
    for args, word in (
            ([model, "--domain", "fr", "-o", out], "domains are zh, en, code, poetry"),
            ([model, "--domain", "zn", "-o", out], "did you mean 'zh'"),
            ([model, "--domain", "zh,zh", "-o", out], "twice"),
            ([model, "--domain", "zh,", "-o", out], "no domain"),
            ([model, "--domain", "zh", "-o", model], "not empty"),
            ([model, "-o", out], "--domain"),
            ([model, "--domain", "zh"], "-o OUT"),
            ([plain, "--domain", "zh", "-o", out], "extraction is for models with domains"),
            ([model, "--domain", "zh", "-o", out, "--dtype", "int8"], "--dtype"),
            ([model, "--domain", "zh", "-o", out, "--dtype", "bf16", "--verify"], "rounds"),
            ([model, "--domain", "zh", "-o", out, "--trim-vocab", text], "tokenizer.json"),
            ([model, "--domain", "zh", "-o", out, "--prompts", text], "no tokenizer"),
            ([model, "--domain", "zh", "-o", out, "--no-proof", "--verify"], "contradict")):
        status, stdout, stderr = run_sigmoe(binary, ["extract", *args])
        if status not in (2, 3) or stdout or stderr.count("\n") != 1 or word not in stderr:
            raise Failure(f"{args}: exit {status}: {stderr!r}; expected one line with {word!r}")
        if left(tmp) != before:
            raise Failure(f"{args}: left {left(tmp)}")
        print(f"refused: {stderr.strip()}")
    check_tables(binary, tmp, model, out)
    report = last_json(call(binary, "extract", model, "--domain", "zh", "-o", out, "--dtype",
                            "bf16", "--json"))
    same("prompts equal after rounding", report["proof"]["equal"], 0)
    return model


def check_signal(binary, tmp, model):
    before = left(tmp)
    process = subprocess.Popen([binary, "extract", model, "--domain", "zh", "-o",
                                os.path.join(tmp, "stopped"), "--n-prompts", "200000"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(200):
        if left(tmp) != before:
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    if process.returncode == 0 or b"interrupted" not in stderr or left(tmp) != before:
        raise Failure(f"SIGTERM: exit {process.returncode}, {stderr!r}, left {left(tmp)}")
    print("a signal leaves nothing behind")


def check_stories(binary, tmp):
    if not os.path.isdir(stories.DATA):
        print("stories260k is not here: not told")
        return
    dense, full = os.path.join(tmp, "stories"), os.path.join(tmp, "stories-full")
    stories.make_dense(dense)
    domains = ["zh", "en", "code", "bilingual", "poetry"]
    call(binary, "upcycle", dense, "-o", full, "--domains", ",".join(domains), "--domain-sizes",
         "4,4,4,4,1", "--sparse-layers", "3")
    for domain in domains:
        out = f"{full}-{domain}"
        call(binary, "extract", full, "--domain", domain, "-o", out)
        stories.tell(binary, f"domain {domain}, extracted", out)
    same("the extracted group of one expert", read_json(out, "config.json")["model_type"], "llama")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-extract-") as tmp:
        check_quantised(binary, tmp)
        model = check_refusals(binary, tmp)
        check_signal(binary, tmp, model)
        check_collapse(binary, tmp)
        check_several(binary, tmp)
        check_trim(binary, tmp, "byte_level.json", 640, eos_token_id=622)
        check_trim(binary, tmp, "byte_fallback.json", 701, bos_token_id=1, eos_token_id=2)
        check_trim(binary, tmp, "unigram.json", 190, bos_token_id=1, eos_token_id=2)
        check_stories(binary, tmp)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    args = parser.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
