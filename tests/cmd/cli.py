#!/usr/bin/env python3
"""The face of the program: help, version, misspelt commands and options, with their exit statuses.

usage: cli.py SIGMOE
"""
import re
import subprocess
import sys
import unittest

SIGMOE = ""
COMMANDS = ["run", "serve", "worker", "status", "rebalance", "drain", "undrain", "join", "chat",
            "top", "inspect", "plan", "trace", "tokenize", "upcycle", "extract", "quantize", "eval",
            "loadtest", "keys", "calibrate", "synth"]


def sigmoe(*args):
    done = subprocess.run([SIGMOE, *args], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


class Cli(unittest.TestCase):
    def test_without_arguments_usage_goes_to_stderr_with_2(self):
        code, out, err = sigmoe()
        self.assertEqual((code, out), (2, ""))
        self.assertTrue(err.startswith("usage: sigmoe COMMAND [options]\n"))

    def test_help_lists_every_command_on_stdout(self):
        for word in ("help", "--help", "-h"):
            code, out, err = sigmoe(word)
            self.assertEqual((code, err), (0, ""))
            listed = re.findall(r"^  (\w+) ", out, re.M)
            self.assertEqual(listed, [*COMMANDS, "help"])

    def test_help_of_a_command_is_its_help_option(self):
        for name in COMMANDS:
            code, out, err = sigmoe("help", name)
            self.assertEqual((code, err), (0, ""), name)
            self.assertTrue(out.startswith(f"usage: sigmoe {name} "), out[:60])
            self.assertIn("\noptions:\n", out)
            self.assertIn("  -h, --help ", out)
            self.assertEqual(sigmoe(name, "--help"), (0, out, ""))
            for line in out.splitlines():
                self.assertLessEqual(len(line), 100, f"{name}: {line}")

    def test_a_misspelt_command_names_the_nearest_with_2(self):
        for args in (("wroker",), ("help", "wroker")):
            self.assertEqual(
                sigmoe(*args),
                (2, "", "sigmoe: unknown command 'wroker'; did you mean 'worker'?\n"))
        self.assertEqual(
            sigmoe("frobnicate"),
            (2, "", "sigmoe: unknown command 'frobnicate'; sigmoe help lists them\n"))

    def test_an_unknown_option_of_each_command_is_one_line_with_2(self):
        for name in COMMANDS:
            code, out, err = sigmoe(name, "--frobnicate")
            self.assertEqual((code, out), (2, ""), name)
            self.assertEqual(err.count("\n"), 1, err)
            self.assertIn("--frobnicate", err)

    def test_version_says_what_a_bug_report_needs(self):
        for word in ("--version", "-V"):
            code, out, err = sigmoe(word)
            self.assertEqual((code, err), (0, ""))
            self.assertRegex(
                out,
                r"\Asigmoe \d+\.\d+\.\d+\ncompiler: (gcc|clang) \d+.*\n"
                r"kernels: portable.*; \d+ CPUs\nlibzmq 4\.\d+\.\d+, protobuf-c 1\.\d+\.\d+\n"
                r"CUDA toolkit at build: .+\n\Z")


if __name__ == "__main__":
    SIGMOE = sys.argv.pop(1)
    unittest.main()
