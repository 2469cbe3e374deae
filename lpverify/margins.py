"""Tables of margins by several methods, as rows of text for the screen and for CSV files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = tuple[list[str], list[list[str]]]
Margins = Mapping[str, NDArray[np.float64]]


def least_rows(indices: NDArray[Any], labels: NDArray[Any], table: Margins) -> Rows:
    """Header and rows: an example's index, label and least margin (N, m) by each method; last, how many are > 0."""
    least = {name: margins.min(axis=1) for name, margins in table.items()}
    rows = [
        [str(index), str(label), *(f"{values[i]:.6g}" for values in least.values())]
        for i, (index, label) in enumerate(zip(indices, labels, strict=True))
    ]
    positive = [f"{int((values > 0).sum())}/{len(values)}" for values in least.values()]
    return ["index", "label", *table], [*rows, ["all", "> 0:", *positive]]


def margin_rows(indices: NDArray[Any], labels: NDArray[Any], table: Margins) -> Rows:
    """Header and rows of every single margin: index, label, target class, one column a method."""
    rows = []
    classes = next(iter(table.values())).shape[1] + 1
    for i, (index, label) in enumerate(zip(indices, labels, strict=True)):
        targets = [c for c in range(classes) if c != label]
        for row, target in enumerate(targets):
            values = [repr(float(margins[i, row])) for margins in table.values()]
            rows.append([str(index), str(label), str(target), *values])
    return ["index", "label", "target", *table], rows
