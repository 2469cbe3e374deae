"""Errors and robust losses of four trainings on digits by epoch.

Source: Wong & Kolter 2018, figures 4 and 12 to 14 (theirs on MNIST, Fashion-MNIST, HAR and SVHN).
Robust errors on the training set are at the radius of their epoch, which rises; those on the test set at the last one.
Input: learning_curves.csv, made by ``benchmarks/learning_curves.py`` from the runs named there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import column, run

from lpverify.plots.curves import Curves, learning_curves
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

# What the robust loss and error of each training are those of.
ROBUST = {"standard": "PGD", "pgd": "PGD", "dual": "dual bound", "ibp": "interval bound"}
COLUMNS = ("epoch", "error", "robust_error", "test_error", "test_robust_error", "test_robust_loss")
FIELDS = {name: "epochs" if name == "epoch" else name for name in COLUMNS}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "learning_curves.csv", ("method", *COLUMNS))
    runs = {}
    for method in ROBUST:
        own = [line for line in lines if line["method"] == method]
        found = {name: column(own, name) for name in COLUMNS}
        if method == "standard":
            # Its loss is no robust one: what its file has there is the error again.
            found["robust_error"] = np.full(len(own), np.nan)
        runs[method] = Curves(**{FIELDS[name]: values for name, values in found.items()})
    with styled():
        return save(learning_curves(runs, ROBUST), out / "learning_curves")


if __name__ == "__main__":
    run(main, __doc__)
