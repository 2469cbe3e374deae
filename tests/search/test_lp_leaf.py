"""Linear programs of nodes: with all phases fixed their value is the cell's own minimum, or says that it is empty."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from networks import dense
from numpy.typing import NDArray
from relaxed_networks import ascend
from scipy.optimize import linprog

from lpverify.bounds.root import root_bounds
from lpverify.certificate.rigorous_linear import Array
from lpverify.network import Affine, Network
from lpverify.problem import Box
from lpverify.search.ascent import Nodes, Relaxed
from lpverify.search.lp_leaf import LeafPrograms, LeafSolution

SIZES = (2, 3, 3, 1)


def numbers(network: Network) -> list[tuple[Array, Array]]:
    return [(node.maps[0].matrix().toarray(), node.bias.numpy()) for node in network.nodes if isinstance(node, Affine)]


def cell_minimum(network: Network, lower: Array, upper: Array, phases: NDArray[Any]) -> float | None:
    """The least output over the cell of these phases (+1 or -1, layer by layer); None if it is empty beyond 1e-7."""
    A, b, place, G, h = np.eye(len(lower)), np.zeros(len(lower)), 0, [], []
    layers = numbers(network)
    for weight, bias in layers[:-1]:
        A, b = weight @ A, weight @ b + bias
        sign = phases[place : place + len(b)]
        place += len(b)
        G.append(-sign[:, None] * A)
        h.append(sign * b)
        A, b = A * (sign > 0)[:, None], b * (sign > 0)
    weight, bias = layers[-1]
    box = list(zip(lower, upper, strict=True))
    solved = linprog((weight @ A)[0], np.vstack(G), np.concatenate(h) + 1e-7, bounds=box)
    return None if solved.status else float(solved.fun + (weight @ b + bias)[0])


def programs(
    network: Network, box: Box, signs: NDArray[np.int8], constant: float = 0.0
) -> tuple[list[LeafSolution | None], Any]:
    layers = root_bounds(network, box, "crown").layers
    places = np.cumsum([network.sizes[k] for k in network.relus])[:-1]
    split = dict(zip(network.relus, np.split(signs, places, axis=1), strict=True))
    job = LeafPrograms(
        box, {k: (layer.lower[0].numpy(), layer.upper[0].numpy()) for k, layer in layers.items()}, split,
        {k: np.ones(s.shape) for k, s in split.items()}, np.ones((1, 1, 1)), np.full((1, 1), constant),
        np.zeros(len(signs), np.int64), 60.0,
    )  # fmt: skip
    return job(network), layers


@pytest.mark.parametrize("seed", range(6))
def test_fixed_phases_give_the_cells_minimum_or_a_positive_bound(seed: int) -> None:
    network = dense(seed, *SIZES).detach().to(torch.float64)
    box = Box(torch.tensor([[-1.0, -0.5]]).double(), torch.tensor([[0.5, 1.0]]).double())
    layers = root_bounds(network, box, "crown").layers
    unstable = np.concatenate([layer.unstable[0].numpy() for layer in layers.values()])
    active = np.concatenate([layer.active[0].numpy() for layer in layers.values()])
    choices = [(-1, 1) if free else ((1,) if on else (-1,)) for free, on in zip(unstable, active, strict=True)]
    phases = np.array(list(itertools.product(*choices)), np.int8)
    # Far above 0, so that only emptiness can make a bound positive: the least output becomes -1.
    lower, upper = box.lower[0].numpy(), box.upper[0].numpy()
    least = [cell_minimum(network, lower, upper, row) for row in phases]
    shift = -1 - max(value for value in least if value is not None)
    found, _ = programs(network, box, np.where(unstable, phases, 0).astype(np.int8), shift)
    empty = 0
    for value, solution in zip(least, found, strict=True):
        assert solution is not None
        if value is None:
            empty += solution.bound > 0
        else:
            assert solution.bound <= value + shift + 1e-5
            # A cell as thin as the tolerance may count as empty.
            assert solution.bound >= value + shift - 1e-5
    assert empty >= 0.9 * sum(value is None for value in least)


@pytest.mark.parametrize("seed", range(4))
def test_duals_are_multipliers_of_the_node_and_the_point_attains_the_value(seed: int) -> None:
    """With nothing fixed the value is the best dual bound: none is above it, and ascent comes near."""
    network = dense(seed, 3, 6, 5, 1).detach().to(torch.float64)
    box = Box.linf(torch.zeros(1, 3, dtype=torch.float64), 0.6)
    ((solution,), layers) = programs(network, box, np.zeros((1, 11), np.int8), -100.0)
    assert solution is not None
    C, d = torch.ones(1, 1, 1).double(), torch.full((1, 1), -100.0).double()
    relaxed = Relaxed(network, box, layers, C, d)
    zero = torch.zeros(1, relaxed.width, dtype=torch.float64)
    bounds = (relaxed.lower[None], relaxed.upper[None])
    weights, clause = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    nodes = Nodes(zero.to(torch.int8), zero + 0.5, zero, weights, clause, *bounds)
    _, best = ascend(relaxed, nodes, 300, 0.1, 0.99)
    assert float(best.bound) <= solution.bound + 1e-6
    assert float(best.bound) >= solution.bound - 0.02 * (1 + abs(solution.bound + 100))
    x = torch.from_numpy(solution.x)[None]
    assert bool((x >= box.lower - 1e-7).all() and (x <= box.upper + 1e-7).all())


def test_no_time_gives_no_bounds() -> None:
    network = dense(0, *SIZES).detach().to(torch.float64)
    box = Box.linf(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    layers = root_bounds(network, box, "crown").layers
    ranges = {k: (layer.lower[0].numpy(), layer.upper[0].numpy()) for k, layer in layers.items()}
    signs = {k: np.zeros((2, 3), np.int8) for k in layers}
    ones = {k: np.ones((2, 3)) for k in layers}
    row, which = np.ones((1, 1, 1)), np.zeros(2, np.int64)
    assert LeafPrograms(box, ranges, signs, ones, row, np.zeros((1, 1)), which, 0.0)(network) == [None, None]
