"""The adversarial polytope of random networks, exactly, and the polygons that bound methods enclose it in.

Source: Wong & Kolter 2018, figure 6. Input: polytopes.npz, made by ``benchmarks/polytopes.py``. Upper row: weights as
torch initialises them; lower row: standard normal weights.
"""

from __future__ import annotations

from pathlib import Path

from common import run
from saved import polytope_panels

from lpverify.plots.polytope import polytopes_figure
from lpverify.plots.style import PAGE, save, styled

ROWS = {"random-default": "default weights", "random-normal": "normal weights"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    panels = polytope_panels(results, ROWS)
    with styled():
        figure = polytopes_figure(panels, ("output 0", "output 1"), width=PAGE, height=4.6)
        return save(figure, out / "polytope")


if __name__ == "__main__":
    run(main, __doc__)
