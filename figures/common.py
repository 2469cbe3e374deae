"""What the scripts of this folder share: where results are and pictures go, and columns of a CSV as arrays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpverify.plots.source import number

ROOT = Path(__file__).resolve().parents[1]
RESULTS, OUT = ROOT / "benchmarks" / "results", ROOT / "figures" / "out"


def column(lines: Iterable[dict[str, str]], name: str) -> NDArray[np.float64]:
    """A column of a CSV's lines as numbers, NaN where a cell is empty."""
    return np.array([number(line[name]) for line in lines])


def run(main: Callable[[Path, Path], object], description: str | None) -> None:
    """Call a script's ``main`` with the folders given on the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the files that are drawn")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures")
    arguments = parser.parse_args()
    main(arguments.results, arguments.out)
