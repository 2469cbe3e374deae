"""How long a solver's process takes to be ready: the first one, and one in the place of another that was lost.

    PYTHONPATH=. python benchmarks/worker_start.py

A pool as a session of the package's network has it, whose only process is killed again and again: forked from the
template, and as an interpreter of its own. In turns, so that what else the machine does is the same for both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine
from fault_runs import MODEL, ROOT

from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.workers import Pool

OUT = ROOT / "benchmarks" / "results" / "worker_start.json"


class Setup:
    """The network, which every process is given; its tasks ask for the process's id."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self) -> Callable[[None], int]:
        return lambda _: os.getpid()


def main() -> None:
    """Print seconds and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    setup = Setup(load_model(MODEL).to(torch.float64).detach())
    first: dict[str, list[float]] = {"forked": [], "fresh": []}
    next_: dict[str, list[float]] = {"forked": [], "fresh": []}
    for _ in range(given.rounds):
        for name, forks in (("forked", True), ("fresh", False)):
            with Pool[None, int](setup, 1, modules=["highspy"], forks=forks) as pool:
                for seconds in (first, next_, next_):
                    began = time.perf_counter()
                    (pid,) = pool.map([None])
                    seconds[name].append(time.perf_counter() - began)
                    assert isinstance(pid, int)
                    os.kill(pid, signal.SIGKILL)
                    # Until it is gone.
                    time.sleep(0.2)
    found = {
        "first": {name: round(statistics.median(seconds), 4) for name, seconds in first.items()},
        "in_place_of_one_that_was_lost": {name: round(statistics.median(s), 4) for name, s in next_.items()},
        "rounds": given.rounds, "machine": machine(),
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    # By its name, under which workers find the setup.
    from worker_start import main as named

    named()
