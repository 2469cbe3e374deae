"""The set of two outputs over an input set (the "adversarial polytope"), and the polygons that methods enclose it in.

Of a network of two inputs and an l-infinity ball the set is exact: the union of the images of the linear regions. Of
more inputs it is not known; points of it are found by attacks towards every direction and at random, which only shows
where the set is at least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from lpverify.attack import attack
from lpverify.attack.steepest import random_point
from lpverify.bounds.base import AbstractBoundMethod
from lpverify.geometry.arrays import Arrays, pack, unpack
from lpverify.geometry.outer import DIRECTIONS, directions, outer_polygon
from lpverify.geometry.polygon import Array, area, rectangle
from lpverify.geometry.regions import linear_regions
from lpverify.geometry.union import outline
from lpverify.network import Network
from lpverify.problem import Box, Region, Specification

OUTER = "outer."
# A set is taken to be at least so many times as wide as it is long.
FLATTEST = 1e-6


@dataclass(frozen=True, eq=False)
class Polytope:
    """Two outputs over an input set.

    Attributes:
        rings: the outline of the exact set, counter-clockwise around it and clockwise around holes; empty where only
            points are known.
        area: of the exact set; NaN where only points are known.
        points: (N, 2) outputs at random inputs.
        attacked: (M, 2) outputs at inputs that attacks found.
        center: (2,) the outputs at the middle of the input set.
        outer: by method, a polygon (k, 2) that contains the set.
        regions: how many linear regions the input set has; 0 where they were not enumerated.
    """

    rings: tuple[Array, ...]
    area: float
    points: Array
    attacked: Array
    center: Array
    outer: Mapping[str, Array] = field(default_factory=dict)
    regions: int = 0

    def arrays(self) -> Arrays:
        """As arrays for a file."""
        return {
            **pack("rings", self.rings),
            "area": np.array(self.area),
            "points": self.points,
            "attacked": self.attacked,
            "center": self.center,
            "regions": np.array(self.regions),
            **{OUTER + name: polygon for name, polygon in self.outer.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Polytope:
        """From what ``arrays`` made."""
        outer = {name.removeprefix(OUTER): array for name, array in arrays.items() if name.startswith(OUTER)}
        return cls(
            tuple(unpack(arrays, "rings")), float(arrays["area"]), arrays["points"], arrays["attacked"],
            arrays["center"], outer, int(arrays["regions"]),
        )  # fmt: skip

    def looseness(self, method: str) -> float:
        """The area of the method's polygon over that of the exact set."""
        return area(self.outer[method]) / self.area


def polytope(
    network: Network,
    region: Region,
    rows: Array,
    methods: Mapping[str, AbstractBoundMethod],
    *,
    count: int = DIRECTIONS,
    samples: int = 2000,
    steps: int = 40,
    seed: int = 0,
) -> Polytope:
    """The set of rows . f(x) over the region of one example, or points of it, with the methods' outer polygons.

    Args:
        rows: (2, n_K) the two combinations of the outputs, as in ``outer.picked``.
        methods: what encloses the set, by the names to keep.
        count: directions of the outer polygons, and of the attacks.
        samples: random points, where the set is not exact.
        steps: of each attack.
    """
    network = network.detach()
    center = _outputs(network, region.box.center, rows)[0]
    rings: list[Array] = []
    exact, images = float("nan"), []
    points = attacked = np.zeros((0, 2))
    if network.input_size == 2 and isinstance(region, Box):
        lower, upper = (end[0].double().cpu().numpy() for end in (region.lower, region.upper))
        images = [found.outputs() @ rows.T for found in linear_regions(network, rectangle(lower, upper))]
        edge = outline(images)
        rings, exact = edge.rings(), edge.area
    else:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(samples, network.input_size, generator=generator, dtype=torch.float64).to(region.lower)
        points = _outputs(network, random_point(region.select([0] * samples), noise), rows)
        x = _attack(network, region, np.linalg.inv(_frame(points)) @ rows, count, steps, seed)
        attacked = _outputs(network, x, rows)
    frame = _frame(np.concatenate([*images, points, attacked]))
    turned = np.linalg.inv(frame) @ rows
    outer = {
        name: outer_polygon(network, region, method, turned, count) @ frame.T for name, method in methods.items()
    }
    return Polytope(tuple(rings), exact, points, attacked, center, outer, len(images))


def _frame(points: Array) -> Array:
    """A symmetric (2, 2) matrix that makes the unit disc as long and thin as points (N, 2), and turns it alike.

    Directions are even in its coordinates: however thin the set is, its polygons have corners all around.
    """
    spread = points - points.mean(axis=0)
    values, vectors = np.linalg.eigh(spread.T @ spread / len(points))
    lengths = np.sqrt(np.maximum(values, FLATTEST**2 * values.max()))
    found: Array = (vectors * lengths) @ vectors.T if values.max() > 0 else np.eye(2)
    return found


def _attack(network: Network, region: Region, rows: Array, count: int, steps: int, seed: int) -> torch.Tensor:
    """Inputs (count, n_0) that attacks find furthest in each direction of the two combinations ``rows``."""
    towards = torch.as_tensor(directions(count) @ rows)[:, None].to(region.lower)
    found = attack(
        network, region.select([0] * count), Specification(towards, towards.new_zeros(count, 1)),
        steps=steps, restarts=1, seed=seed, early_stop=False,
    )  # fmt: skip
    return found.points


def _outputs(network: Network, x: torch.Tensor, rows: Array) -> Array:
    """rows . f(x) of inputs (N, n_0): (N, 2)."""
    with torch.no_grad():
        values: Array = network.forward(x).double().cpu().numpy() @ rows.T
    return values
