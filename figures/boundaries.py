"""Classification boundaries after normal and after robust training, with each example's ball by its verdict.

Source: Wong & Kolter 2018, figure 3. Input: boundaries.npz, made by ``benchmarks/boundaries.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run
from saved import boundary_panels

from lpverify.plots.boundaries import boundaries_figure
from lpverify.plots.style import COLUMN, save, styled

PANELS = {"standard": "standard training", "dual": "robust training"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    panels = boundary_panels(results, PANELS)
    with styled():
        return save(boundaries_figure(panels, width=COLUMN, height=2.35), out / "boundaries")


if __name__ == "__main__":
    run(main, __doc__)
