#!/usr/bin/env python3
"""Trains sigma-tiny in the two stages of PanGu-Sigma: first the main domains, then all; the experts of
a domain that comes late start as those of LIKE.

  python tools/train/train.py --data DIR --until 13:20
  python tools/train/train.py --data DIR --minutes 90

The length of a run is its time: the learning rate rises, stays, and falls over the last half of
the whole. DIR/until (HH:MM or minutes of training in all) may be written while it runs, to end it
early or later; the schedule follows. Every SAVE seconds DIR/checkpoint.pt is replaced; a run goes on
from it.

DIR/log.jsonl gets a line every LOG steps: step, tokens, seconds, phase, learning rate, mean loss.

Each of --threads threads has a replica of the model and its part of the batch, and torch itself uses
one: threads that meet once in a step lose little on a busy machine, those that meet in every product
lose most of it. Needs torch; set OMP_NUM_THREADS=1. For speed on glibc, set
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456
so that large arrays are not given back to the system at every step."""
import argparse
import copy
import datetime
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import fast
from corpora import DOMAINS, SOURCES
from model import build
from optim import Optimizer
from prepare import BOS

# (from which part of the run on, tokens of a sequence, sequences of each domain in a step)
PHASES = [
    (0.00, 512, {"zh": 5, "en": 5, "code": 3, "bilingual": 3}),
    (0.50, 512, {"zh": 3, "en": 3, "code": 3, "bilingual": 2, "poetry": 5}),
    (0.85, 1024, {"zh": 2, "en": 2, "code": 1, "bilingual": 1, "poetry": 2}),
]
DECAY_AT = 0.5
WARM_UP = 30      # steps
FLOOR = 0.03      # of the peak rate, at the end
LIKE = {"poetry": "zh"}
LOG, SAVE = 10, 180


class Corpus:
    """Windows of a file of token ids in shuffled order, another order each time round."""

    def __init__(self, path, seed):
        self.ids = np.memmap(path, np.uint16, "r")
        self.seed = seed

    def window(self, number, length):
        n = (len(self.ids) - 2) // length
        turn, place = divmod(number, n)
        rng = np.random.default_rng((self.seed, turn))
        shift = int(rng.integers(length))
        start = int(rng.permutation(n)[place]) * length + shift
        start = min(start, len(self.ids) - length - 1)
        ids = np.array(self.ids[start:start + length + 1], np.int64)
        ids[0] = BOS
        return ids


class Data:
    def __init__(self, folder):
        self.corpora = {name: Corpus(folder / f"{name}.u16", i) for i, name in
                        enumerate(name for domain in DOMAINS for name in SOURCES[domain])}
        self.given = {name: 0 for name in self.corpora}

    def take(self, domain, length):
        """The corpus furthest behind its share gives the next window."""
        shares = SOURCES[domain]
        name = min(shares, key=lambda n: (self.given[n] + 1) / shares[n])
        self.given[name] += 1
        return self.corpora[name].window(self.given[name] - 1, length)

    def batch(self, phase):
        """(ids [sequence, length + 1], domain [sequence])"""
        _, length, counts = PHASES[phase]
        rows = [(DOMAINS.index(d), self.take(d, length)) for d, n in counts.items()
                for _ in range(n)]
        return (torch.from_numpy(np.stack([ids for _, ids in rows])),
                torch.tensor([domain for domain, _ in rows]))


def minutes_left(until, trained):
    """Of "HH:MM" on this machine's clock, or of minutes of training in all."""
    if ":" not in until:
        return max(0.0, float(until) - trained / 60)
    now = datetime.datetime.now()
    hour, minute = map(int, until.split(":"))
    end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return max(0.0, (end - now).total_seconds() / 60)


def rate_at(part, step):
    fall = min(1.0, (1 - part) / (1 - DECAY_AT))
    return min(1.0, (step + 1) / WARM_UP) * (FLOOR + (1 - FLOOR) * fall)


class Run:
    def __init__(self, folder, threads):
        self.folder = folder
        self.model = build().bfloat16()
        self.models = [self.model, *(copy.deepcopy(self.model) for _ in range(threads - 1))]
        self.pool = ThreadPoolExecutor(threads)
        self.optimizer = Optimizer(self.models)
        self.data = Data(folder / "tokens")
        self.at = {"step": 0, "seconds": 0.0, "phase": 0, "tokens": 0}
        path = folder / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, weights_only=False)
            self.optimizer.load(saved["optimizer"])
            self.at, self.data.given = saved["at"], saved["given"]
            print(f"goes on from step {self.at['step']}", flush=True)

    def save(self):
        path = self.folder / "checkpoint.pt"
        torch.save({"optimizer": self.optimizer.state(), "at": self.at, "given": self.data.given},
                   str(path) + ".new")
        os.replace(str(path) + ".new", path)
        torch.save(self.model.state_dict(), str(self.folder / "weights.pt.new"))
        os.replace(str(self.folder / "weights.pt.new"), self.folder / "weights.pt")

    def second_stage(self):
        """Late domains start as the domain they are like."""
        pairs = []
        for layer in self.model.model.layers:
            for late, like in LIKE.items() if layer.sparse else ():
                first = [layer.mlp.first[DOMAINS.index(d)] for d in (late, like)]
                for i in range(2):
                    to, source = (layer.mlp.experts[f + i] for f in first)
                    pairs += zip(to.parameters(), source.parameters())
        self.optimizer.copy(pairs)

    def enter(self, phase):
        before, self.at["phase"] = self.at["phase"], phase
        if any(d in PHASES[phase][2] and d not in PHASES[before][2] for d in LIKE):
            self.second_stage()
        self.save()

    def step(self, rate):
        ids, domain = self.data.batch(self.at["phase"])
        n = len(self.models)

        def part(i):
            mine = ids[i::n]
            loss = fast.loss_of(self.models[i], mine, domain[i::n]) * (len(mine) / len(ids))
            loss.backward()
            return loss.item()

        self.optimizer.zero_grad()
        loss = sum(self.pool.map(part, range(n)))
        norm = self.optimizer.step(rate, self.pool.map)
        self.at["step"] += 1
        self.at["tokens"] += ids[:, 1:].numel()
        return loss, norm

    def train(self, until, log):
        last, saved, losses = time.time(), time.time(), []
        while True:
            note = self.folder / "until"
            left = minutes_left(note.read_text().strip() if note.exists() else until,
                                self.at["seconds"]) * 60
            if left <= 0:
                break
            part = self.at["seconds"] / (self.at["seconds"] + left)
            phase = max(i for i, (begin, _, _) in enumerate(PHASES) if part >= begin)
            if phase > self.at["phase"]:
                self.enter(phase)
            rate = rate_at(part, self.at["step"])
            loss, norm = self.step(rate)
            losses.append(loss)
            now = time.time()
            self.at["seconds"] += now - last
            last = now
            line = {**self.at, "seconds": round(self.at["seconds"], 1), "part": round(part, 4),
                    "rate": round(rate, 4), "norm": round(norm, 3)}
            if self.at["step"] % LOG == 0:
                self.tell(log, line, losses)
            if now - saved > SAVE:
                self.save()
                saved = now
        if losses:
            self.tell(log, line, losses)
        self.save()

    def tell(self, log, line, losses):
        """Writes a line with the mean of the losses since the last, and forgets them."""
        log.write(json.dumps({**line, "loss": round(sum(losses) / len(losses), 4)}) + "\n")
        log.flush()
        losses.clear()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="what prepare.py wrote")
    parser.add_argument("--until", help="HH:MM on this machine's clock")
    parser.add_argument("--minutes", help="minutes of training in all")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not (args.until or args.minutes):
        parser.error("give --until or --minutes")
    torch.set_num_threads(1)
    fast.start()
    folder = Path(args.data)
    with open(folder / "log.jsonl", "a", encoding="ascii") as log:
        Run(folder, args.threads).train(args.until or args.minutes, log)


if __name__ == "__main__":
    main()
