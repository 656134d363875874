#!/usr/bin/env python3
"""Hugging Face transformers loads what sigmoe reads and writes, and goes on with it.

A PanGu-Sigma checkpoint (a fixture, and models/sigma-tiny where it is there), a domain extracted from
it, a group of one expert collapsed into a plain llama, and a dense model upcycled: each loads (with
the Python files beside it, but the plain one, with none of ours), generates greedily the tokens that
`sigmoe run` generates in f32, and has a lower loss after one step of an optimizer. The tables that
upcycle draws are those that tools/hf/tables.py draws.

Skipped (77) without torch and transformers; with them: PYTHON tests/suite/with_transformers.py
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import (Failure, ROOT, TINY, generate, main_of, run_sigmoe,  # noqa: E402
                     safetensors_read, skip, write_json)

sys.path.insert(0, os.path.join(ROOT, "tools"))
N_TOKEN = 20
HF = os.path.join(ROOT, "tools", "hf")
SIGMA = os.path.join(ROOT, "models", "sigma-tiny")
TEXT = {"zh": "问：高血压患者应该注意什么？", "en": "Natalia sold clips to 48 of her friends",
        "code": "def read(self, n):", "bilingual": "EN: Good morning.\nZH: ",
        "poetry": "送別\n"}


def call(binary, *args):
    status, _, stderr = run_sigmoe(binary, args)
    if status != 0:
        raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}: {stderr}")


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


def load(folder, ours):
    import torch
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=ours)


def same_tokens(binary, folder, model, prompt, domain):
    import torch
    named = ["--domain", domain] if domain else []
    want = generate(binary, folder, [prompt], "--precision", "f32", "--ignore-eos", *named,
                    max_tokens=N_TOKEN).tokens[0]
    ids = torch.tensor([prompt])
    got = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                         max_new_tokens=N_TOKEN, min_new_tokens=N_TOKEN, pad_token_id=0,
                         eos_token_id=None, **({"domain": domain} if domain else {}))
    got = got[0, len(prompt):].tolist()
    if got != want:
        raise Failure(f"{folder}, {domain or 'no domain'}: transformers generates {got}, sigmoe {want}")


def one_step(folder, model, prompt, domain):
    import torch
    ids, named = torch.tensor([prompt]), {"domain": domain} if domain else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(ids, labels=ids, **named).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if not losses[1] < losses[0]:
        raise Failure(f"{folder}: the loss goes from {losses[0]} to {losses[1]}")
    return losses


def check(binary, folder, prompt, domains, ours=True):
    """domains: names, or [None] for a model without any."""
    for domain in domains:
        model = load(folder, ours)
        same_tokens(binary, folder, model, prompt(domain), domain)
        first, then = one_step(folder, model, prompt(domain), domain)
        print(f"{os.path.basename(folder)}{', ' + domain if domain else ''}: {N_TOKEN} tokens the "
              f"same; loss {first:.4f}, after a step {then:.4f}", flush=True)


def with_files(fixture, folder):
    """A copy of a fixture with the Python files that a published checkpoint has beside it."""
    shutil.copytree(os.path.join(TINY, fixture), folder)
    for name in ("configuration_pangu_sigma.py", "modeling_pangu_sigma.py"):
        shutil.copy(os.path.join(HF, name), folder)
    config = read_json(folder, "config.json")
    config["auto_map"] = {"AutoConfig": "configuration_pangu_sigma.PanguSigmaConfig",
                          "AutoModelForCausalLM": "modeling_pangu_sigma.PanguSigmaForCausalLM"}
    write_json(os.path.join(folder, "config.json"), config)
    return folder


def check_fixture(binary, tmp):
    prompt = read_json(TINY, "pangu_sigma", "expected.json")["prompt"]
    full = with_files("pangu_sigma", os.path.join(tmp, "full"))
    check(binary, full, lambda _: prompt, ["zh", "en-us"])
    part = os.path.join(tmp, "part")
    call(binary, "extract", full, "--domain", "en-us", "-o", part, "--no-proof")
    check(binary, part, lambda _: prompt, ["en-us"])


def check_upcycled(binary, tmp):
    dense, out = os.path.join(TINY, "llama"), os.path.join(tmp, "upcycled")
    call(binary, "upcycle", dense, "-o", out, "--domains", "a,b", "--domain-sizes", "1,5",
         "--sparse-layers", "1")
    prompt = read_json(dense, "expected.json")["prompt"]
    check(binary, out, lambda _: prompt, ["b"])
    plain = os.path.join(tmp, "plain")
    call(binary, "extract", out, "--domain", "a", "-o", plain, "--no-proof")
    if read_json(plain, "config.json")["model_type"] != "llama":
        raise Failure("a group of one expert did not become a llama")
    check(binary, plain, lambda _: prompt, [None], ours=False)
    try:
        from hf import tables
    except ImportError as missing:
        print(f"tables are not compared: {missing}")
        return
    config = read_json(out, "config.json")
    want = b"".join(tables.draw(config["routing_seed"], 1, name, n, config["vocab_size"]).tobytes()
                    for name, n in (("a", 1), ("b", 5)))
    files = [f for f in os.listdir(out) if f.endswith(".safetensors")]
    found = {name: tensor for f in files for name, tensor in
             safetensors_read(os.path.join(out, f)).items()}
    if found["model.layers.1.mlp.routing_table"][2] != want:
        raise Failure("upcycle drew another table than tools/hf/tables.py")
    print("upcycle drew the table that tools/hf/tables.py draws")


def check_sigma(binary, tmp):
    if not os.path.isdir(SIGMA):
        print("models/sigma-tiny is not there")
        return
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(SIGMA, trust_remote_code=True)
    check(binary, SIGMA, lambda domain: tokenizer(TEXT[domain]).input_ids, TEXT)
    part = os.path.join(tmp, "sigma-code")
    call(binary, "extract", SIGMA, "--domain", "code", "-o", part)
    check(binary, part, lambda domain: tokenizer(TEXT[domain]).input_ids, ["code"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default=os.path.join(ROOT, "build", "release", "sigmoe"))
    binary = parser.parse_args().sigmoe
    try:
        import torch
        import transformers
    except ImportError as missing:
        skip(f"{missing}; it needs torch and transformers")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="sigmoe-hf-") as tmp:
        os.environ["HF_MODULES_CACHE"] = os.path.join(tmp, "modules")

        def all_of_it():
            check_fixture(binary, tmp)
            check_upcycled(binary, tmp)
            check_sigma(binary, tmp)

        main_of(all_of_it)


if __name__ == "__main__":
    main()
