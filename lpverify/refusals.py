"""Examples that cannot be used by themselves: which, and why, so that a run may go on without them.

Every function goes by position in the data. Nothing is repaired or guessed: a refused example gets no verdict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A value above this, where the clip says that values end at 1, is no pixel in [0, 1] with noise.
BEYOND_ONE = 1.5
# From this share of examples with such values on, it is the data set's scale that is wrong.
SCALE_SHARE = 0.1


def not_finite(x: Array) -> dict[int, str]:
    """Examples of x (N, ...) with a value that is NaN or infinite."""
    rows = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1)).tolist()
    found = {}
    for i in rows:
        place = tuple(np.argwhere(~np.isfinite(x[i]))[0].tolist())
        found[i] = f"input {place} is {x[i][place]}"
    return found


def whole_labels(y: Array) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Labels y (N,) of any real dtype as integers, and those that are none; these become -1."""
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(y) & (np.floor(y) == y) if y.dtype.kind == "f" else np.ones(len(y), bool)
        fits = whole & (np.abs(y.astype(np.float64)) < 2.0**53)
    labels = np.full(len(y), -1, np.int64)
    labels[fits] = y[fits].astype(np.int64)
    return labels, {i: f"label {y[i]} is no class number" for i in np.flatnonzero(~fits).tolist()}


def wrong_labels(y: NDArray[np.int64], classes: int) -> dict[int, str]:
    """Labels y (N,) that are no class."""
    bad = np.flatnonzero((y < 0) | (y >= classes)).tolist()
    return {i: f"label {y[i]} is not in 0..{classes - 1}" for i in bad}


def outside(x: Array, eps: str, clip: tuple[str, str]) -> dict[int, int]:
    """Examples of x (N, ...) further than eps outside the clip, of whose balls nothing is left: an input of each."""
    flat = x.reshape(len(x), -1)
    bad = (flat < float(clip[0]) - float(eps)) | (flat > float(clip[1]) + float(eps))
    return {i: int(bad[i].argmax()) for i in np.flatnonzero(bad.any(1)).tolist()}


def beyond_one(x: Array, clip: tuple[str, str]) -> dict[int, float]:
    """Examples of x (N, ...) with finite values far above a clip that ends at 1 or below: the largest of each."""
    if float(clip[1]) > 1:
        return {}
    largest = np.where(np.isfinite(x), x, -np.inf).reshape(len(x), -1).max(1)
    return {i: float(largest[i]) for i in np.flatnonzero(largest > BEYOND_ONE).tolist()}
