"""Solvers that lie, crash or hang: not one wrong verdict, and never a lost run."""

from __future__ import annotations

import functools
import time

import pytest
import torch
from lying_backends import LIES, FaultyBackend, LyingBackend
from networks import NETWORKS, enumerate_minimum
from torch import Tensor

import lpverify.pipeline
import lpverify.session
from lpverify.backends import BACKENDS
from lpverify.certificate import rigorous
from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.errors import UsageError
from lpverify.network import Network
from lpverify.problem import Specification, ball
from lpverify.result import Result, Verdict
from lpverify.serialize import network_bytes
from lpverify.verify import verify

VERIFIED, FALSIFIED, UNKNOWN = Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN
RADII = ("0.15", "0.4")
# Shapes with the seeds of their weights: some of their claims only a MILP decides.
NAMES = {"deep": 1, "shared-affine": 4, "affine-affine": 1}


@pytest.fixture(autouse=True)
def liars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "lying", LyingBackend)
    monkeypatch.setitem(BACKENDS, "faulty", FaultyBackend)


@functools.cache
def case(name: str, count: int = 3) -> tuple[Network, Tensor, Tensor]:
    seed = NAMES[name]
    network = NETWORKS[name](seed).to(torch.float64)
    x = torch.rand(count, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    return network, x, network.forward(x).argmax(1)


@functools.cache
def least_margin(name: str, i: int, eps: str, count: int = 3) -> float:
    """The exact minimum over all rows, by enumeration of activation patterns."""
    network, x, y = case(name, count=count)
    box = ball(x[i : i + 1], float(eps))
    spec = Specification.label(y[i : i + 1], network.output_size)
    return min(enumerate_minimum(network, box.lower[0].numpy(), box.upper[0].numpy(), c.numpy(), 0.0)[0]
               for c in spec.C[0])  # fmt: skip


def judge(network: Network, results: list[Result], least: list[float]) -> None:
    """Every verdict is true, and every certificate convinces both checkers."""
    plain = parse_network(network_bytes(network))
    for result, margin in zip(results, least, strict=True):
        if result.verdict is VERIFIED:
            assert margin > 0 and result.certificate is not None
            proof = decode(result.certificate)
            assert rigorous.check(rigorous.Network(plain), [proof])[0].accepted
            assert check_exactly(plain, proof).accepted
        elif result.verdict is FALSIFIED:
            assert margin <= 0
        assert not (result.margins > margin + 1e-7).all()


@pytest.mark.parametrize(("method", "attacks"), [("lp", False), ("lp-tight", False), ("milp", False), ("milp", True)])
@pytest.mark.parametrize("lie", LIES)
def test_no_lie_becomes_a_verdict(lie: str, method: str, attacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without attacks nothing but the checker stands between a lie about a falsifiable claim and a verdict."""
    if not attacks:
        monkeypatch.setattr(lpverify.pipeline, "_attack", lambda *_: None)
        monkeypatch.setattr(lpverify.pipeline, "_try_candidates", lambda *_: None)
    for name in NAMES:
        network, x, y = case(name)
        for eps in RADII:
            least = [least_margin(name, i, eps) for i in range(len(x))]
            found = verify(network, x, y, eps, method=method, backend="lying", solver=lie, workers=0)
            judge(network, found, least)
            if not attacks:
                assert all(r.verdict is not FALSIFIED for r in found)


def test_honest_solvers_decide_what_is_lied_about_here() -> None:
    """The cases above are not all settled before a solver is asked."""
    asked, verdicts = set(), set()
    for name in NAMES:
        network, x, y = case(name)
        for eps in RADII:
            least = [least_margin(name, i, eps) for i in range(len(x))]
            found = verify(network, x, y, eps, method="milp", workers=0)
            judge(network, found, least)
            asked.update(r.method for r in found)
            verdicts.update(r.verdict for r in found)
            assert all((r.verdict is FALSIFIED) == (m <= 0) for r, m in zip(found, least, strict=True))
    assert verdicts == {VERIFIED, FALSIFIED, UNKNOWN} and "milp" in asked


@pytest.mark.parametrize("lie", ["wrong_value", "wrong_sign"])
def test_a_claim_without_a_proof_is_uncertified(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpverify.pipeline, "_attack", lambda *_: None)
    monkeypatch.setattr(lpverify.pipeline, "_try_candidates", lambda *_: None)
    network, x, y = case("deep")
    assert least_margin("deep", 1, "0.4") <= 0
    (found,) = verify(network, x[1:2], y[1:2], "0.4", method="milp", backend="lying", solver=lie, workers=0)
    assert found.verdict is UNKNOWN and found.reason.startswith("uncertified: milp claims a proof")
    assert found.claimed is not None and (found.claimed > 0).all() and not (found.margins > 0).all()


def test_a_crash_costs_the_examples_that_needed_the_solver_and_no_other() -> None:
    network, x, y = case("deep", count=4)
    eps = "0.4"
    least = [least_margin("deep", i, eps, 4) for i in range(len(x))]
    honest = verify(network, x, y, eps, method="lp", workers=0)
    found = verify(network, x, y, eps, method="lp", backend="faulty", solver="crash", workers=1)
    judge(network, found, least)
    assert all(a.verdict is b.verdict for a, b in zip(found, honest, strict=True) if a.method != "lp")
    crashed = [r for r in found if "crashed" in r.reason]
    assert crashed and all(r.verdict is UNKNOWN and r.reason == "lp: solver crashed (signal 11)" for r in crashed)


@pytest.mark.parametrize(("fault", "reason"), [("memory", "out of memory"), ("error", "licence has expired")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_has_its_reason(fault: str, reason: str, workers: int) -> None:
    network, x, y = case("deep")
    (found,) = verify(network, x[:1], y[:1], "0.4", method="lp", backend="faulty", solver=fault, workers=workers)
    assert found.verdict is UNKNOWN and found.reason.startswith("lp: ") and reason in found.reason


def test_a_solver_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpverify.session, "GRACE_SECONDS", 1.0)
    network, x, y = case("deep")
    start = time.monotonic()
    (found,) = verify(network, x[:1], y[:1], "0.4", method="lp", backend="faulty", solver="hang", timeout=1.0)
    assert found.verdict is UNKNOWN and "exceeded its limit" in found.reason
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lp", "norm": "2"}, "cannot handle a second-order cone"),
        ({"method": "lp", "solver": "GLPK"}, "'GLPK' is unknown"),
        ({"method": "milp", "backend": "cvxpy", "solver": "CLARABEL"}, "CLARABEL"),
        ({"method": "sdp"}, "hidden layer"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_method_cannot_do_is_refused_before_the_run(
    options: dict[str, str], message: str, workers: int
) -> None:
    network, x, y = case("deep")
    with pytest.raises(UsageError, match=message):
        verify(network, x, y, "0.1", workers=workers, **options)
