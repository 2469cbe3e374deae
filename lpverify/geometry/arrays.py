"""Rings of points in arrays, and their files' arrays: how pictures are kept between measuring and drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.geometry.polygon import Array

Arrays = dict[str, NDArray[Any]]


def pack(name: str, rings: Sequence[Array]) -> Arrays:
    """Rings (k, 2) as two arrays: ``name`` with all points, one ring after the other, and ``name.counts``."""
    points = np.concatenate(rings) if len(rings) else np.zeros((0, 2))
    return {name: points, f"{name}.counts": np.array([len(ring) for ring in rings], np.int64)}


def unpack(arrays: Arrays, name: str) -> list[Array]:
    """The rings that ``pack`` put there."""
    return list(np.split(arrays[name], np.cumsum(arrays[f"{name}.counts"])[:-1])) if len(arrays[name]) else []


def read_arrays(path: Path, prefix: str = "") -> Arrays:
    """The arrays of a file whose names begin with ``prefix``, without it."""
    with np.load(path, allow_pickle=False) as file:
        return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
