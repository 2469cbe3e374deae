"""Decision boundaries of the networks of the 2-D problem, with verdicts of balls: boundaries.npz; and of a cascade.

    PYTHONPATH=. python benchmarks/boundaries.py --out benchmarks/results

Under "standard/" and "dual/": the shipped networks, with the verdict of every example's ball of eps 0.08 (Wong & Kolter
2018, figure 3). Under "balls-dual/" and "balls-auto/": the robust network, with balls on a grid of points, each about
the class that the network gives its center: what the dual bound certifies, and what is true. Under "stage1/", "stage2/"
and in "cascade.": a cascade of two stages, trained here in seconds (thesis, figure 3.17), with what it answers on a
grid over the window: the class, or -1 where it has no certificate.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.cascade import Cascade, read_cascade
from lpverify.data import load_data
from lpverify.detect import detect_stream, predictions
from lpverify.files import write_npz
from lpverify.geometry.arrays import Arrays
from lpverify.geometry.boundaries import boundaries, window_about
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.settings import Settings
from lpverify.training import TrainConfig
from lpverify.training.cascade import train_cascade
from lpverify.verify import verify_stream

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
EPS, BALLS_EPS, CASCADE_EPS = "0.08", "0.06", "0.11"
# Balls a side, and points a side at which the cascade is asked.
BALLS, GRID = 7, 61
CASCADE = TrainConfig(
    data="toy2d", method="dual", arch="fc-2-50-50-2", eps=float(CASCADE_EPS), eps_schedule="linear", eps_ramp=75,
    epochs=150, batch=12, lr=6e-3, eval_every=150, seed=1, threads=1, device="cpu", stages=2,
)  # fmt: skip
Points = NDArray[Any]


def drawn(network: Network, x: Points, y: NDArray[np.int64], verdicts: list[str], eps: str, window: Any) -> Arrays:
    """The arrays of one picture."""
    data = boundaries(network, window, x, y, eps=float(eps), norm="inf", verdicts=verdicts)
    print(f"{data.regions} regions, areas of the classes {data.areas}, verdicts {verdicts}", flush=True)
    return data.arrays()


def examples(arrays: Arrays) -> None:
    """The two shipped networks and the examples' balls."""
    data = load_data("toy2d")
    assert data.y is not None
    for name in ("standard", "dual"):
        network = load_model(ASSETS / f"toy2d-{name}.safetensors")
        verdicts = [result.verdict.value for result in verify_stream(network, data.x, data.y, Settings(EPS))]
        made = drawn(network, data.x, data.y, verdicts, EPS, window_about(data.x, float(EPS)))
        arrays |= {f"{name}/{key}": value for key, value in made.items()}


def balls(arrays: Arrays) -> None:
    """Balls on a grid, a little apart, by the dual bound and by everything there is."""
    network = load_model(ASSETS / "toy2d-dual.safetensors")
    centers = grid(0.5 / BALLS, 1 - 0.5 / BALLS, BALLS)
    classes = predictions(network, centers)
    for method in ("dual", "auto"):
        found = detect_stream(network, centers, Settings(BALLS_EPS, method=method))
        verdicts = [result.verdict.value for result in found]
        made = drawn(network, centers, classes, verdicts, BALLS_EPS, (np.zeros(2), np.ones(2)))
        arrays |= {f"balls-{method}/{key}": value for key, value in made.items()}


def cascade(arrays: Arrays) -> None:
    """Both stages by the dual bound, and the cascade's answers."""
    data = load_data("toy2d")
    assert data.y is not None
    with tempfile.TemporaryDirectory() as folder:
        train_cascade(CASCADE, Path(folder) / "run")
        stages = read_cascade(Path(folder) / "run" / "cascade.toml", load_model)
    settings = Settings(CASCADE_EPS, method="dual")
    lower, upper = window = window_about(data.x, float(CASCADE_EPS))
    points = lower + (upper - lower) * grid(0.5 / GRID, 1 - 0.5 / GRID, GRID)
    for number, stage in enumerate(stages, start=1):
        verdicts = [result.verdict.value for result in verify_stream(stage, data.x, data.y, settings)]
        made = drawn(stage, data.x, data.y, verdicts, CASCADE_EPS, window)
        arrays |= {f"stage{number}/{key}": value for key, value in made.items()}
    for name, used in (("stage1", stages[:1]), ("stage2", stages[1:]), ("cascade", stages)):
        with Cascade(used, settings) as asked:
            answers = [-1 if answer.label is None else answer.label for answer in asked.predict(points)]
        arrays[f"{name}.answers"] = np.array(answers, np.int8).reshape(GRID, GRID)
        print(f"{name}: answers at {np.mean(np.array(answers) >= 0):.3f} of the window", flush=True)


def grid(low: float, high: float, side: int) -> NDArray[np.float64]:
    """Points (side ** 2, 2) of a square; the second input grows slowest."""
    steps = np.linspace(low, high, side)
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def main() -> None:
    """Measure all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for boundaries.npz")
    out = parser.parse_args().out
    arrays: Arrays = {}
    for part in (examples, balls, cascade):
        part(arrays)
    write_npz(out / "boundaries.npz", arrays)


if __name__ == "__main__":
    main()
