"""Robust error against eps for every method, between what attacks break and what certificates exclude.

Input: robust_error.csv, made by ``benchmarks/robust_error.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import column, run

from lpverify.plots.robust_error import Errors, robust_errors
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

METHODS = ("interval", "dual", "crown", "alpha", "search")
COLUMNS = ("network", "eps", "method", "examples", "uncertified", "falsified")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "robust_error.csv", COLUMNS)
    networks = {}
    for network in dict.fromkeys(line["network"] for line in lines):
        of = {
            method: sorted(
                (line for line in lines if (line["network"], line["method"]) == (network, method)),
                key=lambda line: float(line["eps"]),
            )
            for method in METHODS
        }
        search = of["search"]
        networks[network] = Errors(
            column(search, "eps"),
            {method: column(own, "uncertified") / column(own, "examples") for method, own in of.items()},
            column(search, "falsified") / column(search, "examples"),
        )
    with styled():
        return save(robust_errors(networks), out / "robust_error")


if __name__ == "__main__":
    run(main, __doc__)
