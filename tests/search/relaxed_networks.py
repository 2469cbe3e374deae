"""Relaxed networks of every shape with random nodes for the tests of phase splits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from networks import CLASSES, NETWORKS, samples

from lpverify.bounds.root import root_bounds
from lpverify.network import Network
from lpverify.problem import LayerBounds, Region, ball
from lpverify.search.ascent import Nodes, Pass, Relaxed, Schedule

CLAUSES, ROWS = 2, 3


def network_of(name: str, seed: int) -> Network:
    return NETWORKS[name](seed).detach().to(torch.float64)


def region_of(norm: str, inputs: int, seed: int) -> Region:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, inputs, generator=generator, dtype=torch.float64)
    return ball(x.clamp(-1.5, 1.5), 0.5 if norm == "inf" else 1.0, norm, (-1.5, 1.5))


def relaxed_of(network: Network, region: Region, seed: int) -> tuple[Relaxed, Mapping[int, LayerBounds]]:
    """A relaxed network with CROWN's bounds and random rows of CLAUSES clauses."""
    generator = torch.Generator().manual_seed(seed + 1)
    layers = root_bounds(network, region, "crown").layers
    C = torch.randn(CLAUSES, ROWS, CLASSES, generator=generator, dtype=torch.float64)
    d = torch.randn(CLAUSES, ROWS, generator=generator, dtype=torch.float64)
    return Relaxed(network, region, layers, C, d), layers


def node_values(relaxed: Relaxed, points: torch.Tensor) -> torch.Tensor:
    """The pre-activations of the columns at points (p, n_0): (p, K)."""
    network = relaxed.network
    values = network.values(points)
    parts = [values[network.sources(k)[0]][:, at] for k, at in relaxed.columns.items()]
    return torch.cat([*parts, points[:, :0]], 1)


def random_nodes(relaxed: Relaxed, count: int, seed: int, share: float = 0.4) -> tuple[Nodes, torch.Tensor]:
    """Nodes with random variables, a ``share`` of the columns fixed as at a point of the region: and these points."""
    generator = torch.Generator().manual_seed(seed + 2)
    points = samples(relaxed.region, count, seed)[:, 0]
    at_point = node_values(relaxed, points)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    width = relaxed.width
    fixed = uniform(count, width) < share
    signs = torch.where(at_point >= 0, 1, -1).masked_fill(~fixed, 0).to(torch.int8)
    weights = uniform(count, ROWS) + 0.01
    bounds = (side.expand(count, -1) for side in (relaxed.lower, relaxed.upper))
    clause = torch.randint(0, CLAUSES, (count,), generator=generator)
    nodes = Nodes(
        signs, uniform(count, width), 2 * uniform(count, width) * fixed, weights / weights.sum(1, keepdim=True), clause,
        *bounds,
    )  # fmt: skip
    return nodes, points


def ascend(relaxed: Relaxed, nodes: Nodes, steps: int, rate: float, decay: float) -> tuple[Nodes, Pass]:
    return relaxed.ascend(nodes, Schedule(steps, rate, decay))
