"""Where a network of two inputs gives which class, exactly: each linear region cut where two outputs are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpverify.geometry.arrays import Arrays, pack, unpack
from lpverify.geometry.polygon import Array, Polygon, rectangle, split
from lpverify.geometry.regions import LinearRegion, linear_regions
from lpverify.geometry.union import Outline, outline
from lpverify.network import Network

# Outputs that differ by less than this, times their size on the region, count as equal.
TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Areas:
    """The parts of a polygon that go to each class.

    Attributes:
        polygons: by class, convex polygons (k, 2) that do not overlap and together are the class's part.
    """

    polygons: tuple[tuple[Polygon, ...], ...]

    def outlines(self) -> tuple[Outline, ...]:
        """The outline of every class's part: where it is not the border of the whole, a decision boundary."""
        return tuple(outline(parts) for parts in self.polygons)


def class_areas(regions: Sequence[LinearRegion]) -> Areas:
    """Cut regions by their greatest output; where several are greatest all over, the first of them has the region."""
    classes = len(regions[0].b) if regions else 0
    parts: list[list[Polygon]] = [[] for _ in range(classes)]
    for region in regions:
        outputs = region.outputs()
        for label in range(classes):
            part = _part(region, label, TOLERANCE * float(np.abs(outputs).max()))
            if len(part):
                parts[label].append(part)
    return Areas(tuple(map(tuple, parts)))


def _part(region: LinearRegion, label: int, slack: float) -> Polygon:
    """Where no output is greater than that of ``label``; a tie all over goes to the first."""
    part = region.polygon
    for other in range(len(region.b)):
        if other == label:
            continue
        lead = part @ (region.A[label] - region.A[other]) + (region.b[label] - region.b[other])
        if bool((np.abs(lead) <= slack).all()):
            part = part if label < other else np.zeros((0, 2))
        else:
            part = split(part, lead, slack)[1]
        if not len(part):
            break
    return part


@dataclass(frozen=True, eq=False)
class Boundaries:
    """The classes over a window, and balls about examples.

    Attributes:
        lower, upper: (2,) the window's corners.
        rings: by class, the outline of its part of the window.
        areas: (classes,) the area of each part.
        x: (N, 2) examples.
        y: (N,) their labels.
        eps, norm: of the balls.
        verdicts: (N,) what is known of each ball, "verified", "falsified" or "unknown".
        regions: how many linear regions the window has.
    """

    lower: Array
    upper: Array
    rings: tuple[tuple[Array, ...], ...]
    areas: Array
    x: Array
    y: NDArray[np.int64]
    eps: float
    norm: str
    verdicts: NDArray[np.str_]
    regions: int

    def arrays(self) -> Arrays:
        """As arrays for a file."""
        found: Arrays = {
            "lower": self.lower, "upper": self.upper, "areas": self.areas, "x": self.x, "y": self.y,
            "eps": np.array(self.eps), "norm": np.array(self.norm), "verdicts": self.verdicts,
            "regions": np.array(self.regions),
        }  # fmt: skip
        for label, rings in enumerate(self.rings):
            found |= pack(f"rings{label}", rings)
        return found

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Boundaries:
        """From what ``arrays`` made."""
        rings = tuple(tuple(unpack(arrays, f"rings{label}")) for label in range(len(arrays["areas"])))
        return cls(
            arrays["lower"], arrays["upper"], rings, arrays["areas"], arrays["x"], arrays["y"], float(arrays["eps"]),
            str(arrays["norm"]), arrays["verdicts"], int(arrays["regions"]),
        )  # fmt: skip


def boundaries(
    network: Network,
    window: tuple[Array, Array],
    x: Array,
    y: NDArray[np.int64],
    *,
    eps: float,
    norm: str,
    verdicts: Sequence[str],
) -> Boundaries:
    """The classes of a network of two inputs over a window (lower and upper corner), with what is known of the balls.

    Raises:
        ShapeError: if the network has other than two inputs.
        ResourceError: if the window has too many linear regions.
    """
    regions = linear_regions(network, rectangle(*window))
    outlines = class_areas(regions).outlines()
    return Boundaries(
        *window, tuple(tuple(edge.rings()) for edge in outlines), np.array([edge.area for edge in outlines]),
        x.reshape(len(x), -1).astype(np.float64), y, eps, norm, np.array(verdicts, np.str_), len(regions),
    )  # fmt: skip


def window_about(x: Array, eps: float) -> tuple[Array, Array]:
    """A square (lower and upper corner) around all balls of the points (N, 2), with a margin of a twentieth."""
    lower, upper = x.min(axis=0) - eps, x.max(axis=0) + eps
    middle, half = (lower + upper) / 2, float((upper - lower).max()) / 2 * 1.05 or 1.0
    return middle - half, middle + half
