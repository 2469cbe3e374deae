"""The adversarial polytope of random networks, exactly, and the polygons that bound methods enclose it in.

Source: Wong & Kolter 2018, figure 6. Input: polytopes.npz, made by ``benchmarks/polytopes.py``. Upper row: weights as
torch initialises them; lower row: standard normal weights.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.geometry.arrays import read_arrays
from lpverify.geometry.polytope import Polytope
from lpverify.plots.polytope import polytopes_figure
from lpverify.plots.style import PAGE, save, styled

RADII = ("0.05", "0.1", "0.25")
ROWS = {"random-default": "default weights", "random-normal": "normal weights"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    panels = [
        [
            (f"{said}, eps {eps}", Polytope.from_arrays(read_arrays(results / "polytopes.npz", f"{name}/{eps}/")))
            for eps in RADII
        ]
        for name, said in ROWS.items()
    ]
    with styled():
        figure = polytopes_figure(panels, ("output 0", "output 1"), width=PAGE, height=4.6)
        return save(figure, out / "polytope")


if __name__ == "__main__":
    run(main, __doc__)
