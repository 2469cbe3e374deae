"""Time and memory of the dual over the width of the network, exact and by random projections.

Source: thesis, figure 3.20. Input: projection_cost.csv, made by ``benchmarks/projections.py cost``.
"""

from __future__ import annotations

from pathlib import Path

from common import column, run

from lpverify.plots.projections import CostCurve, cost_curves
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

PANELS = {"bound": "bound", "step": "bound and gradient"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "projection_cost.csv", ("hidden", "what", "k", "seconds", "peak_mib"))
    panels = {}
    for what, name in PANELS.items():
        curves = {}
        for k in dict.fromkeys(line["k"] for line in lines):
            chosen = [line for line in lines if (line["what"], line["k"]) == (what, k)]
            curves[int(k)] = CostCurve(*(column(chosen, c) for c in ("hidden", "seconds", "peak_mib")))
        panels[name] = curves
    with styled():
        return save(cost_curves(panels), out / "projection_cost")


if __name__ == "__main__":
    run(main, __doc__)
