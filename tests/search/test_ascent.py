"""The dual bound of nodes: below every point of the node, its gradient, and children that lose nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import NETWORKS, samples
from relaxed_networks import ascend, network_of, node_values, random_nodes, region_of, relaxed_of

from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Box, LayerBounds
from lpverify.search.ascent import Nodes, Relaxed

REGIONS = ("inf", "1", "2")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def values_in_nodes(relaxed: Relaxed, nodes: Nodes, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each node's combined row at points (p, n_0): (B, p); and whether the point has the node's phases, (B, p)."""
    z, outputs = node_values(relaxed, points), relaxed.network.forward(points)
    rows = (nodes.weights.unsqueeze(1) @ relaxed.C[nodes.clause]).squeeze(1)
    values = rows @ outputs.T + (nodes.weights * relaxed.d[nodes.clause]).sum(1, keepdim=True)
    fits = (nodes.signs.unsqueeze(1) * z.unsqueeze(0) >= 0).all(2)
    return values, fits


@pytest.mark.parametrize("norm", REGIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_is_below_every_point_that_has_the_nodes_phases(name: str, norm: str) -> None:
    for seed in range(3):
        network = network_of(name, seed)
        relaxed, _ = relaxed_of(network, region_of(norm, network.input_size, seed), seed)
        nodes, own = random_nodes(relaxed, 24, seed)
        points = torch.cat([own, samples(relaxed.region, 200, seed + 9)[:, 0]])
        values, fits = values_in_nodes(relaxed, nodes, points)
        assert bool(fits.any(1).all())
        better, found = ascend(relaxed, nodes, 10, 0.3, 0.9)
        for batch, bound in ((nodes, relaxed.run(nodes).bound), (better, found.bound)):
            values, fits = values_in_nodes(relaxed, batch, points)
            # A point at the edge of the region may be outside by rounding.
            assert bool((bound.unsqueeze(1) <= values + 1e-9)[fits].all())


def test_without_splits_a_stable_network_is_bounded_exactly() -> None:
    network = network_of("affine", 0)
    relaxed, _ = relaxed_of(network, region_of("inf", 4, 0), 0)
    nodes, _ = random_nodes(relaxed, 4, 0)
    found = relaxed.run(nodes)
    values, _ = values_in_nodes(relaxed, nodes, found.x)
    torch.testing.assert_close(found.bound, values.diagonal(), **EXACT)


@pytest.mark.parametrize("norm", REGIONS)
@pytest.mark.parametrize("name", ["dense", "deep", "conv", "residual", "uneven-residual", "input-relu"])
def test_the_gradient_is_that_of_finite_differences(name: str, norm: str) -> None:
    network = network_of(name, 1)
    relaxed, _ = relaxed_of(network, region_of(norm, network.input_size, 1), 1)
    nodes, _ = random_nodes(relaxed, 6, 1)
    nodes = replace(nodes, splits=nodes.splits + 0.1 * (nodes.signs != 0))
    found = relaxed.run(nodes)
    free, sign = nodes.free.double(), nodes.signs.double()
    gradients = {
        "slopes": found.w.clamp(min=0) * found.z * free,
        "splits": -sign * found.z,
        "weights": relaxed.row_values(nodes.clause, found.outputs),
    }
    assert float(free.sum()) >= 6 and float(sign.abs().sum()) >= 3
    checked = 0
    for field, gradient in gradients.items():
        generator = torch.Generator().manual_seed(1)
        for _ in range(12):
            along = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            if field == "splits":
                along = along * (nodes.signs != 0)
            ends = [
                relaxed.run(replace(nodes, **{field: getattr(nodes, field) + step * along}), gradient=False).bound
                for step in (-1e-6, 1e-6)
            ]
            middle = relaxed.run(nodes, gradient=False).bound
            slopes = (ends[1] - middle) / 1e-6, (middle - ends[0]) / 1e-6
            # At a kink both sides differ; elsewhere they are the gradient.
            smooth = (slopes[0] - slopes[1]).abs() <= 1e-3 * (1 + slopes[0].abs())
            expected = (gradient * along).sum(1)
            torch.testing.assert_close(slopes[0][smooth], expected[smooth], rtol=1e-3, atol=1e-3)
            checked += int(smooth.sum())
    assert checked >= 0.8 * 3 * 12 * 6


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "affine"])
def test_no_child_is_below_its_parent_and_both_fix_the_column(name: str) -> None:
    """Where the row that arrives is positive; where it is negative the child's multiplier cannot be the parent's."""
    network = network_of(name, 2)
    relaxed, _ = relaxed_of(network, region_of("inf", network.input_size, 2), 2)
    nodes, _ = random_nodes(relaxed, 40, 2)
    compared, generator = 0, torch.Generator().manual_seed(3)
    while compared < 60:
        found = relaxed.run(nodes)
        allowed = nodes.free & (found.w >= 0)
        open_ = allowed.any(1).nonzero().flatten()
        if not len(open_):
            break
        nodes, found, allowed = nodes.select(open_), relaxed.run(nodes.select(open_)), allowed[open_]
        column = torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0).argmax(1)
        both, count = relaxed.children(nodes, found, column), len(nodes)
        children, every = relaxed.run(both), torch.arange(len(nodes))
        assert bool((children.bound >= found.bound.repeat(2) - 1e-9).all())
        assert bool((both.signs[every, column] == -1).all() and (both.signs[every + count, column] == 1).all())
        others = torch.ones_like(both.signs, dtype=torch.bool)
        others[torch.arange(2 * count), column.repeat(2)] = False
        assert torch.equal(both.signs[others], nodes.signs.repeat(2, 1)[others])
        assert bool((both.splits >= 0).all())
        nodes, best = ascend(relaxed, both, 5, 0.4, 0.9)
        assert bool((best.bound >= children.bound - 1e-12).all())
        compared += 2 * count
    assert compared >= 10


@pytest.mark.parametrize("name", ["dense", "residual", "conv"])
def test_no_child_is_below_its_parent_where_one_layer_has_exact_bounds(name: str) -> None:
    """With one layer between input and output every row may arrive."""
    network = Network(network_of(name, 2).nodes[:3])
    weight = torch.randn(3, network.output_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    last = Affine((2,), (Dense(weight),), torch.zeros(3, dtype=torch.float64), (3,))
    network = Network((*network.nodes, last))
    relaxed, _ = relaxed_of(network, region_of("inf", network.input_size, 2), 2)
    nodes, _ = random_nodes(relaxed, 20, 2, share=0.0)
    found = relaxed.run(nodes)
    for column in range(relaxed.width):
        children = relaxed.run(relaxed.children(nodes, found, torch.full((20,), column)))
        assert bool((children.bound >= found.bound.repeat(2) - 1e-9).all())


def test_warm_starts_keep_what_was_found() -> None:
    network = network_of("dense", 3)
    relaxed, _ = relaxed_of(network, region_of("inf", 5, 3), 3)
    nodes, _ = random_nodes(relaxed, 10, 3)
    # All far below 0, so that none leaves early.
    relaxed = Relaxed(network, relaxed.region, relaxed_of(network, relaxed.region, 3)[1], relaxed.C, relaxed.d - 1e3)
    once, first = ascend(relaxed, nodes, 30, 0.3, 0.95)
    again, second = ascend(relaxed, once, 0, 0.3, 0.95)
    torch.testing.assert_close(second.bound, first.bound, **EXACT)
    torch.testing.assert_close(relaxed.run(once).bound, first.bound, **EXACT)
    assert all(torch.equal(a, b) for a, b in zip(once.parts, again.parts, strict=True))
    _, third = ascend(relaxed, once, 30, 0.1, 0.95)
    assert bool((third.bound >= first.bound).all())
    assert bool((first.bound > relaxed.run(nodes).bound + 1e-3).all())


@pytest.mark.parametrize("name", ["dense", "residual", "conv"])
def test_variables_stay_what_they_are(name: str) -> None:
    network = network_of(name, 5)
    relaxed, _ = relaxed_of(network, region_of("inf", network.input_size, 5), 5)
    nodes, _ = random_nodes(relaxed, 20, 5)
    for steps, rate in ((1, 0.3), (25, 0.5), (10, 2.0)):
        better, found = ascend(relaxed, nodes, steps, rate, 0.97)
        assert bool(((better.slopes >= 0) & (better.slopes <= 1)).all())
        assert bool((better.splits >= 0).all() and (better.weights >= 0).all())
        torch.testing.assert_close(better.weights.sum(1), torch.ones(20, dtype=torch.float64), **EXACT)
        assert torch.equal(better.signs, nodes.signs) and torch.equal(better.clause, nodes.clause)
        assert bool((found.bound >= relaxed.run(nodes).bound - 1e-12).all())
    # What was given is not changed in its place.
    assert torch.equal(nodes.weights, random_nodes(relaxed, 20, 5)[0].weights)


def test_the_best_weights_of_rows_are_found() -> None:
    """One of three rows is far above the others everywhere: the clause's bound is that row's."""
    network = network_of("dense", 6)
    region = region_of("inf", 5, 6)
    relaxed, layers = relaxed_of(network, region, 6)
    d = torch.tensor([[0.0, 500.0, 0.0], [0.0, 0.0, 500.0]], dtype=torch.float64) - 1000
    relaxed = Relaxed(network, region, layers, relaxed.C, d)
    nodes, _ = random_nodes(relaxed, 12, 6, share=0.0)
    better, _ = ascend(relaxed, nodes, 60, 0.4, 0.97)
    best = torch.where(nodes.clause == 0, 1, 2)
    assert bool((better.weights.gather(1, best.unsqueeze(1)) > 0.9).all())


def test_nan_has_no_bound_and_others_keep_theirs() -> None:
    network = network_of("dense", 7)
    relaxed, _ = relaxed_of(network, region_of("inf", 5, 7), 7)
    nodes, _ = random_nodes(relaxed, 3, 7)
    slopes = nodes.slopes.clone()
    slopes[1] = torch.nan
    spoiled = replace(nodes, slopes=slopes)
    _, found = ascend(relaxed, spoiled, 5, 0.3, 0.9)
    _, clean = ascend(relaxed, nodes, 5, 0.3, 0.9)
    assert not bool(found.bound[1] > 0)
    torch.testing.assert_close(found.bound[[0, 2]], clean.bound[[0, 2]], **EXACT)


def test_phases_contradict_each_other_where_no_row_arrives() -> None:
    """x >= 1 and -x >= 1 below a neuron that is fixed inactive: its row ends there, and still the node is empty."""
    one = torch.ones(1, 1, dtype=torch.float64)
    network = Network((
        Input((1,)), Affine((0,), (Dense(torch.cat([one, -one])),), -torch.ones(2, dtype=torch.float64), (2,)), ReLU(1),
        Affine((2,), (Dense(torch.cat([one, one], 1)),), -0.5 * one[0], (1,)), ReLU(3),
        Affine((4,), (Dense(one),), 0 * one[0], (1,)),
    ))  # fmt: skip
    region = Box(-3 * one, 3 * one)
    layers = {2: LayerBounds(torch.full((1, 2), -4.0).double(), torch.full((1, 2), 2.0).double()),
              4: LayerBounds(-0.5 * one, 3.5 * one)}  # fmt: skip
    relaxed = Relaxed(network, region, layers, one.unsqueeze(0), -0.01 * one)
    zeros, signs = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[1, 1, -1]], dtype=torch.int8)
    node = Nodes(signs, zeros, zeros, one, torch.zeros(1, dtype=torch.int64), relaxed.lower[None], relaxed.upper[None])
    start = relaxed.run(node)
    assert not start.w[:, :2].any() and float(start.bound) == -0.01
    assert float(ascend(relaxed, node, 4, 0.4, 0.95)[1].bound) > 0
