"""How far each method's bound is from the least known margin, against its CPU time.

Input: compare.csv, made by ``benchmarks/compare.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.comparison.rows import read_rows
from lpverify.plots.margins import costs
from lpverify.plots.pareto import pareto
from lpverify.plots.style import save, styled

# Problem and radius of each panel, where the file has it.
PANELS = (("random-4x100", "0.1"), ("digits-standard", "0.05"), ("digits-dual", "0.1"))


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    rows = read_rows(results / "compare.csv")
    panels = {}
    for problem, eps in PANELS:
        found = costs([row for row in rows if (row.problem, row.eps) == (problem, eps)])
        if found:
            panels[f"{problem}, $\\epsilon$ = {eps}"] = found
    with styled():
        return save(pareto(panels), out / "pareto")


if __name__ == "__main__":
    run(main, __doc__)
