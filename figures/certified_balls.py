"""Balls all over the square: what the dual bound certifies of a robustly trained network, and what is true.

Source: the picture of certified and uncertified balls in the blog post of Wong & Kolter. Input: boundaries.npz, made by
``benchmarks/boundaries.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run
from saved import boundary_panels

from lpverify.plots.boundaries import boundaries_figure
from lpverify.plots.style import COLUMN, save, styled

PANELS = {"balls-dual": "by the dual bound", "balls-auto": "by complete search"}
NAMES = {"verified": "certified", "falsified": "crossed", "unknown": "not certified"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    panels = boundary_panels(results, PANELS)
    with styled():
        figure = boundaries_figure(panels, NAMES, centers=False, width=COLUMN, height=2.35)
        return save(figure, out / "certified_balls")


if __name__ == "__main__":
    run(main, __doc__)
