#!/usr/bin/env python3
"""Compares `sigmoe tokenize` with Hugging Face's tokenizers, id by id, and the texts decoded again.

    equal_hf.py --tokenize 'build/release/sigmoe tokenize' [--vocab qwen3 …] [--mb 20] [--random 100000]

Needs the Python package tokenizers (tried: 0.22.2) and ../shared; without either it exits 77. The
texts: every corpus of ../shared/data/corpora, the Python standard library and the C headers of this
machine, in pieces of 1 to 20 lines; then random strings that are made to hit rules (scripts,
combining marks, white space, contractions, added tokens). Exit 0 only if all is equal."""
import argparse
import glob
import json
import lzma
import os
import random
import shlex
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def pieces_of(text, rng):
    lines = text.splitlines(keepends=True)
    out, i = [], 0
    while i < len(lines):
        n = rng.choice((1, 1, 2, 5, 20))
        out.append("".join(lines[i:i + n]))
        i += n
    return out


def corpus(shared, mb, rng):
    """About half natural text, half code, mixed, each file cut at its share."""
    texts, total = [], 0
    files = sorted(glob.glob(os.path.join(shared, "data/corpora/*.xz")))
    share = mb * 600_000 // max(1, len(files))
    for f in files:
        text = lzma.open(f).read().decode("utf-8")
        texts += pieces_of(text[:share], rng)
    code = sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))
    code += sorted(glob.glob("/usr/include/*.h") + glob.glob("/usr/include/*/*.h"))
    total = sum(len(t.encode()) for t in texts)
    for f in code:
        if total >= mb * 1_000_000:
            break
        text = open(f, encoding="utf-8", errors="replace").read()
        total += len(text.encode())
        texts += pieces_of(text, rng)
    return texts, total


BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x8A0, 0xE00),
          (0xE00, 0x1400), (0x1680, 0x1700), (0x1AB0, 0x1B00), (0x1DC0, 0x2000), (0x2000, 0x2070),
          (0x20A0, 0x2200), (0x2E80, 0x3100), (0x3100, 0x3400), (0x4E00, 0x5200), (0x9F00, 0xA700),
          (0xA700, 0xABF0), (0xAC00, 0xAD00), (0xF900, 0xFB50), (0xFE00, 0x10000), (0x10000, 0x12000),
          (0x16A00, 0x17000), (0x1D400, 0x1D800), (0x1E000, 0x1F000), (0x1F000, 0x1FB00),
          (0x20000, 0x20100), (0xE0000, 0xE0200)]
BITS = ["'s", "'S", "'ll", "'LL", "'\u017f", "'re", " '", "\n", "\r\n", "  ", "   ", "\t", " \n ", "\u3000", "\u00a0",
        "\u180e", "\u200b", "\u200d", "\u0085", "123", "12345", "\u0663", "\u00bd", "!?", "...", "(", "/", "//\n", "\u00e9", "e\u0301", "A\u030a",
        "\u1100\u1161\u11a8", "the", "Hello", "World", "HELLO", "camelCase", "你好", "世界", "ひらがな", "カタカナ", "한국어",
        "Привет", "\U0001f600", "\U0001f468\u200d\U0001f469", "\ufeff", "\ufffd", "\0", "\u2581", "_", "<", "|", ">", "</s>", "<0x0A>",
        "\u1e9b\u0323", "\u212b", "\u2126", "\u0344", "\u0958", "\ufb1d", "\u01c5", "\u02b0", "\u0130"]


def random_char(rng):
    k = rng.random()
    if k < 0.15:
        c = rng.randrange(0x110000)
    else:
        a, b = rng.choice(BLOCKS)
        c = rng.randrange(a, b)
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"


def long_words(rng):
    """Words of one to many symbols that no splitting cuts short; the merging goes in windows there."""
    return ["".join(rng.choice(letters) for _ in range(n))
            for letters in ("a", "=", " ", "ab", "aAbB", "etaoinshrdlu", "abcdefghijklmnopqrstuvwxyz",
                            "的一是在不了有和人这中大为上个国", "ab的一éñ", "абвгдежзик")
            for n in (3000, 4200, 9000, 60000)]


def random_string(rng, added):
    mode, n, out = rng.randrange(5), rng.choice((1, 3, 8, 20, 60)), []
    block = rng.choice(BLOCKS)
    for _ in range(n):
        k = rng.random()
        if added and k < 0.05:
            out.append(rng.choice(added))
        elif mode == 0:
            out.append(random_char(rng))
        elif mode == 1:
            out.append(rng.choice(BITS))
        elif mode == 2:
            out.append(rng.choice(BITS) if k < 0.5 else random_char(rng))
        elif mode == 3:
            c = rng.randrange(*block)
            out.append(chr(c) if not 0xD800 <= c < 0xE000 else " ")
        else:
            out.append(rng.choice("aA1 \n'é你。-"))
    return "".join(out)


def protobuf(data):
    """Fields of one message: (number, value), value an int or bytes."""
    i, out = 0, []

    def varint():
        nonlocal i
        v = s = 0
        while True:
            b = data[i]
            i += 1
            v |= (b & 127) << s
            s += 7
            if b < 128:
                return v
    while i < len(data):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            value = varint()
        else:
            n = varint() if kind == 2 else 8 if kind == 1 else 4
            value = data[i:i + n]
            i += n
        out.append((tag >> 3, value))
    return out


def from_sentencepiece(path):
    """What transformers' LlamaConverter makes of a BPE tokenizer.model."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    pieces = []
    for number, value in protobuf(open(path, "rb").read()):
        if number == 1:
            f = dict(protobuf(value))
            pieces.append((f[1].decode(), struct.unpack("<f", f[2])[0], f.get(3, 1)))
    vocab = {p: i for i, (p, _, _) in enumerate(pieces)}
    merges = []
    for p, score, kind in pieces:
        if kind == 1:
            merges += [(p[:k], p[k:], score) for k in range(1, len(p)) if p[:k] in vocab and p[k:] in vocab]
    merges.sort(key=lambda m: -m[2])
    tok = Tokenizer(models.BPE(vocab, [(a, b) for a, b, _ in merges], unk_token="<unk>", fuse_unk=True,
                               byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(p, normalized=False) for p, _, kind in pieces if kind in (2, 3)])
    return tok


def find_vocabs(shared, folder):
    """Unpacks what there is: {name: (path for us, loader for HF)}."""
    from tokenizers import Tokenizer
    found = {}
    for f in sorted(glob.glob(os.path.join(shared, "data/tokenizers/*"))):
        name = os.path.basename(f).split(".")[0]
        if f.endswith("tokenizer.json.xz") or f.endswith("tokenizer.json"):
            out = os.path.join(folder, name + ".json")
            data = lzma.open(f).read() if f.endswith(".xz") else open(f, "rb").read()
            open(out, "wb").write(data)
            found[name] = (out, lambda out=out: Tokenizer.from_file(out))
        elif ".tokenizer.model" in f:
            out = os.path.join(folder, name + ".model")
            open(out, "wb").write(open(f, "rb").read())
            found[name] = (out, lambda out=out: from_sentencepiece(out))
    for f in sorted(glob.glob(os.path.join(HERE, "../../fixtures/tokenizer/*.json"))):
        if not f.endswith(".expected.json"):
            found["fixture_" + os.path.basename(f)[:-5]] = (f, lambda f=f: Tokenizer.from_file(f))
    return found


def run(command, path, flags, records):
    with tempfile.TemporaryFile("w+b") as stdin:
        for r in records:
            stdin.write(json.dumps(r).encode() + b"\n")
        stdin.seek(0)
        done = subprocess.run(shlex.split(command) + [path, "--json"] + flags, stdin=stdin,
                              stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(name, command, path, hf, texts):
    t0 = time.time()
    want = [e.ids for e in hf.encode_batch_fast(texts, add_special_tokens=False)]
    t1 = time.time()
    got = run(command, path, ["--special"], texts)
    t2 = time.time()
    bad = [i for i in range(len(texts)) if want[i] != got[i]]
    for i in bad[:5]:
        k = next((k for k, (a, b) in enumerate(zip(want[i], got[i])) if a != b), min(len(want[i]), len(got[i])))
        print(f"{name}: differs at token {k} of {texts[i][:200]!r}\n  reference {want[i][max(0, k - 2):k + 6]}"
              f"\n  ours      {got[i][max(0, k - 2):k + 6]}")
    back = hf.decode_batch(want, skip_special_tokens=False)
    ours = run(command, path, ["--decode"], want)
    wrong = [i for i in range(len(texts)) if back[i] != ours[i]]
    for i in wrong[:3]:
        print(f"{name}: decodes to {ours[i][:200]!r}\n  reference {back[i][:200]!r}")
    print(f"{name}: {len(texts)} texts, {sum(map(len, want))} tokens, {len(bad)} encoded and {len(wrong)} decoded "
          f"otherwise (reference {t1 - t0:.1f} s, ours with JSON {t2 - t1:.1f} s)", flush=True)
    return not bad and not wrong


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--tokenize", required=True, help="command, for example 'build/release/sigmoe tokenize'")
    a.add_argument("--shared", default=os.path.join(HERE, "../../../../shared"))
    a.add_argument("--vocab", nargs="*", help="only these")
    a.add_argument("--mb", type=int, default=20)
    a.add_argument("--random", type=int, default=100_000)
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError:
        skip("the Python package tokenizers is not installed")
    if not os.path.isdir(os.path.join(a.shared, "data/tokenizers")):
        skip(f"{a.shared}/data/tokenizers is not there")
    print(f"tokenizers {tokenizers.__version__}, Unicode of Python {unicodedata.unidata_version}, seed {a.seed}")
    rng = random.Random(a.seed)
    texts, total = corpus(a.shared, a.mb, rng) if a.mb else ([], 0)
    print(f"corpus: {len(texts)} texts, {total / 1e6:.1f} MB")
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, load) in find_vocabs(a.shared, folder).items():
            if a.vocab and name not in a.vocab:
                continue
            hf = load()
            added = [t.content for t in hf.get_added_tokens_decoder().values()][:300]
            strings = [random_string(rng, added) for _ in range(a.random)]
            if texts:
                ok &= compare(name + " corpus", a.tokenize, path, hf, texts)
            ok &= compare(name + " random", a.tokenize, path, hf, strings)
            ok &= compare(name + " long words", a.tokenize, path, hf, long_words(rng))
    print("all equal" if ok else "NOT EQUAL")
    return 0 if ok else 1


sys.exit(main())
