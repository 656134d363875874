#!/usr/bin/env python3
"""Prepares the training of sigma-tiny: reads the corpora, trains the tokenizer (byte-level BPE), and
writes each corpus as a file of token ids.

  python tools/train/prepare.py --corpora ../shared/data/corpora --out DIR

DIR/tokenizer      tokenizer.json, tokenizer_config.json
DIR/tokens         CORPUS.u16, little-endian token ids; sizes.json
DIR/held-out       CORPUS.txt, never trained on

Needs tokenizers and numpy."""
import argparse
import json
import random
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from corpora import DOMAINS, SOURCES, read

VOCAB = 8192
SPECIAL = ["<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|end|>"]
BOS, EOS, USER, ASSISTANT, END = 1, 2, 3, 4, 5
SAMPLE = {"zh": 6e6, "en": 6e6, "code": 6e6, "bilingual": 4e6, "poetry": 6e6}  # characters at most
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = ("{{ bos_token }}{% for message in messages %}"
            "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<|eos|>"
            "{% else %}<|user|>{{ message.content }}<|end|>{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def sample(docs, characters, rng):
    docs = list(docs)
    rng.shuffle(docs)
    for doc in docs:
        if characters <= 0:
            return
        for turn in doc:
            characters -= len(turn)
            yield turn


def train_tokenizer(corpora):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  max_token_length=24)
    rng = random.Random(0)
    texts = [text for domain in DOMAINS for name, share in SOURCES[domain].items()
             for text in sample(corpora[name], SAMPLE[domain] * share, rng)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", BOS)])
    return tokenizer


def write_tokenizer(tokenizer, out):
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<|bos|>",
              "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
              "eos_token": "<|eos|>", "model_max_length": 1024, "pad_token": "<|pad|>",
              "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def ids_of(docs, tokenizer):
    """One array: <|bos|> text <|eos|>, or <|bos|><|user|> q <|end|><|assistant|> a <|eos|>."""
    flat = [turn for doc in docs for turn in doc]
    encoded = iter(e.ids for part in range(0, len(flat), 4096)
                   for e in tokenizer.encode_batch(flat[part:part + 4096], add_special_tokens=False))
    ids = []
    for doc in docs:
        if len(doc) == 1:
            ids += [BOS, *next(encoded), EOS]
        else:
            ids += [BOS, USER, *next(encoded), END, ASSISTANT, *next(encoded), EOS]
    return np.array(ids, np.uint16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", default="../shared/data/corpora")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    out = Path(args.out)
    for folder in ("tokens", "held-out"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    corpora = {}
    for domain in DOMAINS:
        for name in SOURCES[domain]:
            corpora[name], held = read(args.corpora, name)
            (out / "held-out" / f"{name}.txt").write_text(held, encoding="utf-8")
            asked = sum(len(doc) > 1 for doc in corpora[name])
            print(f"{name}: {len(corpora[name])} documents, {asked} asked, held out "
                  f"{len(held.encode())} bytes", flush=True)
    tokenizer = train_tokenizer(corpora)
    write_tokenizer(tokenizer, out / "tokenizer")
    sizes = {}
    for name, docs in corpora.items():
        ids = ids_of(docs, tokenizer)
        ids.tofile(out / "tokens" / f"{name}.u16")
        n_byte = sum(len(turn.encode()) for doc in docs for turn in doc)
        sizes[name] = len(ids)
        print(f"{name}: {len(ids)} tokens, {n_byte / len(ids):.2f} bytes each", flush=True)
    (out / "tokens" / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")


if __name__ == "__main__":
    main()
