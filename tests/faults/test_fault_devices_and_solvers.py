"""Devices and solvers that fail: the cases 27 to 34 and 42 that no other test covers.

The table of all cases is in README.md of this folder. No GPU is needed: what one would do wrong is done here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lying_backends import FaultyBackend, LyingBackend
from networks import NETWORKS

import lpverify.pipeline
from lpverify.backends import BACKENDS
from lpverify.bounds import AlphaBound
from lpverify.certificate import rigorous
from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.cli import explain
from lpverify.network import Network
from lpverify.result import UNCERTIFIED, Result, Verdict
from lpverify.serialize import network_bytes
from lpverify.summary import Tally
from lpverify.verify import verify


@pytest.fixture
def case() -> tuple[Network, torch.Tensor, torch.Tensor]:
    network = NETWORKS["deep"](1).to(torch.float64)
    x = torch.rand(4, network.input_size, generator=torch.Generator().manual_seed(1)).double()
    return network, x, network.forward(x).argmax(1)


def judged(network: Network, results: list[Result]) -> list[Verdict]:
    """The verdicts; every certificate convinces both checkers."""
    plain = parse_network(network_bytes(network))
    for result in results:
        if result.verdict is Verdict.VERIFIED:
            assert result.certificate is not None
            proof = decode(result.certificate)
            assert rigorous.check(rigorous.Network(plain), [proof])[0].accepted and check_exactly(plain, proof).accepted
    return [result.verdict for result in results]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_27_and_28_no_memory_left_is_said_in_one_line(error: BaseException) -> None:
    code, message = explain(error)
    assert code == 5 and message == "out of memory; what was written is kept; pass a smaller --batch-size"


def test_29_nan_from_a_device_is_no_proof(
    case: tuple[Network, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN margins and NaN multipliers: the same verdicts or unknown, none more."""
    network, x, y = case
    honest = judged(network, verify(network, x, y, "0.1", method="alpha"))
    improve = AlphaBound.improve

    def spoiled(*arguments: Any) -> Any:
        found = improve(*arguments)
        found.margins.fill_(torch.nan)
        for slopes in found.multipliers.slopes.values():
            slopes.fill_(torch.nan)
        return found

    monkeypatch.setattr(AlphaBound, "improve", spoiled)
    for before, after in zip(honest, judged(network, verify(network, x, y, "0.1", method="alpha")), strict=True):
        assert after in (before, Verdict.UNKNOWN)


@pytest.mark.parametrize("seed", range(6))
def test_30_a_wrong_bit_in_the_multipliers_never_makes_a_proof(
    seed: int, case: tuple[Network, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, y = case
    honest = judged(network, verify(network, x, y, "0.1", method="alpha"))
    improve, draw = AlphaBound.improve, np.random.default_rng(seed)

    def flipped(*arguments: Any) -> Any:
        found = improve(*arguments)
        for slopes in found.multipliers.slopes.values():
            flat = slopes.detach().view(-1)
            if flat.numel():
                whole = flat.view(torch.int64 if flat.dtype == torch.float64 else torch.int32)
                place, bits = int(draw.integers(flat.numel())), 63 if flat.dtype == torch.float64 else 31
                whole[place] ^= 1 << int(draw.integers(bits))
        return found

    monkeypatch.setattr(AlphaBound, "improve", flipped)
    for before, after in zip(honest, judged(network, verify(network, x, y, "0.1", method="alpha")), strict=True):
        assert after in (before, Verdict.UNKNOWN)


@pytest.mark.parametrize("lie", ["infeasible", "not_numbers", "wrong_value"])
def test_33_and_34_what_a_solver_claims_is_counted_as_uncertified(
    lie: str, case: tuple[Network, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """"Infeasible" and NaN prove nothing; an optimum without a proof is counted apart in the summary."""
    monkeypatch.setitem(BACKENDS, "lying", LyingBackend)
    monkeypatch.setattr(lpverify.pipeline, "_attack", lambda *_: None)
    monkeypatch.setattr(lpverify.pipeline, "_try_candidates", lambda *_: None)
    network, x, y = case
    tally = Tally()
    found = verify(network, x, y, "0.4", method="milp", backend="lying", solver=lie, workers=0)
    assert Verdict.UNKNOWN in judged(network, found)
    for result in found:
        tally.add(result)
    assert (tally.reasons[UNCERTIFIED] > 0) == (lie != "not_numbers")


def test_31_a_signal_in_a_solver_is_the_reason_of_its_example_alone(
    case: tuple[Network, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on; the program for a replay is what ``lpverify export`` writes for that example."""
    monkeypatch.setitem(BACKENDS, "faulty", FaultyBackend)
    network, x, y = case
    y = torch.cat([1 - y[:1], y[1:]])  # of the first one the label is wrong, which needs no solver
    found = verify(network, x, y, "0.4", method="lp", backend="faulty", solver="crash", workers=1)
    assert [result.verdict for result in found] == [Verdict.FALSIFIED] + 3 * [Verdict.UNKNOWN]
    assert {result.reason for result in found[1:]} == {"lp: solver crashed (signal 11)"}


def test_42_workers_start_after_a_solve_in_this_process(case: tuple[Network, torch.Tensor, torch.Tensor]) -> None:
    """A forked child would inherit the locks of the solver's threads and hang; ours is a fresh interpreter."""
    network, x, y = case
    here = verify(network, x, y, "0.2", method="lp", workers=0)
    begin = time.monotonic()
    there = verify(network, x, y, "0.2", method="lp", workers=1)
    assert time.monotonic() - begin < 30
    assert [r.verdict for r in here] == [r.verdict for r in there]


def test_42_nothing_forks() -> None:
    package = Path(__file__).resolve().parents[2] / "lpverify"
    for file in package.rglob("*.py"):
        text = file.read_text()
        assert "os.fork" not in text and "get_context" not in text and "multiprocessing.Process" not in text, file
