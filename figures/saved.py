"""Panels of the figures whose data are arrays, read from their npz files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lpverify.geometry.arrays import read_arrays
from lpverify.geometry.boundaries import Boundaries
from lpverify.geometry.polytope import Polytope

RADII = ("0.05", "0.1", "0.25")


def boundary_panels(results: Path, names: Mapping[str, str]) -> dict[str, Boundaries]:
    """From boundaries.npz, by the titles that ``names`` has for each."""
    path = results / "boundaries.npz"
    return {title: Boundaries.from_arrays(read_arrays(path, f"{name}/")) for name, title in names.items()}


def polytope_panels(results: Path, names: Mapping[str, str]) -> list[list[tuple[str, Polytope]]]:
    """From polytopes.npz: a row for each network, with what ``names`` calls it, a column for each radius."""
    path = results / "polytopes.npz"
    return [
        [(f"{said}, eps {eps}", Polytope.from_arrays(read_arrays(path, f"{name}/{eps}/"))) for eps in RADII]
        for name, said in names.items()
    ]
