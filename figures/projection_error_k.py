"""Errors over a training on the dual bound, exact and by k random projections, by epoch and by CPU time.

Source: thesis, figure 3.21. Input: projection_training.csv, made by ``benchmarks/projections.py training``.
"""

from __future__ import annotations

from pathlib import Path

from common import column, run

from lpverify.plots.projections import Training, training_by_k
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

COLUMNS = ("epoch", "test_error", "test_robust_error", "train_cpu_s")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it, of the first seed."""
    lines = read_table(results / "projection_training.csv", ("seed", "k", *COLUMNS))
    lines = [line for line in lines if line["seed"] == lines[0]["seed"]]
    runs = {}
    for k in dict.fromkeys(line["k"] for line in lines):
        chosen = [line for line in lines if line["k"] == k]
        runs[int(k)] = Training(*(column(chosen, name) for name in COLUMNS))
    with styled():
        return save(training_by_k(runs), out / "projection_error_k")


if __name__ == "__main__":
    run(main, __doc__)
