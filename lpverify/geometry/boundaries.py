"""Where a network of two inputs gives which class, exactly: each linear region cut where two outputs are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.geometry.polygon import Polygon, split
from lpverify.geometry.regions import LinearRegion
from lpverify.geometry.union import Outline, outline

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
