"""Errors by several bounds and mean gaps to the exact margin, of one-hidden-layer networks trained at several radii.

Source: thesis, table 3.3, here on digits. Input: tightness_training.csv, made by ``benchmarks/tightness_training.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import column, run

from lpverify.plots.after_training import ByRadius, tightness_by_radius
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

ERRORS = {"clean": "clean_error", "attack": "pgd_error", "lp": "lp_error", "dual": "dual_error"}
NAMES = {"dual": "trained on the dual at the radius", "standard": "standard training"}
COLUMNS = (
    "trained", "eps", "images", "falsified", "unknown", "exact_margin", "lp_margin", "dual_margin", *ERRORS.values()
)  # fmt: skip
# The MILP's own gap: less is no difference.
LEAST_GAP = 1e-4


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "tightness_training.csv", COLUMNS)
    networks = {}
    for trained, label in NAMES.items():
        chosen = [line for line in lines if line["trained"] == trained]
        errors = {method: column(chosen, name) for method, name in ERRORS.items()}
        # What is neither verified nor falsified counts as an error; there was none so far.
        undecided = column(chosen, "falsified") + column(chosen, "unknown")
        errors["exact"] = undecided / column(chosen, "images")
        exact = column(chosen, "exact_margin")
        gaps = {name: np.maximum(exact - column(chosen, f"{name}_margin"), LEAST_GAP) for name in ("lp", "dual")}
        networks[label] = ByRadius(column(chosen, "eps"), errors, gaps)
    with styled():
        return save(tightness_by_radius(networks), out / "tightness_training")


if __name__ == "__main__":
    run(main, __doc__)
