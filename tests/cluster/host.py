"""What the machine did while something was measured: Host samples it, probe() is how even plain
copying is on it. A host that others use takes processors away, and says so (steal) or not."""
import glob
import os
import threading
import time

SAMPLE_S = 0.02
PROBE_COPIES, PROBE_BYTES = 8, 48 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
KINDS = ("stolen", "others", "ours", "ready", "compactions")


def process_clock(pid):
    """The id of the clock of a process's time on CPUs (linux/posix-timers.h: CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


class Host:
    """What the system did, every SAMPLE_S, seconds since it started: CPU time that the host took; that
    processes other than pids had; that pids had; how long threads of pids, those there were at the start,
    stood ready without a CPU; and how many compactions of memory somebody waited for."""

    def __init__(self, pids):
        self.clocks = [process_clock(pid) for pid in pids]
        self.files = [f for pid in pids for f in glob.glob(f"/proc/{pid}/task/*/schedstat")]
        self.stop = threading.Event()
        self.samples = []
        self.thread = threading.Thread(target=self.run)

    def ready(self):
        ns = 0
        for name in self.files:
            try:
                with open(name, encoding="ascii") as f:
                    ns += int(f.read().split()[1])
            except OSError:
                pass  # the thread has ended
        return ns / 1e9

    def sample(self):
        with open("/proc/stat", encoding="ascii") as f:
            user, nice, system, _, _, irq, softirq, stolen = map(int, f.readline().split()[1:9])
        ours = sum(time.clock_gettime(clock) for clock in self.clocks)
        with open("/proc/vmstat", encoding="ascii") as f:
            words = dict(line.split() for line in f)
        busy = (user + nice + system + irq + softirq) * TICK_S
        return (time.monotonic(), stolen * TICK_S, busy - ours, ours, self.ready(),
                int(words.get("compact_stall", 0)))

    def run(self):
        while not self.stop.wait(SAMPLE_S):
            self.samples.append(self.sample())

    def during(self, begun, ended):
        """A dict by KINDS: from the sample before to the sample after."""
        before = [s for s in self.samples if s[0] <= begun] or self.samples[:1]
        after = [s for s in self.samples if s[0] >= ended] or self.samples[-1:]
        return {kind: max(0, after[0][i] - before[-1][i]) for i, kind in enumerate(KINDS, 1)}


def probe(seconds):
    """Times of the same copying, in this process and in a child at once."""
    source, times = bytearray(PROBE_BYTES), []
    target = memoryview(bytearray(PROBE_BYTES))
    child = os.fork()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        for _ in range(PROBE_COPIES):
            target[:] = source
        times.append(time.monotonic() - begun)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return times
