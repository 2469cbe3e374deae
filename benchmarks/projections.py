"""Random projections of the dual: errors of the estimates, cost beside the exact bound, training by k.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/projections.py errors
    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/projections.py cost
    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/projections.py training

``errors`` (thesis, figure 3.19) writes ``projection_errors.csv``: the relative errors of the estimated half widths of
the shipped digits-dual network's unstable neurons on test digits, as histograms, by layer, estimator and k. The first
estimated layer's half width is one estimated norm, whose distribution is known: ``expected`` is the share that it
gives the bin. Estimates are kept within intervals, and later layers build on the estimates of earlier ones, which
the distribution does not count. ``projection_error_means.csv`` has mean, deviation and extremes, unbinned.

``cost`` (figure 3.20) writes ``projection_cost.csv``: one image through the bound of the networks ``wide-K``, and
through the bound and its gradient, as in a step of training, with random weights.

``training`` (figure 3.21) writes ``projection_training.csv``: the shipped digits-dual config, shortened, by k; errors
on the test digits by the exact bound; CPU seconds of each epoch's training without measuring.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import HERE, Table, machine
from cost import MIB, peak_bytes, time_in_turn
from scipy import special
from torch import Tensor

from lpverify import models
from lpverify.bounds import DualBound
from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.lowering.module import lower_module
from lpverify.network import Network, ReLU
from lpverify.problem import Box, LayerBounds, Specification, ball
from lpverify.training.config import from_dict
from lpverify.training.estimators import ESTIMATORS, log_mean_tail
from lpverify.training.loop import train
from lpverify.training.metrics import METRICS, Means, read_metrics
from lpverify.training.projection import estimated_layers, projected_margins

ASSETS = HERE.parent / "lpverify" / "assets"
RESULTS = HERE / "results"
ERROR_COLUMNS = ("layer", "estimator", "k", "bin_lower", "bin_upper", "count", "expected")
MEAN_COLUMNS = (
    "layer", "estimator", "k", "neurons", "mean", "deviation", "rms", "p05", "p95", "largest", "machine",
)  # fmt: skip
COST_COLUMNS = (
    "network", "K", "hidden", "unstable", "what", "k", "seconds", "seconds_min", "seconds_max", "rounds", "peak_mib",
    "machine",
)  # fmt: skip
TRAINING_COLUMNS = (
    "seed", "k", "epoch", "eps", "train_loss", "test_error", "test_robust_error", "train_cpu_s", "machine",
)  # fmt: skip
KS = (10, 50, 100)
BINS = np.linspace(-1.0, 2.0, 61)


def expected(estimator: str, k: int, ratio: float) -> float:
    """P(estimate <= ratio * norm) for one norm."""
    if ratio <= 0:
        return 0.0
    if estimator == "median":
        rank = (k + 1) // 2
        middle = math.tan(math.pi / 2 * float(special.betaincinv(rank, k - rank + 1, 0.5)))
        share = 2 / math.pi * math.atan(ratio * middle)
        return float(special.betainc(rank, k - rank + 1, share))
    shift = math.log(ratio) - k * math.log(math.cos(math.pi / 2 / k))
    tail = math.exp(log_mean_tail(k, abs(shift)))
    return tail if shift < 0 else 1 - tail


def half_width(layer: LayerBounds) -> Tensor:
    """(B, n)."""
    return (layer.upper - layer.lower) / 2


def errors(arguments: argparse.Namespace) -> None:
    """The histograms."""
    network = load_model(ASSETS / "digits-dual.safetensors").to(torch.float32)
    examples = load_data("digits")
    region = ball(torch.as_tensor(examples.x[: arguments.images]).flatten(1).float(), 0.1, clip=(0.0, 1.0))
    spec = Specification.label(torch.zeros(arguments.images, dtype=torch.int64), network.output_size, torch.float32)
    exact = DualBound().bound(network, region, spec).layers
    bins = Table(fresh(arguments.out / "projection_errors.csv"), ERROR_COLUMNS, 4)
    means = Table(fresh(arguments.out / "projection_error_means.csv"), MEAN_COLUMNS, 3)
    for estimator in ESTIMATORS:
        for k in KS:
            found = estimated_layers(network, region, k, torch.Generator().manual_seed(0), estimator)
            # The first layer reads the input alone: its bounds are exact.
            for at, index in enumerate(sorted(exact)[1:], 2):
                chosen = exact[index].unstable
                error = (half_width(found[index]) / half_width(exact[index]) - 1)[chosen].double().numpy()
                summary = [float(v) for v in np.quantile(error, (0.05, 0.95))]
                means.add(
                    layer=at, estimator=estimator, k=k, neurons=len(error), mean=float(error.mean()),
                    deviation=float(error.std()), rms=float(np.sqrt((error**2).mean())), p05=summary[0],
                    p95=summary[1], largest=float(error.max()), machine=machine(),
                )  # fmt: skip
                # The last bin takes everything beyond it.
                counts = np.histogram(np.minimum(error, BINS[-1] - 1e-9), BINS)[0]
                below = [expected(estimator, k, 1 + edge) for edge in BINS[:-1]] + [1.0]
                for i, count in enumerate(counts.tolist()):
                    bins.add(
                        layer=at, estimator=estimator, k=k, bin_lower=float(BINS[i]), bin_upper=float(BINS[i + 1]),
                        count=count, expected=below[i + 1] - below[i],
                    )  # fmt: skip


def cost_runs(width: int, k: int) -> tuple[int, float, dict[str, Callable[[], object]]]:
    """Hidden units and unstable neurons of wide-``width``, and its bound and its bound with gradients; k = 0: exact."""
    torch.manual_seed(0)
    shape = models.MNIST
    module = models.wide(width, shape)
    x = torch.rand(1, math.prod(shape), generator=torch.Generator().manual_seed(1))
    spec = Specification.label(torch.zeros(1, dtype=torch.int64), 10, torch.float32)
    region = Box.linf(x, 0.1)
    live = lower_module(module, shape)
    detached = live.detach()

    def margins(network: Network) -> Tensor:
        if not k:
            return DualBound().bound(network, region, spec).margins
        layers = estimated_layers(network, region, k, torch.Generator().manual_seed(0))
        return projected_margins(network, region, spec, layers)

    def step() -> None:
        margins(live).sum().backward()  # type: ignore[no-untyped-call]
        module.zero_grad()

    layers = DualBound().bound(detached, region, spec).layers if not k else {}
    unstable = sum(float(layer.unstable.sum()) for layer in layers.values())
    hidden = sum(size for size, node in zip(detached.sizes, detached.nodes, strict=True) if isinstance(node, ReLU))
    return hidden, unstable, {"bound": lambda: margins(detached), "step": step}


def cost(arguments: argparse.Namespace) -> None:
    """Exact and projected, over the width."""
    cases = [(width, k) for width in arguments.widths for k in (0, 10, 50) if k or width <= arguments.exact_up_to]
    made = {case: cost_runs(*case) for case in cases}
    keys = [(case, what) for case in cases for what in ("bound", "step")]
    runs = [made[case][2][what] for case, what in keys]
    timings = time_in_turn(runs, arguments.rounds)
    table = Table(fresh(arguments.out / "projection_cost.csv"), COST_COLUMNS, 6)
    for ((width, k), what), run, timing in zip(keys, runs, timings, strict=True):
        hidden, unstable, _ = made[width, k]
        table.add(
            network=f"wide-{width}", K=width, hidden=hidden, unstable=unstable if not k else "", what=what, k=k,
            **timing.line, peak_mib=peak_bytes(run) / MIB, machine=machine(),
        )  # fmt: skip
        print(table.lines[-1], flush=True)


def epochs(seed: int, k: int, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One run: a line an epoch."""
    given = tomllib.loads((ASSETS / "digits-dual.toml").read_text(encoding="utf-8"))
    given |= {"epochs": arguments.epochs, "eps_ramp": arguments.epochs // 2, "seed": seed, "projections": k}
    seconds: dict[int, float] = {}
    began: dict[int, float] = {}

    def report(epoch: int, done: int, total: int, means: Means) -> None:
        # The first step of each epoch starts the clock: measuring lies between the last step and it.
        began.setdefault(epoch, time.process_time())
        seconds[epoch] = (time.process_time() - began[epoch]) * total / max(1, done - 1) if done > 1 else 0.0

    with tempfile.TemporaryDirectory() as folder:
        train(from_dict(given), Path(folder) / "run", report=report)
        for line in read_metrics(Path(folder) / "run" / METRICS):
            epoch = int(line["epoch"])
            yield {
                "seed": seed, "k": k, "epoch": epoch, "eps": line["eps"], "train_loss": line["loss"],
                "test_error": line["test_error"], "test_robust_error": line["test_robust_error"],
                "train_cpu_s": seconds[epoch], "machine": machine(),
            }  # fmt: skip


def training(arguments: argparse.Namespace) -> None:
    """All runs, resumable run by run."""
    table = Table(arguments.out / "projection_training.csv", TRAINING_COLUMNS, 3)
    for seed in arguments.seeds:
        for k in arguments.ks:
            if not table.has(seed, k):
                # A run's lines are written together, when it has ended.
                for line in list(epochs(seed, k, arguments)):
                    table.add(**line)
                print(table.lines[-1], flush=True)


def fresh(path: Path) -> Path:
    """The path, without what was there."""
    path.unlink(missing_ok=True)
    return path


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("errors")
    one.add_argument("--images", type=int, default=200, help="first test digits")
    one.set_defaults(run=errors)
    one = commands.add_parser("cost")
    one.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    one.add_argument("--exact-up-to", type=int, default=16, help="the widest network with exact bounds")
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=cost)
    one = commands.add_parser("training")
    one.add_argument("--epochs", type=int, default=15)
    one.add_argument("--ks", type=int, nargs="+", default=[0, 10, 50], help="projections; 0: exact")
    one.add_argument("--seeds", type=int, nargs="+", default=[0])
    one.set_defaults(run=training)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
