"""Properties: exact witnesses of clauses, the attack on them, and how time and verdicts are shared between claims."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import dense_network, random_network

from lpverify import properties
from lpverify.attack import attack
from lpverify.attack.base import AttackOptions
from lpverify.attack.exact import exact_outputs, rational_outputs
from lpverify.certificate import exact
from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, ClauseRows, Inequality, LabelRows, RationalBox
from lpverify.certificate.exact_linear import evaluate
from lpverify.certificate.exact_region import point_meant
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode_witness
from lpverify.clause_witness import Judge
from lpverify.errors import DataError, ShapeError
from lpverify.network import Network
from lpverify.problem import Box, Specification
from lpverify.properties import Conclusion, tensors, verify_property
from lpverify.result import Result, Verdict
from lpverify.search.attack import attack_claim
from lpverify.search.task import Goal
from lpverify.serialize import network_bytes, raw_array
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.vnnlib import Property, read_property

SETTINGS = Settings("0", workers=0)


def row(coefficients: dict[int, Any], constant: Any, strict: bool = True) -> Inequality:
    units = tuple(sorted(coefficients))
    return Inequality(units, tuple(Fraction(coefficients[u]) for u in units), Fraction(constant), strict)


def identity(inputs: int) -> Network:
    """f(x) = x, with a ReLU layer in between that clips nothing above -8."""
    eye, eight = torch.eye(inputs, dtype=torch.float64), torch.full((inputs,), 8.0, dtype=torch.float64)
    return dense_network((eye, eight), (eye, -eight))


def judge(network: Network, claim: Claim, faces: tuple[tuple[int, bool], ...] = ()) -> Judge:
    return Judge(network, network.to(torch.float32), claim, faces)


fractions = st.fractions(-1, 1, max_denominator=1000)


@given(st.integers(0, 10**6), st.lists(fractions, min_size=3, max_size=3))
@settings(deadline=None, max_examples=50)
def test_rational_points_are_evaluated_exactly(seed: int, x: list[Fraction]) -> None:
    network = random_network(seed, (3, 6, 5, 2))
    assert rational_outputs(network, x) == evaluate(parse_network(network_bytes(network)), x)
    floats = [float(v) for v in x]
    dyadic = rational_outputs(network, list(map(Fraction, floats)))
    assert dyadic == exact_outputs(network, np.array(floats)).fractions()


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(fractions, st.fractions(0, 1, max_denominator=30)), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.lists(st.tuples(fractions, fractions, fractions, st.booleans()), min_size=1, max_size=3), min_size=1,
             max_size=3),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_a_witness_is_what_the_exact_checker_accepts(
    seed: int,
    sides: list[tuple[Fraction, Fraction]],
    point: list[float],
    clauses: list[list[tuple[Fraction, Fraction, Fraction, bool]]],
) -> None:
    network = random_network(seed, (3, 6, 2))
    box = RationalBox(tuple(low for low, _ in sides), tuple(low + wide for low, wide in sides))
    rows = tuple(tuple(row({0: a, 1: b}, c, strict) for a, b, c, strict in clause) for clause in clauses)
    claim = Claim(box, ClauseRows(2, rows))
    found = judge(network, claim)(np.array(point))
    plain = parse_network(network_bytes(network))
    # The point that is judged is never further from the box than the one proposed, so clamp that one as well.
    x = point_meant(box, list(map(Fraction, point))) if found is None else point_meant(
        box, [Fraction(v) for v in found.x.tolist()]
    )  # fmt: skip
    y = evaluate(plain, x)
    values = [[sum((c * y[u] for u, c in zip(r.units, r.coefficients, strict=True)), r.constant) for r in clause]
              for clause in rows]  # fmt: skip
    fails = [all(v < 0 or (v == 0 and r.strict) for v, r in zip(vs, rs, strict=True))
             for vs, rs in zip(values, rows, strict=True)]  # fmt: skip
    if found is None:
        # Moving the point to a float32 of the box may leave a clause that hardly fails.
        assert not any(fail and max(vs) < -1e-5 for fail, vs in zip(fails, values, strict=True))
        return
    assert fails[found.row]
    stored = decode_witness(found.witness(claim, plain.sha256).encode())
    outcome = exact.check_witness(plain, stored)
    assert outcome.accepted, outcome.message


def test_an_input_fixed_at_a_decimal_that_is_no_float_has_a_witness() -> None:
    tenth = Fraction(1, 10)
    claim = Claim(RationalBox((tenth,), (tenth,)), ClauseRows(1, ((row({0: 1}, -tenth),),)))
    found = Judge(identity(1), identity(1).to(torch.float32), claim)(np.array([7.0]))
    assert found is not None and (found.x[0], found.row, found.margin) == (0.1, 0, 0.0)
    open_claim = Claim(claim.region, ClauseRows(1, ((row({0: 1}, -tenth, strict=False),),)))
    assert Judge(identity(1), identity(1).to(torch.float32), open_claim)(np.array([0.1])) is None


def test_points_are_moved_to_float32_where_the_box_has_one() -> None:
    low, high = Fraction(1, 10), Fraction(1, 5)
    claim = Claim(RationalBox((low, low), (high, low)), ClauseRows(2, ((row({0: 1}, -1),),)))
    for proposed in (-3.0, 0.1, 0.15, 0.2, 9.0, math.inf, -math.inf, math.nan):
        found = judge(identity(2), claim)(np.array([proposed, 0.1]))
        assert found is not None and float(np.float32(found.x[0])) == found.x[0] and found.x[1] == 0.1
        assert low <= Fraction(found.x[0]) <= high


def test_a_point_on_an_open_face_is_moved_off_it() -> None:
    claim = Claim(RationalBox((Fraction(0),), (Fraction(1),)), ClauseRows(1, ((row({0: 1}, -2),),)))
    for end, face in ((0.0, (0, False)), (1.0, (0, True))):
        found = judge(identity(1), claim, (face,))(np.array([end]))
        assert found is not None and 0 < found.x[0] < 1
    fixed = Claim(RationalBox((Fraction(1),), (Fraction(1),)), claim.rows)
    assert judge(identity(1), fixed, ((0, True),))(np.array([1.0])) is None


def test_of_two_failing_clauses_the_worse_is_named_by_its_greatest_row() -> None:
    clauses = ((row({0: 1}, -3), row({0: 1}, -4)), (row({0: 1}, -5), row({0: 2}, -9)), (row({0: 1}, 1),))
    claim = Claim(RationalBox((Fraction(1),), (Fraction(1),)), ClauseRows(1, clauses))
    found = judge(identity(1), claim)(np.array([1.0]))
    assert found is not None and (found.row, found.margin, found.margin_float32) == (1, -4.0, -4.0)
    assert found.outputs is not None and found.outputs.tolist() == [1.0] and found.agrees


def test_a_clause_without_rows_fails_everywhere_in_its_box() -> None:
    network = identity(1)
    claim = Claim(RationalBox((Fraction(0),), (Fraction(1),)), ClauseRows(1, ((row({0: 1}, 1),), ())))
    found = judge(network, claim)(np.array([0.5]))
    assert found is not None and (found.row, found.margin) == (1, -math.inf)
    plain = parse_network(network_bytes(network))
    assert exact.check_witness(plain, found.witness(claim, plain.sha256)).accepted


def test_other_regions_and_rows_are_judged_as_well() -> None:
    network, center = identity(2), raw_array(np.array([0.5, 0.25]))
    box = BoxRegion(raw_array(np.array([0.0, 0.0])), raw_array(np.array([1.0, 1.0])))
    for region in (BallRegion(center, "0.5", "inf", None), box):
        claim = Claim(region, LabelRows(0, 2))
        found = judge(network, claim)(np.array([0.0, 3.0]))
        assert found is not None and found.x[0] <= found.x[1] and found.row == 0
        plain = parse_network(network_bytes(network))
        assert exact.check_witness(plain, found.witness(claim, plain.sha256)).accepted
        assert judge(network, claim)(np.array([1.0, 0.0])) is None


def test_a_clauses_margin_is_its_greatest_row_and_its_height_the_sum_of_positive_ones() -> None:
    spec = Specification(torch.eye(4).unsqueeze(0), torch.zeros(1, 4))
    outputs = torch.tensor([[3.0, 2.0, -1.0, -2.0]])
    options = AttackOptions(clauses=((0, 1), (2, 3), (1, 2, 3), ()))
    margins, heights = options.margins_and_heights(spec, outputs)
    assert margins.tolist() == [[3.0, -1.0, 2.0, -math.inf]] and heights.tolist() == [[5.0, -1.0, 2.0, -math.inf]]
    assert options.targets(spec) == 1 and AttackOptions(loss="targeted", clauses=options.clauses).targets(spec) == 4
    assert torch.equal(AttackOptions().margins(spec, outputs), spec.margins(outputs))


def test_clauses_of_one_row_each_are_attacked_as_rows() -> None:
    network = random_network(4, (5, 20, 4))
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    spec = Specification.label(network.forward(x).argmax(1), 4)
    region = Box.linf(x, 0.2)
    for loss in ("margin", "targeted", "cross-entropy"):
        plain = attack(network, region, spec, loss=loss, early_stop=False)
        clauses = attack(network, region, spec, loss=loss, early_stop=False, clauses=((0,), (1,), (2,)))
        assert torch.equal(plain.points, clauses.points) and torch.equal(plain.margins, clauses.margins)


def test_an_attack_stops_at_its_deadline() -> None:
    network = random_network(5, (5, 20, 4))
    x = torch.zeros(1, 5, dtype=torch.float64)
    spec = Specification(torch.ones(1, 1, 4).double(), torch.full((1, 1), 1e6).double())
    began = time.perf_counter()
    attack(network, Box.linf(x, 1.0), spec, steps=10**7, deadline=began + 0.2)
    assert time.perf_counter() - began < 2.0


def goal(network: Network, claim: Claim, found: list[Any], seconds: float = 20.0) -> Goal:
    """What ``attack_claim`` is given."""

    def witness(point: np.ndarray[Any, Any]) -> bool:
        found.append(judge(network, claim)(point))
        return found[-1] is not None

    box, spec = tensors([claim])
    nothing: Any = None
    single = torch.float32
    return Goal(network.to(single), box.to(single), spec.C[0].to(single), spec.d[0].to(single), claim.clauses, witness,
                nothing, time.perf_counter() + seconds)  # fmt: skip


@pytest.mark.parametrize("inputs", [2, 12])
def test_the_attack_finds_a_small_corner_of_a_box_and_no_more(inputs: int) -> None:
    network = identity(inputs)
    box = RationalBox((Fraction(-1),) * inputs, (Fraction(1),) * inputs)
    total = dict.fromkeys(range(inputs), 1)
    # All inputs must be below -0.99, and their sum below -0.995 inputs: a corner of the box.
    each = tuple(row({i: 1}, Fraction(99, 100)) for i in range(inputs))
    for constant, exists in ((Fraction(995, 1000) * inputs, True), (Fraction(inputs) + Fraction(1, 100), False)):
        claim = Claim(box, ClauseRows(inputs, ((*each, row(total, constant)),)))
        found: list[Any] = []
        assert attack_claim(goal(network, claim, found)) is exists
        assert exists or not found


def test_the_attack_finds_what_a_grid_finds() -> None:
    """On tiny networks: wherever a grid has a point that fails clearly, so does the attack."""
    missed = 0
    for seed in range(40):
        network = random_network(seed, (2, 10, 10, 2))
        axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
        grid = network.forward(torch.cartesian_prod(axis, axis))
        least = float(torch.maximum(grid[:, 0], -grid[:, 1]).min())
        constant = Fraction(least).limit_denominator(1000) + Fraction(1, 50)
        claim = Claim(
            RationalBox((Fraction(-1),) * 2, (Fraction(1),) * 2),
            ClauseRows(2, ((row({0: 1}, -constant), row({1: -1}, -constant)),)),
        )
        missed += not attack_claim(goal(network, claim, []))
    assert missed <= 1


def prop(tmp_path: Path, boxes: list[tuple[float, float]], unsafe: str = "(>= Y_0 100)") -> Property:
    """A property of one input and one output, with the same unsafe outputs over several boxes."""
    parts = "\n".join(f"(and (>= X_0 {low:f}) (<= X_0 {high:f}) {unsafe})" for low, high in boxes)
    file = tmp_path / "p.vnnlib"
    file.write_text(f"(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (or\n{parts}))\n")
    return read_property(file)


def line() -> Network:
    """f(x) = |x| by two ReLUs."""
    both, zeros = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return dense_network((both, zeros), (both.abs().T, zeros[:1]))


class FakeSolver:
    """In the place of ``solve``: needs so many seconds for a claim, by its lower end; notes what it was given."""

    def __init__(self, needs: dict[int, float]) -> None:
        self.needs, self.given, self.order = needs, dict[int, list[float]](), list[int]()

    def __call__(self, session: Session, claim: Claim, *, deadline: float, attack_first: bool = True) -> Any:
        assert isinstance(claim.region, RationalBox)
        key, now = int(claim.region.lower[0]), time.perf_counter()
        self.given.setdefault(key, []).append(deadline - now)
        self.order.append(key)
        needed = self.needs[key]
        time.sleep(max(0.0, min(needed, deadline - now)))
        late = needed > deadline - now
        return SimpleNamespace(
            verdict=Verdict.UNKNOWN if late else Verdict.VERIFIED, reason="timeout" if late else "", method="fake",
            margins=np.full(claim.num_rows, np.nan), certificate=None if late else b"", counterexample=None,
            leaves=0 if late else 3,
        )  # fmt: skip


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], FakeSolver]:
    """Replaces the search; the quick bound proves nothing meanwhile."""

    def use(needs: dict[int, float]) -> FakeSolver:
        fake = FakeSolver(needs)
        monkeypatch.setattr(properties, "solve", fake)
        monkeypatch.setattr(properties, "_all_clauses", lambda claim, margins: False)
        return fake

    return use


def collected(asked: Property, network: Network, seconds: float) -> dict[int, Result]:
    with Session(network, SETTINGS) as session:
        results = list(verify_property(session, asked, deadline=time.perf_counter() + seconds))
    assert sorted(result.index for result in results) == list(range(len(asked.claims)))
    return {result.index: result for result in results}


def test_what_quick_claims_leave_goes_to_the_slow_ones(tmp_path: Path, solver: Any) -> None:
    fake = solver({0: 1.0, 2: 0.0, 4: 0.0, 6: 0.0})
    results = collected(prop(tmp_path, [(k, k + 1) for k in (0, 2, 4, 6)]), line(), 2.0)
    assert all(result.verdict is Verdict.VERIFIED for result in results.values())
    # The first had a quarter of the time, and once the others were through all that was left.
    assert fake.order == [0, 2, 4, 6, 0]
    assert fake.given[0][0] == pytest.approx(0.5, abs=0.2) and fake.given[0][1] == pytest.approx(1.5, abs=0.3)


def test_a_claim_without_hope_is_not_tried_for_ever(tmp_path: Path, solver: Any) -> None:
    fake = solver({0: 99.0, 2: 99.0, 4: 0.0})
    began = time.perf_counter()
    results = collected(prop(tmp_path, [(k, k + 1) for k in (0, 2, 4)]), line(), 1.0)
    assert time.perf_counter() - began < 2.0
    assert [results[k].verdict.value for k in range(3)] == ["unknown", "unknown", "verified"]
    assert results[0].reason == "timeout" and len(fake.order) <= 5


def test_one_claim_has_all_the_time(tmp_path: Path, solver: Any) -> None:
    fake = solver({0: 0.0})
    assert collected(prop(tmp_path, [(0, 1)]), line(), 5.0)[0].leaves == 3
    assert fake.given[0] == [pytest.approx(5.0, abs=0.5)]


def test_no_time_at_all_is_a_timeout(tmp_path: Path, solver: Any) -> None:
    solver({0: 1.0, 2: 1.0})
    results = collected(prop(tmp_path, [(0, 1), (2, 3)]), line(), -1.0)
    assert [result.reason for result in results.values()] == ["timeout", "timeout"]


def test_one_counterexample_ends_the_run(tmp_path: Path, solver: Any) -> None:
    fake = solver({})
    results = collected(prop(tmp_path, [(k, k + 1) for k in range(0, 200, 2)], "(>= Y_0 150.5)"), line(), 60.0)
    falsified = [k for k, result in results.items() if result.verdict is Verdict.FALSIFIED]
    assert len(falsified) == 1 and falsified[0] >= 75 and not fake.order
    witness = results[falsified[0]].counterexample
    assert witness is not None and abs(witness.x[0]) >= 150.5
    other = results[(falsified[0] + 1) % 100]
    assert other.verdict is Verdict.UNKNOWN and other.reason == f"claim {falsified[0]} is falsified"


def test_hundreds_of_easy_boxes_cost_a_few_milliseconds_each(tmp_path: Path) -> None:
    asked = prop(tmp_path, [(k, k + 0.5) for k in range(-300, 300)], "(or (<= Y_0 -0.5) (>= Y_0 700))")
    assert len(asked.claims) == 600
    began = time.process_time()
    results = collected(asked, line(), 60.0)
    assert all(result.verdict is Verdict.VERIFIED and result.certificate for result in results.values())
    assert (time.process_time() - began) / 600 < 0.02


def test_the_network_must_fit(tmp_path: Path) -> None:
    with Session(identity(2), SETTINGS) as session, pytest.raises(ShapeError, match="the network has 2 and 2"):
        next(verify_property(session, prop(tmp_path, [(0, 1)])))


def answer(verdict: Verdict, index: int, **other: Any) -> Result:
    fields = {"reason": "", "method": "m", "semantics": "real", "margins": np.zeros(1), "seconds": 0.0}
    return Result(index=index, verdict=verdict, **{**fields, **other})


def test_the_conclusion_needs_all_proofs_or_one_counterexample() -> None:
    proved = [answer(Verdict.VERIFIED, k, leaves=2, method="crown") for k in range(3)]
    conclusion = Conclusion(3)
    for result in proved[:2]:
        conclusion.add(result)
        assert conclusion.verdict is Verdict.UNKNOWN
    conclusion.add(proved[2])
    assert (conclusion.verdict, conclusion.leaves, conclusion.method) == (Verdict.VERIFIED, 6, "crown")
    assert Conclusion(0).verdict is Verdict.VERIFIED and Conclusion(0).reason == "the file describes no unsafe input"
    late = Conclusion(3)
    for result in (*proved[:2], answer(Verdict.UNKNOWN, 2, reason="timeout")):
        late.add(result)
    assert late.verdict is Verdict.UNKNOWN and late.reason == "timeout (1 of 3 claims)"
    late.add(answer(Verdict.FALSIFIED, 0, reason="so", method="pgd"))
    assert (late.verdict, late.reason, late.method) == (Verdict.FALSIFIED, "so", "pgd")


def test_a_counterexample_that_float32_hides_is_moved_to_one_that_it_shows(tmp_path: Path, solver: Any) -> None:
    # At x = 1 + 2^-30 the exact |x| is above 1, its float32 is not; at 2 both are.
    asked = prop(tmp_path, [(0, 2)], "(> Y_0 1)")
    hidden = judge(line(), asked.claims[0])(np.array([1.5]))
    assert hidden is not None
    point = np.array([1 + 2.0**-30])
    hidden = replace(hidden, x=point, margin=-(2.0**-30), margin_float32=5e-324)
    assert not hidden.agrees
    with Session(line(), SETTINGS) as session:
        state = properties._State(session, asked, time.perf_counter() + 60, [0])
        found = state._deeper(0, hidden, time.perf_counter() + 60)
        assert found.agrees and found.x[0] > 1 and found.margin < 0
        # Where nothing near does better, what was found is kept.
        tight = prop(tmp_path, [(0, 1)], "(>= Y_0 1)")
        only = replace(hidden, x=np.array([1.0]), margin=0.0)
        state = properties._State(session, tight, time.perf_counter() + 60, [0])
        assert state._deeper(0, only, time.perf_counter() - 1).x[0] == 1.0


def test_coefficients_that_float64_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_text("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))"
                    "(assert (>= (* 0.12345678901234567891 Y_0) 1))")  # fmt: skip
    with Session(line(), SETTINGS) as session, pytest.raises(DataError, match="box 0: row 0 of the claim"):
        next(verify_property(session, read_property(path)))
