"""Clean, attacked and certified errors of the shipped digits networks.

Source: the tutorial's bars. Input: cards.csv, made by ``benchmarks/cards.py`` from the model cards.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.plots.bars import KINDS, error_bars
from lpverify.plots.source import read_table
from lpverify.plots.style import TRAINED, save, styled

ORDER = ("standard", "pgd", "dual", "ibp")


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    kinds = tuple(kind for kind, *_ in KINDS)
    lines = {line["network"]: line for line in read_table(results / "cards.csv", ("network", *kinds))}
    networks = {
        TRAINED[name].label: {kind: float(lines[f"digits-{name}"][kind]) for kind in kinds} for name in ORDER
    }
    with styled():
        return save(error_bars(networks), out / "errors")


if __name__ == "__main__":
    run(main, __doc__)
