"""The orderings: each one alone is noticed, what cannot be compared is not compared, rounding is let through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lpverify.comparison.measure import Measured
from lpverify.comparison.orderings import SLACK, is_within, violations
from lpverify.problem import LayerBounds

UPPERS = np.array([1.0, 2.0])


def layers(lower: list[float], upper: list[float]) -> dict[int, LayerBounds]:
    return {2: LayerBounds(torch.tensor([lower]).double(), torch.tensor([upper]).double())}


def found(
    method: str,
    margins: tuple[float, float],
    certified: tuple[float, float] = (-9.0, -9.0),
    bounds: tuple[list[float], list[float]] = ([-1.0, 1.0], [1.0, 2.0]),
    own: tuple[bool, bool] = (True, True),
) -> Measured:
    return Measured(method, np.array(margins), np.array(certified), np.array(own), layers(*bounds))


def said(*measured: Measured, dtype: str = "float64") -> list[str]:
    return [str(violation) for violation in violations(measured, UPPERS, dtype)]


def test_numbers_in_order() -> None:
    attack = Measured("attack", UPPERS, np.full(2, math.nan), np.ones(2, dtype=bool), uppers=UPPERS)
    crown, lp = found("crown", (0.0, 1.0), (0.0, 1.0)), found("lp", (0.5, 1.0), (0.5, 1.0))
    assert said(attack, crown, lp, found("milp", (1.0, 2.0), (0.5, 1.0))) == []


def test_a_claim_above_a_point() -> None:
    assert said(found("crown", (0.0, 2.5))) == ["row 1: crown 2.5 is above the margin at a point 2"]
    assert said(found("milp", (math.inf, 0.0))) == ["row 0: milp inf is above the margin at a point 1"]


def test_a_proof_above_a_point_by_the_last_bit() -> None:
    above = float(np.nextafter(1.0, 2.0))
    assert len(said(found("crown", (above, 0.0), (above, 0.0)))) == 1
    assert said(found("crown", (above, 0.0), (1.0, 0.0))) == []


def test_a_proof_above_its_claim() -> None:
    assert said(found("dual", (0.0, 0.0), (0.1, 0.0))) == ["row 0: dual (certified) 0.1 is above dual 0"]


@pytest.mark.parametrize("method", ["interval", "dual", "crown", "alpha"])
@pytest.mark.parametrize("solver", ["lp", "lp-tight", "sdp", "milp"])
def test_a_relaxation_above_one_inside_it(method: str, solver: str) -> None:
    assert said(found(method, (0.3, 0.0)), found(solver, (0.2, 0.0))) == [f"row 0: {method} 0.3 is above {solver} 0.2"]


def test_rows_that_the_solver_did_not_reach_are_not_compared() -> None:
    assert said(found("alpha", (0.3, 0.3)), found("lp", (0.2, 0.2), own=(False, True))) == [
        "row 1: alpha 0.3 is above lp 0.2"
    ]


def test_bounds_that_are_not_within_are_not_compared() -> None:
    wide = ([-1.5, 1.0], [1.0, 2.0])
    assert said(found("dual", (0.3, 0.0)), found("lp", (0.2, 0.0), bounds=wide)) == []
    assert len(said(found("dual", (0.3, 0.0), bounds=wide), found("lp", (0.2, 0.0)))) == 1


def test_stable_neurons_need_no_tight_bounds() -> None:
    stable = found("lp-tight", (0.0, 0.0), bounds=([0.0, 0.5], [9.0, 9.0]))
    assert is_within(stable, found("dual", (0.0, 0.0)), "float64")
    assert not is_within(found("lp", (0.0, 0.0)), found("dual", (0.0, 0.0), bounds=([0.0, 1.0], [1.0, 2.0])), "float64")


def test_cheap_methods_are_not_ordered_among_themselves() -> None:
    assert said(found("dual", (0.3, 0.0)), found("crown", (0.2, 0.0)), found("interval", (0.4, 0.0))) == []
    assert said(found("lp", (0.3, 0.0)), found("lp-tight", (0.3, 0.0))) == []
    assert len(said(found("lp", (0.3, 0.0)), found("lp-tight", (0.2, 0.0)))) == 1


def test_nothing_is_not_a_number_out_of_order() -> None:
    assert said(found("lp", (math.nan, -math.inf), (math.nan, -math.inf))) == []


@pytest.mark.parametrize("dtype", list(SLACK))
def test_rounding_is_let_through_and_no_more(dtype: str) -> None:
    for share, count in ((0.5, 0), (2.0, 1)):
        margin = 1.0 + share * SLACK[dtype] * 2.0
        assert len(said(found("crown", (margin, 0.0)), dtype=dtype)) == count
