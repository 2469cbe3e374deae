"""A cascade of two stages on the 2-D problem: where each stage, and where both together, have a certified answer.

Source: thesis (Wong 2020), figure 3.17. Input: boundaries.npz, made by ``benchmarks/boundaries.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run
from saved import boundary_panels

from lpverify.geometry.arrays import read_arrays
from lpverify.plots.boundaries import cascade_figure
from lpverify.plots.style import PAGE, save, styled


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    path = results / "boundaries.npz"
    stages = list(boundary_panels(results, {"stage1": "stage 1", "stage2": "stage 2"}).values())
    answers = [read_arrays(path, f"{name}.")["answers"] for name in ("stage1", "stage2", "cascade")]
    with styled():
        return save(cascade_figure(stages, answers, width=PAGE, height=2.75), out / "cascade_toy")


if __name__ == "__main__":
    run(main, __doc__)
