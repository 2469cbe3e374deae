"""What the solver benchmarks share: networks and images by name, clocks, and CSV files that can be resumed."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from memory import loading
from numpy.typing import NDArray

from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.network import Network

HERE = Path(__file__).resolve().parent
PACKAGES = ("lpverify", "torch", "highspy", "cvxpy", "pulp", "scipy", "clarabel")
# A short name for each network: its checkpoint.
NETWORKS = {
    "conv": "torch/convex_adversarial/mnist.pth",
    "wk17a": "torch/mipverify/WK17a_linf0.1.pth",
    "6x100": "torch/eran/mnist_6_100_nat.pth",
    "2x20": "torch/toy/mnist_2_20.pth",
    "cifar": "torch/eran/cifar_conv_small_pgd.pth",
}


def load(data: Path, file: str) -> Network:
    """A network of torch_networks.csv, in float64."""
    with (data / "torch_networks.csv").open() as table:
        line = next(line for line in csv.DictReader(table) if line["file"].split("/{")[0] == file)
    return load_model(data / file, **loading(line))


def images(data: Path, network: Network) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The test images that fit the network, flat, and their labels: MNIST, or the first 100 of CIFAR-10."""
    if network.input_size == 784:
        examples = load_data("mnist", data_dir=data / "datasets" / "mnist")
        assert examples.y is not None
        return examples.x.reshape(len(examples), -1).astype(np.float32), examples.y
    table = np.loadtxt(data / "datasets" / "cifar10_samples" / "cifar10_test_first100.csv", delimiter=",")
    # Height, width, channel in the file; the networks take channels first.
    x = table[:, 1:].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).reshape(len(table), -1) / 255
    return x.astype(np.float32), table[:, 0].astype(np.int64)


def correct(network: Network, x: NDArray[np.float32], y: NDArray[np.int64], count: int) -> list[int]:
    """The first ``count`` images that the network classifies correctly."""
    found: list[int] = []
    for start in range(0, len(x), 500):
        with torch.no_grad():
            predicted = network.forward(torch.as_tensor(x[start : start + 500]).double()).argmax(1)
        found += (np.flatnonzero(predicted.numpy() == y[start : start + 500]) + start).tolist()
        if len(found) >= count:
            break
    return found[:count]


@dataclass
class Clock:
    """Seconds of CPU time, child processes included, and of the wall clock."""

    cpu: float = 0.0
    wall: float = 0.0


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def timed() -> Iterator[Clock]:
    """Times the block; the clock is set when it ends."""
    clock, cpu, wall = Clock(), cpu_seconds(), time.perf_counter()
    try:
        yield clock
    finally:
        clock.cpu, clock.wall = cpu_seconds() - cpu, time.perf_counter() - wall


class Table:
    """A CSV that grows line by line; lines that are already there need not be measured again.

    Args:
        path: the file; it is continued if its header is ``columns``, else begun anew.
        columns: of each line, the first ``key`` of which identify it.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: int) -> None:
        self.path, self.columns, self.key = path, tuple(columns), key
        self.lines: list[dict[str, str]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) == self.columns:
                    self.lines = list(reader)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.lines)

    def has(self, *key: object) -> bool:
        """Whether there is a line whose first columns are ``key``."""
        wanted = [str(part) for part in key]
        return any([line[c] for c in self.columns[: len(wanted)]] == wanted for line in self.lines)

    def add(self, **line: object) -> None:
        """Append a line; floats are written with six digits."""
        text = {c: f"{v:.6g}" if isinstance(v, float) else str(v) for c, v in line.items()}
        self.lines.append({c: text.get(c, "") for c in self.columns})
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.lines[-1])


@cache
def machine() -> str:
    """The processor, the versions and the commit, for a column of each CSV."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return "; ".join([cpu, f"Python {platform.python_version()}", *versions, f"commit {commit.stdout.strip() or '?'}"])


def parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """A command line with the options that all share."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LPVERIFY_SHARED", HERE.parents[1] / "shared" / "data"))
    found.add_argument("--data", type=Path, default=data, help="folder with torch/, datasets/ and reference/")
    found.add_argument("--out", type=Path, default=HERE / "results" / out, help="CSV; continued where it ends")
    return found
