"""The largest eps that each bound certifies on test examples, with the bracket of the exact radius and the attack.

Source: Wong & Kolter 2018, figure 5 (theirs: the dual alone). Input: radii.csv, made by ``benchmarks/radii.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import column, run

from lpverify.plots.radius import Radii, radius_curves
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

CERTIFYING = ("dual", "crown", "lp-tight")
COLUMNS = ("network", "method", "example", "certified", "attacked")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it: of each network the examples that every method has."""
    lines = read_table(results / "radii.csv", COLUMNS)
    networks = {}
    for network in dict.fromkeys(line["network"] for line in lines):
        of = {
            method: {line["example"]: line for line in lines if (line["network"], line["method"]) == (network, method)}
            for method in (*CERTIFYING, "search")
        }
        common = [example for example in of["search"] if all(example in found for found in of.values())]
        if not common:
            continue
        chosen = {method: [found[example] for example in common] for method, found in of.items()}
        networks[f"{network}, {len(common)} examples"] = Radii(
            {method: column(chosen[method], "certified") for method in CERTIFYING},
            column(chosen["crown"], "attacked"),
            (
                np.fmax(column(chosen["search"], "certified"), column(chosen["lp-tight"], "certified")),
                np.fmin(column(chosen["search"], "attacked"), column(chosen["lp-tight"], "attacked")),
            ),
        )
    with styled():
        return save(radius_curves(networks), out / "radii")


if __name__ == "__main__":
    run(main, __doc__)
