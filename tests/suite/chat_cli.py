#!/usr/bin/env python3
"""sigmoe chat against a server of this test's own: one question from a pipe, and a person at a
terminal (a pseudo-terminal) who asks, stops an answer, changes settings, saves and ends.

usage: chat_cli.py SIGMOE
"""
import http.server
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SIGMOE = ""
DOMAINS = ["zh", "en", "code"]


class Server(http.server.BaseHTTPRequestHandler):
    """OpenAI's interface, small: what it does depends on the last message's text."""
    protocol_version = "HTTP/1.1"
    requests, broken_pipes = [], []

    def log_message(self, *_):
        pass

    def send(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("Authorization") != "Bearer sesame":
            self.send(401, {"error": {"message": "give the key", "type": "authentication_error"}})
            return
        ids = ["tiny", *(f"tiny:{d}" for d in DOMAINS)]
        self.send(200, {"object": "list", "data": [{"id": i, "owned_by": "sigmoe"} for i in ids]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, body))
        asked = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        if asked == "refuse":
            self.send(400, {"error": {"message": "no, and here is why", "code": 400}})
        elif asked == "whole":
            self.send(200, {"model": "tiny", "choices": [
                {"message": {"content": "not streamed"}, "finish_reason": "stop"}]})
        elif asked == "html":
            self.send(200, b"<html>hello</html>", "text/html")
        else:
            self.stream(body, asked)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def stream(self, body, asked):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        domain = body.get("domain", "en")
        pieces = {"slow": ["slow "] * 600, "escape": ["a\x1b[31mb\x07c\u009b2J\0d", "\u4f60\u597d"],
                  "fail": ["half "]}.get(asked, ["You said ", asked, "."])
        try:
            for piece in pieces:
                part = {"text": piece} if "prompt" in body else {"delta": {"content": piece}}
                event = json.dumps({"model": "tiny", "domain": domain, "choices": [part]})
                self.chunk(f": ping\n\ndata: {event}\n\n".encode())
                if asked == "slow":
                    time.sleep(0.05)
            if asked == "fail":
                self.chunk(b'data: {"error": {"message": "it broke in the middle"}}\n\n')
            end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
            usage = {"choices": [], "sigmoe": {"computed_by": [
                {"worker": "w0", "rows": 3, "share": 0.75}, {"worker": "w1", "rows": 1, "share": 0.25}]}, "usage": {"prompt_tokens": 3, "completion_tokens": len(pieces)}}
            self.chunk(f"data: {json.dumps(end)}\n\ndata: {json.dumps(usage)}\n\n"
                       "data: [DONE]\n\n".encode())
            self.chunk(b"")
        except OSError:
            self.broken_pipes.append(asked)
            self.close_connection = True


class Terminal:
    """sigmoe chat on a pseudo-terminal."""

    def __init__(self, url, home, *args):
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": home,
               "XDG_STATE_HOME": os.path.join(home, "state"), "SIGMOE_API_KEY": "sesame"}
        os.makedirs(env["XDG_STATE_HOME"], exist_ok=True)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(SIGMOE, [SIGMOE, "chat", url, *args], env)
        self.seen = ""

    def expect(self, pattern, timeout=30):
        """Reads until the pattern matches what came since the last match."""
        end = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            ready = select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]
            try:
                got = os.read(self.fd, 65536) if ready else b""
            except OSError:
                got = b""
            if not got:
                raise AssertionError(f"no {pattern!r} in {self.seen[-2000:]!r}")
            self.seen += got.decode(errors="replace")
        self.seen = self.seen[found.end():]
        return found

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Exit status; whatever is still said is read, because a full terminal would block it."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError("chat did not end")


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        cls.server.daemon_threads = True
        cls.url = f"http://127.0.0.1:{cls.server.server_address[1]}"
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def setUp(self):
        Server.requests.clear()
        Server.broken_pipes.clear()
        self.folder = tempfile.TemporaryDirectory(prefix="sigmoe-chat-")
        self.addCleanup(self.folder.cleanup)

    def pipe(self, *args, text="", key="sesame", url=None):
        done = subprocess.run([SIGMOE, "chat", url or self.url, *args], input=text, text=True,
                              capture_output=True, timeout=60, encoding="utf-8",
                              env={**os.environ, "SIGMOE_API_KEY": key})
        return done.returncode, done.stdout, done.stderr

    def test_one_question_from_a_pipe_gives_the_answer_alone(self):
        self.assertEqual(self.pipe(text="\u4f60\u597d\n"), (0, "You said \u4f60\u597d.\n", ""))
        path, body = Server.requests[-1]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body["messages"], [{"role": "user", "content": "\u4f60\u597d"}])
        self.assertEqual((body["model"], body["stream"]), ("tiny", True))

    def test_options_reach_the_server(self):
        self.assertEqual(self.pipe("--ask", "hi", "--domain", "zh", "--system", "Be brief.",
                                   "--temperature", "0", "--max-tokens", "7")[0], 0)
        body = Server.requests[-1][1]
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        self.assertEqual((body["domain"], body["temperature"], body["max_tokens"]), ("zh", 0, 7))

    def test_plain_goes_on_with_the_text(self):
        self.assertEqual(self.pipe("--plain", text="Once")[:2], (0, "You said Once.\n"))
        path, body = Server.requests[-1]
        self.assertEqual((path, body["prompt"]), ("/v1/completions", "Once"))

    def test_json_tells_the_domain_and_the_times(self):
        code, out, _ = self.pipe("--ask", "hi", "--domain", "code", "--json")
        told = json.loads(out)
        self.assertEqual((code, told["answer"], told["domain"]), (0, "You said hi.", "code"))
        self.assertEqual(told["computed_by"], "w0 75 %, w1 25 %")
        self.assertEqual((told["finish_reason"], told["completion_tokens"]), ("stop", 3))
        self.assertGreaterEqual(told["seconds"], told["seconds_to_first"])

    def test_an_answer_that_is_not_streamed_is_taken(self):
        self.assertEqual(self.pipe("--ask", "whole"), (0, "not streamed\n", ""))

    def test_what_goes_wrong_is_told_in_the_servers_words(self):
        code, out, err = self.pipe("--ask", "refuse")
        self.assertEqual((code, out), (4, ""))
        self.assertIn("no, and here is why (HTTP 400", err)
        self.assertIn("give the key", self.pipe("--ask", "hi", key="wrong")[2])
        code, out, err = self.pipe("--ask", "fail")
        self.assertEqual((code, out), (4, "half \n"))
        self.assertIn("it broke in the middle", err)
        self.assertIn("does not answer in JSON", self.pipe("--ask", "html")[2])

    def test_no_server_is_a_line_and_4(self):
        code, out, err = self.pipe("--ask", "hi", url="127.0.0.1:1")
        self.assertEqual((code, out), (4, ""))
        self.assertIn("sigmoe serve", err)
        self.assertEqual(self.pipe("--ask", "hi", url="ftp://x")[0], 2)

    def test_a_person_asks_stops_and_saves(self):
        home = self.folder.name
        t = Terminal(self.url, home)
        t.expect("tiny at http")
        t.expect("> ")
        t.type("hello\r")
        t.expect(r"You said hello\.")
        t.expect(r"domain en · 3 tokens")
        t.type("/domain ce\r")
        t.expect(r"no domain 'ce'")
        t.type("/domain zh\r")
        t.expect(r"domain: zh \(of zh, en, code")
        t.expect("zh> ")
        t.type("slow\r")
        t.expect("slow slow slow")
        t.type("\x03")
        t.expect("stopped")
        t.expect("zh> ")
        t.type("/set temperature 0.5\r")
        t.expect("temperature +0.5")
        t.type("/nwe\r")
        t.expect("did you mean /new")
        t.type("two\\\rlines\r")
        t.expect("You said two\r\nlines")
        t.type("/save talk.json\r")
        t.expect("saved 6 messages")
        t.expect("zh> ")
        t.type("half a line")
        t.expect("half a line")
        t.type("\x03")
        t.expect("zh> ")
        t.type("/he\t\r")
        t.expect("this page")
        t.type("escape\r")
        t.expect("a\\[31mbc2Jd\u4f60\u597d")
        t.expect("zh> ")  # before it the terminal, not the editor, would take the Ctrl-D
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.wait_for(lambda: Server.broken_pipes == ["slow"], "the stopped answer goes on")
        self.check_saved(os.path.join(home, "talk.json"))
        path = os.path.join(home, "state", "sigmoe", "chat_history")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

        t = Terminal(self.url, home, "--load", "talk.json")
        t.expect("zh> ")
        t.type("\x1b[A\r")  # the last line of the run before
        t.expect("bc2Jd")
        t.type("/new\r")
        t.expect("a new conversation")
        t.type("/quit\r")
        self.assertEqual(t.end(), 0)
        self.assertEqual(len(Server.requests[-1][1]["messages"]), 7)

    def wait_for(self, true, why):
        limit = time.monotonic() + 10
        while not true():
            self.assertLess(time.monotonic(), limit, why)
            time.sleep(0.02)

    def check_saved(self, path):
        with open(path, encoding="utf-8") as f:
            saved = json.load(f)
        self.assertEqual([m["role"] for m in saved["messages"]], ["user", "assistant"] * 3)
        self.assertTrue(saved["messages"][3]["content"].startswith("slow slow"))
        self.assertEqual(saved["messages"][4]["content"], "two\nlines")
        self.assertEqual((saved["domain"], saved["temperature"]), ("zh", 0.5))


if __name__ == "__main__":
    SIGMOE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
