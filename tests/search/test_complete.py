"""Complete verification decides: on 1,000 random tiny networks every verdict is that of exact enumeration.

The least margin of each claim is placed at a known share of the spread of its margins above or below 0, so that the
right verdict is known. ``enumeration`` finds least margins by cutting the input set into cells where all is linear.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from deciding import decide
from enumeration import Cell, box_cell, cells, least, margin
from networks import dense, enumerate_minimum, shared_affine
from tiny_claims import KINDS, SHAPES, settled, tiny

from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, LinearRows
from lpverify.certificate.rigorous_region import regions
from lpverify.problem import ball
from lpverify.result import Verdict
from lpverify.search.route import Route
from lpverify.serialize import raw_array

# How many networks of each shape: 1,000 in all.
COUNTS = {"line": 380, "plane": 250, "deep": 150, "residual": 100, "space": 100, "conv": 20}
ROUTES = (None, Route.PHASES, Route.INPUTS)
PARTS = 5


def verdict(value: float) -> Verdict:
    return Verdict.VERIFIED if value > 0 else Verdict.FALSIFIED


def chosen_region(shape: str, number: int) -> str:
    """Every kind of box in turn, and an l1 or l2 ball every eighth time where there are two or three inputs."""
    if number % 8 == 7 and shape in ("plane", "deep", "residual"):
        return "1" if number % 16 == 7 or shape == "residual" else "2"
    return ("rational box", "box", "inf")[number // 3 % 3]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("shape", SHAPES)
def test_verdicts_are_those_of_enumeration(shape: str, part: int) -> None:
    """Some with the attack first; by the claim's own route, by phase splits alone and by input splits alone."""
    for number in range(part, COUNTS[shape], PARTS):
        region = chosen_region(shape, number)
        # The least margin over an l2 ball is no linear program's: proofs get as near to it as Adam does.
        size = 1e-3 if region == "2" or number % 4 < 2 else 1e-5
        asked = tiny(shape, KINDS[number % 3], region, number, size * (-1) ** (number // 2))
        # Halving boxes alone down to such distances is work for few inputs.
        route = ROUTES[number // 5 % (3 if asked.network.input_size <= 2 and region not in ("1", "2") else 2)]
        if KINDS[number % 3] == "clauses" and route is Route.PHASES:
            route = None
        attacked = region == "2" or number % 5 == 0
        found = decide(asked.network, asked.claim, route=route, exactly=number % 20 == 0, attack_first=attacked)
        assert found.verdict is verdict(asked.least), (asked.name, asked.least, route, found.reason, found.method)


def test_there_are_a_thousand_of_both_verdicts_with_some_that_need_a_search() -> None:
    assert sum(COUNTS.values()) >= 1000 and set(COUNTS) == set(SHAPES)
    signs = Counter((-1) ** (number // 2) for count in COUNTS.values() for number in range(count))
    assert min(signs.values()) >= 450
    searched = 0
    for number in range(0, 40, 2):
        asked = tiny("plane", KINDS[number % 3], "box", number, 1e-3)
        searched += decide(asked.network, asked.claim).method in ("phase splits", "input splits")
    assert searched >= 8


@pytest.mark.parametrize("seed", range(4))
def test_enumeration_is_that_by_linear_programs(seed: int) -> None:
    """The minima that all of this rests on, found again by a linear program on every cell."""
    for network in (dense(seed, 2, 4, 3, 3), shared_affine(seed)):
        network = network.detach().to(torch.float64)
        rng, inputs = np.random.default_rng(seed), network.input_size
        lower, upper = -rng.random(inputs), rng.random(inputs)
        c, d = rng.normal(size=network.output_size), 0.3
        rows = LinearRows(raw_array(c[None]), raw_array(np.array([d])))
        found = least(network, Claim(BoxRegion(raw_array(lower), raw_array(upper)), rows))
        assert found.value == pytest.approx(enumerate_minimum(network, lower, upper, c, d)[0], abs=1e-8)


@pytest.mark.parametrize("norm", ["1", "2"])
@pytest.mark.parametrize("clip", [None, ("-0.2", "0.5")])
def test_enumeration_over_balls_is_the_least_of_many_points(norm: str, clip: tuple[str, str] | None) -> None:
    for seed in range(5):
        asked = tiny("plane", KINDS[seed % 3], "box", seed, 0.1)
        center = np.array([0.1, 0.3])
        claim = Claim(BallRegion(raw_array(center), "0.5", norm, clip), asked.claim.rows)
        found = least(asked.network, claim)
        region = ball(torch.from_numpy(center)[None], 0.5, norm, None if clip is None else (-0.2, 0.5))
        axis = torch.linspace(-0.5, 0.5, 401, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis) + region.point  # type: ignore[union-attr]
        offsets = points - region.point  # type: ignore[union-attr]
        inside = torch.linalg.vector_norm(offsets, ord=float(norm), dim=1) <= 0.5
        inside &= ((points >= region.lower) & (points <= region.upper)).all(1)
        sampled = margin(asked.network, claim, points[inside].numpy()).min()
        # The lowest point of a cell may lie between those of the grid.
        assert found.value - 1e-9 <= sampled <= found.value + 0.05 * found.spread
        assert np.linalg.norm(found.point - center, ord=float(norm)) <= 0.5 + 1e-12
        bounds = regions([claim])
        assert ((bounds.lower[0] <= found.point + 1e-12) & (found.point <= bounds.upper[0] + 1e-12)).all()


def test_cells_fill_the_box_without_overlap() -> None:
    for seed in range(5):
        network = dense(seed, 2, 5, 4, 1).detach().to(torch.float64)
        found = cells(network, box_cell(np.array([-1.0, -2.0]), np.array([1.0, 1.0])))
        assert len(found) > 3 and sum(map(area, found)) == pytest.approx(6.0)
        for cell in found:
            inner = cell.points.mean(0)
            for relu in network.relus:
                values = network.values(torch.from_numpy(np.vstack([inner, cell.points])))[relu - 1].numpy()
                assert (np.sign(values[0]) * values[1:] >= -1e-9).all()


def area(cell: Cell) -> float:
    """Of a polygon, from its edges in no order: triangles to the middle."""
    middle = cell.points.mean(0)
    sides = [(cell.points[p] - middle, cell.points[q] - middle) for p, q in cell.edges()]
    return sum(abs(a[0] * b[1] - a[1] * b[0]) for a, b in sides) / 2


@pytest.mark.parametrize(("shape", "kind"), list(itertools.product(("line", "plane"), KINDS)))
def test_the_verdict_turns_where_the_least_margin_is(shape: str, kind: str) -> None:
    """From well above and well below the least margin, nearer and nearer from both sides."""
    asked = tiny(shape, kind, "box", 7, 0.0)
    for distance in (0.3, 1e-2, 1e-4, 1e-6):
        for sign in (-1, 1):
            network, claim = settled(asked.network, asked.claim, sign * distance)
            found = decide(network, claim, exactly=distance == 1e-2)
            assert found.verdict is verdict(sign), (distance * sign, found.reason)


def test_clauses_of_several_rows_by_phase_splits_alone() -> None:
    for shape, number in (("residual", 703), ("line", 143), ("plane", 35), ("plane", 83), ("deep", 83)):
        asked = tiny(shape, "clauses", "box", number, -1e-2 if shape == "residual" else -1e-5)
        found = decide(asked.network, asked.claim, route=Route.PHASES, attack_first=False)
        assert found.verdict is Verdict.FALSIFIED, (asked.name, found.reason)
