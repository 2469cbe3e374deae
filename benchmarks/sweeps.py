"""What sweeps cost and gain: efficiency by workers, time a task beside the work, on processes and on a Dask cluster.

    PYTHONPATH=. python benchmarks/sweeps.py --workers 1,2 --index 0:200
    PYTHONPATH=. python benchmarks/sweeps.py --cluster 2 --kill --index 0:200

``lpverify verify`` of the digits in the package: one process with one thread is the base, whose results all others must
equal (verdicts, margins, certificates). Efficiency is the base's seconds over those of N workers times N, both without
the start of the interpreter, of torch and of the workers: the clock begins with the first row of the store and ends
with the last, which leaves out one example of each worker. ``--cluster N`` starts a scheduler and N workers on the
loopback interface, each a process; ``--kill`` kills one of them when a third of the rows is there.

``tasks`` are tasks that do nothing: milliseconds a task from end to end, the store not included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from common import machine
from fault_runs import MODEL, ROOT, content, rows
from local_cluster import Cluster

from lpverify.lowering import load_model
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.sweep import Answer, Task, sweep

OUT = ROOT / "benchmarks" / "results" / "sweeps.json"
TASKS = 2000


@dataclass(frozen=True, eq=False)
class Nothing(Task[int]):
    """A task of the size of a batch of ten digits that does nothing."""

    number: int
    load: bytes

    def run(self, session: Session) -> Iterator[int]:
        yield self.number

    def __call__(self, session: Session) -> Answer[int]:
        return Answer([self.number])

    def seconds(self, settings: Settings) -> float:
        return 60.0

    def parts(self) -> Sequence[Nothing]:
        return []

    def given_up(self, settings: Settings, reason: str) -> Sequence[int]:
        raise AssertionError(reason)


def verify(out: Path, given: argparse.Namespace, *more: str) -> None:
    """One run of the command."""
    line = [
        sys.executable, "-m", "lpverify", "verify", str(MODEL), "--data", "digits", "--index", given.index, "--eps",
        given.eps, "--clip", "0", "1", "--threads", "1", "--timeout", "600", "--batch-size", str(given.batch_size),
        "--out", str(out), *more,
    ]  # fmt: skip
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)


def span(run: Path) -> float:
    """Seconds from the first row of a store to its last."""
    with sqlite3.connect(run / "run.sqlite") as connection:
        first, last = connection.execute("SELECT min(finished), max(finished) FROM examples").fetchone()
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The base, and the workers that were asked for, in turn, so often as ``--rounds`` says."""
    kinds = [("processes", n) for n in given.workers] + ([("cluster", given.cluster)] if given.cluster else [])
    spans: dict[tuple[str, int], list[float]] = {("base", 1): [], **{kind: [] for kind in kinds}}
    expected = None
    for turn in range(given.rounds):
        for kind, count in spans:
            run = folder / f"{kind}{count}-{turn}"
            if kind == "cluster":
                with started(folder, count) as there:
                    killer = threading.Thread(target=kill, args=(run, there.workers[0], given), daemon=True)
                    if given.kill:
                        killer.start()
                    verify(run, given, "--scheduler", there.address)
                    if given.kill:
                        killer.join(5)
                        assert there.workers[0].poll() is not None
            else:
                verify(run, given, "--workers", str(count if kind == "processes" else 1))
            spans[kind, count].append(span(run))
            found = content(run)
            expected = expected or found
            if found != expected:
                raise SystemExit(f"{kind} {count}: other results than the base's")
            print(kind, count, f"{spans[kind, count][-1]:.2f} s, results equal", flush=True)
    base = statistics.median(spans["base", 1])
    return [
        {
            "kind": kind, "workers": count, "killed": bool(given.kill and kind == "cluster"),
            "seconds": [round(s, 2) for s in found],
            "efficiency": round(base / (count * statistics.median(found)), 3), "equal": True,
        }
        for (kind, count), found in spans.items()
    ]  # fmt: skip


def kill(run: Path, victim: subprocess.Popen[bytes], given: argparse.Namespace) -> None:
    """Kill a worker when a third of the rows is there."""
    first, _, last = given.index.partition(":")
    while rows(run) < (int(last) - int(first)) / 3:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)


def started(folder: Path, workers: int) -> Cluster:
    """A cluster that finds the tasks of this file."""
    return Cluster(folder, workers, ROOT / "benchmarks")


def overhead(count: int) -> dict[str, float]:
    """Milliseconds a task that does nothing: in processes, and on a cluster of ``count`` workers if that is not 0."""
    network, load = load_model(MODEL), bytes(10 * 64 * 8)
    settings = Settings("0.1", workers=2)
    ways = {"2 processes": settings}
    found = {}
    with ExitStack() as stack:
        if count:
            there = stack.enter_context(started(Path(stack.enter_context(tempfile.TemporaryDirectory())), count))
            ways[f"cluster of {count}"] = replace(settings, scheduler=there.address)
        for name, asked in ways.items():
            done = sweep(network, asked, (Nothing(i, load) for i in range(TASKS)))
            # The first come when the workers are there.
            for _ in range(TASKS // 10):
                next(done)
            began = time.perf_counter()
            rest = sum(1 for _ in done)
            found[name] = round(1000 * (time.perf_counter() - began) / rest, 3)
    return found


def main() -> None:
    """Print what was measured, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=lambda text: [int(n) for n in text.split(",")], default=[2])
    parser.add_argument("--cluster", type=int, default=0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--index", default="0:200")
    parser.add_argument("--eps", default="0.09")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(given, Path(folder))
    found = {"asked": f"index {given.index}, eps {given.eps}, batch size {given.batch_size}", "runs": runs,
             "task_ms": overhead(given.cluster), "machine": machine()}  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    # By its name, under which workers find the tasks.
    from sweeps import main as named

    named()
