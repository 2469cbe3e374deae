"""One claim from end to end: deadlines, odd claims and odd numbers, routes, and evidence for every verdict."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from deciding import SETTINGS, decide
from hand_made import valley
from networks import dense
from small_networks import random_network
from tiny_claims import KINDS, tiny

from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, ClauseRows, Inequality, LinearRows, RationalBox
from lpverify.errors import LpverifyError
from lpverify.network import Affine, Network
from lpverify.result import Verdict
from lpverify.search.route import FEW_INPUTS, MANY_INPUTS, Route, has_stacked_relus, route
from lpverify.search.solve import solve
from lpverify.serialize import raw_array
from lpverify.session import Session

ONE = Fraction(1)


def linear(C: Any, d: Any) -> LinearRows:
    return LinearRows(raw_array(np.array(C, np.float64)), raw_array(np.array(d, np.float64)))


def unit_box(inputs: int) -> RationalBox:
    return RationalBox((-ONE,) * inputs, (ONE,) * inputs)


def row(coefficient: int, constant: Any, strict: bool = True) -> Inequality:
    return Inequality((0,), (Fraction(coefficient),), Fraction(constant), strict)


@pytest.mark.parametrize(
    ("inputs", "way", "above"), [(5, Route.INPUTS, 1.0), (30, Route.PHASES, 12.0), (15, None, 6.0)]
)
def test_the_deadline_is_kept_on_a_claim_that_is_too_hard(inputs: int, way: Route | None, above: float) -> None:
    network = random_network(1, (inputs, 120, 120, 120, 2))
    # Far below what bounds prove, far above what is found: nothing decides it in two seconds.
    x = torch.rand(2000, inputs, dtype=torch.float64) * 2 - 1
    least = float(network.forward(x)[:, 0].min())
    claim = Claim(unit_box(inputs), linear([[1.0, 0.0]], [-least + above]))
    began = time.perf_counter()
    found = decide(network, claim, seconds=2.0, route=way)
    assert time.perf_counter() - began < 2.2 + 2.0
    assert found.verdict is Verdict.UNKNOWN and found.reason


def test_a_deadline_in_the_past_ends_soon_and_decides_only_with_evidence() -> None:
    asked = tiny("residual", "linear", "box", 700, 0.02)
    began = time.perf_counter()
    found = decide(asked.network, asked.claim, seconds=-1.0)
    assert time.perf_counter() - began < 2.0 and found.verdict is not Verdict.FALSIFIED


def test_margin_zero_is_falsified_and_no_counterexample_where_zero_is_allowed() -> None:
    network = valley(0.0)
    box = RationalBox((Fraction(0),), (ONE,))
    strict = Claim(box, ClauseRows(1, ((row(1, 0),),)))
    for attack_first in (True, False):
        found = decide(network, strict, attack_first=attack_first)
        assert found.verdict is Verdict.FALSIFIED and found.counterexample is not None
        assert found.counterexample.x.tolist() == [0.5] and found.counterexample.margin == 0
    allowed = Claim(box, ClauseRows(1, ((row(1, 0, strict=False),),)))
    assert decide(network, allowed, seconds=2.0).verdict is Verdict.UNKNOWN
    above = Claim(box, ClauseRows(1, ((row(1, Fraction(1, 2**30)),),)))
    assert decide(network, above).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("attack_first", [True, False])
def test_a_clause_without_rows_fails_at_any_point(attack_first: bool) -> None:
    network = dense(0, 3, 4, 1).detach().to(torch.float64)
    # A claim of nothing but such a clause is the attack's.
    alone = (((),),) if attack_first else ()
    for clauses in (*alone, ((row(1, 100),), ()), ((), (row(1, 100),))):
        found = decide(network, Claim(unit_box(3), ClauseRows(1, clauses)), attack_first=attack_first)
        assert found.verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("attack_first", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_point_as_the_region(sign: int, attack_first: bool) -> None:
    network = dense(0, 3, 4, 1).detach().to(torch.float64)
    x = np.array([0.25, -0.5, 0.125])
    value = float(network.forward(torch.from_numpy(x)[None])[0, 0])
    exact = tuple(map(Fraction, x.tolist()))
    rows = linear([[1.0]], [-value + sign * 1e-6])
    regions = [RationalBox(exact, exact), BoxRegion(raw_array(x), raw_array(x))]
    regions += [BallRegion(raw_array(x), "0", norm, None) for norm in ("inf", "1", "2")]  # type: ignore[list-item]
    for region in regions:
        found = decide(network, Claim(region, rows), attack_first=attack_first, exactly=True)
        assert found.verdict is (Verdict.VERIFIED if sign > 0 else Verdict.FALSIFIED), region


@pytest.mark.parametrize("sign", [1, -1])
def test_inputs_that_are_fixed_between_floats(sign: int) -> None:
    """One input is fixed at 1/10, which no float is."""
    asked = tiny("plane", "linear", "rational box", 9, 0.0)
    tenth = Fraction(1, 10)
    region = RationalBox((tenth, -ONE), (tenth, ONE))
    axis = np.stack([np.full(20001, 0.1), np.linspace(-1, 1, 20001)], 1)
    assert isinstance(asked.claim.rows, LinearRows)
    C = np.array(asked.claim.rows.C.values()).reshape(asked.claim.rows.C.shape)[:1]
    least = float((asked.network.forward(torch.from_numpy(axis)).numpy() @ C.T).min())
    found = decide(asked.network, Claim(region, linear(C, [-least + sign * 1e-2])), exactly=True)
    assert found.verdict is (Verdict.VERIFIED if sign > 0 else Verdict.FALSIFIED)


@pytest.mark.parametrize("what", ["weight", "bias", "center", "infinite weight"])
def test_numbers_that_are_none_give_no_verdict(what: str) -> None:
    network = dense(0, 3, 4, 1).detach().to(torch.float64)
    center = np.zeros(3)
    if what == "center":
        center[1] = np.nan
    else:
        node = network.nodes[1]
        assert isinstance(node, Affine)
        spoil = np.inf if what == "infinite weight" else np.nan
        maps, bias = node.maps, node.bias.clone()
        if what == "bias":
            bias[0] = spoil
        else:
            maps = (maps[0].map_tensors(lambda t: t.clone().fill_(spoil)),)
        network = Network((network.nodes[0], replace(node, maps=maps, bias=bias), *network.nodes[2:]))
    claim = Claim(BallRegion(raw_array(center), "0.1", "inf", None), linear([[1.0]], [1e3]))
    try:
        with Session(network, SETTINGS) as session:
            found = solve(session, claim, deadline=time.perf_counter() + 2.0)
    except LpverifyError:
        return
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", list(Route))
def test_every_route_decides(way: Route, kind: str) -> None:
    for seed in range(4):
        asked = tiny("plane", kind, "box", 800 + seed, 0.01 * (-1) ** seed)
        found = decide(asked.network, asked.claim, route=way)
        assert found.verdict is (Verdict.VERIFIED if asked.least > 0 else Verdict.FALSIFIED), (asked.name, found.reason)


def test_routes_by_shape() -> None:
    assert route(FEW_INPUTS, 1000, True) is Route.INPUTS
    assert route(MANY_INPUTS, 1000, True) is Route.INPUTS_THEN_PHASES
    assert route(MANY_INPUTS + 1, 1000, True) is Route.PHASES
    assert route(3, 1000, False) is Route.PHASES
    assert route(3, 5, True) is Route.PHASES_THEN_INPUTS


def test_where_phases_can_tighten_bounds() -> None:
    assert not has_stacked_relus(random_network(0, (3, 4, 2)))
    assert has_stacked_relus(random_network(0, (3, 4, 4, 2)))


def test_the_search_says_what_it_did() -> None:
    asked = tiny("residual", "linear", "box", 700, 0.02)
    found = decide(asked.network, asked.claim, route=Route.PHASES)
    assert found.verdict is Verdict.VERIFIED and found.method == "phase splits"
    assert found.leaves >= 2 and found.nodes >= 2 and found.seconds > 0
    assert found.margins.shape == (asked.claim.num_rows,) and bool((found.margins > 0).all())
    # Proved bounds are no greater than the least values.
    assert found.margins.min() <= asked.least + 1e-9


def test_a_second_run_finds_the_same() -> None:
    asked = tiny("residual", "linear", "box", 700, 0.02)
    first, second = (decide(asked.network, asked.claim) for _ in range(2))
    assert (first.verdict, first.method, first.leaves, first.nodes) == (
        second.verdict, second.method, second.leaves, second.nodes,
    )  # fmt: skip
    assert first.certificate == second.certificate
