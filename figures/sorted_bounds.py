"""Every method's bound on the same rows, sorted, of a random, a standard and a robust network.

Below, how far each bound is from the least margin known at a point; what is shaded there is not decided.

Source: Wong & Kolter 2018, figure 11 (theirs: LP and dual). Input: sorted_bounds.csv, made by
``benchmarks/sorted_bounds.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.comparison.rows import read_rows
from lpverify.plots.margins import margins_of
from lpverify.plots.style import save, styled
from lpverify.plots.tightness import sorted_bounds


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    rows = read_rows(results / "sorted_bounds.csv")
    names = dict.fromkeys(row.problem for row in rows)
    problems = {name: margins_of([row for row in rows if row.problem == name]) for name in names}
    with styled():
        return save(sorted_bounds(problems), out / "sorted_bounds")


if __name__ == "__main__":
    run(main, __doc__)
