"""Milliseconds an image: lpverify's bounds and checkers beside auto_LiRPA and convex_adversarial, one thread each.

    python benchmarks/speed.py --data ../shared/data --out benchmarks/results/speed.csv

The first MNIST test images, l-infinity balls without clipping, all rows of the label claim. Each contender
first runs at several batch sizes and keeps its fastest; then all take turns, round after round, so that
whatever else the machine does falls on all of them. Times are the thread's CPU time, which on an idle machine
is the wall clock's (recorded too). The margins of the run are compared as well: exit code 1
if a library disagrees with lpverify beyond rounding, or a checker proves more than its engine claims.

Then the LP relaxation by lpverify and by cvxpy as the blog post writes it (neuron by neuron, and the text-book form),
through ``lp_speed.py``: where results/lp_speed_images.csv has its lines, they are not measured again; what it
measured of scipy and PuLP stays. At last ``speed_table.py`` joins these with Marabou's results (``marabou.py`` needs an
environment of its own) into results/speed_table.csv and the README's table.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import lp_speed
import numpy as np
import speed_table
import torch
from common import Table
from contender import Contender, agrees, difference, timed, times_slower, tune
from peers import BatchBound, find_peers, peer_bounds
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lpverify import models
from lpverify.bounds import METHODS
from lpverify.certificate import exact, rigorous
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.graph import PlainNetwork, parse_network
from lpverify.certificate.proof import Certificate
from lpverify.data import load_data
from lpverify.evidence import certificate, claim_of
from lpverify.lowering.checkpoint import read_checkpoint
from lpverify.lowering.module import lower_module
from lpverify.network import Network
from lpverify.problem import Specification, ball
from lpverify.serialize import network_bytes
from lpverify.settings import DTYPES, Settings

SHAPE = (1, 28, 28)
BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100)
CROWN64 = ("crown", "lpverify", "float64")
COLUMNS = (
    "network", "eps", "images", "task", "tool", "dtype", "batch_size", "rounds", "cpu_ms", "cpu_ms_min",
    "cpu_ms_max", "wall_ms", "against", "times_slower", "above", "below", "torch", "cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A network of the comparison: its checkpoint, architecture and radius."""

    file: str
    arch: str
    eps: str


SUBJECTS = {
    "conv": Subject("torch/convex_adversarial/mnist.pth", "small", "0.1"),
    "dense": Subject("torch/eran/mnist_6_100_nat.pth", "fc-784-100-100-100-100-100-10", "0.015"),
}
# The same networks and radii among the subjects of lp_speed.py.
PROGRAMS = {"conv": "conv-0.1", "dense": "dense-0.015"}


@dataclass(frozen=True, eq=False)
class Images:
    """The images x (N, 784), float32, and their labels y (N,)."""

    x: Tensor
    y: Tensor

    def batches(self, size: int, dtype: torch.dtype) -> list[tuple[Tensor, Specification]]:
        """Inputs and label claims, ``size`` images at once."""
        x = self.x.to(dtype)
        parts = [slice(at, at + size) for at in range(0, len(x), size)]
        return [(x[part], Specification.label(self.y[part], 10, dtype)) for part in parts]


def load_module(path: Path, arch: str) -> nn.Module:
    """The checkpoint's module; the file's tensors are in the order of the module's parameters."""
    module = models.build(arch)
    with torch.no_grad():
        for parameter, stored in zip(module.parameters(), read_checkpoint(path, "torch").tensors.values(), strict=True):
            parameter.copy_(stored)
    return module.eval().requires_grad_(False)


def our_bound(network: Network, task: str, eps: float) -> BatchBound:
    """A method of lpverify as the peers' are called."""
    method = METHODS[task]()
    return lambda x, C: method.bound(network, ball(x, eps), Specification(C, C.new_zeros(C.shape[:2]))).margins


def over_batches(
    bound: BatchBound, images: Images, dtype: torch.dtype, shape: tuple[int, ...]
) -> Callable[[int], Tensor]:
    """``bound`` over all images at a batch size; the batches are made before the first timed run."""
    made: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def run(size: int) -> Tensor:
        if size not in made:
            made[size] = [(x.reshape(-1, *shape), spec.C) for x, spec in images.batches(size, dtype)]
        return torch.cat([bound(x, C) for x, C in made[size]])

    return run


def contenders(
    module: nn.Module, network: Network, eps: str, images: Images, peers: dict[str, Any], dtype: str
) -> list[Contender]:
    """Ours, then theirs of the same task."""
    engine = network.to(DTYPES[dtype])
    theirs = peer_bounds(peers, copy.deepcopy(module).to(DTYPES[dtype]), SHAPE, float(eps))
    found: list[Contender] = []
    for task in ("dual", "crown"):
        run = over_batches(our_bound(engine, task, float(eps)), images, DTYPES[dtype], (784,))
        ours = Contender(task, "lpverify", dtype, run)
        found.append(ours)
        for (about, tool), bound in theirs.items():
            if about == task:
                run = over_batches(bound, images, DTYPES[dtype], SHAPE)
                found.append(Contender(task, tool, dtype, run, ours.key))
    return found


def propose(network: Network, sha256: str, eps: str, images: Images) -> list[Certificate]:
    """CROWN's certificates of all images, whether or not they prove anything."""
    settings, found = Settings(eps), []
    for at, (x, spec) in enumerate(images.batches(1, torch.float64)):
        bound = METHODS["crown"]().bound(network, ball(x, float(eps)), spec)
        claim = claim_of(settings, images.x[at].numpy(), int(images.y[at]), 10)
        found.append(certificate(sha256, "real", claim, bound, 0, list(range(9))))
    return found


def checker_contender(plain: PlainNetwork, certificates: list[Certificate]) -> Contender:
    """The rigorous checker on CROWN's certificates."""
    checker = rigorous.Network(plain)

    def run(size: int) -> Tensor:
        outcomes = []
        for at in range(0, len(certificates), size):
            outcomes += rigorous.check(checker, certificates[at : at + size])
        return torch.as_tensor(np.stack([o.margins for o in outcomes]))

    return Contender("check", "rigorous", "float64", run, CROWN64)


def exact_contender(plain: PlainNetwork, certificates: list[Certificate], proved: Tensor, count: int) -> Contender:
    """The exact checker, once, on the first certificates whose margins ``proved`` (N, 9) are positive."""
    chosen = (proved > 0).all(1).nonzero().flatten().tolist()[:count]
    network = convert(plain)

    def run(size: int) -> Tensor:
        margins = proved.new_full(proved.shape, math.nan)
        for i in chosen:
            margins[i] = torch.tensor([float(m) for m in exact.check(network, certificates[i]).margins])
        return margins

    # Timed here: at seconds an image it takes no part in the rounds.
    contender = Contender("check", "exact", "integers", run, CROWN64, 1)
    timed(contender)
    return contender


def measure(subject: Subject, data: Path, images: Images, arguments: argparse.Namespace) -> list[Contender]:
    """Tune, take turns, check; the contenders come back with their times."""
    module = load_module(data / subject.file, subject.arch)
    network = lower_module(module, SHAPE, dtype=torch.float64).detach()
    plain = parse_network(network_bytes(network))
    peers, rows = find_peers(), []
    for dtype in DTYPES:
        rows += contenders(module, network, subject.eps, images, peers, dtype)
    certificates = propose(network, plain.sha256, subject.eps, images)
    rows.append(checker_contender(plain, certificates))
    for row in rows:
        tune(row, sorted({min(size, len(images.y)) for size in BATCH_SIZES}))
    for _ in range(arguments.rounds):
        for row in rows:
            timed(row)
    if arguments.exact_images:
        rows.append(exact_contender(plain, certificates, rows[-1].margins, arguments.exact_images))
    return rows


def record(subject: Subject, row: Contender, rows: dict[tuple[str, str, str], Contender]) -> dict[str, object]:
    """One line of the CSV; see COLUMNS and the README."""
    scale = 1e3 / max(1, row.images)
    line: dict[str, object] = {
        "network": subject.file, "eps": subject.eps, "images": row.images, "task": row.task, "tool": row.tool,
        "dtype": row.dtype, "batch_size": row.batch_size, "rounds": len(row.wall),
        "cpu_ms": median(row.cpu), "cpu_ms_min": min(row.cpu), "cpu_ms_max": max(row.cpu), "wall_ms": median(row.wall),
        "against": " ".join(row.against or ()), "torch": torch.__version__, "cpu": cpu_name(),
    }  # fmt: skip
    line |= {c: round(scale * float(str(line[c])), 4) for c in line if c.endswith(("ms", "ms_min", "ms_max"))}
    if row.against and row.images:
        other = rows[row.against]
        above, below = difference(row, other)
        line |= {"times_slower": round(times_slower(row, other), 3), "above": f"{above:.1e}", "below": f"{below:.1e}"}
    return line


def measure_programs(arguments: argparse.Namespace) -> None:
    """The blog's cvxpy beside lpverify's LP, continued where lp_speed_images.csv ends."""
    contestants = ["neuron by neuron", "text-book"]
    options = argparse.Namespace(data=arguments.data, images=arguments.lp_images, seconds=arguments.lp_seconds)
    raw = Table(speed_table.RESULTS / "lp_speed_images.csv", lp_speed.RAW, 4)
    for name in arguments.networks:
        lp_speed.measure(PROGRAMS[name], lp_speed.contenders(contestants), options, raw)


def cpu_name() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(lines: list[dict[str, object]]) -> None:
    """The table for readers."""
    head = ("task", "tool", "dtype", "batch_size", "images", "cpu_ms", "wall_ms", "times_slower", "above", "below")
    for network in dict.fromkeys(line["network"] for line in lines):
        table = [head] + [tuple(str(line.get(c, "")) for c in head) for line in lines if line["network"] == network]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        print(f"\n{network}")
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    """Measure, print, write the CSV; 1 if margins disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("LPVERIFY_SHARED", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder with torch/ and datasets/mnist/")
    parser.add_argument("--networks", nargs="+", choices=tuple(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--images", type=int, default=100, help="first MNIST test images")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--exact-images", type=int, default=2, help="images for the exact checker; 0 leaves it out")
    parser.add_argument("--lp-images", type=int, default=2, help="images for the linear programs in cvxpy; 0: none")
    parser.add_argument("--lp-seconds", type=float, default=40.0, help="for one way of writing them on one network")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "speed.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    examples = load_data("mnist", data_dir=arguments.data / "datasets" / "mnist")
    count = arguments.images
    images = Images(torch.as_tensor(examples.x[:count]).flatten(1), torch.as_tensor(examples.y[:count]))
    lines: list[dict[str, object]] = []
    faults: list[str] = []
    for name in arguments.networks:
        subject = SUBJECTS[name]
        print(f"{subject.file}, eps {subject.eps}", flush=True)
        with torch.no_grad(), threadpool_limits(1):
            rows = {row.key: row for row in measure(subject, arguments.data, images, arguments)}
        lines += [record(subject, row, rows) for row in rows.values()]
        for row in rows.values():
            if row.against and row.images and not agrees(row, *difference(row, rows[row.against])):
                faults.append(f"{subject.file}: {' '.join(row.key)} disagrees with {' '.join(row.against)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    show(lines)
    if arguments.lp_images:
        with threadpool_limits(1):
            measure_programs(arguments)
    if arguments.out.resolve() == (speed_table.RESULTS / "speed.csv").resolve():
        speed_table.write()
    print("\n".join(faults) or "\nall margins agree", file=sys.stderr if faults else sys.stdout)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
