"""Solver-backed bounds on every shape of network: sound, ordered, exact where they say so, and certified."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from checking import checker_of, label_claims, propose
from networks import CLASSES, NETWORKS, TINY, Clip, enumerate_minimum, permuted, rescaled, samples
from torch import Tensor

from lpverify.backends import BACKENDS
from lpverify.bounds import AbstractBoundMethod, CrownBound, LPBound, LPTightBound, MILPBound
from lpverify.certificate import rigorous
from lpverify.errors import SolverError
from lpverify.network import Network, ReLU
from lpverify.problem import Region, Specification, ball

METHODS: dict[str, AbstractBoundMethod] = {
    "lp": LPBound(),
    "lp-alpha": LPBound(intermediate="alpha"),
    "lp-tight": LPTightBound(),
    "lp-all": LPTightBound(skip=False),
    "milp": MILPBound(value=True),
}
REGIONS: list[tuple[str, float, Clip]] = [
    (norm, eps, clip) for (norm, eps), clip in itertools.product((("inf", 0.2), ("1", 0.7)), (None, (0.0, 1.0)))
]
# A solver's tolerances, on values near 1 to 10.
TOLERANCE = 1e-6


def case(
    name: str, norm: str = "inf", eps: float = 0.2, clip: Clip = None, batch: int = 2
) -> tuple[Network, Tensor, Region, Specification]:
    network = NETWORKS[name](7).to(torch.float64)
    x = torch.rand(batch, network.input_size, generator=torch.Generator().manual_seed(3)).double()
    spec = Specification.label(network.forward(x).argmax(1), CLASSES)
    return network, x, ball(x, eps, norm, clip), spec


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_sampled_point_is_below_a_bound(name: str, method: str) -> None:
    for norm, eps, clip in REGIONS:
        network, x, region, spec = case(name, norm, eps, clip)
        # A bound holds whenever a MILP is stopped; the bigger networks would take minutes.
        instance = MILPBound(value=True, time_limit=0.2) if method == "milp" else METHODS[method]
        result = instance.bound(network, region, spec)
        assert result.margins.shape == spec.d.shape and result.candidates is not None
        points = torch.cat([samples(region, 500, seed=1), x.unsqueeze(0)])
        values = network.values(points.flatten(0, 1))
        margins = (values[-1].view(*points.shape[:2], -1).unsqueeze(2) * spec.C).sum(3) + spec.d
        assert bool((result.margins <= margins.amin(0) + TOLERANCE).all())
        for index, layer in result.layers.items():
            node = network.nodes[index]
            assert isinstance(node, ReLU)
            z = values[node.input].view(len(points), *layer.lower.shape)
            assert bool((layer.lower <= z.amin(0) + TOLERANCE).all() and (layer.upper >= z.amax(0) - TOLERANCE).all())
        inside = (result.candidates >= region.lower.unsqueeze(1) - TOLERANCE).all() and (
            result.candidates <= region.upper.unsqueeze(1) + TOLERANCE
        ).all()
        assert bool(inside)


@pytest.mark.parametrize("name", TINY)
def test_order_and_exactness_against_enumeration(name: str) -> None:
    for clip in (None, (0.0, 1.0)):
        network, _, region, spec = case(name, clip=clip)
        found = {method: instance.bound(network, region, spec).margins for method, instance in METHODS.items()}
        found["crown"] = CrownBound().bound(network, region, spec).margins
        for loose, tight in (("crown", "lp"), ("lp", "lp-tight"), ("lp", "lp-alpha"), ("lp-tight", "lp-all")):
            assert bool((found[loose] <= found[tight] + TOLERANCE).all()), (loose, tight)
        for i, row in np.ndindex(tuple(spec.d.shape)):
            least, _ = enumerate_minimum(
                network, region.lower[i].numpy(), region.upper[i].numpy(), spec.C[i, row].numpy(), 0.0
            )
            assert float(found["milp"][i, row]) == pytest.approx(least, abs=TOLERANCE)
            assert float(found["lp-all"][i, row]) <= least + TOLERANCE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_row_duals_are_the_certificate(name: str, method: str) -> None:
    """The checker proves the LP's value to rounding, lemmas included; for a MILP, its LPs' value."""
    for norm, eps, clip in REGIONS:
        network, x, region, spec = case(name, norm, eps, clip)
        y = network.forward(x).argmax(1)
        bound = (LPTightBound() if method == "milp" else METHODS[method]).bound(network, region, spec)
        checker = checker_of(network)
        claims = label_claims(x, y, CLASSES, eps, norm, clip)
        for i, outcome in enumerate(rigorous.check(checker, propose(checker, claims, bound))):
            difference = torch.as_tensor(outcome.margins) - bound.margins[i]
            # Optimised slopes are stored in 16 bits; multipliers in float32.
            assert float(difference.abs().max()) <= (2e-4 if method == "lp-alpha" else 2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_examples_one_by_one(method: str) -> None:
    for name in ("deep",) if method == "milp" else ("deep", "conv", "residual"):
        network, _, region, spec = case(name, batch=3)
        whole = METHODS[method].bound(network, region, spec)
        for i in range(3):
            one = METHODS[method].bound(network, region.select([i]), spec.select([i]))
            torch.testing.assert_close(whole.margins[i], one.margins[0], atol=TOLERANCE, rtol=0)
            for k, layer in one.layers.items():
                torch.testing.assert_close(whole.layers[k].lower[i], layer.lower[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("k", [-20, 7, 20])
@pytest.mark.parametrize("method", ["lp", "lp-tight", "milp"])
def test_metamorphic_twins_have_the_same_margins(method: str, k: int) -> None:
    for name in ("deep", "conv"):
        network, _, region, spec = case(name)
        margins = METHODS[method].bound(network, region, spec).margins
        for twin in (rescaled(network, 0, k), permuted(network, seed=5)):
            found = METHODS[method].bound(twin, region, spec).margins
            torch.testing.assert_close(found, margins, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("method", ["lp", "lp-tight"])
@pytest.mark.parametrize(
    ("backend", "solver"), [("cvxpy", "HIGHS"), ("cvxpy", "CLARABEL"), ("pulp", "CBC"), ("pulp", "HiGHS")]
)
def test_every_backend_gives_the_same_margins(backend: str, solver: str, method: str) -> None:
    kind = type(METHODS[method])
    for name in ("deep", "conv"):
        network, x, region, spec = case(name)
        expected = METHODS[method].bound(network, region, spec)
        found = kind(backend=BACKENDS[backend](solver=solver)).bound(network, region, spec)  # type: ignore[call-arg]
        torch.testing.assert_close(found.margins, expected.margins, atol=1e-5, rtol=0)
        checker = checker_of(network)
        claims = label_claims(x, network.forward(x).argmax(1), CLASSES, 0.2, "inf", None)
        for i, outcome in enumerate(rigorous.check(checker, propose(checker, claims, found))):
            assert np.abs(outcome.margins - found.margins[i].numpy()).max() <= 1e-5


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_an_l2_ball_goes_to_a_cone_solver(clip: Clip) -> None:
    for name in ("deep", "residual"):
        network, x, region, spec = case(name, "2", 0.4, clip)
        found = LPBound(backend=BACKENDS["cvxpy"](solver="CLARABEL")).bound(network, region, spec)
        crown = CrownBound().bound(network, region, spec)
        assert bool((found.margins >= crown.margins - 1e-6).all())
        points = torch.cat([samples(region, 500, seed=1), x.unsqueeze(0)])
        margins = (network.forward(points.flatten(0, 1)).view(*points.shape[:2], -1).unsqueeze(2) * spec.C).sum(3)
        assert bool((found.margins <= margins.amin(0) + TOLERANCE).all())
        with pytest.raises(SolverError, match="cone"):
            LPBound().bound(network, region, spec)


@pytest.mark.parametrize("method", ["lp", "lp-tight", "milp"])
def test_without_time_crowns_bounds_remain(method: str) -> None:
    network, _, region, spec = case("deep")
    crown = CrownBound().bound(network, region, spec)
    found = type(METHODS[method])(seconds=0.0).bound(network, region, spec)  # type: ignore[call-arg]
    torch.testing.assert_close(found.margins, crown.margins, atol=1e-12, rtol=0)
    assert found.multipliers.own is not None and not bool(found.multipliers.own.any())


@pytest.mark.parametrize("method", ["lp", "lp-tight", "milp"])
def test_for_a_verdict_only_open_rows_are_solved(method: str) -> None:
    network, _, region, spec = case("deep", eps=0.02)
    assert bool((CrownBound().bound(network, region, spec).margins > 0).all())
    found = type(METHODS[method])(stop_at_zero=True).bound(network, region, spec)  # type: ignore[call-arg]
    assert found.stats["solves"] == 0 and bool((found.margins > 0).all())


def test_a_second_side_is_left_out_only_where_the_first_decides() -> None:
    network, _, region, spec = case("deep")
    skipping, full = (METHODS[m].bound(network, region, spec) for m in ("lp-tight", "lp-all"))
    assert skipping.stats["solves"] <= full.stats["solves"]
    for k, layer in full.layers.items():
        assert torch.equal(layer.unstable, skipping.layers[k].unstable)


def test_a_milp_asked_for_the_sign_is_right_row_after_row() -> None:
    """One solve that is stopped early must not spoil the next one of its session."""
    network = NETWORKS["deep"](4).to(torch.float64)
    x = torch.rand(3, network.input_size, generator=torch.Generator().manual_seed(4)).double()
    spec = Specification.label(network.forward(x).argmax(1), CLASSES).select([1])
    region = ball(x[1:2], 0.15)
    least = [enumerate_minimum(network, region.lower[0].numpy(), region.upper[0].numpy(), c.numpy(), 0.0)[0]
             for c in spec.C[0]]  # fmt: skip
    found = MILPBound().bound(network, region, spec)
    assert min(least) > 0.04 and bool((found.margins > 0).all())
    assert found.stats["milp_failed_solves"] == 0
    assert all(m <= t + TOLERANCE for m, t in zip(found.margins[0].tolist(), least, strict=True))
