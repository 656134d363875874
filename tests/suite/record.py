#!/usr/bin/env python3
"""What a run records of its routing is what its answers say, whatever the batching and the workers;
choosing among replicas, and cutting hot experts over them, leaves every bit as it is.

usage: record.py --sigmoe SIGMOE
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Workers  # noqa: E402
from served import Served, make_model  # noqa: E402

SIGMOE = ""
CHOICES = ("fixed", "least-outstanding", "round-robin", "two-choices", "speed", "local")


def sigmoe(*args, code=0):
    done = subprocess.run([SIGMOE, *map(str, args)], capture_output=True, text=True, timeout=120)
    if done.returncode != code:
        raise AssertionError("%s: exit %d: %s" % (args, done.returncode, done.stderr))
    return done.stdout if code == 0 else done.stderr


class Record(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="sigmoe-record-")
        cls.model = os.path.join(cls.dir, "tiny")
        sigmoe("synth", "tiny-moe", "-o", cls.model)
        cls.prompts = os.path.join(cls.dir, "prompts")
        with open(cls.prompts, "w") as f:
            for i in range(4):
                f.write(",".join(str((i * 37 + k * 11) % 500) for k in range(20 + 15 * i)) + "\n")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def run_model(self, *args):
        out = sigmoe("run", self.model, "--token-ids-file", self.prompts, "--max-tokens", 12,
                     "--ignore-eos", "--json", *args)
        return json.loads(out)

    def lines(self, path):
        return sorted(sigmoe("trace", "head", path, "-n", 100000).splitlines()[1:])

    def test_a_recording_depends_on_the_tokens_alone(self):
        first = os.path.join(self.dir, "a.routes")
        plain = self.run_model()
        said = self.run_model("--record", first)
        self.assertEqual(said["sequences"], plain["sequences"])
        info = json.loads(sigmoe("trace", "info", first, "--json"))
        # Each prompt and 12 tokens, of which the last is never computed.
        self.assertEqual(info["tokens"], sum(20 + 15 * i + 11 for i in range(4)))
        self.assertEqual((info["sequences"], info["layers"], info["top_k"]), (4, [0, 1, 2], 2))
        self.assertFalse(os.path.exists(first + ".part"))
        recorded = self.lines(first)
        for i, args in enumerate((("--workers", 3), ("--prefill-chunk", 7), ("--max-seqs", 1),
                                  ("--max-batch-rows", 16, "--micro-batches", 2),
                                  ("--workers", 2, "--transport", "tcp"))):
            other = os.path.join(self.dir, "%d.routes" % i)
            self.run_model("--record", other, *args)
            self.assertEqual(self.lines(other), recorded, args)

    def test_a_recording_can_be_planned_from(self):
        path, plan = os.path.join(self.dir, "p.routes"), os.path.join(self.dir, "p.json")
        self.run_model("--record", path)
        made = json.loads(sigmoe("plan", "--model", self.model, "--loads", path, "-w", 2, "-r", 2,
                                 "--json", "--out", plan))
        self.assertLess(made["imbalance"][0]["after"], made["imbalance"][0]["before"] + 1e-9)
        worker = made["workers"][0]["name"]
        with open(plan) as f:
            self.assertEqual(set(json.load(f)["workers"][worker]), {"0", "1", "2"})

    def test_every_choice_of_replicas_gives_the_same_bits(self):
        """Three workers hold everything; prompts of 20 to 65 tokens in one step give hot experts rows
        enough to be cut."""
        dump = os.path.join(self.dir, "logits")

        def bits(*args):
            said = self.run_model("--dump-logits", dump, *args)
            with open(dump, "rb") as f:
                return [s["tokens"] for s in said["sequences"]], f.read()
        alone = bits()
        with Workers(SIGMOE, self.model, "bf16", ["0-7", "0-7", "0-7"]) as at:
            for choice in CHOICES:
                for rows in (0, 8):
                    got = bits("--workers-at", at, "--replicas-by", choice, "--split-rows", rows)
                    self.assertEqual(got, alone, (choice, rows))

    def test_a_server_records_what_its_answers_say(self):
        """The recording of a served request is the answer's routed_experts, read by the importer."""
        model = make_model(SIGMOE, os.path.join(self.dir, "served"))
        path, answer = os.path.join(self.dir, "s.routes"), os.path.join(self.dir, "answer.jsonl")
        with Served(SIGMOE, model, "--record", path) as server:
            status, said = server.post("/v1/completions", {
                "prompt": "Once upon a time", "max_tokens": 9, "ignore_eos": True,
                "return_routed_experts": True})
            self.assertEqual(status, 200, said)
        with open(answer, "w") as f:
            f.write(json.dumps(said))
        sigmoe("trace", "convert", answer, path + ".vllm", "--experts", 8)

        def choices(file):
            return [(w[1], w[4], *(e.split(":")[0] for e in w[5:]))
                    for w in (line.split() for line in self.lines(file))]
        self.assertEqual(sorted(choices(path)), sorted(choices(path + ".vllm")))

    def test_a_recording_that_cannot_be_written_is_refused_first(self):
        err = sigmoe("run", self.model, "--token-ids", "1", "--record", "/nowhere/x", code=3)
        self.assertIn("cannot write /nowhere/x.part", err)


if __name__ == "__main__":
    at = sys.argv.index("--sigmoe")
    SIGMOE = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    unittest.main()
