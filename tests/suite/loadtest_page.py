#!/usr/bin/env python3
"""The page of a load-test report, in a real browser: it runs without an error on the console, asks for
nothing from anywhere, draws every plot, and its controls work. Screenshots stay to be looked at.

usage: loadtest_page.py --sigmoe BINARY [--screenshots DIR]
Skipped (77) where there is no chromium; scripts/install-deps --browser installs it.
"""
import argparse
import json
import os
import sys
import tempfile

import browser
from harness import Failure, TESTS, main_of, run_sigmoe, skip

SIGMOE, SHOTS = "", None


def expect(claim, words):
    if not claim:
        raise Failure(words)


def make(tmp):
    html = os.path.join(tmp, "report.html")
    status, _, err = run_sigmoe(SIGMOE, [
        "loadtest", "simulate", "olmoe-1b-7b", "--workers", "6,2:0.5", "--coordinators", "2", "--rate", "2,6,12",
        "--placement", "contiguous,balanced", "--redundant", "8", "--seeds", "3", "--duration", "6", "--prompt",
        "64", "--output", "16", "--slo-ttft", "400", "--slo-tpot", "60", "--html", html])
    expect(status == 0, err)
    return html


COUNT = """JSON.stringify({
  svg: document.querySelectorAll('figure svg').length,
  nan: [...document.querySelectorAll('svg *')].filter(e => [...e.attributes].some(a => /NaN|Infinity/.test(a.value))).length,
  rows: document.querySelectorAll('#figures tr').length,
  mixed: [...document.querySelectorAll('figure svg')].flatMap(s => ['x', 'y'].filter(axis => new Set([...s.querySelectorAll('.tick.' + axis)]
    .map(t => t.textContent).filter(t => t != '0').map(t => t.replace(/^-?\\d+/, '').replace(/\\d/g, '0'))).size > 1)).length,
  halves: [...document.querySelectorAll('figure')].filter(f => /^Requests (running|waiting)/.test(f.textContent))
    .filter(f => [...f.querySelectorAll('.tick.y')].some(t => /\\./.test(t.textContent) && !/k/.test(t.textContent))).length,
  counts: [...document.querySelectorAll('figcaption')].filter(f => /^Requests (running|waiting)/.test(f.textContent)).length,
  letters: Math.min(...[...document.querySelectorAll('figure svg')].map(s => parseFloat(getComputedStyle(s.querySelector('text')).fontSize)
    * s.getBoundingClientRect().width / s.viewBox.baseVal.width)),
  figures: (box => { box.scrollLeft = 1e6; const last = box.querySelector('tr').lastChild.getBoundingClientRect(),
    first = box.querySelector('tr').firstChild.getBoundingClientRect(); box.scrollLeft = 0;
    return last.right <= innerWidth && first.left >= 0; })(document.querySelector('.scroll')),
  heat: document.querySelector('#heat').width + 'x' + document.querySelector('#heat').height,
  wide: document.documentElement.scrollWidth > innerWidth})"""


def look(html, name, **how):
    with browser.Browser(**how) as page:
        page.open("file://" + html)
        seen = json.loads(page.js(COUNT))
        expect(seen["svg"] >= 6 + 4 + 5 + 2, f"{name}: {seen}")
        expect(seen["nan"] == 0, f"{name}: {seen['nan']} shapes have a coordinate that is no number")
        expect(seen["rows"] == 1 + 2 * 3, f"{name}: a row for each strategy and load: {seen}")
        expect(seen["heat"] == "64x16", f"{name}: {seen}")
        expect(seen["mixed"] == 0, f"{name}: {seen['mixed']} axes with labels of several precisions")
        expect(seen["counts"] >= 1 and seen["halves"] == 0, f"{name}: an axis counts requests by halves: {seen}")
        expect(seen["letters"] >= 10, f"{name}: letters of {seen['letters']} pixels")
        expect(seen["figures"], f"{name}: the last figure, or the strategy beside it, cannot be scrolled to")
        expect(not seen["wide"], f"{name}: the page is wider than its window")
        page.js("document.querySelector('#heat-sort').click(); document.querySelector('#compare-rate').value = 0;"
                 "document.querySelector('#compare-rate').onchange(); document.querySelector('#theme').click();"
                 "document.querySelector('#theme').click()")
        expect(not page.log, f"{name}: the console says {page.log}")
        if SHOTS:
            page.resize(how["width"], page.js("document.documentElement.scrollHeight"))
            page.screenshot(os.path.join(SHOTS, f"loadtest-{name}.png"))


def test():
    if browser.find() is None:
        skip("there is no chromium here; scripts/install-deps --browser installs it")
    with tempfile.TemporaryDirectory(prefix="sigmoe-loadtest-page-") as tmp:
        html = make(tmp)
        look(html, "light", width=1280, height=900)
        look(html, "dark", width=1280, height=900, dark=True)
        look(html, "phone", width=390, height=800, phone=True)
    print("the report draws every plot without an error, light, dark and on a phone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sigmoe", required=True)
    parser.add_argument("--screenshots")
    args = parser.parse_args()
    SIGMOE, SHOTS = args.sigmoe, args.screenshots
    sys.path.insert(0, TESTS)
    main_of(test)
