"""Relative errors of the half widths that random projections estimate, and what one norm's distribution expects.

Source: thesis, figure 3.19. Input: projection_errors.csv, made by ``benchmarks/projections.py errors``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import column, run

from lpverify.plots.projections import Histogram, error_histograms
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

# The second layer is the first whose widths are estimated; the third has few unstable neurons.
LAYER = "2"
COLUMNS = ("layer", "estimator", "k", "bin_lower", "bin_upper", "count", "expected")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = [line for line in read_table(results / "projection_errors.csv", COLUMNS) if line["layer"] == LAYER]
    rows: dict[str, dict[int, Histogram]] = {}
    for estimator, k in dict.fromkeys((line["estimator"], line["k"]) for line in lines):
        chosen = [line for line in lines if (line["estimator"], line["k"]) == (estimator, k)]
        counts = column(chosen, "count")
        edges = np.append(column(chosen, "bin_lower"), float(chosen[-1]["bin_upper"]))
        name = {"median": "median", "geometric": "geometric mean"}[estimator]
        rows.setdefault(name, {})[int(k)] = Histogram(edges, counts / counts.sum(), column(chosen, "expected"))
    with styled():
        return save(error_histograms(rows), out / "projection_errors")


if __name__ == "__main__":
    run(main, __doc__)
