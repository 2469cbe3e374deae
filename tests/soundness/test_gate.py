"""A sample of the soundness gate, and that the gate sees what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hand_made import valley
from networks import enumerate_minimum

from lpverify.attack.exact import rational_outputs
from lpverify.result import Verdict
from soundness import adversarial, metamorphic, multipliers, tiny
from soundness.__main__ import main
from soundness.exact_minimum import least
from soundness.families import families
from soundness.judging import Case, answer, ask, complaints, decimal_text, float32_least, rational_forward
from soundness.layers import network_of, random_layers
from soundness.report import Given, Tally

GIVEN = Given(Path("nowhere"))


def tally(folder: Path) -> Tally:
    return Tally("sample", 1, 600.0, folder)


def test_families_are_enough_and_their_answers_are_right() -> None:
    """The least output at the points where algebra says it is, and none lower at others."""
    cases = [case for family in families().values() for case in family]
    assert len(cases) >= 200 and len(families()) == 9
    rng = np.random.default_rng(0)
    for case in cases:
        assert case.least is not None
        low, high = case.ends
        points = [low, high, [Fraction(1, 2)] * len(low)]
        points += [[a + Fraction(int(rng.integers(0, 33)), 32) * (b - a) for a, b in zip(low, high, strict=True)]
                   for _ in range(2)]  # fmt: skip
        values = [rational_forward(case.network, p)[0] for p in points]
        assert min(values) == case.least, case.name
        assert values == [rational_outputs(case.network, p)[0] for p in points], case.name


def test_float32_evaluations_show_what_reverse_absorbers_hide() -> None:
    cases = families()["reverse absorber"]
    shown = [case for case in cases if case.least == 5 and case.float32_fails]
    assert shown and all(float32_least(case) <= 0 for case in shown)
    assert all(float32_least(case) > 0 for case in cases if case.least == 5 and not case.float32_fails)


@pytest.mark.parametrize("engine", ("auto", "property"))
def test_networks_whose_float32_bounds_are_no_numbers_are_no_fault(engine: str, tmp_path: Path) -> None:
    """2^120 times 2^20 on paths that cancel: bounds and scores of the search are NaN there, and decide nothing."""
    asked = tally(tmp_path)
    cases = families()["overflow"][:2]
    assert [case.least for case in cases] == [-1, 0]
    assert [ask(asked, case, engine, "real", timeout=1.0) for case in cases] == [Verdict.UNKNOWN] * 2
    assert asked.faults == [] and asked.wrong == [] and asked.errors == []


def test_an_exception_of_an_engine_is_a_fault_of_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("soundness.judging.verify", broken)
    asked = tally(tmp_path)
    assert ask(asked, families()["valley"][0], "crown", "real") is None
    assert len(asked.faults) == 1 and "ZeroDivisionError: here" in asked.faults[0]
    assert asked.entry("")["faults"] == asked.faults and (tmp_path / "sample-fault-0.lpnet").is_file()


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_minimum_is_that_of_another_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = 1 + seed % 2
    layers = random_layers(rng, (inputs, 5, 4, 2))
    network, lower = network_of(layers), rng.normal(size=inputs).round(2)
    found, point, pieces = least(layers, [Fraction(v) for v in lower], [Fraction(v) + 1 for v in lower])
    assert pieces > 1 and min(rational_forward(network, point)) == found
    others = [enumerate_minimum(network, lower, lower + 1, row, 0.0)[0] for row in np.eye(2)]
    assert float(found) == pytest.approx(min(others), abs=1e-7)


def test_decimals_are_exact() -> None:
    for value in (Fraction(0), Fraction(-5, 2), Fraction(3, 1024), Fraction("0.3") + Fraction(1, 16), Fraction(-7)):
        assert Fraction(decimal_text(value)) == value


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """Results judged by other answers than the true ones."""
    case = Case("valley", valley(-(2.0**-10)), np.array([0.5]), "0.5", Fraction(2**-10))
    proved = answer(case, "auto", "real")
    assert proved.verdict is Verdict.VERIFIED and complaints(case, proved) == []
    lied = replace(case, least=Fraction(0))
    assert len(complaints(lied, proved)) == 2
    assert len(complaints(case, replace(proved, certificate=None))) == 1
    hole = Case("hole", valley(2.0**-10), np.array([0.3]), "0.5", -Fraction(2**-10))
    found = answer(hole, "auto", "real")
    assert found.verdict is Verdict.FALSIFIED and complaints(hole, found) == []
    assert len(complaints(replace(hole, least=Fraction(1, 2**10)), found)) == 1
    assert len(complaints(replace(hole, eps="0.01"), found)) == 1
    assert len(complaints(replace(hole, network=case.network), found)) == 1
    assert len(complaints(hole, replace(found, counterexample=None))) == 1
    corner = tiny.case(241)
    at_end = answer(corner, "property", "real", timeout=20.0)
    assert at_end.verdict is Verdict.FALSIFIED and complaints(corner, at_end, clamped=True) == []
    assert at_end.counterexample is not None
    beyond = replace(at_end.counterexample, x=at_end.counterexample.x + 1e-9)
    assert complaints(corner, replace(at_end, counterexample=beyond), clamped=True)
    seen = tally(tmp_path / "wrong")
    assert ask(seen, lied, "auto", "real") is Verdict.VERIFIED
    assert len(seen.wrong) == 3 and len(list((tmp_path / "wrong").iterdir())) == 3


def test_the_formula_is_the_bound_of_the_exact_checker_and_the_gate_would_see_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tally(tmp_path)
    multipliers.run(sound, 1600, GIVEN)
    assert sound.wrong == [] and sound.done == 1600
    assert sound.counts["interval: equal to the formula"] == 12 * multipliers.BY_FORMULA
    monkeypatch.setattr(multipliers, "_phi", lambda a, n, low, high: Fraction(0))
    other = tally(tmp_path)
    multipliers._one(other, 1, "interval")
    assert other.wrong


def test_a_sample_has_no_wrong_verdict(tmp_path: Path) -> None:
    verdicts = set()
    for part, items in ((adversarial, 4), (tiny, 10), (metamorphic, 1)):
        asked = tally(tmp_path)
        part.run(asked, items, GIVEN)
        assert asked.wrong == [] and asked.errors == [] and asked.done == items
        verdicts |= {name.rpartition(": ")[2] for name in asked.counts}
    assert {"verified", "falsified", "proved", "certificates that the exact checker accepts"} <= verdicts


def test_the_report_keeps_other_parts_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert main(["--only", "multipliers", "--share", "0.001", "--out", str(out)]) == 0
    assert "100 of 100000 (NOT ALL), 0 wrong" in capsys.readouterr().out
    report = json.loads(out.read_text())
    report["parts"]["tiny"] = report["parts"]["multipliers"] | {"wrong": ["a case"]}
    out.write_text(json.dumps(report))
    assert main(["--only", "multipliers", "--share", "0.001", "--out", str(out)]) == 1
    assert set(json.loads(out.read_text())["parts"]) == {"tiny", "multipliers"}
    assert json.loads(out.read_text())["wrong"] == 1
