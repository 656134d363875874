"""What the Python tests share: running sigmoe, reading what it dumps, and safetensors files.

Standard library only, because these run in CI. A test is a script: exit 0 passed, 1 failed, 77
skipped (ctest shows it as such); what it says goes to stdout.
"""
import array
import json
import os
import struct
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
SHARED = os.path.join(os.path.dirname(ROOT), "shared")
TINY = os.path.join(TESTS, "fixtures", "tiny")
TIMEOUT_S = 240


class Failure(Exception):
    """A claim that does not hold; the text is the report."""


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def run_sigmoe(binary, args, timeout=TIMEOUT_S, env=None):
    """(exit status, stdout, stderr); a status below zero is the signal that ended it."""
    try:
        done = subprocess.run([binary, *map(str, args)], capture_output=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    except OSError as bad:
        raise Failure(f"cannot run {binary}: {bad.strerror}; build it, or give --sigmoe") from None
    except subprocess.TimeoutExpired as late:
        raise Failure(f"no end after {timeout} s: {' '.join(map(str, args))}\n"
                      f"{(late.stderr or b'').decode(errors='replace')}") from None
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def last_json(stdout):
    """The object that --json prints at the end of stdout."""
    text = stdout.decode(errors="replace").strip()
    start = text.rfind("\n{")
    try:
        return json.loads(text[start + 1:] if not text.startswith("{") else text)
    except ValueError as bad:
        raise Failure(f"--json printed no JSON object at the end ({bad}): {text[-400:]!r}") from None


class Output:
    """What one run gave: tokens and text of each sequence, and each one's logits as raw bytes."""

    def __init__(self, report, dump, vocab, lengths):
        self.report = report
        self.tokens = [s["tokens"] for s in report["sequences"]]
        self.text = [s.get("text") for s in report["sequences"]]
        self.domains = [(s.get("domain"), s.get("domain_scores")) for s in report["sequences"]]
        if len(self.tokens) != len(lengths):
            raise Failure(f"{len(lengths)} prompts gave {len(self.tokens)} sequences")
        self.logits = cut(dump, vocab, [n + max(len(t) - 1, 0)
                                        for n, t in zip(lengths, self.tokens)])


def cut(dump, vocab, n_position):
    """A dump holds each prompt's rows [n_position, vocab] in order, and nothing else."""
    want = 4 * vocab * sum(n_position)
    if len(dump) != want:
        raise Failure(f"--dump-logits wrote {len(dump)} bytes; {n_position} positions of {vocab} "
                      f"logits are {want}")
    out, at = [], 0
    for n in n_position:
        out.append(dump[at:at + 4 * vocab * n])
        at += 4 * vocab * n
    return out


def vocab_of(model):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        return json.load(f)["vocab_size"]


def generate(binary, model, prompts, *options, max_tokens=64, env=None, timeout=TIMEOUT_S):
    """Runs the prompts (lists of ids) as one batch and returns an Output."""
    with tempfile.TemporaryDirectory(prefix="sigmoe-test-") as tmp:
        dump = os.path.join(tmp, "logits.f32")
        args = ["run", model, "--max-tokens", max_tokens, "--dump-logits", dump, "--json",
                *options]
        if len(prompts) == 1:
            args += ["--token-ids", ",".join(map(str, prompts[0]))]
        else:
            ids = os.path.join(tmp, "prompts.txt")
            with open(ids, "w", encoding="ascii") as f:
                f.writelines(",".join(map(str, p)) + "\n" for p in prompts)
            args += ["--token-ids-file", ids]
        status, stdout, stderr = run_sigmoe(binary, args, timeout, env)
        if status != 0:
            raise Failure(f"exit {status}: sigmoe {' '.join(map(str, args))}\n{stderr[-3000:]}")
        with open(dump, "rb") as f:
            data = f.read()
    return Output(last_json(stdout), data, vocab_of(model), [len(p) for p in prompts])


class Workers:
    """`sigmoe worker` processes on loopback, ended by their ids on leaving.

    sets: for each worker the experts it holds, as --experts takes them. Entering returns the list
    for --workers-at: each worker says "ready ENDPOINT" on stdout once it is bound and has loaded.
    devices: for each worker the --device it has; None: the CPUs.
    """

    def __init__(self, binary, model, precision, sets, options=(), devices=()):
        self.commands = [[binary, "worker", "--model", model, "--precision", precision,
                          "--experts", ids, "--listen", "tcp://127.0.0.1:*", "--threads", "1",
                          *options]
                         for ids in sets]
        for command, device in zip(self.commands, devices):
            command += ["--device", device] if device else []
        self.running = []
        self.stderr = [tempfile.TemporaryFile() for _ in self.commands]

    def __enter__(self):
        try:
            for command, stderr in zip(self.commands, self.stderr):
                self.running.append(subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr))
            return ",".join(self.endpoint(process) for process in self.running)
        except BaseException:
            self.__exit__()
            raise

    @staticmethod
    def endpoint(process):
        words = process.stdout.readline().decode(errors="replace").split()
        if len(words) < 2 or words[0] != "ready":
            raise Failure(f"a worker said {' '.join(words)!r} instead of ready ENDPOINT")
        return words[1]

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self.running = []


def floats(raw):
    out = array.array("f")
    out.frombytes(raw)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


# safetensors: u64 header length, JSON header, data (huggingface/safetensors README).


def safetensors_read(path):
    """{name: (dtype, shape, bytes)} in file order."""
    raw = read_file(path)
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    items = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return {name: (t["dtype"], t["shape"],
                   raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in items}


def safetensors_bytes(tensors, edit=None):
    """The file's bytes; `edit` may change the header (a dict) before it is written."""
    header, data = {}, []
    at = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    if edit:
        edit(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def safetensors_write(path, tensors):
    with open(path, "wb") as f:
        f.write(safetensors_bytes(tensors))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)


def main_of(test):
    """Runs test() and turns a Failure into exit 1 with its words."""
    try:
        test()
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
