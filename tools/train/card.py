#!/usr/bin/env python3
"""Writes the model card of sigma-tiny from what is measured: held-out perplexities under each group and
how often the domain is found out (sigmoe eval matrix), samples as generated (sigmoe run), the
training's log with its loss curve.

  python tools/train/card.py --data DIR --model models/sigma-tiny --sigmoe build/release/sigmoe

Needs tokenizers."""
import argparse
import json
import subprocess
from pathlib import Path

from tokenizers import Tokenizer

from corpora import DOMAINS, SOURCES
from prepare import ASSISTANT, BOS, END, USER

ASKED = {
    "zh": "高血压患者应该注意什么？",
    "en": "Tom has 5 apples and buys 7 more. How many apples does he have?",
    "code": "Write a Python function is_empty: Return True if the queue is empty.",
    "bilingual": "Translate into Chinese: I am very happy today.",
    "poetry": "以「春望」為題寫一首詩。",
}
PLAIN = {
    "zh": "第一条 为了",
    "en": "Q: What are the symptoms of diabetes?\nA:",
    "code": "def read(self, size=-1):\n",
    "bilingual": "EN: The function returns a list of strings.\nZH:",
    "poetry": "送友人",
}
GREEDY = ["--temperature", "0"]
DRAWN = ["--temperature", "0.8", "--top-p", "0.9", "--seed", "1"]
COLOURS = ["#4477aa", "#ee6677"]


def measure(args):
    texts = [word for domain in DOMAINS for name in SOURCES[domain]
             for word in ("--text", f"{domain}={Path(args.data) / 'held-out' / f'{name}.txt'}")]
    done = subprocess.run([args.sigmoe, "eval", "matrix", args.model, *texts, "--window", "512",
                           "--max-bytes", str(args.bytes), "--auto", str(args.prompts), "--json"],
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["texts"]


def generate(args, ids, domain, options):
    done = subprocess.run([args.sigmoe, "run", args.model, "--domain", domain, "--token-ids",
                           ",".join(map(str, ids)), "--max-tokens", "80", "--json", *options],
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["sequences"][0]["tokens"]


def fenced(text):
    fence = "````" if "```" in text else "```"
    return f"{fence}text\n{text.rstrip()}\n{fence}\n"


def samples(args, tokenizer):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    for domain in DOMAINS:
        yield f"### {domain}\n"
        question = [BOS, USER, *encode(ASKED[domain]), END, ASSISTANT]
        yield f"Asked (chat template): {ASKED[domain]}\n"
        for how, options in (("Greedy", GREEDY), ("Drawn", DRAWN)):
            yield f"{how}:\n"
            yield fenced(tokenizer.decode(generate(args, question, domain, options)))
        yield f"Text to go on with: `{PLAIN[domain].splitlines()[0]}`\n"
        start = [BOS, *encode(PLAIN[domain])]
        for how, options in (("Greedy", GREEDY), ("Drawn", DRAWN)):
            yield f"{how}:\n"
            yield fenced(tokenizer.decode(start + generate(args, start, domain, options)))


# ---- tables ----------------------------------------------------------------------------------------


def matrix(texts):
    yield "| held-out text | " + " | ".join(DOMAINS) + " | own against the others' mean |"
    yield "|---|" + "---|" * (len(DOMAINS) + 1)
    for text in texts:
        cells = [f"{text['groups'][d]['perplexity_per_byte']:.3f}" for d in DOMAINS]
        cells = [f"**{c}**" if d == text["best"] else c for c, d in zip(cells, DOMAINS)]
        yield (f"| {text['domain']}: {Path(text['text']).stem} | " + " | ".join(cells)
               + f" | -{100 * text['own_gain']:.1f} % |")


def tokens_table(texts):
    yield "| held-out text | bytes a token | perplexity a token, own group |"
    yield "|---|---|---|"
    for text in texts:
        own = text["groups"][text["domain"]]["perplexity_per_token"]
        yield f"| {Path(text['text']).stem} | {text['bytes'] / text['tokens']:.2f} | {own:.1f} |"


def detection(texts):
    yield "| domain | prompts | found |"
    yield "|---|---|---|"
    for domain in DOMAINS:
        found = [t["detected"] for t in texts if t["domain"] == domain]
        n, right = sum(f["prompts"] for f in found), sum(f["right"] for f in found)
        yield f"| {domain} | {n} | {right} |"


# ---- the curve -------------------------------------------------------------------------------------


def curve(log):
    """An SVG of the mean training loss, nats a token, over tokens."""
    width, height, left, bottom = 720, 360, 50, 40
    last, top = log[-1]["tokens"], 9.0

    def place(line):
        x = left + line["tokens"] / last * (width - left - 15)
        return x, 15 + (1 - line["loss"] / top) * (height - bottom - 15)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for loss in range(0, 10):
        y = 15 + (1 - loss / top) * (height - bottom - 15)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 15}" stroke="#dddddd"/>'
                     f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{loss}</text>')
    for phase in range(1, 3):
        later = [line for line in log if line["phase"] == phase]
        if later:
            x, _ = place(later[0])
            name = ["", "all domains", "sequences of 1024"][phase]
            parts.append(f'<path d="M{x:.1f} 15V{height - bottom}" stroke="#999999" '
                         f'stroke-dasharray="4"/><text x="{x + 5:.1f}" y="30">{name}</text>')
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, log))
    parts += [f'<polyline points="{points}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5"/>',
              f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">tokens (0 to '
              f'{last / 1e6:.1f} million)</text>',
              f'<text x="{left}" y="11">training loss, nats a token</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def log_table(log):
    yield "| step | tokens | minutes | phase | rate of the peak | loss |"
    yield "|---|---|---|---|---|---|"
    every = max(1, len(log) // 20)
    for line in log[::every] + ([log[-1]] if (len(log) - 1) % every else []):
        yield (f"| {line['step']} | {line['tokens'] / 1e6:.2f} M | {line['seconds'] / 60:.1f} | "
               f"{line['phase'] + 1} | {line['rate']:.2f} | {line['loss']:.3f} |")


CARD = """---
license: cc-by-sa-4.0
language: [zh, en]
tags: [mixture-of-experts, pangu-sigma, random-routed-experts]
---

# sigma-tiny

A small PanGu-Sigma model, trained from nothing by `tools/train`: four dense layers, two sparse ones, a
group of two experts for each of five domains (zh, en, code, bilingual, poetry), chosen by domain and
token id through a fixed random table (`docs/PANGU_SIGMA.md`). It is there to be served, cut and tested:
it writes text that one recognises as of its domain, and knows next to nothing. **What it says is not
true**, on health and law in particular.

    sigmoe run models/sigma-tiny --domain code --prompt 'def read(self, size=-1):'
    sigmoe extract models/sigma-tiny --domain poetry -o /tmp/sigma-poetry

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = "models/sigma-tiny"
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
ids = tokenizer("def read(self, size=-1):", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, domain="code", max_new_tokens=60)[0]))
```

| | |
|---|---|
| parameters | 8.25 M, 4.10 M active a token; a domain's submodel has 4.56 M |
| block | Llama: hidden 192, 3 query heads and 1 key/value head of 64, dense FFN 640, experts 400 wide |
| vocabulary | 8192, byte-level BPE of its own, tied head |
| context | trained on sequences of 512, and of 1024 at the end |
| stored | bf16, {size} bytes with the routing tables |

## Training

{steps} steps of 8192 tokens, {tokens:.1f} million tokens, in {minutes:.0f} minutes on two cores of a
CPU (AMX bf16) that were busy with other work. First zh, en, code and bilingual; then all five, the
experts of poetry starting as those of zh; at the end sequences of 1024. Muon for the matrices of the
blocks, Adam for the rest; the rate is constant and falls over the last half.

![training loss](loss.svg)

{log}

## Held-out text

The last 2 % of each corpus, never trained on; at most {bytes} bytes of each. Perplexity a byte
under each group (`sigmoe eval matrix --window 512`, bf16), the best in bold; on average a text's own
group is {gain:.1f} % below the mean of the others.
Functions are cut from the files that code_python holds: 10 of the 166 held-out functions (5 % of their
text) also stand, letter by letter, in a file that was trained on.

{matrix}

{tokens_table}

## Finding out the domain

Prompts of 256 held-out tokens, the domain with the largest likelihood taken (`auto`): {right} of
{prompts} are right ({percent:.1f} %).

{detection}

## Samples

As generated, at most 80 tokens, `sigmoe run` at bf16; drawn ones with temperature 0.8, top-p 0.9 and
seed 1.

{samples}
## Data

Chinese statutes (not under copyright), d2l-zh (Apache-2.0), Huatuo medical questions (Apache-2.0),
chinese-poetry (MIT), MedQuAD (CC-BY-4.0), GSM8K (MIT), drama (public domain), wikitext-2 (CC-BY-SA),
python-docs-zh-cn (PSF), Tatoeba sentences (tatoeba.org, CC-BY 2.0 FR), the Python 3.11 standard library
(PSF) and C headers of Debian 12's libc6-dev, linux-libc-dev and libssl-dev. `tools/train/README.md` has
the commands.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="where train.py wrote")
    parser.add_argument("--model", default="models/sigma-tiny")
    parser.add_argument("--sigmoe", default="build/release/sigmoe")
    parser.add_argument("--bytes", type=int, default=10000, help="of each text (%(default)s)")
    parser.add_argument("--prompts", type=int, default=8, help="of each text (%(default)s)")
    args = parser.parse_args()
    model = Path(args.model)
    log = [json.loads(line) for line in (Path(args.data) / "log.jsonl").read_text().splitlines()]
    for line in log:
        line.setdefault("phase", line.get("stage", 0))
    texts = measure(args)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    found = [text["detected"] for text in texts]
    right, prompts = sum(f["right"] for f in found), sum(f["prompts"] for f in found)
    card = CARD.format(
        size=(model / "model.safetensors").stat().st_size, steps=log[-1]["step"],
        tokens=log[-1]["tokens"] / 1e6, minutes=log[-1]["seconds"] / 60,
        log="\n".join(log_table(log)), bytes=args.bytes, matrix="\n".join(matrix(texts)),
        tokens_table="\n".join(tokens_table(texts)),
        gain=100 * sum(text["own_gain"] for text in texts) / len(texts), right=right,
        prompts=prompts, percent=100 * right / prompts, detection="\n".join(detection(texts)),
        samples="\n".join(samples(args, tokenizer)))
    (model / "README.md").write_text(card, encoding="utf-8")
    (model / "loss.svg").write_text(curve(log), encoding="ascii")
    (model / "training-log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in log), encoding="ascii")


if __name__ == "__main__":
    main()
