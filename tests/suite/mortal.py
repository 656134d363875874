"""Workers that a test kills and starts again at the same address, for a server of served.py's model.

    with MortalWorkers(binary, model) as workers:
        with Served(binary, model, "--workers-at", ",".join(workers.endpoints), workers=0) as server:
            workers.kill(0)
            workers.start(0)
            workers.wait_ready(0)
"""
import signal
import subprocess
import time

from harness import Failure
from served import CONFIG


def total(metrics, name):
    """Over all labels."""
    return sum(v for k, v in metrics.items() if k.split("{")[0] == name)


class MortalWorkers:
    """Two workers with half of the experts each, always at the same address."""

    def __init__(self, binary, model):
        half = CONFIG["num_experts"] // 2
        self.commands = [[binary, "worker", "--model", model, "--experts", e, "--threads", "1",
                          "--listen"] for e in (f"0-{half - 1}", f"{half}-{2 * half - 1}")]
        self.running, self.endpoints, self.n_killed = [None, None], [None, None], 0

    def start(self, i):
        at = self.endpoints[i] or "tcp://127.0.0.1:*"
        self.running[i] = subprocess.Popen([*self.commands[i], at], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def wait_ready(self, i):
        words = self.running[i].stdout.readline().decode().split()
        if words[:1] != ["ready"]:
            raise Failure(f"a worker said {words}")
        self.endpoints[i] = words[1]

    def kill(self, i):
        self.running[i].send_signal(signal.SIGKILL)
        self.running[i].wait()
        self.running[i].stdout.close()
        self.n_killed += 1

    @staticmethod
    def wait_used(server, n, timeout_s):
        """Until the server computes on n of them."""
        until = time.monotonic() + timeout_s
        while (used := total(server.metrics(), "sigmoe_workers_up")) != n:
            if time.monotonic() > until:
                raise Failure(f"the server has {used:.0f} workers, not {n}, after {timeout_s} s")
            time.sleep(0.02)

    def __enter__(self):
        for i in (0, 1):
            self.start(i)
            self.wait_ready(i)
        return self

    def __exit__(self, *_):
        for w in self.running:
            if w is not None:
                w.kill()
                w.wait()
                w.stdout.close()
