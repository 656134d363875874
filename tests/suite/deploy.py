#!/usr/bin/env python3
"""What lies in deploy/ fits the program that it deploys.

Every command of the units, the compose file and the Kubernetes file runs here as it is written there,
with its variables filled in as its environment files do, folders and addresses of this test in place of
theirs: workers come up with the key, the coordinator answers. Every metric that the dashboard and the
alerts ask for is one that a server with domains has, and every panel asks for some. systemd, where it is
there, finds nothing wrong with the units.
"""
import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Failure, ROOT, main_of, run_sigmoe  # noqa: E402
from served import make_model  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
SIGMA = os.path.join(ROOT, "models", "sigma-tiny")
READY_S = 60


def read(*path):
    with open(os.path.join(DEPLOY, *path), encoding="utf-8") as f:
        return f.read()


def unit_command(unit, env_file, instance):
    """The words of ExecStart, specifiers and variables filled in."""
    text = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", read("systemd", unit), re.M).group(1)
    text = text.replace("\\\n", " ")
    env = dict(re.findall(r"^([A-Z_]+)=(.*)$", read("systemd", env_file), re.M))
    env["CREDENTIALS_DIRECTORY"] = "/credentials"
    text = re.sub(r"\$\{(\w+)\}", lambda m: env[m.group(1)], text)
    text = text.replace("%i", str(instance)).replace("%H", "host")
    if "%" in text or "$" in text:
        raise Failure(f"{unit}: not all of its command is known here: {text}")
    words = shlex.split(text)
    if words[0] != "/usr/local/bin/sigmoe":
        raise Failure(f"{unit} runs {words[0]}")
    return words[1:]


def compose_commands():
    text = read("compose", "compose.yaml")
    lists = re.findall(r"^    command: (\[.*?\])$", text, re.M | re.S)
    return [json.loads(words) for words in lists]


def kubernetes_commands():
    out = []
    for block in re.findall(r"exec sigmoe (.*(?:\n {14}\S.*)*)", read("kubernetes", "sigmoe.yaml")):
        out.append([w.replace("${POD##*-}", "0").replace("$POD", "pod-0") for w in shlex.split(block)])
    return out


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Site:
    """The folders that stand for theirs, and the processes that run."""

    def __init__(self, binary, tmp):
        self.binary, self.tmp, self.running = binary, tmp, []
        self.key, self.api = os.path.join(tmp, "wire.key"), os.path.join(tmp, "api.keys")
        status, _, err = run_sigmoe(binary, ["keys", "new", self.key])
        if status:
            raise Failure(f"keys: {err}")
        with open(self.api, "w", encoding="ascii") as f:
            f.write("sesame\n")
        self.model = make_model(binary, os.path.join(tmp, "model"))

    def here(self, words):
        """The command with this site's paths."""
        places = {"/model": self.model, "/srv/models/olmoe": self.model, "/keys/wire.key": self.key,
                  "/credentials/wire.key": self.key, "/credentials/api.keys": self.api,
                  "/api/api.keys": self.api, "/var/cache/sigmoe": os.path.join(self.tmp, "cache"),
                  "/run/sigmoe/admin.sock": os.path.join(self.tmp, "admin.sock"),
                  "/keys/admin.sock": os.path.join(self.tmp, "admin.sock")}
        out = [places.get(w, w) for w in words]
        strange = [w for w in out if w.startswith("/") and not w.startswith(self.tmp)]
        if strange:
            raise Failure(f"a path that stands for nothing here: {strange} in {words}")
        return out

    def start(self, words):
        log = open(os.path.join(self.tmp, f"log{len(self.running)}"), "w+", encoding="utf-8")
        p = subprocess.Popen([self.binary, *words], stdout=subprocess.PIPE, stderr=log,
                             stdin=subprocess.DEVNULL)
        self.running.append((p, log))
        line = p.stdout.readline().decode()
        if not line.startswith("ready "):
            p.wait(timeout=30)
            log.seek(0)
            raise Failure(f"sigmoe {' '.join(words)} says {line!r}: {log.read()[-2000:]}")
        return line.split()[1]

    def stop(self):
        for p, _ in reversed(self.running):
            p.terminate()
        for p, log in self.running:
            if p.wait(timeout=60) != 0:
                log.seek(0)
                raise Failure(f"ended with {p.returncode}: {log.read()[-2000:]}")
            p.stdout.close()
            log.close()
        self.running = []


def change(words, option, value):
    if option not in words:
        raise Failure(f"{option} is not in {words}")
    words[words.index(option) + 1] = value
    return words


def get(url, path):
    request = urllib.request.Request(url + path, headers={"Authorization": "Bearer sesame"})
    with urllib.request.urlopen(request, timeout=30) as r:
        return r.read().decode()


def run_all(site, where, commands, workers_of):
    """Workers first, then the coordinator, which must be ready with all experts at workers."""
    at = []
    for words in (w for w in commands if w[0] == "worker"):
        words = change(site.here(words), "--listen", "tcp://127.0.0.1:0")
        at.append(site.start(words))
    if len(at) != workers_of:
        raise Failure(f"{where}: {len(at)} workers, not {workers_of}")
    serve = [w for w in commands if w[0] == "serve"]
    if len(serve) != 1:
        raise Failure(f"{where}: {len(serve)} coordinators")
    words = change(site.here(serve[0]), "--workers-at", ",".join(at))
    words = change(change(words, "--host", "127.0.0.1"), "--port", "0")
    url = site.start(words)
    end = time.monotonic() + READY_S
    while True:
        try:
            get(url, "/ready")
            break
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise Failure(f"{where}: not ready") from None
            time.sleep(0.1)
    status, out, err = run_sigmoe(site.binary, ["status", "--admin",
                                                os.path.join(site.tmp, "admin.sock")])
    if status or len(re.findall("tcp://", out.decode())) < workers_of:
        raise Failure(f"{where}: status says {out!r} {err!r}")
    site.stop()
    print(f"{where}: {workers_of} workers and a coordinator run as written")


def check_commands(binary, tmp):
    site = Site(binary, tmp)
    try:
        units = [unit_command("sigmoe-worker@.service", "worker.env", i) for i in (0, 1)]
        run_all(site, "systemd", [*units, unit_command("sigmoe.service", "sigmoe.env", 0)], 2)
        run_all(site, "compose", compose_commands(), 2)
        pods = kubernetes_commands()
        worker = [w for w in pods if w[0] == "worker"][0]
        four = [[f"{i}/4" if w == "0/4" else w for w in worker] for i in range(4)]
        run_all(site, "kubernetes", [*four, *(w for w in pods if w[0] == "serve")], 4)
    finally:
        for p, _ in site.running:
            p.kill()
            p.wait()


def check_metrics(binary, tmp):
    """Of a server with domains, speculation and worker processes."""
    p = subprocess.Popen([binary, "serve", SIGMA, "--workers", "2", "--transport", "tcp", "--port", "0",
                          "--admin", "none"], stdout=subprocess.PIPE,
                         stderr=open(os.path.join(tmp, "metrics.log"), "w", encoding="utf-8"))
    try:
        url = p.stdout.readline().decode().split()[1]
        body = json.dumps({"model": "sigma-tiny", "prompt": "def f(", "max_tokens": 8}).encode()
        urllib.request.urlopen(urllib.request.Request(
            url + "/v1/completions", body, {"Content-Type": "application/json"}), timeout=60).read()
        had = set(re.findall(r"^(sigmoe_\w+)", get(url, "/metrics"), re.M))
    finally:
        p.terminate()
        p.wait(timeout=60)
    asked = {"grafana.json": [], "alerts.yml": re.findall(r"sigmoe_\w+", read("monitoring",
                                                                              "alerts.yml"))}
    for panel in json.loads(read("monitoring", "grafana.json"))["panels"]:
        if panel["type"] == "row":
            continue
        names = [n for t in panel["targets"] for n in re.findall(r"sigmoe_\w+", t["expr"])]
        if not names:
            raise Failure(f"the panel '{panel['title']}' asks for nothing")
        asked["grafana.json"] += names
    for file, names in asked.items():
        lost = sorted(set(names) - had)
        if lost or not names:
            raise Failure(f"{file} asks for {lost}, which the server does not have")
        print(f"{file}: {len(set(names))} metrics, all there")


def check_units(binary, tmp):
    if not shutil.which("systemd-analyze"):
        return
    for unit in ("sigmoe-worker@.service", "sigmoe.service"):
        with open(os.path.join(tmp, unit), "w", encoding="utf-8") as f:
            f.write(read("systemd", unit).replace("/usr/local/bin/sigmoe", binary))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", os.path.join(tmp, unit)],
                              capture_output=True, text=True, timeout=60)
        about = [line for line in done.stderr.splitlines() if "sigmoe" in line]
        if done.returncode or about:
            raise Failure(f"{unit}: {done.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigmoe", required=True)
    binary = os.path.abspath(parser.parse_args().sigmoe)

    def test():
        with tempfile.TemporaryDirectory(prefix="sigmoe-deploy-") as tmp:
            check_commands(binary, tmp)
            check_metrics(binary, tmp)
            check_units(binary, tmp)

    main_of(test)


if __name__ == "__main__":
    main()
