#!/usr/bin/env python3
"""Our tokenizer beside Hugging Face's Rust tokenizers, one thread each, CPU time, the same bytes in
the same 4 KiB pieces, best of three.

    bench/tokenizer_vs_hf.py --bench build/release/bench/tokenizer_bench [--mb 2] [--vocab qwen3 …]

Texts: Chinese law, textbook, English wiki, the bilingual documents of ../shared/data/corpora and the
Python standard library; `mixed` is a piece of each in turn. Needs the Python package tokenizers and
../shared, else exits 77. The reference keeps its own word cache, as ours does. Exit 0 if ours is
faster on every text."""
import argparse
import glob
import lzma
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = 4096


def pieces(data):
    out, at = [], 0
    while at < len(data):
        end = min(at + PIECE, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1
        out.append(data[at:end].decode())
        at = end
    return out


def texts(shared, size):
    out = {}
    for name in ("zh_law", "zh_textbook", "en_wiki", "bilingual_docs"):
        data = lzma.open(f"{shared}/data/corpora/{name}.txt.xz").read(size * 4)
        out[name] = data[:size].decode(errors="ignore")
    code = "".join(open(f, encoding="utf-8", errors="replace").read()
                   for f in sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))[:40])
    out["code"] = code.encode()[:size].decode(errors="ignore")
    step = 3000
    out["mixed"] = "".join(t[i:i + step] for i in range(0, size // 3, step) for t in list(out.values()))
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--bench", required=True)
    a.add_argument("--shared", default=os.path.join(HERE, "../../shared"))
    a.add_argument("--mb", type=float, default=2)
    a.add_argument("--vocab", nargs="*", default=["qwen3", "llama3_1", "gptoss", "deepseek_v3"])
    a = a.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        import tokenizers
    except ImportError:
        print("skipped: the Python package tokenizers is not installed")
        return 77
    if not os.path.isdir(f"{a.shared}/data/tokenizers"):
        print(f"skipped: {a.shared}/data/tokenizers is not there")
        return 77
    ok = True
    print(f"tokenizers {tokenizers.__version__}; MB/s of CPU time, one thread")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, text in texts(a.shared, int(a.mb * 1e6)).items():
            files[name] = os.path.join(folder, name)
            open(files[name], "wb").write(text.encode())
        for vocab in a.vocab:
            path = os.path.join(folder, vocab + ".json")
            open(path, "wb").write(lzma.open(f"{a.shared}/data/tokenizers/{vocab}.tokenizer.json.xz").read())
            lines = subprocess.run([a.bench, path] + list(files.values()), check=True, text=True,
                                   stdout=subprocess.PIPE).stdout.split("\n")
            t0 = time.process_time()
            hf = tokenizers.Tokenizer.from_file(path)
            print(f"{vocab}: open {lines[0].split()[1]} ms, reference {(time.process_time() - t0) * 1e3:.0f} ms")
            for line, (name, f) in zip(lines[1:], files.items()):
                parts = pieces(open(f, "rb").read())
                best, n_id = 1e9, 0
                for _ in range(3):
                    t0 = time.process_time()
                    n_id = sum(len(e.ids) for e in hf.encode_batch_fast(parts, add_special_tokens=False))
                    best = min(best, time.process_time() - t0)
                ours, theirs = float(line.split()[3]), os.path.getsize(f) / best / 1e6
                same = int(line.split()[5]) == n_id
                ok &= same and ours > theirs
                print(f"  {name:16} {ours:6.1f}   reference {theirs:5.2f}   x{ours / theirs:.1f}"
                      + ("" if same else f"   TOKENS DIFFER: {line.split()[5]} and {n_id}"), flush=True)
    return 0 if ok else 1


sys.exit(main())
