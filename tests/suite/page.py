#!/usr/bin/env python3
"""The web page that `sigmoe serve` carries, in a headless Chromium: a person types a question, sees
the answer stream and the map of the experts change, stops an answer, loses a worker, turns the page
dark and holds it upright like a phone. The page may complain of nothing meanwhile.

Skipped (77) where there is no chromium; scripts/install-deps --browser installs it.
usage: page.py --sigmoe BINARY [--screenshots FOLDER]
"""
import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import browser as headless  # noqa: E402
from browser import Browser  # noqa: E402
from harness import Failure, main_of, run_sigmoe, skip  # noqa: E402
from served import Served, make_model  # noqa: E402

DOMAINS = ["zh", "en", "code", "bilingual", "poetry"]
QUESTION = "<img src=x onerror=alert(1)> & what is this?"
# How much of the answer was to be seen at each change of the conversation.
WATCH = """
window.seen = [];
window.rates = [];
new MutationObserver(() => rates.push(parseFloat(document.getElementById('rate').textContent)))
  .observe(document.getElementById('rate'), {childList: true, subtree: true, characterData: true});
new MutationObserver(() => {
  const body = document.querySelector('.answer:last-child .body');
  if (body && seen.at(-1) !== body.textContent.length) seen.push(body.textContent.length);
}).observe(document.getElementById('messages'), {childList: true, subtree: true});
"""
MAP = "document.getElementById('heat').toDataURL()"
LAST = "document.querySelector('.message.answer:last-child')"


def check(claim, what):
    if not claim:
        raise Failure(what)


def check_headers(server):
    """The page's files come with their types and a policy that runs nothing from elsewhere."""
    for path, kind in {"/": "text/html", "/ui/app.js": "text/javascript",
                       "/ui/style.css": "text/css", "/ui/icon.svg": "image/svg+xml"}.items():
        status, headers, body = server.request("GET", path)
        check(status == 200 and headers["Content-Type"].startswith(kind) and body,
              f"GET {path}: {status} {headers}")
        policy = headers["Content-Security-Policy"]
        check("default-src 'none'" in policy and "unsafe" not in policy, f"{path}: {policy}")
        check(headers["X-Content-Type-Options"] == "nosniff", f"{path} may be sniffed")
    check(server.request("GET", "/ui/../serve.c")[0] in (400, 404), "a path out of the page")


def check_start(page, n_worker):
    page.until("document.getElementById('health').dataset.state === 'good'")
    said = page.js("document.getElementById('model-facts').textContent")
    check("pangu_sigma" in said and "40 experts" in said, f"the bar says {said!r}")
    check(page.js("document.activeElement.id") == "question", "the question is not focused")
    page.until(f"document.querySelectorAll('.worker').length === {n_worker}")
    shown = page.js("[...document.querySelectorAll('#domains label')].map((l) => l.textContent)")
    check(shown == ["auto", *DOMAINS], f"domains to choose: {shown}")


def ask(page, text):
    page.js("document.getElementById('question').focus()")
    page.type(text)
    page.press("Enter", number=13)
    page.until(LAST)


def choose(page, domain):
    page.js(f"document.querySelector('input[name=domain][value=\"{domain}\"]').click()")


def check_answer(page, max_tokens):
    """It streams, it is text whatever it says, and the experts it went to light up."""
    choose(page, "code")
    page.js("document.getElementById('set-temperature').value = 0")  # the same tokens every time
    page.js(f"document.getElementById('set-max_tokens').value = {max_tokens}")
    page.js(WATCH)
    before = page.js(MAP)
    ask(page, QUESTION)
    page.until(f"{LAST}.matches(':not(.streaming)')")
    check(page.js("document.querySelector('.message.user').textContent") == QUESTION,
          "the question is not shown as it was typed")
    check(page.js("document.querySelectorAll('#messages img').length") == 0, "HTML was let in")
    seen = page.js("seen")
    check(len(set(seen)) > 3 and seen == sorted(seen), f"no stream: lengths {seen}")
    told = page.js(f"{LAST}.querySelector('.figures').textContent")
    check(f"{max_tokens} tokens" in told and "a second" in told and "cut at the limit" in told,
          f"below the answer: {told!r}")
    check(page.js(f"{LAST}.querySelector('.chip').textContent") == "code", "not of domain code")
    check(page.js(f"{LAST}.querySelector('.actions').textContent").count("worker") == 2,
          "the answer does not say who computed it")
    page.until(f"{MAP} !== {json.dumps(before)}")
    page.until("rates.some((rate) => rate > 0)")


def check_cells(page):
    """Cells are read by keyboard: what was asked of code went to code's experts and no others."""
    page.js("document.getElementById('heat').focus()")
    page.js("document.querySelector('input[name=span][value=all]').click()")
    chosen = {domain: 0 for domain in DOMAINS}
    for _ in range(5 * 8):
        page.press("ArrowRight")
        said = page.js("document.getElementById('heat-says').textContent")
        cell = re.match(r"Layer 1, expert \d+, (\w+) \d: chosen (\d+) times", said)
        check(cell, f"a cell says {said!r}")
        chosen[cell.group(1)] += int(cell.group(2))
    check(chosen["code"] > 0 and sum(chosen.values()) == chosen["code"], f"chosen: {chosen}")
    page.js("document.querySelector('input[name=span][value=recent]').click()")


def check_stop(page):
    page.js("document.getElementById('fresh').click()")
    check(page.js("document.querySelectorAll('.message').length") == 0, "not a new conversation")
    page.js("document.getElementById('set-max_tokens').value = 900")
    ask(page, "Go on and on")
    page.until(f"{LAST}.querySelector('.body').textContent.length > 0")
    page.press("Escape", number=27)
    page.until(f"{LAST}.matches(':not(.streaming)')")
    told = page.js(f"{LAST}.querySelector('.figures').textContent")
    check("stopped" in told, f"after Escape: {told!r}; " + page.js(f"{LAST}.textContent"))
    check(not page.js("document.getElementById('send').hidden"), "no Send after a stop")
    page.until("document.getElementById('running').textContent === '0'")


def check_death(page, server):
    """The worker of the first domain dies: the page says so, and the answers go on."""
    choose(page, "zh")
    os.kill(server.proc().children()[0].pid, signal.SIGKILL)
    page.until("document.querySelector('.worker.down .state')?.textContent === 'down'")
    page.until("document.getElementById('health').dataset.state === 'poor'")
    page.js("document.getElementById('set-max_tokens').value = 12")
    ask(page, "Are you still there?")
    page.until(f"{LAST}.matches(':not(.streaming)')")
    check("12 tokens" in page.js(f"{LAST}.querySelector('.figures').textContent"),
          "no answer after a worker's death")
    page.until("[...document.querySelectorAll('.worker')].some((w) => /stands in/.test(w.textContent))")


def check_shapes(page, shots):
    page.theme(True)
    time.sleep(0.3)
    page.screenshot(os.path.join(shots, "page-dark.png"))
    page.theme(False)
    page.phone = True
    page.resize(390, 844)
    for view in ("chat", "cluster"):
        page.js(f"document.getElementById('show-{view}').click()")
        time.sleep(0.3)
        page.screenshot(os.path.join(shots, f"page-phone-{view}.png"))
        wide = page.js("document.documentElement.scrollWidth")
        check(wide <= 390, f"on a phone the {view} is {wide} pixels wide")


def make_sigma(binary, folder):
    """A tiny random PanGu-Sigma model: a dense one with its FFNs copied to the groups of domains."""
    dense, out = os.path.join(folder, "dense"), os.path.join(folder, "tiny-sigma")
    make_model(binary, dense, model_type="llama", architectures=["LlamaForCausalLM"])
    status, _, stderr = run_sigmoe(binary, ["upcycle", dense, "-o", out, "--domains",
                                            ",".join(DOMAINS), "--experts-per-domain", 8,
                                            "--sparse-layers", 2])
    check(status == 0, f"sigmoe upcycle: {stderr}")
    return out


def test(binary, shots):
    with tempfile.TemporaryDirectory(prefix="sigmoe-page-") as tmp:
        model = make_sigma(binary, tmp)
        with Served(binary, model, workers=2) as server, Browser(1366, 820) as page:
            check_headers(server)
            page.open(server.url + "/")
            check_start(page, 2)
            page.screenshot(os.path.join(shots, "page-start.png"))
            check_answer(page, 300)
            check_cells(page)
            page.screenshot(os.path.join(shots, "page.png"))
            check_stop(page)
            check_death(page, server)
            check_shapes(page, shots)
            check(not page.log, f"the page complains: {page.log}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigmoe", default="build/release/sigmoe", help="the program to test")
    parser.add_argument("--screenshots", default=tempfile.gettempdir(), help="where they are put")
    args = parser.parse_args()
    if not headless.find():
        skip("there is no chromium here; scripts/install-deps --browser installs it")
    main_of(lambda: test(os.path.abspath(args.sigmoe), args.screenshots))


if __name__ == "__main__":
    main()
