"""Pre-activation bounds of every neuron by every method, one npz file an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpverify.comparison.measure import Measured
from lpverify.files import write_npz
from lpverify.network import as_numpy


def layers_path(folder: Path, problem: str, eps: str, example: int) -> Path:
    """The file of one example of a problem at a radius."""
    return folder / f"{problem}-{eps}-{example}.npz"


def save_layers(path: Path, measured: Sequence[Measured]) -> None:
    """Write arrays "METHOD/NODE/lower" and "METHOD/NODE/upper" (n_k,), float64, for each ReLU's node; whole or not."""
    arrays: dict[str, NDArray[np.float64]] = {}
    for found in measured:
        for node, layer in found.layers.items():
            arrays[f"{found.method}/{node}/lower"] = as_numpy(layer.lower[0])
            arrays[f"{found.method}/{node}/upper"] = as_numpy(layer.upper[0])
    write_npz(path, arrays)


def read_layers(path: Path) -> dict[str, dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Lower and upper bounds (n_k,) by method and ReLU node."""
    found: dict[str, dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            method, node, side = key.split("/")
            if side == "lower":
                found.setdefault(method, {})[int(node)] = (arrays[key], arrays[f"{method}/{node}/upper"])
    return found
