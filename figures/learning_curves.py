"""Errors and robust losses of four trainings on digits by epoch.

Source: Wong & Kolter 2018, figures 4 and 12 to 14 (theirs on MNIST, Fashion-MNIST, HAR and SVHN).
Input: learning_curves.csv, made by ``benchmarks/learning_curves.py`` from the runs named there.
"""

from __future__ import annotations

from pathlib import Path

from common import column, run

from lpverify.plots.curves import Curves, learning_curves
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

# What the robust loss and error of each training are those of.
ROBUST = {"standard": "PGD", "pgd": "PGD", "dual": "dual bound", "ibp": "interval bound"}
COLUMNS = ("epoch", "error", "robust_error", "test_error", "test_robust_error", "test_robust_loss")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "learning_curves.csv", ("method", *COLUMNS))
    runs = {}
    for method in ROBUST:
        own = [line for line in lines if line["method"] == method]
        runs[method] = Curves(*(column(own, name) for name in COLUMNS))
    with styled():
        return save(learning_curves(runs, ROBUST), out / "learning_curves")


if __name__ == "__main__":
    run(main, __doc__)
