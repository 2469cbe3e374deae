"""Memory that runs out and devices that fail, in the middle of a run: what is made again, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS
from numpy.typing import NDArray

import lpverify.falsify
import lpverify.memory
import lpverify.pipeline
import lpverify.session
from lpverify.bounds import CrownBound
from lpverify.certificate import rigorous
from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.cli import main
from lpverify.errors import ResourceError, is_out_of_memory
from lpverify.falsify import attack_stream
from lpverify.memory import available, least_needed
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.radius.radii import radii
from lpverify.recovery import is_device_fault
from lpverify.result import RadiusResult, Result, Verdict
from lpverify.serialize import network_bytes
from lpverify.settings import Settings
from lpverify.verify import verify_stream

ROOT = Path(__file__).resolve().parents[1]
MODEL = str(ROOT / "lpverify" / "assets" / "digits-demo.safetensors")
COUNT = 12
HALVED = [f"out of memory at batch size {a}: went on with {b}" for a, b in ((12, 6), (6, 3))]
OUT_OF_MEMORY: dict[str, Callable[[], Exception]] = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "torch": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "numpy": MemoryError,
}

Array = NDArray[Any]
Case = tuple[Network, Array, Array]


@pytest.fixture
def case() -> Case:
    network = NETWORKS["deep"](1)
    x = torch.rand(COUNT, network.input_size, generator=torch.Generator().manual_seed(3))
    y = network.forward(x).argmax(1)
    y[5] = 1 - y[5]
    return network, x.numpy(), y.numpy()


def run(case: Case, **options: Any) -> list[Result]:
    """The results; every verdict of them stands up to the checkers."""
    network, x, y = case
    found = list(verify_stream(network, x, y, Settings("0.1", **options)))
    plain = parse_network(network_bytes(network.to(torch.float64)))
    for result in found:
        if result.verdict is Verdict.VERIFIED:
            assert result.certificate is not None
            proof = decode(result.certificate)
            assert rigorous.check(rigorous.Network(plain), [proof])[0].accepted and check_exactly(plain, proof).accepted
    assert [result.index for result in found] == list(range(COUNT))
    return found


def same(found: list[Result], expected: list[Result]) -> None:
    """All that a result says but its seconds and notes, to the bit."""
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.verdict, ours.reason, ours.method) == (theirs.verdict, theirs.reason, theirs.method)
        assert ours.certificate == theirs.certificate
        np.testing.assert_array_equal(ours.margins, theirs.margins)
        if ours.counterexample is not None:
            assert theirs.counterexample is not None
            np.testing.assert_array_equal(ours.counterexample.x, theirs.counterexample.x)


def notes(found: list[Result]) -> list[str]:
    return [note for result in found for note in result.notes]


def fail_from(monkeypatch: pytest.MonkeyPatch, size: int, error: Callable[[], Exception], device: str = "cpu") -> None:
    """Batches of at least so many examples fail on a device, at their last shared stage but one."""
    original = lpverify.pipeline._clean_stage

    def stage(session: Any, batch: Any, progress: Any) -> None:
        original(session, batch, progress)
        if len(batch.x) >= size and session.device == device:
            raise error()

    monkeypatch.setattr(lpverify.pipeline, "_clean_stage", stage)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device "cuda" that computes on the CPU."""
    original = Network.to

    def to(network: Network, dtype: Any = None, device: Any = None) -> Network:
        return original(network, dtype, "cpu" if device == "cuda" else device)

    monkeypatch.setattr(Network, "to", to)
    monkeypatch.setattr(lpverify.session, "require_device", lambda device: None)
    yield


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_batches_are_halved_until_they_fit(case: Case, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The results are those of a run that was asked for the smaller batches, to the bit."""
    expected = run(case, batch_size=3)
    verdicts = [result.verdict for result in run(case, batch_size=12)]
    assert {Verdict.VERIFIED, Verdict.FALSIFIED} <= set(verdicts)
    fail_from(monkeypatch, 4, OUT_OF_MEMORY[kind])
    found = run(case, batch_size=12)
    same(found, expected)
    assert [result.verdict for result in found] == verdicts
    assert notes(found) == HALVED
    assert len(found[0].notes) == 2


def test_attacks_and_radii_are_halved_too(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end as a run that was asked for the smaller batches does, and say so."""
    network, x, y = case

    def attacked(size: int) -> list[Result]:
        return list(attack_stream(network, x, y, Settings("0.3", batch_size=size), range(COUNT), method="pgd"))

    def bounded(size: int) -> list[RadiusResult]:
        return list(radii(network, x, y, Settings("0.5", batch_size=size)))

    def within_three(original: Any) -> Any:
        def limited(*arguments: Any, **options: Any) -> Any:
            if len(arguments[2].d if isinstance(arguments[2], Specification) else arguments[3].d) > 3:
                raise MemoryError
            return original(*arguments, **options)

        return limited

    broken, far = attacked(3), bounded(3)
    monkeypatch.setattr(lpverify.falsify, "attack", within_three(lpverify.falsify.attack))
    monkeypatch.setattr(CrownBound, "bound", within_three(CrownBound.bound))
    same(again := attacked(12), broken)
    assert notes(again) == HALVED and Verdict.FALSIFIED in {result.verdict for result in again}
    found = bounded(12)
    assert [note for r in found for note in r.notes] == HALVED
    assert [(r.index, r.certificate is None) for r in found] == [(r.index, r.certificate is None) for r in far]
    # The steps of a search for radii depend on which examples take them together.
    assert [r.certified for r in found] == pytest.approx([r.certified for r in far], rel=1e-3)
    assert sum(r.certified > 0 for r in found) >= COUNT // 2


def test_five_halvings_end_at_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = case
    many: Case = network, np.tile(x, (20, 1)), np.tile(y, 20)
    fail_from(monkeypatch, 2, MemoryError)
    found = list(verify_stream(*many, Settings("0.1", method="interval", batch_size=240)))
    sizes = [240, 120, 60, 30, 15, 1]
    assert notes(found) == [
        f"out of memory at batch size {a}: went on with {b}" for a, b in pairwise(sizes)
    ]
    assert [result.index for result in found] == list(range(240))


def test_what_was_made_before_the_fault_is_not_made_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault at the fifth example that is done alone: the ones before it were searched once."""
    original, asked = lpverify.pipeline._solve, []

    def solve(session: Any, batch: Any, progress: Any) -> None:
        asked.append(batch.indices[0])
        if len(asked) == 5:
            raise MemoryError
        original(session, batch, progress)

    expected = run(case, method="lp", workers=0, batch_size=12)
    monkeypatch.setattr(lpverify.pipeline, "_solve", solve)
    found = run(case, method="lp", workers=0, batch_size=12)
    assert [r.verdict for r in found] == [r.verdict for r in expected]
    assert len(asked) > 5 and [asked.count(i) for i in dict.fromkeys(asked)].count(2) == 1
    assert asked[4] == asked[5]
    (at,) = [result for result in found if result.notes]
    # The rest of twelve, halved; what needs no solver may come before the one that failed.
    assert at.notes == ("out of memory at batch size 12: went on with 6",) and at.index <= asked[4]


def test_a_search_without_memory_is_unknown_and_the_others_go_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(*_: Any, **__: Any) -> Any:
        raise MemoryError

    network, x, y = case
    expected = list(verify_stream(network, x, y, Settings("0.25")))
    searched = [r.nodes is not None for r in expected]
    assert any(searched) and not all(searched)
    monkeypatch.setattr(lpverify.pipeline, "solve", solve)
    for ours, theirs, was in zip(verify_stream(network, x, y, Settings("0.25")), expected, searched, strict=True):
        assert ours.notes == ()
        if was:
            assert (ours.verdict, ours.reason) == (Verdict.UNKNOWN, "out of memory in the search")
        else:
            assert (ours.verdict, ours.certificate) == (theirs.verdict, theirs.certificate)


def test_a_device_without_memory_gives_way_to_the_cpu(
    case: Case, monkeypatch: pytest.MonkeyPatch, pretended: None
) -> None:
    """With batches as they were asked for; the results are those of the CPU, to the bit."""
    expected = run(case, batch_size=4)
    fail_from(monkeypatch, 1, OUT_OF_MEMORY["device"], "cuda")
    found = run(case, batch_size=4, device="cuda")
    same(found, expected)
    assert notes(found) == [
        "out of memory at batch size 4: went on with 2",
        "out of memory at batch size 2: went on with 1",
        "out of memory on cuda at batch size 1: went on on the CPU",
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_device_that_is_lost_gives_way_to_the_cpu(
    case: Case, monkeypatch: pytest.MonkeyPatch, pretended: None, place: int
) -> None:
    """The batch in which it happens is done there again, and those after it."""
    expected = run(case, batch_size=4)
    original, calls = lpverify.pipeline._clean_stage, []

    def stage(session: Any, batch: Any, progress: Any) -> None:
        calls.append((session.device, batch.indices[0]))
        if session.device == "cuda" and len(calls) > place:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
        original(session, batch, progress)

    monkeypatch.setattr(lpverify.pipeline, "_clean_stage", stage)
    found = run(case, batch_size=4, device="cuda")
    same(found, expected)
    before, after = [("cuda", 4 * k) for k in range(place + 1)], [("cpu", 4 * k) for k in range(place, 3)]
    assert calls == before + after
    (note,) = notes(found)
    assert found[4 * place].notes == (note,)
    assert note.startswith("device cuda failed (CUDA error: unspecified launch failure")


def test_a_network_too_large_for_the_device_is_on_the_cpu(
    case: Case, monkeypatch: pytest.MonkeyPatch, pretended: None
) -> None:
    original = Network.to

    def to(network: Network, dtype: Any = None, device: Any = None) -> Network:
        if device == "cuda":
            raise OUT_OF_MEMORY["device"]()
        return original(network, dtype, device)

    expected = run(case)
    monkeypatch.setattr(Network, "to", to)
    found = run(case, device="cuda")
    same(found, expected)
    assert notes(found) == ["out of memory on cuda for the network: went on on the CPU"]


def test_other_errors_are_none_of_these(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the program, or one of a device where none is used, is raised; our own errors are no faults."""
    for error in (RuntimeError("shapes differ"), torch.AcceleratorError("CUDA error: lost"), KeyError("x")):
        fail_from(monkeypatch, 1, lambda error=error: error)  # type: ignore[misc]
        with pytest.raises(type(error)):
            run(case)
        monkeypatch.undo()
    for words in ("out of memory", "CUDA error"):
        assert not is_out_of_memory(ResourceError(words)) and not is_device_fault(ResourceError(words))
    assert is_device_fault(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_run_out_of_memory_ends_with_5_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["verify", MODEL, "--data", "digits", "--index", "0:24", "--eps", "0.05", "--clip", "0", "1"]
    ask += ["--batch-size", "8", "--out"]
    assert main([*ask, str(tmp_path / "whole")]) == 0
    original, calls = lpverify.pipeline._clean_stage, [0]

    def stage(session: Any, batch: Any, progress: Any) -> None:
        calls[0] += 1
        if calls[0] > 1:
            raise MemoryError
        original(session, batch, progress)

    monkeypatch.setattr(lpverify.pipeline, "_clean_stage", stage)
    capsys.readouterr()
    assert main([*ask, str(tmp_path / "run")]) == 5
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory at batch size 1; what was written is kept" in said
    assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 8
    monkeypatch.undo()
    fail_from(monkeypatch, 8, MemoryError)
    assert main([*ask, str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "note: out of memory at batch size 8: went on with 4" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["notes"] == ["out of memory at batch size 8: went on with 4"] and summary["examples"] == 24
    lines = [[json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()]
             for name in ("run", "whole")]  # fmt: skip
    assert [line["verdict"] for line in lines[0]] == [line["verdict"] for line in lines[1]]
    assert [line["index"] for line in lines[0] if "notes" in line] == [8]
    assert main(["check", str(tmp_path / "run"), "--data", "digits"]) == 0


def test_a_network_beyond_the_memory_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ask = ["verify", MODEL, "--data", "digits", "--index", "0:2", "--eps", "0.05", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(lpverify.memory, "SLACK", 0)
    monkeypatch.setattr(lpverify.memory, "available", lambda: 100_000)
    assert main(ask) == 5
    # 11,442 parameters, loaded as float64: once more so, float32 three times; 1,674 values and 90 entries of the claim.
    need = 20 * 11442 + 8 * (64 + 2 * 800 + 10 + 90)
    assert f"need at least {need / 2**30:.3g} GiB, 9.31e-05 GiB are available" in capsys.readouterr().err
    monkeypatch.setattr(lpverify.memory, "available", lambda: need)
    assert main([*ask, "--overwrite"]) == 0


LIMITED = """
import resource, sys
import numpy as np, torch
from lpverify.lowering import lower_module
from lpverify.memory import available, require_memory
from lpverify.settings import Settings
from lpverify.verify import verify_stream

width, count, megabytes = map(int, sys.argv[1:])
torch.manual_seed(0)
network = lower_module(torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)), (8,))
x = np.random.default_rng(0).random((count, 8)).astype(np.float32)
y = network.forward(torch.as_tensor(x[:1])).argmax(1).numpy().repeat(count)
settings = Settings("0", method="interval", batch_size=count)
if count > 1:
    list(verify_stream(network, x[:1], y[:1], settings))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
taken = int(status["VmSize"].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_AS, (taken + (megabytes << 20), resource.RLIM_INFINITY))
assert available() <= megabytes << 20
if count == 1:
    require_memory(network, settings)
found = list(verify_stream(network, x, y, settings))
assert [result.index for result in found] == list(range(count))
assert "unknown" not in {result.verdict for result in found}
print([note for result in found for note in result.notes])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_real_limit_of_memory_is_lived_with() -> None:
    """600 examples at once take 24 MB for every array of values in float64, and there are some; 40 MB are given."""
    done = limited(5_000, 600, 40)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['out of memory at batch size 600: went on with 300'")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_real_limit_too_small_for_the_network_is_refused() -> None:
    """A million units: 308 MB for the copies of the parameters, of which 30 MB and the slack are left."""
    done = limited(1_000_000, 1, 30)
    assert "ResourceError: memory: the network and a batch of one need at least" in done.stderr


def limited(*arguments: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", LIMITED, *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)


def test_the_estimate_is_below_what_is_taken() -> None:
    """What it counts is there at the same time: a session's parameters alone are as large."""
    network = NETWORKS["deep"](1)
    every = sum(linear.weight.numel() for node in network.nodes for linear in getattr(node, "maps", ()))
    biases = sum(node.bias.numel() for node in network.nodes if hasattr(node, "bias"))
    need = least_needed(network, Settings("0"))
    assert 28 * (every + biases) < need < 28 * (every + biases) + 10_000
    assert least_needed(network, Settings("0", dtype="float64")) < need
    have = available()
    assert have is None or have > need
