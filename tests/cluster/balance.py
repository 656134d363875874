#!/usr/bin/env python3
"""A cluster that places itself: from the load it has seen, when an operator asks and by the clock,
and as it is told of domains. Whatever lies where, requests are answered with the same tokens."""
import argparse
import json
import os
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "suite"))
from harness import ROOT, Failure, Workers, main_of, run_sigmoe, write_json  # noqa: E402
from served import Served, make_model  # noqa: E402

SIGMA = os.path.join(ROOT, "models", "sigma-tiny")
DOMAINS = ["zh", "en", "code", "bilingual", "poetry"]
LIMIT_S = 60


class Operator:
    """The operators' commands against one coordinator."""

    def __init__(self, binary, admin):
        self.binary, self.admin = binary, admin

    def __call__(self, *args, want=0):
        status, out, err = run_sigmoe(self.binary, [*args, "--admin", self.admin])
        if status != want:
            raise Failure(f"sigmoe {' '.join(map(str, args))}: exit {status}, wanted {want}: {err}")
        return out.decode() if want == 0 else err

    def status(self):
        return json.loads(self("status", "--json"))

    def plan(self, *args, want=0):
        status, out, err = run_sigmoe(self.binary, ["rebalance", "--admin", self.admin, "--json",
                                                    *args])
        if status != want:
            raise Failure(f"sigmoe rebalance {args}: exit {status}, wanted {want}: {err}")
        return json.loads(out)

    def refused(self, words, *args, want=2):
        said = self(*args, want=want)
        if words not in said:
            raise Failure(f"sigmoe {' '.join(map(str, args))}: '{said.strip()}' lacks '{words}'")

    def wait(self, what, true_of):
        until = time.monotonic() + LIMIT_S
        while True:
            status = self.status()
            if true_of(status):
                return status
            if time.monotonic() > until:
                raise Failure(f"no {what} within {LIMIT_S} s: {json.dumps(status)}")
            time.sleep(0.1)


def expect(true, text):
    if not true:
        raise Failure(text)


# ---- from the live load ---------------------------------------------------------------------------


def ask(server, i, domain=None, n=24):
    body = {"prompt": [3 + i, 7, 11 + i], "max_tokens": n, "temperature": 0, "ignore_eos": True,
            **({"domain": domain} if domain else {})}
    status, answer = server.post("/v1/completions", body)
    expect(status == 200, f"{status} {answer}")
    return (answer["choices"][0]["text"],
            [c["worker"] for c in answer["sigmoe"]["computed_by"]])


def by_hand(binary, tmp, model):
    """Nearly all lies on one worker; the balancer evens it out, and then leaves it alone."""
    admin = os.path.join(tmp, "hand.sock")
    with Workers(binary, model, "bf16", ["0-7", "7"]) as at:
        a, b = at.split(",")
        with Served(binary, model, "--workers-at", at, "--admin", admin, workers=0) as server:
            tell = Operator(binary, admin)
            skewed = os.path.join(tmp, "skewed.json")
            write_json(skewed, {"workers": {a: "0-6", b: "7"}})
            tell("rebalance", "--placement", skewed)
            tell.refused("too little traffic", "rebalance", want=1)
            calm = [ask(server, i)[0] for i in range(8)]
            plan = tell.plan("--dry-run")
            expect(plan["pays"] and not plan["started"], f"a dry run: {plan}")
            expect(plan["after"] < plan["before"] / 2 and plan["moves"] > 0 and
                   plan["bytes"] > 0 and plan["gain_s"] > plan["cost_s"], f"the plan: {plan}")
            held = {w["endpoint"]: w["experts"] for w in tell.status()["workers"]}
            expect(held[a] == 21, f"a dry run moved something: {held}")
            plan = tell.plan()
            expect(plan["started"], f"not started: {plan}")
            held = {w["endpoint"]: w["experts"] for w in tell.status()["workers"]}
            expect(held[a] < 21 and held[a] + held[b] == 24, f"after the change: {held}")
            expect([ask(server, i)[0] for i in range(8)] == calm, "other tokens after the change")
            tell.refused("nothing was moved", "rebalance", "--horizon", "1", want=1)
            tell.plan("--redundant", "2", "--place", "balanced", "--force")
            held = {w["endpoint"]: w["experts"] for w in tell.status()["workers"]}
            expect(held[a] + held[b] == 30, f"with two copies more a layer: {held}")
            expect([ask(server, i)[0] for i in range(8)] == calm, "other tokens with copies")
            tell.refused("--place", "rebalance", "--place", "nonsense")
            tell.refused("--redundant", "rebalance", "--redundant", "many")
            tell.refused("at most", "rebalance", "--redundant", "9")
    return f"imbalance {plan['before']:.2f} -> {plan['after']:.2f}"


def by_the_clock(binary, tmp, model):
    """The same without being asked, while requests run."""
    admin = os.path.join(tmp, "clock.sock")
    with Workers(binary, model, "bf16", ["0-6", "7"]) as at:
        with Served(binary, model, "--workers-at", at, "--admin", admin, "--rebalance-every", 1,
                    workers=0) as server:
            tell, stop, texts = Operator(binary, admin), threading.Event(), set()

            def stream():
                while not stop.is_set():
                    texts.add(ask(server, 1, n=60)[0])
            threads = [threading.Thread(target=stream) for _ in range(4)]
            for t in threads:
                t.start()
            try:
                status = tell.wait("automatic change", lambda s: s["rebalance"]["done"] > 0)
                tell.wait("plan left alone", lambda s: s["balance"]["left_alone"] > 0)
            finally:
                stop.set()
                for t in threads:
                    t.join()
            expect(status["balance"]["moved"] >= 1, f"the status: {status['balance']}")
            expect(len(texts) == 1, "other tokens while it placed itself")
            m = server.metrics()
            expect(m['sigmoe_rebalances_total{outcome="done"}'] >= 1 and
                   m['sigmoe_rebalance_plans_total{outcome="moved"}'] >= 1 and
                   m["sigmoe_rebalance_interval_seconds"] == 1, "the metrics do not tell")
            expect("automatic, moved" in server.said(), f"the log does not tell: {server.said()}")


# ---- domains --------------------------------------------------------------------------------------


def domain_of(status, name):
    return next(d for d in status["domains"] if d["name"] == name)


def domains(binary, tmp):
    admin = os.path.join(tmp, "domains.sock")
    workers = Workers(binary, SIGMA, "bf16", ["0-9", "none", "none"])
    with workers as at:
        a, b, c = at.split(",")
        with Served(binary, SIGMA, "--workers-at", f"{a},{b}", "--admin", admin, workers=0) as server:
            tell = Operator(binary, admin)

            def texts():
                return {d: ask(server, 5, d)[0] for d in DOMAINS}

            def where(name):
                d = domain_of(tell.status(), name)
                return d["state"], d["copies"], d["workers"]
            calm = texts()
            tell("rebalance", "--pin", f"code={b}", "--scale", "zh=2")
            expect(where("code") == ("served", 1, [b]), f"pinned: {where('code')}")
            expect(where("zh") == ("served", 2, [a, b]), f"scaled: {where('zh')}")
            expect(where("en") == ("served", 1, [a]), f"left alone: {where('en')}")
            expect(texts() == calm, "other tokens where a domain is pinned")
            _, by = ask(server, 5, "code")
            expect(by == [b], f"code was computed by {by}")
            # Rules hold over a worker that joins and takes its share.
            tell("join", c)
            expect(where("code") == ("served", 1, [b]), f"after a join: {where('code')}")
            expect(where("zh")[1] == 2, f"after a join: {where('zh')}")
            tell.refused("--confirm", "drain", "--domain", "poetry")
            tell.refused("no domain", "drain", "--domain", "nonsense", "--confirm")
            tell.refused("no worker", "rebalance", "--pin", "en=nobody")
            tell.refused("do not fit", "rebalance", "--pin", f"en={a}", "--scale", "en=2")
            tell.refused("is pinned to", "drain", b)
            tell("drain", "--domain", "poetry", "--confirm")
            expect(where("poetry") == ("drained", 0, []), f"drained: {where('poetry')}")
            expect(texts() == calm, "other tokens where a domain is drained")
            _, by = ask(server, 5, "poetry")
            expect(by == ["coordinator"], f"poetry was computed by {by}")
            expect(server.get("/ready")[0] == 200, "a drained domain is no lack")
            expect(server.metrics()["sigmoe_domains_drained"] == 1, "the metrics do not tell")
            expect("poetry" in tell("status"), "the status does not show it")
            # A file may leave the drained domain out, and may not bring it back.
            path = os.path.join(tmp, "file.json")
            write_json(path, {"workers": {a: "0-9"}})
            tell("rebalance", "--placement", path)
            expect(where("poetry")[0] == "drained" and where("code")[2] == [b],
                   f"after a file: {where('poetry')}, {where('code')}")
            tell("undrain", "poetry")
            expect(where("poetry")[:2] == ("served", 1), f"undrained: {where('poetry')}")
            expect(texts() == calm, "other tokens after all of it")
            tell.refused("is not drained", "undrain", "poetry")
            # The pinned worker dies: the coordinator computes, and says that it lacks something.
            workers.running[1].kill()
            tell.wait("loss", lambda s: domain_of(s, "code")["state"] == "away")
            expect(texts() == calm, "other tokens when the pinned worker is gone")
            # Of zh's two copies those that it held are loaded anew by others, without being asked.
            tell.wait("second copy", lambda s: domain_of(s, "zh")["workers"] == [a, c] and
                      domain_of(s, "zh")["copies"] == 2)
            tell("rebalance", "--unpin", "code", "--scale", "code=1")
            expect(where("code")[:2] == ("served", 1), f"unpinned: {where('code')}")
            expect(texts() == calm, "other tokens at the end")


def check(binary):
    with tempfile.TemporaryDirectory(prefix="sigmoe-balance-") as tmp:
        model = make_model(binary, os.path.join(tmp, "model"))
        print(by_hand(binary, tmp, model))
        by_the_clock(binary, tmp, model)
        domains(binary, tmp)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sigmoe", required=True)
    args = p.parse_args()
    main_of(lambda: check(args.sigmoe))


if __name__ == "__main__":
    main()
