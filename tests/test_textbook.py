"""The text-book formulation between CROWN and the exact minimum by enumeration; its binary form attains the latter."""

from __future__ import annotations

import math
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from networks import NETWORKS, Array, Random, chain, dense, enumerate_minimum, pieces, samples

from lpverify.bounds import CrownBound, IntervalBound
from lpverify.errors import ShapeError, UsageError
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU, as_numpy
from lpverify.problem import Box, LayerBounds, Region, Specification, ball
from lpverify.textbook import textbook

# Solvers take rows for satisfied within 1e-7 (HiGHS) or 1e-8 (Clarabel); minima here are of size 1.
SOLVED = 1e-6
SEEDS = range(3)


def input_relu(seed: int) -> Network:
    """A chain that begins with a ReLU."""
    r = Random(seed)
    return Network((
        Input((3,)), ReLU(0), r.affine((1,), r.dense(3, 4)), ReLU(2), r.affine((3,), r.dense(4, 2)), ReLU(4),
    ))  # fmt: skip


CHAINS = {name: NETWORKS[name] for name in ("affine", "deep", "sparse-diagonal", "dead-units")} | {
    "input-relu": input_relu,
    "wide": lambda seed: dense(seed, 2, 6, 5, 2),
}


def case(name: str, seed: int, norm: str = "inf", clip: tuple[float, float] | None = None) -> tuple[Any, ...]:
    """A network, the region of one example, its label claim, CROWN's answer and the claim's first row."""
    network = CHAINS[name](seed).to(torch.float64)
    x = torch.rand(1, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    region = ball(x, {"inf": 0.5, "2": 0.7, "1": 1.1}[norm], norm, clip)
    spec = Specification.label(network.forward(x).argmax(1), network.output_size)
    crown = CrownBound().bound(network, region, spec)
    return network, region, crown, as_numpy(spec.C[0, 0]), 0.25


def solved(problem: cp.Problem) -> float:
    """The optimum. The presolve of HiGHS 1.14.0 reduces some MILPs wrongly (its issue 2957): none is used."""
    if problem.is_mixed_integer():
        problem.solve(solver=cp.HIGHS, highs_options={"presolve": "off", "mip_rel_gap": 0.0})
    else:
        problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return float(problem.value)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CHAINS)
def test_on_boxes(name: str, seed: int) -> None:
    network, region, crown, c, d = case(name, seed)
    least, _ = enumerate_minimum(network, as_numpy(region.lower[0]), as_numpy(region.upper[0]), c, d)
    relaxed = solved(textbook(network, region, crown.layers, c, d)[0])
    assert float(crown.margins[0, 0]) + d <= relaxed + SOLVED
    assert relaxed <= least + SOLVED
    problem, values = textbook(network, region, crown.layers, c, d, milp=True)
    assert math.isclose(solved(problem), least, abs_tol=SOLVED)
    # The variables are the nodes' values at the point that was found.
    exact = network.values(torch.as_tensor(values[0].value).unsqueeze(0))
    for value, want in zip(values, exact, strict=True):
        np.testing.assert_allclose(value.value, as_numpy(want[0]), atol=SOLVED)


def test_the_relaxation_is_what_the_inequalities_say() -> None:
    """Over [-1, 2] the triangle's upper side is 2 (x + 1) / 3: at x = 0 relu(x) may rise to 2/3, and -relu(x) fall."""
    one = torch.ones(1, 1, dtype=torch.float64)
    network = Network((Input((1,)), ReLU(0), Affine((1,), (Dense(one),), torch.zeros(1).double(), (1,))))
    layers = {1: LayerBounds(-one, 2 * one)}
    problem, values = textbook(network, Box(0 * one, 0 * one), layers, -np.ones(1))
    assert math.isclose(solved(problem), -2 / 3, abs_tol=SOLVED)
    assert np.allclose([z.value[0] for z in values], [0, 2 / 3, 2 / 3], atol=SOLVED)
    problem, _ = textbook(network, Box(0 * one, 0 * one), layers, -np.ones(1), milp=True)
    assert math.isclose(solved(problem), 0, abs_tol=SOLVED)


def least_in_ball(network: Network, region: Any, c: Array, d: float) -> float:
    """The exact minimum over a ball: the least over the linear pieces, each a problem of its own."""
    found = math.inf
    for piece in pieces(network, as_numpy(region.lower[0]), as_numpy(region.upper[0])):
        x = cp.Variable(network.input_size)
        inside = [x >= as_numpy(region.lower[0]), x <= as_numpy(region.upper[0])]
        inside += [cp.norm(x - as_numpy(region.point[0]), int(region.norm)) <= float(region.eps)]
        inside += [piece.G @ x <= piece.h] if len(piece.h) else []
        problem = cp.Problem(cp.Minimize((c @ piece.A) @ x + c @ piece.b + d), inside)
        problem.solve(solver=cp.HIGHS if region.norm == "1" else cp.CLARABEL)
        if problem.status == cp.OPTIMAL:
            found = min(found, float(problem.value))
    return found


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("norm", ["1", "2"])
@pytest.mark.parametrize("name", ["affine", "deep", "wide"])
def test_on_balls(name: str, norm: str, clip: tuple[float, float] | None) -> None:
    network, region, crown, c, d = case(name, 1, norm, clip)
    least = least_in_ball(network, region, c, d)
    relaxed = solved(textbook(network, region, crown.layers, c, d)[0])
    assert float(crown.margins[0, 0]) + d <= relaxed + SOLVED
    assert relaxed <= least + SOLVED
    if norm == "1":
        problem, _ = textbook(network, region, crown.layers, c, d, milp=True)
        assert math.isclose(solved(problem), least, abs_tol=SOLVED)


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
def test_convolutions_are_between_crown_and_samples(norm: str) -> None:
    network = NETWORKS["conv"](2).to(torch.float64)
    x = torch.rand(1, network.input_size, generator=torch.Generator().manual_seed(5)).double()
    region = ball(x, {"inf": 0.1, "2": 0.3, "1": 0.5}[norm], norm, (0.0, 1.0))
    spec = Specification.label(network.forward(x).argmax(1), network.output_size)
    crown = CrownBound().bound(network, region, spec)
    points = network.forward(samples(region, 500, 0).flatten(0, 1))
    for row in range(2):
        c = as_numpy(spec.C[0, row])
        relaxed = solved(textbook(network, region, crown.layers, c)[0])
        assert float(crown.margins[0, row]) <= relaxed + SOLVED
        assert relaxed <= float((points @ spec.C[0, row]).min()) + SOLVED


def test_tighter_layers_give_a_tighter_relaxation() -> None:
    network, region, crown, c, d = case("wide", 3)
    loose = IntervalBound().bound(network, region, Specification.label(torch.tensor([0]), 2)).layers
    values = [solved(textbook(network, region, layers, c, d)[0]) for layers in (loose, crown.layers)]
    exact = [solved(textbook(network, region, layers, c, d, milp=True)[0]) for layers in (loose, crown.layers)]
    assert values[0] < values[1] - 1e-3 and math.isclose(*exact, abs_tol=SOLVED)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("residual", "node 5 reads nodes 4, 2, not node 4 alone"),
        ("shared-affine", "node 3 reads nodes 1, not node 2 alone"),
        ("affine-affine", "node 4 reads no node, not node 3 alone"),
    ],
)
def test_graphs_that_are_no_chain_are_refused(name: str, message: str) -> None:
    network = NETWORKS[name](0)
    box = Box(torch.zeros(1, network.input_size), torch.ones(1, network.input_size))
    with pytest.raises(UsageError, match=message):
        textbook(network, box, {}, np.ones(network.output_size))


@pytest.mark.parametrize(("batch", "columns", "message"), [(2, 3, "has 2 examples"), (1, 2, r"c has shape \(2,\)")])
def test_other_shapes_are_refused(batch: int, columns: int, message: str) -> None:
    network = chain(Random(0), (4,), Random(0).dense(4, 3))
    region: Region = Box(torch.zeros(batch, 4), torch.ones(batch, 4))
    with pytest.raises(ShapeError, match=message):
        textbook(network, region, {}, np.ones(columns))
