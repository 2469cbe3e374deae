"""Points by MILPs: counterexamples that attacks do not find, and never anything but a point."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from deciding import SETTINGS, decide
from numpy.typing import NDArray
from small_networks import random_network

from lpverify.backends.highs import HighsBackend
from lpverify.bounds.root import root_bounds
from lpverify.certificate.claim import BoxRegion, Claim, LinearRows
from lpverify.certificate.proof import Certificate, Leaf
from lpverify.certificate.rigorous_tree import Root
from lpverify.encode import encode
from lpverify.evidence import NO_ROWS
from lpverify.network import Network
from lpverify.problem import Box
from lpverify.result import Verdict
from lpverify.search.attack import attack_claim
from lpverify.search.milp_guide import RowQuestion, fails_by_milp
from lpverify.search.relu_split import PhaseOptions
from lpverify.search.solve import QUICK_ATTACK, THOROUGH_ATTACK
from lpverify.search.task import Task
from lpverify.serialize import raw_array
from lpverify.session import Session
from lpverify.workers import Failure

INPUTS, OUTPUTS = 30, 2
OWN = object()
FIRST = np.eye(1, OUTPUTS)
# Networks whose least values the attacks miss.
SEEDS = (0, 3, 5, 7)


def network_of(seed: int) -> Network:
    return random_network(seed, (INPUTS, 10, 10, OUTPUTS))


@cache
def least(seed: int) -> float:
    """The least first output over the box: a value at the point where a MILP solved to its end has it."""
    network, box = network_of(seed), Box(-torch.ones(1, INPUTS).double(), torch.ones(1, INPUTS).double())
    encoder = encode(network, box, root_bounds(network, box, "crown").layers, milp=True)
    objective, _ = encoder.unit(len(network.nodes) - 1, 0)
    found = HighsBackend().open(encoder.program()).minimise(objective)
    assert found.x is not None
    x = torch.as_tensor(encoder.expressions[0].at(found.x)).clip(-1, 1)
    return float(network.forward(x[None])[0, 0])


def claim_of(thresholds: Sequence[float]) -> Claim:
    """The first output is above each of the thresholds, on the box of all inputs in [-1, 1]."""
    one = np.ones(INPUTS)
    rows = LinearRows(raw_array(np.repeat(FIRST, len(thresholds), 0)), raw_array(-np.array(thresholds)))
    return Claim(BoxRegion(raw_array(-one), raw_array(one)), rows)


class Case:
    """A task, whose programs are answered here or by ``answer``."""

    def __init__(self, seed: int, thresholds: Sequence[float], answer: Any = OWN, seconds: float = 60.0) -> None:
        self.network, self.points, self.asked = network_of(seed), list[NDArray[np.float64]](), list[RowQuestion]()
        self.answer, one = answer, torch.ones(1, INPUTS, dtype=torch.float64)
        with Session(self.network, SETTINGS) as session:
            claim = claim_of(thresholds)
            root = Root(session.checker, Certificate(session.plain.sha256, "real", "crown", claim, Leaf(NO_ROWS, ())))
        C, d = torch.as_tensor(np.repeat(FIRST, len(thresholds), 0)), -torch.tensor(thresholds, dtype=torch.float64)
        self.task = Task(
            self.network, Box(-one, one), C, d, claim.clauses, self.is_witness, self.isolated,
            time.perf_counter() + seconds, root,
        )  # fmt: skip

    def is_witness(self, point: NDArray[np.float64]) -> bool:
        self.points.append(point)
        inside = bool((np.abs(point) <= 1).all())
        return inside and bool(self.task.margin(self.task.values(torch.as_tensor(point)[None]))[0] <= 0)

    def isolated(self, tasks: Sequence[RowQuestion], limit: float) -> Iterator[Any]:
        for task in tasks:
            self.asked.append(task)
            yield task(self.network) if self.answer is OWN else self.answer


@pytest.mark.parametrize("seed", SEEDS)
def test_a_counterexample_that_attacks_miss(seed: int) -> None:
    case = Case(seed, [least(seed) + 1e-4])
    for steps, restarts in (QUICK_ATTACK, THOROUGH_ATTACK):
        assert not attack_claim(case.task, steps=steps, restarts=restarts)
    assert fails_by_milp(case.task, [0], 30.0)
    assert not fails_by_milp(Case(seed, [least(seed) - 1e-4]).task, [0], 30.0)


@pytest.mark.parametrize("share", [1e-4, -1e-4])
def test_solve_asks_after_the_first_trees_and_believes_only_a_point(share: float, monkeypatch: Any) -> None:
    monkeypatch.setattr("lpverify.search.solve.PhaseOptions", partial(PhaseOptions, nodes=0))
    found = decide(network_of(3), claim_of([least(3) + share]), exactly=True)
    assert (found.verdict, found.method) == (
        (Verdict.FALSIFIED, "milp") if share > 0 else (Verdict.UNKNOWN, "search")
    )  # fmt: skip


def test_descents_go_on_from_a_point_beside_a_counterexample() -> None:
    """As where the solver's tolerances leave its point just above the threshold."""
    case = Case(3, [least(3) + 1e-4])
    question = RowQuestion(case.task.region, case.task.root.ranges, FIRST[0], -least(3) - 1e-4, 30.0)
    (x,) = case.isolated([question], 30.0)
    near = 0.999 * x
    value = float(case.network.forward(torch.as_tensor(near)[None])[0, 0])
    again = Case(3, [value - 1e-9], near)
    assert fails_by_milp(again.task, [0], 30.0)
    assert (again.points[0] == near).all() and not (again.points[-1] == near).all()


@pytest.mark.parametrize("answer", [Failure("crashed"), np.full(INPUTS, np.nan), np.full(INPUTS, 1e9), None])
def test_answers_that_are_none_are_no_witness(answer: Any) -> None:
    case = Case(3, [least(3) - 1e-4, least(3) - 0.1], answer)
    assert not fails_by_milp(case.task, [0, 1], 30.0)
    assert len(case.asked) == 2


def test_rows_share_the_seconds_and_clauses_of_several_are_left_out() -> None:
    case = Case(3, [least(3) - 1e-4] * 4, Failure("crashed"))
    task = replace(case.task, clauses=((0,), (1, 2), (3,)))
    assert not fails_by_milp(task, [0, 1, 2], 10.0)
    assert [pytest.approx(-d.d) for d in case.asked] == [least(3) - 1e-4] * 2
    assert case.asked[0].seconds <= 5.0 and case.asked[1].seconds <= 10.0
    case.asked.clear()
    assert not fails_by_milp(replace(task, deadline=time.perf_counter() - 1), [0, 2], 10.0)
    assert not case.asked
