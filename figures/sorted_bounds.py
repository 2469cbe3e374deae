"""Every method's bound on the same rows, sorted, of a random, a standard and a robust network.

Source: Wong & Kolter 2018, figure 11 (theirs: LP and dual). Input: sorted_bounds.csv, made by
``benchmarks/sorted_bounds.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.comparison.rows import read_rows
from lpverify.plots.margins import by_method
from lpverify.plots.style import save, styled
from lpverify.plots.tightness import sorted_bounds


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    rows = read_rows(results / "sorted_bounds.csv")
    problems = {
        name: by_method([row for row in rows if row.problem == name]) for name in dict.fromkeys(r.problem for r in rows)
    }
    with styled():
        return save(sorted_bounds(problems), out / "sorted_bounds")


if __name__ == "__main__":
    run(main, __doc__)
