#!/usr/bin/env python3
"""`sigmoe loadtest`: its reports have the documented shape, a seed is one report, mistakes are one clear
line, comparing ranks, and a live test of a small server agrees with what was sent.

usage: loadtest.py --sigmoe BINARY
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import Failure, SHARED, TESTS, main_of, run_sigmoe

SIGMOE = ""
FAST = ["--duration", "4", "--prompt", "20", "--output", "8", "--drain", "20"]


def expect(claim, words):
    if not claim:
        raise Failure(words)


def run(*args, status=0):
    code, out, err = run_sigmoe(SIGMOE, ["loadtest", *args], timeout=120)
    expect(code == status, f"loadtest {' '.join(map(str, args))}: exit {code}, expected {status}\n{err}")
    return out.decode(), err


def report_of(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


SUMMARY = {"n", "mean", "min", "p50", "p90", "p95", "p99", "max"}
RUN = {"name", "route", "placement", "replica", "changes_output", "rate", "seed", "requests", "throughput",
       "latency_ms", "cluster", "test_s"}
CLUSTER = {"workers", "balancedness", "worker_busy_mean", "worker_busy_max", "coordinator_busy", "stalled",
           "step_ms", "rows_a_step", "steps", "messages", "bytes_sent", "bytes_received", "slots_dropped",
           "slots_moved", "prefix_hit_rate"}
SLICE = {"t_s", "tokens_per_s", "running", "waiting", "bytes_per_s", "stalled", "worker_busy", "balancedness"}


def check_schema(report, kind):
    expect(report["sigmoe_report"] == 1 and report["kind"] == kind, "not a report of version 1")
    expect({"title", "sigmoe", "slo", "settings", "runs"} <= set(report), f"keys {sorted(report)}")
    for one in report["runs"]:
        expect(RUN <= set(one), f"a run lacks {RUN - set(one)}")
        expect(CLUSTER <= set(one["cluster"]), f"cluster lacks {CLUSTER - set(one['cluster'])}")
        for name in ("ttft", "tpot", "gap", "total"):
            s = one["latency_ms"][name]
            expect(set(s) == SUMMARY, f"{name}: {sorted(s)}")
            expect(s["min"] <= s["p50"] <= s["p90"] <= s["p95"] <= s["p99"] <= s["max"], f"{name}: {s}")
        r = one["requests"]
        expect(r["counted"] == r["ok"] + r["rejected"] + r["unfinished"] + r["failed"], f"requests {r}")
        for s in one.get("slices", []):
            expect(set(s) == SLICE, f"a slice has {sorted(s)}")


def without_wall(report):
    for one in report["runs"]:
        del one["test_s"]["wall"], one["test_s"]["cpu"]
    return report


def simulate_writes_the_documented_report(tmp):
    out, html = os.path.join(tmp, "a.json"), os.path.join(tmp, "a.html")
    args = ["simulate", "tiny-moe", "--workers", "2,1:0.5", "--rate", "5,20", "--placement", "contiguous,balanced",
            "--redundant", "2", "--seeds", "3", "--slo-ttft", "50", *FAST]
    table, _ = run(*args, "--json", out, "--html", html)
    report = report_of(out)
    check_schema(report, "simulate")
    expect(len(report["runs"]) == 2 * 2 * 3, "a run for each placement, load and seed")
    expect(table.count("zipf / balanced") == 2, f"the table has a line for each load:\n{table}")
    detailed = [r for r in report["runs"] if "slices" in r]
    expect({r["seed"] for r in detailed} == {1}, "details are those of the first seed")
    heat = detailed[0]["cluster"]["heat"]
    expect(len(heat) == 3 and len(heat[0]["slots"]) == 8, "a heat map of 3 layers x 8 experts")
    again = os.path.join(tmp, "b.json")
    run(*args, "--json", again)
    expect(without_wall(report_of(out)) == without_wall(report_of(again)), "one seed gave two reports")
    page = open(html, encoding="utf-8").read()
    expect("/*REPORT*/" not in page and '"sigmoe_report":1' in page, "the page holds the report")
    expect("http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", ""),
           "the page names an address: it must need no network")
    return out


def arrivals_of_the_publishers_are_replayed(tmp):
    csv = os.path.join(tmp, "azure.csv")
    with open(csv, "w", encoding="ascii") as f:
        f.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        f.writelines(f"2023-11-16 18:15:{s:02d}.5000000,{30 + s},{4 + s % 3}\n" for s in range(50))
    out = os.path.join(tmp, "azure.json")
    run("simulate", "tiny-moe", "--workers", "2", "--arrivals", csv, "--rate", "25", "--duration", "10",
        "--warmup", "0", "--json", out)
    r = report_of(out)["runs"][0]
    expect(r["requests"]["ok"] == 50, f"50 requests in the file, {r['requests']}")
    return csv


def a_recorded_trace_is_replayed(tmp):
    """Routes of 8 experts, top-2, in which expert 3 has half of all slots."""
    csv, routes = os.path.join(tmp, "t.csv"), os.path.join(tmp, "t.routes")
    with open(csv, "w", encoding="ascii") as f:
        f.write("layer,expert\n")
        for layer in range(3):
            for token in range(200):
                f.write(f"{layer},3\n{layer},{(token % 7 + 4) % 8}\n")
    status, _, err = run_sigmoe(SIGMOE, ["trace", "convert", csv, routes, "--top-k", "2", "--experts", "8"])
    expect(status == 0, err)
    out = os.path.join(tmp, "t.json")
    run("simulate", "tiny-moe", "--trace", routes, "--workers", "4", *FAST, "--json", out)
    one = report_of(out)["runs"][0]
    expect(one["route"] == "model" and not one["changes_output"], f"a trace is the model's own gate: {one['name']}")
    for layer in one["cluster"]["heat"]:
        share = layer["slots"][3] / sum(layer["slots"])
        expect(abs(share - 0.5) < 0.01, f"expert 3 has {share:.3f} of the slots of layer {layer['layer']}")
    _, err = run("simulate", "olmoe-1b-7b", "--trace", routes, status=3)
    expect("8 experts, top-2; the model has 64 experts, top-8" in err, err)


def a_placement_file_is_simulated(tmp):
    file, out = os.path.join(tmp, "place.json"), os.path.join(tmp, "p.json")
    with open(file, "w", encoding="ascii") as f:
        json.dump({"workers": {"a": "0-5", "b": "6-7"}}, f)
    run("simulate", "tiny-moe", "--route", "uniform", "--placement", file, "--workers", "2", *FAST, "--json", out)
    slots = report_of(out)["runs"][0]["cluster"]["worker_slots"]
    expect(abs(slots[0] / sum(slots) - 0.75) < 0.02, f"worker a holds three quarters: {slots}")
    _, err = run("simulate", "tiny-moe", "--placement", file, "--workers", "1", status=2)
    expect("more workers than the cluster's 1" in err, err)


def compare_ranks_with_intervals(tmp, report):
    table, _ = run("compare", report, "--by", "ttft-p95", "--json", os.path.join(tmp, "rank.json"))
    expect("paired t" in table and "1. " in table and "2. " in table, table)
    rank = report_of(os.path.join(tmp, "rank.json"))
    expect(rank["method"] == "paired t" and len(rank["loads"]) == 2, str(rank)[:300])
    for load in rank["loads"]:
        means = [line["mean"] for line in load["ranking"]]
        expect(means == sorted(means), f"ranking by less is better: {means}")
        expect(load["ranking"][1]["pairs"] == 3, "three seeds are three pairs")


def mistakes_are_one_clear_line(tmp, csv):
    with open(csv, "rb") as f:
        data = f.read()
    cut = os.path.join(tmp, "cut.csv")
    with open(cut, "wb") as f:
        f.write(data[:len(data) // 2 + 7])
    bad = os.path.join(tmp, "bad.json")
    with open(bad, "w", encoding="ascii") as f:
        f.write('{"sigmoe_report": 99}')
    cases = [
        (2, ["simulate", "tiny-moe", "--workers", "0"], "in all 1 to"),
        (2, ["simulate", "tiny-moe", "--workers", "2:-1"], "--workers '2:-1'"),
        (2, ["simulate", "tiny-mo"], "did you mean 'tiny-moe'"),
        (3, ["simulate", "tiny-llama"], "dense model"),
        (3, ["simulate", "tiny-moe", "--arrivals", cut], "cut short"),
        (3, ["simulate", "tiny-moe", "--arrivals", os.path.join(tmp, "none")], "cannot read the arrivals"),
        (2, ["simulate", "tiny-moe", "--rate", "1,x"], "--rate '1,x'"),
        (2, ["simulate", "tiny-moe", "--placement", "balance"], "did you mean 'balanced'"),
        (2, ["simulate", "tiny-moe", "--worker-hw", "abacus"], "there are cpu-2core"),
        (2, ["simulate", "tiny-moe", "--warmup", "60"], "leaves nothing"),
        (3, ["simulate", "tiny-moe", "--calibration", bad], "no calibration"),
        (2, ["simulate", "tiny-moe", "--pace", bad], "--pace is held against a --calibration"),
        (2, ["pace", "beside"], "'beside'"),
        (2, ["pace", "--seconds", "0"], "--seconds"),
        (2, ["simulate"], "which model?"),
        (2, ["simulate", "tiny-moe", "--hosts", "2:w0-99"], "there are 8"),
        (2, ["simulate", "tiny-moe", "--hosts", "2:all", "--cores", "2"], "give one of them"),
        (4, ["live", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (2, ["live", "ftp://x"], "not the address of a server"),
        (3, ["compare", bad], "no load-test report"),
        (2, ["compare"], "which reports?"),
        (2, ["simualte"], "did you mean simulate"),
    ]
    for status, args, says in cases:
        _, err = run(*args, status=status)
        expect(says in err and err.count("\n") == 1, f"{args}: expected one line with {says!r}, got:\n{err}")


def served(tmp, *more):
    """A served tiny model with a tokenizer of its vocabulary, or None where there is none."""
    tok = os.path.join(SHARED, "data", "stories260k", "tok512.bin")
    if not os.path.exists(tok):
        return None, None
    model = os.path.join(tmp, "model")
    if not os.path.exists(model):
        status, _, err = run_sigmoe(SIGMOE, ["synth", "tiny-moe", "-o", model])
        expect(status == 0, err)
        shutil.copy(tok, model)
    server = subprocess.Popen([SIGMOE, "serve", model, "--port", "0", "--workers", "2", "--transport", "inproc",
                               "--speculate", "off", *more],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    words = server.stdout.readline().decode().split()
    if len(words) < 2 or words[0] != "ready":
        server.kill()
        raise Failure(f"serve said {words}")
    return server, words[1]


def live_measures_what_was_sent(tmp):
    server, url = served(tmp, "--no-prefix-cache")  # rows are counted
    if server is None:
        print("live: not run, ../shared/data/stories260k is not there")
        return
    out = os.path.join(tmp, "live.json")
    try:
        run("live", url, "--rate", "10", "--duration", "3", "--warmup", "0", "--prompt", "20", "--output", "8",
            "--length-cv", "0", "--json", out, "--html", os.path.join(tmp, "live.html"))
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()
    report = report_of(out)
    check_schema(report, "live")
    one = report["runs"][0]
    expect(one["requests"]["failed"] == 0 and one["requests"]["ok"] == one["requests"]["counted"] > 10,
           f"{one['requests']}")
    expect(one["latency_ms"]["ttft"]["n"] > 0 and one["latency_ms"]["ttft"]["min"] > 0, f"{one['latency_ms']}")
    slots = sum(one["cluster"]["worker_slots"])
    # In the last of three layers only rows that a token is drawn from.
    rows = one["requests"]["ok"] * ((20 + 8 - 1) * 2 + 8)
    expect(slots == rows * 2, f"workers computed {slots} slots; {rows} rows x top-2 of all layers were sent")
    heat = sum(sum(layer["slots"]) for layer in one["cluster"]["heat"])
    expect(abs(heat / slots - 1) < 1e-3, f"the heat map has {heat} slots of {slots}")


def prompts_that_begin_alike_are_found_as_live(tmp):
    """Five conversations, whose turns begin with all that was said, as Mooncake's hash_ids tell it: the simulator
    finds as many tokens in its prefix cache as a server does, also in one too small for all of them."""
    turns, block = 6, 64
    trace = os.path.join(tmp, "turns.jsonl")
    with open(trace, "w", encoding="ascii") as f:
        for i in range(5 * turns):
            turn = i // 5
            f.write(json.dumps({"timestamp": 40 * i, "input_length": block * (turn + 1) + 5, "output_length": 3,
                                "hash_ids": [100 * (i % 5) + j for j in range(turn + 1)]}) + "\n")
    asked = 5 * sum(block * (turn + 1) + 5 for turn in range(turns))
    common = ["--arrivals", trace, "--block-tokens", str(block), "--duration", "10", "--warmup", "0"]
    for kv, found in (("8192", 5 * sum(block * turn for turn in range(turns)) / asked), ("1024", None)):
        out = os.path.join(tmp, "found.json")
        run("simulate", "tiny-moe", "--workers", "2", "--kv-tokens", kv, *common, "--json", out)
        told = report_of(out)["runs"][0]["cluster"]["prefix_hit_rate"]
        expect(abs(told - found) < 1e-6 if found else 0 < told < 0.5, f"{kv}: {told} of prompts found, not {found}")
        server, url = served(tmp, "--kv-tokens", kv, "--max-seqs", "8")
        if server is None:
            return
        try:
            run("live", url, *common, "--json", out)
        finally:
            server.terminate()
            server.wait(timeout=30)
            server.stdout.close()
        live = report_of(out)["runs"][0]["cluster"]["prefix_hit_rate"]
        expect(abs(live - told) < (0.01 if found else 0.1), f"{kv}: {told} of prompts found in simulation, {live} live")


def pace_of_a_time_is_simulated(tmp, calibration):
    """What `loadtest pace` saw stretches what is simulated; an interrupt ends it early and loses nothing."""
    pace, out = os.path.join(tmp, "pace.json"), os.path.join(tmp, "paced.json")
    watch = subprocess.Popen([SIGMOE, "loadtest", "pace", "-o", pace, "--seconds", "9", "--bin", "5"],
                             stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    watch.send_signal(signal.SIGINT)
    said = watch.communicate(timeout=30)[0]
    expect(watch.returncode == 0 and "written to" in said, said)
    with open(pace, encoding="utf-8") as f:
        seen = json.load(f)
    expect(seen["bin_ms"] == 5 and all(100 < len(bins) < 2000 and min(bins) > 0 for bins in seen["piece_ns"]),
           f"{seen['bin_ms']} ms, {[len(bins) for bins in seen['piece_ns']]} bins")
    with open(calibration, encoding="utf-8") as f:
        measured = json.load(f)
    means = []
    for slower in 1, 5:  # than what was measured as undisturbed
        with open(pace, "w", encoding="utf-8") as f:
            json.dump({**seen, "piece_ns": [[slower * measured["sharing"]["piece_ns"]] * 10]}, f)
        run("simulate", "tiny-moe", "-c", calibration, "--pace", pace, "--workers", "2", "--hosts", "8:all", *FAST, "--json",
            out)
        means.append(report_of(out)["runs"][0]["latency_ms"]["total"]["mean"])
    expect(means[0] < means[1] < 8 * means[0], f"at full pace and at a fifth of it requests take {means} ms")
    for spoiled, says in (({"sigmoe_pace": 9}, "no pace of version"), ({"bin_ms": 0}, "bin_ms"),
                          ({"piece_ns": [[1], [1, 2]]}, "equally long"), ({"piece_ns": []}, "no CPU")):
        with open(pace, "w", encoding="utf-8") as f:
            json.dump({**seen, **spoiled}, f)
        _, err = run("simulate", "tiny-moe", "-c", calibration, "--pace", pace, status=3)
        expect(says in err and err.count("\n") == 1, err)
    del measured["sharing"]["piece_ns"]
    older = os.path.join(tmp, "older.json")
    with open(older, "w", encoding="utf-8") as f:
        json.dump(measured, f)
    _, err = run("simulate", "tiny-moe", "-c", older, "--pace", pace, status=2)
    expect("piece_ns" in err and err.count("\n") == 1, err)


def calibration_feeds_the_simulator(tmp):
    model, file = os.path.join(tmp, "for-calibration"), os.path.join(tmp, "host.json")
    run_sigmoe(SIGMOE, ["synth", "tiny-moe", "-o", model])
    status, _, err = run_sigmoe(SIGMOE, ["calibrate", model, "-o", file, "--budget", "1", "--rows", "64",
                                         "--threads", "1", "--worker-threads", "1"])
    expect(status == 0, err)
    out = os.path.join(tmp, "cal.json")
    with open(file, encoding="utf-8") as f:
        measured = json.load(f)
    if os.path.exists("/proc/self/schedstat"):  # where the system tells CPU times of threads
        expect(measured["ns"]["hop"] and all(ns > 0 for _, ns, _ in measured["ns"]["hop"]), str(measured["ns"]["hop"]))
    # What follows from round numbers, not from what this machine was like meanwhile.
    measured["ns"].update(one_way=[[0, 10000]], hop=[[0, 10000]], send=[[0, 1000]], take=[[0, 1000]], answer=[[0, 1000]])
    measured["link_bytes_per_s"] = 1e12
    measured["sharing"].update(wake_ns=1000)
    rounded = os.path.join(tmp, "rounded.json")
    with open(rounded, "w", encoding="utf-8") as f:
        json.dump(measured, f)
    run("simulate", "tiny-moe", "-c", rounded, "--workers", "2", "--hosts", "2:all", *FAST, "--json", out)
    shared = report_of(out)
    expect(shared["settings"]["hosts"] == "2:all", str(shared["settings"]))
    run("simulate", "tiny-moe", "-c", rounded, "--workers", "2", *FAST, "--json", out)
    apart = report_of(out)
    expect(shared["runs"][0]["latency_ms"]["total"]["mean"] > apart["runs"][0]["latency_ms"]["total"]["mean"],
           f"who shares two CPUs must not be faster than who has one alone: {shared['runs'][0]['latency_ms']['total']}, "
           f"{apart['runs'][0]['latency_ms']['total']}")
    expect(measured["activations"] == "bf16", f"weights are floats, rows {measured['activations']}")
    measured["sharing"]["wake_ns"] = -1
    spoiled = os.path.join(tmp, "spoiled.json")
    with open(spoiled, "w", encoding="utf-8") as f:
        json.dump(measured, f)
    status, _, err = run_sigmoe(SIGMOE, ["loadtest", "simulate", "tiny-moe", "-c", spoiled])
    expect(status == 3 and "wake_ns" in err and err.count("\n") == 1, err)
    run("simulate", "tiny-moe", "-c", file, "--workers", "2", *FAST, "--json", out)
    expect("measured on" in report_of(out)["settings"]["costs"], report_of(out)["settings"]["costs"])
    pace_of_a_time_is_simulated(tmp, file)
    run("simulate", "qwen3-30b-a3b", "-c", file, "--workers", "2", *FAST, "--json", out)
    expect("roofline over what was measured" in report_of(out)["settings"]["costs"],
           report_of(out)["settings"]["costs"])


def a_calibration_is_of_one_kind_of_rows(tmp):
    model, small = os.path.join(tmp, "for-calibration"), os.path.join(tmp, "integers")
    file, out = os.path.join(tmp, "integers.json"), os.path.join(tmp, "cal.json")
    status, _, err = run_sigmoe(SIGMOE, ["quantize", model, "-o", small, "--experts", "none", "--dense", "int8:32"])
    expect(status == 0, err)
    status, _, err = run_sigmoe(SIGMOE, ["calibrate", small, "-o", file, "--budget", "1", "--rows", "16",
                                         "--threads", "1", "--worker-threads", "1"])
    expect(status == 0, err)
    config = os.path.join(small, "config.json")
    run("simulate", config, "-c", file, "--workers", "2", *FAST, "--json", out)
    expect("measured on" in report_of(out)["settings"]["costs"], report_of(out)["settings"]["costs"])
    _, err = run("simulate", config, "-c", file, "--workers", "2", "--activations", "bf16", *FAST, status=2)
    expect("activations in int8" in err and err.count("\n") == 1, err)
    advise = ["plan", "--advise", "--model", config, "-c", file, "--prompt", "8", "--output", "4", "--workers-max", "2"]
    status, _, err = run_sigmoe(SIGMOE, [*advise, "--json"])
    expect(status == 0, err)
    status, _, err = run_sigmoe(SIGMOE, [*advise, "--activations", "bf16"])
    expect(status == 2 and "activations in int8" in err and "--activations int8 here" in err and err.count("\n") == 1, err)
    status, _, err = run_sigmoe(SIGMOE, [*advise, "--activations", "int3"])
    expect(status == 2 and "int3" in err and err.count("\n") == 1, err)
    # Curves of floats are not those of integers.
    run("simulate", "tiny-moe", "-c", file, "--workers", "2", *FAST, "--json", out)
    expect("another shape" in report_of(out)["settings"]["costs"], report_of(out)["settings"]["costs"])


def advice_has_figures(tmp):
    status, out, err = run_sigmoe(SIGMOE, ["plan", "--advise", "--model", "tiny-moe", "--calibration", "cpu-2core", "--rate",
                                           "50", "--prompt", "20", "--output", "8", "--workers-max", "4", "--json"])
    expect(status == 0, err)
    advice = json.loads(out)
    expect([s["topic"] for s in advice["sentences"]] == ["workers", "ping-pong", "replicas", "disaggregation"],
           str(advice)[:300])
    status, _, err = run_sigmoe(SIGMOE, ["plan", "--advise"])
    expect(status == 2 and "which model?" in err and err.count("\n") == 1, err)


def test():
    with tempfile.TemporaryDirectory(prefix="sigmoe-loadtest-") as tmp:
        report = simulate_writes_the_documented_report(tmp)
        csv = arrivals_of_the_publishers_are_replayed(tmp)
        a_recorded_trace_is_replayed(tmp)
        a_placement_file_is_simulated(tmp)
        compare_ranks_with_intervals(tmp, report)
        mistakes_are_one_clear_line(tmp, csv)
        calibration_feeds_the_simulator(tmp)
        a_calibration_is_of_one_kind_of_rows(tmp)
        advice_has_figures(tmp)
        live_measures_what_was_sent(tmp)
        prompts_that_begin_alike_are_found_as_live(tmp)
    print("loadtest: reports, seeds, comparisons, mistakes, calibration and a live server are as documented")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sigmoe", required=True)
    SIGMOE = parser.parse_args().sigmoe
    sys.path.insert(0, TESTS)
    main_of(test)
