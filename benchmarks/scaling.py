"""How seconds and memory of the bound methods grow with width, depth, batch and the number of unstable neurons.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/scaling.py

Fully connected networks of random weights (normal, variance 2 / inputs of the layer), 64 inputs, 10 outputs, uniform
random centers, all nine rows of a label claim. One axis at a time: the width of three hidden layers; the number of
hidden layers; the examples of a batch; the unstable neurons, in layers of one width of which all but the first
``alive`` units are dead (their biases see to it). ``size`` is what the axis counts. "dual, k = 10" and "k = 50" are the
dual on pre-activation bounds estimated by random projections. The linear program takes one example and smaller sizes,
its time includes CROWN's bounds and the encoding; alpha takes its twenty Adam steps.

``scaling.csv``: medians, least and greatest CPU seconds over the rounds, in which all take turns, of one call for the
whole batch, and the growth of resident memory during one call (see ``cost.py``). ``scaling_fits.csv``: seconds and
memory as factor * size^exponent, by least squares of the logarithms over the largest sizes of each axis, where what
does not grow counts least; ``rms_residual`` and ``largest_residual`` are of natural logarithms: 0.1 is a tenth off.
Memory below a MiB is not told apart from noise, and left out of the fits. The lines "wide-K" are fitted to
``projection_cost.csv``, by hidden units. ``--axes`` without an axis only fits again.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from common import HERE, Table, machine
from cost import MIB, peak_bytes, time_in_turn
from torch import nn

from lpverify.bounds import METHODS, DualBound
from lpverify.lowering.module import lower_module
from lpverify.network import Network
from lpverify.problem import Box, Specification
from lpverify.training.projection import estimated_layers, projected_margins

INPUTS, OUTPUTS, DEPTH, WIDTH, BATCH, EPS = 64, 10, 3, 100, 4, 0.05
EXACT = ("interval", "dual", "crown", "alpha")
PROJECTED = {"dual, k = 10": 10, "dual, k = 50": 50}
AXES = ("width", "depth", "batch", "unstable")
COLUMNS = (
    "axis", "method", "size", "width", "depth", "batch", "alive", "eps", "unstable", "seconds", "seconds_min",
    "seconds_max", "rounds", "peak_mib", "machine",
)  # fmt: skip
FIT_COLUMNS = (
    "axis", "method", "quantity", "exponent", "factor", "points", "smallest", "largest", "rms_residual",
    "largest_residual",
)  # fmt: skip
FITTED_POINTS = 4
LEAST_MIB = 1.0


@dataclass(frozen=True)
class Case:
    """One point of one axis, for one method."""

    axis: str
    method: str
    width: int = WIDTH
    depth: int = DEPTH
    batch: int = BATCH
    alive: int = 0


def cases() -> Iterator[Case]:
    """Every point of every axis."""
    for method in (*EXACT, *PROJECTED):
        yield from (Case("width", method, width=w) for w in (50, 100, 200, 400, 800))
        yield from (Case("depth", method, depth=d) for d in (2, 4, 8, 16))
        yield from (Case("batch", method, batch=b) for b in (1, 4, 16, 64))
        yield from (Case("unstable", method, width=400, alive=n) for n in (25, 50, 100, 200, 400))
    yield from (Case("width", "lp", width=w, batch=1) for w in (25, 50, 100, 200))
    yield from (Case("depth", "lp", width=30, depth=d, batch=1) for d in (2, 4, 8, 16))
    yield from (Case("batch", "lp", width=30, batch=b) for b in (1, 2, 4, 8))
    yield from (Case("unstable", "lp", width=200, batch=1, alive=n) for n in (12, 25, 50, 100, 200))


def random_network(width: int, depth: int, alive: int) -> Network:
    """``depth`` hidden layers of ``width`` units, in float32; equal numbers give equal weights. ``alive`` 0: all."""
    generator = torch.Generator().manual_seed(width * 1000 + depth)
    layers: list[nn.Module] = []
    for before, after in pairwise([INPUTS, *[width] * depth, OUTPUTS]):
        linear = nn.Linear(before, after).requires_grad_(False)
        linear.weight.copy_(torch.randn(after, before, generator=generator) * math.sqrt(2 / before))
        linear.bias.zero_()
        if alive and after == width:
            linear.bias[alive:] = -1e3
        layers += [linear, nn.ReLU()]
    return lower_module(nn.Sequential(*layers[:-1]), (INPUTS,)).detach()


def prepare(case: Case) -> tuple[float, Callable[[], object]]:
    """The unstable neurons an example (by the dual's bounds), and the call."""
    network = random_network(case.width, case.depth, case.alive)
    x = torch.rand(case.batch, INPUTS, generator=torch.Generator().manual_seed(0))
    region, spec = Box.linf(x, EPS), Specification.label(
        torch.zeros(case.batch, dtype=torch.int64), OUTPUTS, torch.float32
    )
    unstable = DualBound().bound(network, region, spec).stats["unstable"]
    if case.method in PROJECTED:
        count = PROJECTED[case.method]

        def projected() -> object:
            layers = estimated_layers(network, region, count, torch.Generator().manual_seed(0))
            return projected_margins(network, region, spec, layers)

        return unstable, projected
    method = METHODS[case.method]()
    return unstable, lambda: method.bound(network, region, spec)


def size_of(case: Case, unstable: float) -> float:
    """What the axis counts."""
    return unstable if case.axis == "unstable" else float(getattr(case, case.axis))


def fit(sizes: list[float], values: list[float]) -> dict[str, float]:
    """values = factor * sizes^exponent by least squares of logarithms, and its residuals."""
    logs, targets = np.log(sizes), np.log(values)
    exponent, intercept = np.polyfit(logs, targets, 1)
    residuals = targets - (exponent * logs + intercept)
    return {
        "exponent": float(exponent), "factor": float(np.exp(intercept)), "points": len(sizes), "smallest": sizes[0],
        "largest": sizes[-1], "rms_residual": float(np.sqrt((residuals**2).mean())),
        "largest_residual": float(np.abs(residuals).max()),
    }  # fmt: skip


def fits(lines: list[dict[str, str]]) -> Iterator[dict[str, object]]:
    """A line for each axis, method and quantity with enough points."""
    for axis, method in dict.fromkeys((line["axis"], line["method"]) for line in lines):
        chosen = [line for line in lines if (line["axis"], line["method"]) == (axis, method)]
        for quantity, least in (("seconds", 0.0), ("peak_mib", LEAST_MIB)):
            points = sorted((float(r["size"]), float(r[quantity])) for r in chosen if float(r[quantity]) > least)
            points = points[-FITTED_POINTS:]
            if len(points) >= 3:
                found = fit([size for size, _ in points], [value for _, value in points])
                yield {"axis": axis, "method": method, "quantity": quantity, **found}


def wide(path: Path) -> list[dict[str, str]]:
    """What ``projections.py cost`` measured, as lines of this table."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {**line, "axis": f"wide-K, {line['what']}", "size": line["hidden"],
             "method": "dual" if line["k"] == "0" else f"dual, k = {line['k']}"}
            for line in csv.DictReader(file)
        ]  # fmt: skip


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the CSV files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=AXES, help="measured; the other lines are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [case for case in cases() if case.axis in arguments.axes]
    made = [prepare(case) for case in chosen]
    runs = [run for _, run in made]
    timings = time_in_turn(runs, arguments.rounds)
    path = arguments.out / "scaling.csv"
    kept = [line for line in Table(path, COLUMNS, 3).lines if line["axis"] not in arguments.axes]
    for stale in (path, arguments.out / "scaling_fits.csv"):
        stale.unlink(missing_ok=True)
    table = Table(path, COLUMNS, 3)
    for line in kept:
        table.add(**line)
    for case, (unstable, run), timing in zip(chosen, made, timings, strict=True):
        table.add(
            axis=case.axis, method=case.method, size=size_of(case, unstable), width=case.width, depth=case.depth,
            batch=case.batch, alive=case.alive or case.width, eps=EPS, unstable=unstable, **timing.line,
            peak_mib=peak_bytes(run) / MIB, machine=machine(),
        )  # fmt: skip
    fitted = Table(arguments.out / "scaling_fits.csv", FIT_COLUMNS, 3)
    for found in fits(table.lines + wide(arguments.out / "projection_cost.csv")):
        fitted.add(**found)
        print(fitted.lines[-1], flush=True)


if __name__ == "__main__":
    main()
