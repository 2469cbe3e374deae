"""Devices and solvers that fail: the cases 27 to 34 and 42 that no other test covers.

The table of all cases is in README.md of this folder. No GPU is needed: what one would do wrong is done here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import pytest
import torch
from commands import ask, results, save_data, save_model
from lying_backends import FaultyBackend, LyingBackend
from networks import NETWORKS

import lpverify.pipeline
import lpverify.runs.folder
from lpverify.backends import BACKENDS
from lpverify.bounds import AlphaBound
from lpverify.certificate import rigorous
from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.cli import explain, main
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.result import UNCERTIFIED, Result, Verdict
from lpverify.runs.summary import Tally
from lpverify.serialize import network_bytes
from lpverify.verify import bounds, verify


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


def test_31_a_crash_is_kept_for_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a program that any solver reads, and a text; at most so many of a run, and nothing that runs code."""
    monkeypatch.setitem(BACKENDS, "highs", FaultyBackend)
    monkeypatch.setattr(lpverify.runs.folder, "MOST_CRASHES", 2)
    monkeypatch.setattr(lpverify.pipeline, "_attack", lambda *_: None)
    network = load_model(save_model(tmp_path / "model.npz"))
    x = np.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]], np.float32)
    y = network.forward(torch.as_tensor(x).double()).argmax(1).numpy()
    data, run = save_data(tmp_path / "data.npz", x, y), tmp_path / "run"
    command = ask(tmp_path / "model.npz", data, run, "--method", "lp", "--solver", "crash", "--norm", "1", eps="2")
    assert main(command) == 0
    lines = results(run)
    crashed = "lp: solver crashed (signal 11)"
    kept = f"{crashed}; kept in crashes/ for a replay"
    assert [line["reason"] for line in lines] == [kept, kept, crashed]
    assert [line.get("crash") for line in lines] == ["crashes/000000.txt", "crashes/000001.txt", None]
    names = sorted(path.name for path in (run / "crashes").iterdir())
    assert names == ["000000.mps.gz", "000000.txt", "000001.mps.gz", "000001.txt"]
    assert json.loads((run / "summary.json").read_text())["unknown_reasons"] == {kept: 2, crashed: 1}
    text = (run / "crashes" / "000001.txt").read_text()
    assert text.startswith(f"{crashed}\nexample 1, label {y[1]}, --eps 2 --norm 1, backend highs crash\n")
    monkeypatch.undo()
    honest = bounds(network, x, y, "2", method="lp", norm="1").margins
    for i in range(2):
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        assert solver.readModel(str(run / "crashes" / f"00000{i}.mps.gz")) == highspy.HighsStatus.kOk
        assert solver.run() == highspy.HighsStatus.kOk
        assert solver.getInfo().objective_function_value == pytest.approx(float(honest[i].min()), abs=1e-6)
    assert main(["check", str(run), "--data", str(data)]) == 0
    assert main([*command[:-4], "--overwrite"]) == 0
    assert not (run / "crashes").exists() or not list((run / "crashes").iterdir())


def test_31_an_l2_ball_leaves_a_text_alone(
    case: tuple[Network, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No MPS file can hold a cone; the text says so."""
    monkeypatch.setitem(BACKENDS, "cvxpy", FaultyBackend)
    monkeypatch.setattr(lpverify.pipeline, "_attack", lambda *_: None)
    network, x, y = case
    (found,) = verify(network, x[:1], y[:1], "3", method="lp", norm="2", backend="cvxpy", solver="crash", workers=1)
    assert found.reason == "lp: solver crashed (signal 11)"
    assert found.replay is not None and found.replay.program == b""
    assert "no program: program: it has a second-order cone" in found.replay.text


def test_42_workers_start_after_a_solve_in_this_process(case: tuple[Network, torch.Tensor, torch.Tensor]) -> None:
    """A child of this process would inherit the locks of the solver's threads and hang; ours is none."""
    network, x, y = case
    here = verify(network, x, y, "0.2", method="lp", workers=0)
    begin = time.monotonic()
    there = verify(network, x, y, "0.2", method="lp", workers=1)
    assert time.monotonic() - begin < 30
    assert [r.verdict for r in here] == [r.verdict for r in there]


def test_42_only_the_template_of_workers_forks() -> None:
    """It has one thread and runs no solver; ``tests/test_workers.py`` has what it does where it has more."""
    package = Path(__file__).resolve().parents[2] / "lpverify"
    forking = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if any(call in file.read_text() for call in ("os.fork", "get_context", "multiprocessing.Process"))
    ]
    assert forking == ["workers/template.py"]
