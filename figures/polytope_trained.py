"""The adversarial polytope after normal and after robust training, exactly, and the polygons around it.

Source: Wong & Kolter 2018, figure 7. Input: polytopes.npz, made by ``benchmarks/polytopes.py``. Upper row: trained
normally; lower row: by the dual bound at eps 0.08. Left of the dashed line, the answer is wrong.
"""

from __future__ import annotations

from pathlib import Path

from common import run
from saved import polytope_panels

from lpverify.plots.polytope import polytopes_figure
from lpverify.plots.style import PAGE, save, styled

ROWS = {"trained-standard": "standard", "trained-dual": "robust"}
LABELS = ("output 0 − output 1", "output 0 + output 1")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    panels = polytope_panels(results, ROWS)
    with styled():
        figure = polytopes_figure(panels, LABELS, wall=True, width=PAGE, height=4.6)
        return save(figure, out / "polytope_trained")


if __name__ == "__main__":
    run(main, __doc__)
