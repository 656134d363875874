#!/usr/bin/env python3
"""The corpora of sigma-tiny as documents: where each text is read from, how it is cut, which part is
held out, and which documents are written as a conversation.

A document is a list of turns: one turn is plain text, two are a question and its answer. Of every
corpus the last 2 % (by bytes, at the border of a piece) are held out and never trained on; they are
kept as plain text. To write only these (needs nothing but Python):

  python3 tools/train/corpora.py --corpora ../shared/data/corpora --held-out DIR
"""
import argparse
import ast
import json
import lzma
import random
import re
import sysconfig
from pathlib import Path

HELD_OUT = 0.02
LONGEST = 3000  # characters of one document

# domain -> {corpus: share of the domain's tokens}
SOURCES = {
    "zh": {"zh_law": 0.32, "zh_health": 0.54, "zh_textbook": 0.14},
    "en": {"en_health": 0.43, "en_math": 0.43, "en_drama": 0.07, "en_wiki": 0.07},
    "code": {"code_python": 0.42, "code_functions": 0.43, "code_headers": 0.15},
    "bilingual": {"bilingual_docs": 0.40, "bilingual_sentences": 0.60},
    "poetry": {"zh_poetry": 1.0},
}
DOMAINS = list(SOURCES)
HEADERS = ["*.h", "linux/*.h", "asm-generic/*.h", "x86_64-linux-gnu/*/*.h", "openssl/*.h"]


def read_xz(folder, name):
    return lzma.open(folder / name, "rt", encoding="utf-8", errors="ignore").read()


def blocks(text):
    """Paragraphs gathered into documents of up to LONGEST characters."""
    gathered, size = [], 0
    for part in re.split(r"\n\s*\n", text):
        part = part.strip("\n")
        if not part.strip():
            continue
        for start in range(0, len(part), LONGEST):
            piece = part[start:start + LONGEST]
            if size + len(piece) > LONGEST and gathered:
                yield "\n\n".join(gathered)
                gathered, size = [], 0
            gathered.append(piece)
            size += len(piece) + 2
    if gathered:
        yield "\n\n".join(gathered)


# ---- one reader a corpus: an iterator of (plain text, question and answer or None) -----------------


def zh_law(folder):
    text = re.sub(r"(?m)^---\n(.*\n)*?---\n|<!--.*?-->", "", read_xz(folder, "zh_law.txt.xz"))
    return ((block, None) for block in blocks(text))


def pairs_of(text, question, answer):
    for part in text.split("\n\n"):
        match = re.match(rf"(?s){question}\s*(.+?)\n{answer}\s*(.+)", part.strip())
        if match:
            yield part.strip()[:LONGEST], (match[1].strip(), match[2].strip()[:LONGEST])


def zh_health(folder):
    return pairs_of(read_xz(folder, "zh_health.txt.xz"), "问：", "答：")


def is_chinese(line):
    return len(re.findall(r"[\u4e00-\u9fff]", line)) * 4 >= len(line.strip())


def zh_textbook(folder):
    """The Chinese prose of the book: neither its programs nor the English pages beside it."""
    text = re.sub(r"(?ms)^```.*?^```", "", read_xz(folder, "zh_textbook.txt.xz"))
    text = re.sub(r"(?m)^:\w+:`.*?`\s*$", "", text)
    lines = [line for line in text.split("\n") if not line.strip() or is_chinese(line)]
    return ((block, None) for block in blocks("\n".join(lines)))


def en_health(folder):
    for plain, (question, answer) in pairs_of(read_xz(folder, "en_health.txt.xz"), "Q:", "A:"):
        question = question.replace("What is (are)", "What is").replace(" ?", "?")
        yield plain, (question, answer.replace("Key Points - ", ""))


def en_math(folder):
    for line in read_xz(folder, "en_math.jsonl.xz").splitlines():
        item = json.loads(line)
        answer = re.sub(r"<<.*?>>", "", item["answer"]).replace("#### ", "The answer is ")
        yield item["question"] + "\n" + answer, (item["question"], answer)


def en_drama(folder):
    return ((block, None) for block in blocks(read_xz(folder, "en_drama.txt.xz")))


def en_wiki(folder):
    text = read_xz(folder, "en_wiki.txt.xz").replace(" @-@ ", "-").replace(" @,@ ", ",")
    text = re.sub(r" ([,.;:)!?'])", r"\1", text.replace(" @.@ ", ".")).replace("( ", "(")
    return ((block, None) for block in blocks(text))


def without_licence(text):
    """Drops the opening comment of a header or module where it speaks of copyright."""
    match = re.match(r"(?s)\s*(/\*.*?\*/|(?:#[^\n]*\n)+)", text)
    if match and re.search(r"(?i)copyright|licen[cs]e", match[1]):
        return text[match.end():].lstrip("\n")
    return text


def python_files():
    root = Path(sysconfig.get_path("stdlib", vars={"base": "/usr", "installed_base": "/usr"}))
    root = root if root.is_dir() else Path("/usr/lib/python3.11")
    for path in sorted(root.rglob("*.py")):
        if not re.search(r"/(site|dist)-packages/|/(test|tests|lib2to3|pydoc_data)/", str(path)):
            yield path.read_text(encoding="utf-8", errors="ignore")


def code_python(folder):
    for text in python_files():
        for block in blocks(without_licence(text)):
            yield block, None


def functions_of(text):
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__"):
            source = ast.get_source_segment(text, node)
            if source and 60 < len(source) < 1200:
                indent = " " * node.col_offset
                yield node.name, source.replace("\n" + indent, "\n"), ast.get_docstring(node)


def code_functions(folder):
    for text in python_files():
        for name, source, doc in functions_of(text):
            first = (doc or "").strip().split("\n")[0].rstrip(".")
            asked = f"Write a Python function {name}"
            yield source, (asked + (f": {first}." if first else "."), source)


def code_headers(folder):
    root = Path("/usr/include")
    for path in sorted({p for pattern in HEADERS for p in root.glob(pattern)}):
        text = without_licence(path.read_text(encoding="utf-8", errors="ignore"))
        for block in blocks(text[:40000]):
            yield block, None


def translation(rng, english, chinese):
    if rng.random() < 0.5:
        return f"Translate into Chinese: {english}", chinese
    return f"翻译成英文：{chinese}", english


def bilingual_docs(folder):
    rng = random.Random(1)
    for plain, (english, chinese) in pairs_of(read_xz(folder, "bilingual_docs.txt.xz"), "EN:", "ZH:"):
        if is_chinese(chinese):
            short = len(english) < 240
            yield plain, translation(rng, english, chinese) if short else None


def bilingual_sentences(folder):
    rng = random.Random(2)
    for line in read_xz(folder, "bilingual_sentences.txt.xz").splitlines():
        english, _, chinese = line.partition("\t")
        if chinese:
            yield f"EN: {english}\nZH: {chinese}", translation(rng, english, chinese)


def verse(lines):
    """Whether all lines are verses of the same five or seven characters."""
    parts = [p for line in lines for p in re.split(r"[，。？！；、]", line) if p]
    return len(parts) >= 4 and len({len(p) for p in parts}) == 1 and len(parts[0]) in (5, 7)


def zh_poetry(folder):
    for part in read_xz(folder, "zh_poetry.txt.xz").split("\n\n"):
        lines = part.strip().split("\n")
        if len(lines) < 3:
            continue
        title, body = lines[0].strip(), lines[2:]
        asked = None
        if verse(body) and len(body) <= 12 and len(title) < 24:
            asked = f"以「{title}」為題寫一首詩。", "\n".join(body)
        yield part.strip()[:600], asked


READERS = {f.__name__: f for f in (
    zh_law, zh_health, zh_textbook, en_health, en_math, en_drama, en_wiki, code_python,
    code_functions, code_headers, bilingual_docs, bilingual_sentences, zh_poetry)}
SHORT = {"zh_health", "bilingual_docs", "bilingual_sentences", "zh_poetry"}


def split(pieces):
    """(trained on, held out): the last HELD_OUT of the bytes are held out."""
    total = sum(len(plain.encode()) for plain, _ in pieces)
    held, n = 0, len(pieces)
    while n > 1 and held < HELD_OUT * total:
        n -= 1
        held += len(pieces[n][0].encode())
    return pieces[:n], pieces[n:]


def documents(name, pieces, rng):
    """Turns to train on, shuffled. What can be asked is given both ways; short plain pieces are
    gathered so that a document is more than a line."""
    plain = [p for p, _ in pieces]
    rng.shuffle(plain)
    if name in SHORT:
        gathered = []
        while plain:
            n = rng.randint(1, 6)
            gathered.append("\n\n".join(plain[:n]))
            plain = plain[n:]
        plain = gathered
    docs = [[p] for p in plain] + [list(asked) for _, asked in pieces if asked]
    rng.shuffle(docs)
    return docs


def read(folder, name):
    """(documents to train on, held-out plain text)"""
    train, held = split(list(READERS[name](Path(folder))))
    return documents(name, train, random.Random(name)), "\n\n".join(p for p, _ in held)


def held_out(folder, name):
    return "\n\n".join(p for p, _ in split(list(READERS[name](Path(folder))))[1])


def main():
    parser = argparse.ArgumentParser(description="Writes the held-out text of each corpus.")
    parser.add_argument("--corpora", default="../shared/data/corpora")
    parser.add_argument("--held-out", required=True, metavar="DIR", help="where CORPUS.txt go")
    args = parser.parse_args()
    out = Path(args.held_out)
    out.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        for name in SOURCES[domain]:
            (out / f"{name}.txt").write_text(held_out(args.corpora, name), encoding="utf-8")
            print(f"{domain}: {out / name}.txt")


if __name__ == "__main__":
    main()
