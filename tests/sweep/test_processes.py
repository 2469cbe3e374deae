"""Sweeps over processes of this machine: the results of one process, whatever befalls a worker."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import dense
from sweep.compared import said
from sweep.sweep_tasks import Numbers

from lpverify.data import load_data
from lpverify.detect import detect_stream
from lpverify.errors import SoundnessError, UsageError
from lpverify.evidence import claim_of
from lpverify.falsify import AttackBatch
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.progress import Asked
from lpverify.radius.radii import RadiusBatch, radii
from lpverify.result import Verdict
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.sweep import Task, sweep
from lpverify.sweep.cut import Cut
from lpverify.sweep.verifying import VerifyBatch
from lpverify.verify import verify, verify_stream

DIGITS = Path(__file__).resolve().parents[2] / "lpverify" / "assets" / "digits-demo.safetensors"
# Time for every example: what a limit of time decides is not the same twice.
ASKED = Settings("0.07", clip=("0", "1"), batch_size=4, timeout=600.0)
CRASHED = "given up after 2 tries: worker crashed (signal 11)"


@functools.cache
def digits(first: int, last: int) -> tuple[Network, Any, Any]:
    examples = load_data("digits")
    assert examples.y is not None
    return load_model(DIGITS), examples.x[first:last], examples.y[first:last]


def told(tasks: list[Numbers], workers: int = 2) -> list[str]:
    return sorted(sweep(dense(0, 2, 3, 2), Settings("0.5", workers=workers), tasks))


@pytest.mark.parametrize(
    ("settings", "first", "last", "methods"),
    [
        (ASKED, 44, 58, {"crown", "phase splits"}),
        (replace(ASKED, method="crown"), 0, 20, {"pgd", "crown"}),
        (replace(ASKED, method="lp", eps="0.05"), 40, 46, {"lp"}),
    ],
    ids=["auto", "crown", "lp"],
)
def test_two_processes_find_what_one_finds(settings: Settings, first: int, last: int, methods: set[str]) -> None:
    network, x, y = digits(first, last)
    names = list(range(first, last))
    one = list(verify_stream(network, x, y, settings, names))
    two = list(verify_stream(network, x, y, replace(settings, workers=2), names))
    assert [r.index for r in one] == names == sorted(r.index for r in two)
    assert [said(r) for r in one] == [said(r) for r in sorted(two, key=lambda r: r.index)]
    assert {r.method for r in one} >= methods


def test_finished_examples_are_not_done_again_and_the_others_are_what_they_were() -> None:
    network, x, y = digits(40, 52)
    whole = {r.index: said(r) for r in verify_stream(network, x, y, ASKED)}
    finished = {0, 1, 2, 3, 5, 9}
    rest = list(verify_stream(network, x, y, replace(ASKED, workers=2), finished=finished))
    assert {r.index: said(r) for r in rest} == {i: whole[i] for i in whole if i not in finished}


def test_radii_and_detection_are_spread_too() -> None:
    network, x, y = digits(0, 6)
    one, two = (replace(ASKED, method="crown", workers=n) for n in (1, 2))
    found = [sorted((r.index, r.certificate, r.attacked) for r in radii(network, x, y, s)) for s in (one, two)]
    assert found[0] == found[1] and len(found[0]) == 6 and all(certificate for _, certificate, _ in found[0])
    flagged = [sorted(map(said, detect_stream(network, x, s))) for s in (one, two)]
    assert flagged[0] == flagged[1] and len(flagged[0]) == 6


@pytest.mark.parametrize("kind", ["verify", "attack", "radius"])
def test_batches_of_every_kind_can_be_cut_and_given_up(kind: str) -> None:
    """What a batch finds is what its parts find, but for last bits; finished examples are in neither."""
    network, x, y = digits(0, 4)
    flat, names, finished = x.reshape(4, -1), [3, 5, 7, 9], frozenset({5})
    settings = replace(ASKED, method="crown")
    tasks: dict[str, Task[Any]] = {
        "verify": VerifyBatch(Asked(
            names, flat, [claim_of(settings, row, int(c), 10) for row, c in zip(flat, y, strict=True)],
            Specification.label(torch.as_tensor(y), 10), y.tolist(), finished,
        )),
        "attack": AttackBatch(
            Cut(names, flat, y, finished), {"method": "pgd", "loss": "margin", "steps": 5, "restarts": 1}
        ),
        "radius": RadiusBatch(Cut(names, flat, y, finished)),
    }  # fmt: skip
    task = tasks[kind]
    with Session(network, settings) as session:
        whole = {r.index: r for r in task.run(session)}
        answer = task(session)
        assert not answer.left or kind == "verify"
        done = [r for part in task.parts() for r in part.run(session)]
    assert list(whole) == [3, 7, 9] == [r.index for r in done] and {r.index for r in answer.results} <= set(whole)
    if kind != "radius":
        assert [whole[r.index].verdict for r in done] == [r.verdict for r in done]
    given_up = task.given_up(settings, "the reason")
    assert [(r.index, r.reason) for r in given_up] == [(n, "the reason") for n in (3, 7, 9)]
    if kind == "radius":
        assert all(r.certified == 0 and r.certificate is None for r in given_up)
    else:
        assert all(r.verdict is Verdict.UNKNOWN and r.certificate is None for r in given_up)
    assert all(part.parts() == [] for part in task.parts()) and task.seconds(settings) > 600


def test_a_claim_is_spread_and_comes_in_order() -> None:
    network, x, _ = digits(0, 9)
    claim = (np.eye(10)[:2] - np.eye(10)[2:4], np.array([30.0, 30.0]))
    one, two = (
        verify(network, x, eps="0.02", claim=claim, batch_size=2, method="crown", workers=n) for n in (1, 2)
    )
    assert [r.index for r in two] == list(range(9)) and [said(r) for r in one] == [said(r) for r in two]


def test_what_a_task_leaves_is_done_too(tmp_path: Path) -> None:
    found = told([Numbers((1, 2, 3), tmp_path, left=(2, 3)), Numbers((4,), tmp_path)])
    assert found == ["1 eps 0.5", "2 eps 0.5", "3 eps 0.5", "4 eps 0.5"]
    assert told([Numbers((1, 2), tmp_path)], workers=1) == ["1 here", "2 here"]


def test_a_task_whose_worker_dies_once_is_tried_again(tmp_path: Path) -> None:
    found = told([Numbers((1, 2), tmp_path, poison=(2,), deaths=1), Numbers((3,), tmp_path)])
    assert found == ["1 eps 0.5", "2 eps 0.5", "3 eps 0.5"]
    assert len(list(tmp_path.glob("1-2.*"))) == 2


def test_a_poison_costs_its_example_alone(tmp_path: Path) -> None:
    found = told([Numbers((n, n + 1, n + 2), tmp_path, poison=(4,)) for n in (0, 3, 6)])
    assert found == [f"{n} eps 0.5" if n != 4 else f"4 {CRASHED}" for n in range(9)]
    # Twice as a batch, once by itself.
    assert len(list(tmp_path.glob("3-4-5.*"))) == 2 and len(list(tmp_path.glob("4.*"))) == 1


def test_a_poison_that_a_batch_leaves_is_given_up_after_two_tries(tmp_path: Path) -> None:
    batch = Numbers((1, 2), tmp_path, left=(2,), poison=(2,), deaths=0)
    found = told([replace(batch, poison=()), Numbers((7,), tmp_path, poison=(7,))])
    assert found == ["1 eps 0.5", "2 eps 0.5", f"7 {CRASHED}"]
    assert len(list(tmp_path.glob("7.*"))) == 2


def test_a_task_past_its_limit_is_ended_and_given_up(tmp_path: Path) -> None:
    found = told([Numbers((1,), tmp_path, limit=0.2, slow=True), Numbers((2,), tmp_path)])
    reason = "given up after 2 tries: worker exceeded its limit of 0.2 s and was ended"
    assert found == [f"1 {reason}", "2 eps 0.5"]


def test_contradictory_evidence_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SoundnessError, match="two and two are five"):
        told([Numbers((1,), tmp_path, false=True)])


def test_what_a_session_refuses_is_refused_before_any_task(tmp_path: Path) -> None:
    network = dense(0, 2, 3, 2).map_tensors(lambda t: t.double() / 3)
    with pytest.raises(UsageError, match="float32"):
        list(sweep(network, Settings("0.5", workers=2, semantics="float32"), [Numbers((1,), tmp_path)]))
    with pytest.raises(UsageError, match="second-order cone"):
        x = np.zeros((4, 2))
        verify(network, x, np.zeros(4, int), "0.1", norm="2", method="milp", workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_closed_leaves_no_process(tmp_path: Path) -> None:
    tasks = [Numbers((n,), tmp_path, slow=n > 0) for n in range(4)]
    found = sweep(dense(0, 2, 3, 2), Settings("0.5", workers=2), tasks)
    assert next(found) == "0 eps 0.5"
    found.close()  # type: ignore[attr-defined]
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name.rpartition(".")[2]), 0)
