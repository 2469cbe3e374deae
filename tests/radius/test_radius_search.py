"""The search for the zero of a costly decreasing function, and decimals that round to one side."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpverify.certificate.claim import decimal
from lpverify.radius.search import EVALUATIONS, TOLERANCE, Bracket, decimal_above, decimal_below

Function = Callable[[float], float]


def close_in(function: Function, low: float, high: float, reachable: bool) -> tuple[Bracket, int]:
    """The bracket when it is closed or EVALUATIONS are spent, and how often the function was evaluated."""
    bracket, count = Bracket(low, high, function(0.0), reachable=reachable), 0
    while not bracket.closed:
        eps = bracket.next()
        assert bracket.low < eps <= bracket.high and (eps < bracket.high or reachable)
        bracket.tell(eps, function(eps))
        count += 1
        if count == EVALUATIONS:
            break
    return bracket, count


# Decreasing, positive at 0, with their zeros.
SMOOTH: dict[str, tuple[Function, float]] = {
    "line": (lambda e: 2 - 40 * e, 0.05),
    "concave": (lambda e: 1 - (e / 0.05) ** 2, 0.05),
    "sharply concave": (lambda e: 1 - (e / 0.05) ** 4, 0.05),
    "exponential": (lambda e: 8 - math.exp(40 * e), math.log(8) / 40),
    "convex": (lambda e: math.exp(-30 * e) - 0.2, math.log(5) / 30),
    "kink": (lambda e: min(5 - 20 * e, 1 - 30 * (e - 0.04)), 0.04 + 1 / 30),
}


@pytest.mark.parametrize("above", [1.05, 1.6, 20.0])
@pytest.mark.parametrize("below", [0.7, 0.9, 0.99])
@pytest.mark.parametrize("name", SMOOTH)
def test_few_evaluations_close_in_on_the_zero(name: str, below: float, above: float) -> None:
    function, zero = SMOOTH[name]
    bracket, count = close_in(function, below * zero, above * zero, above == 20)
    assert bracket.low <= zero <= bracket.high <= bracket.low / (1 - TOLERANCE)
    assert count <= 10 < EVALUATIONS


def test_a_limit_that_can_be_reached_is_reached_at_once() -> None:
    bracket, count = close_in(lambda e: 1 - e / 10, 0.1, 0.5, True)
    assert bracket.low == bracket.high == 0.5 and count == 2


@given(
    zero=st.floats(1e-6, 1.0),
    below=st.just(0.0) | st.floats(0.01, 0.999),
    above=st.floats(1.001, 100.0),
    steps=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=6),
)
def test_whatever_the_function_the_bracket_holds_its_zero(
    zero: float, below: float, above: float, steps: list[float]
) -> None:
    """A staircase that crosses zero at ``zero``: values tell nothing but their sign."""

    def function(eps: float) -> float:
        step = int(eps / zero * 3)
        return steps[step % len(steps)] * (1 if eps < zero else -1)

    bracket, _ = close_in(function, below * zero, above * zero, False)
    assert below * zero <= bracket.low <= zero <= bracket.high <= above * zero


def test_nothing_known_is_not_positive() -> None:
    bracket = Bracket(0.0, 1.0, 1.0, reachable=False)
    bracket.tell(0.5, math.nan)
    assert bracket.low == 0 and bracket.high == 0.5 and 0 < bracket.next() < 0.5


@given(st.floats(min_value=0, max_value=1e6, exclude_min=True))
def test_decimals_round_to_their_side(eps: float) -> None:
    below, above = decimal(decimal_below(eps)), decimal(decimal_above(eps))
    exact = Fraction(eps)
    assert below <= exact <= above
    assert exact - below <= exact / 10**5 and above - exact <= exact / 10**8


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan])
def test_what_is_not_positive_is_0(eps: float) -> None:
    assert decimal_below(eps) == decimal_above(eps) == "0"
