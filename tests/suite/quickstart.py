#!/usr/bin/env python3
"""./quickstart as a person types it: --once asks, says who computed and ends with 0; without it a
server stays, with its page, until Ctrl-C, after which no process is left.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness import ROOT, Failure, main_of  # noqa: E402

TIMEOUT_S = 240


def check_once():
    done = subprocess.run(["./quickstart", "--once", "--port", "0"], cwd=ROOT, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    said = done.stdout
    if done.returncode != 0:
        raise Failure(f"exit {done.returncode}:\n{said}\n{done.stderr}")
    asked = re.findall(r"^(zh|en|code|bilingual|poetry): ", said, re.M)
    if asked != ["zh", "en", "code", "bilingual", "poetry"]:
        raise Failure(f"not a question for each domain:\n{said}")
    answers = re.findall(r"-- (\d+) tokens in [\d.]+ s by (.*)", said)
    if not answers or any(int(n) == 0 or "worker-" not in who or "experts" not in who
                          for n, who in answers):
        raise Failure(f"no answers, or nobody who computed them:\n{said}")
    if not {"worker-0", "worker-1"} <= set(re.findall(r"worker-\d", said)):
        raise Failure(f"one worker did nothing:\n{said}")
    print(said)


def processes_under(folder):
    """Command lines of the programs that run with a log in the quickstart's folder."""
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/fd/2").startswith(folder):
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    out.append(f.read().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return out


def check_stays_until_interrupted():
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(["./quickstart", "--port", "0"], cwd=ROOT, stdout=output,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            url = wait_for_url(process, output)
            with urllib.request.urlopen(url, timeout=20) as page:
                if b"<title>sigmoe</title>" not in page.read():
                    raise Failure(f"{url} is not the page")
            if len(processes_under(os.path.join(ROOT, "build", "quickstart"))) != 3:
                raise Failure("not a coordinator and two workers")
            process.send_signal(signal.SIGINT)
            if process.wait(timeout=60) != 0:
                raise Failure(f"after Ctrl-C it ended with {process.returncode}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
    left = processes_under(os.path.join(ROOT, "build", "quickstart"))
    if left:
        raise Failure(f"left behind: {left}")


def wait_for_url(process, output):
    limit = time.monotonic() + TIMEOUT_S
    while time.monotonic() < limit and process.poll() is None:
        output.seek(0)
        found = re.search(r"^  page +(http://\S+)", output.read(), re.M)
        if found:
            return found.group(1)
        time.sleep(0.2)
    output.seek(0)
    raise Failure(f"it told no address of a page:\n{output.read()}")


def check():
    check_once()
    check_stays_until_interrupted()


if __name__ == "__main__":
    main_of(check)
