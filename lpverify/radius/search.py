"""The certified radius of one example by a method whose every evaluation is costly: a task for a worker.

The least margin is a decreasing function of eps with one zero between a radius that is proved and one that is
attacked. It is bracketed and closed in on by regula falsi in its Illinois form (Dowell & Jarratt 1971).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from lpverify.bounds import BoundResult
from lpverify.bounds.base import AbstractBoundMethod
from lpverify.network import Network
from lpverify.problem import Clip, Specification, ball

# A bracket is closed to this share of the radius.
TOLERANCE = 1e-4
EVALUATIONS = 16
# The first evaluation is so far above the radius that is known.
FIRST_STEP = 1.1


class Bracket:
    """An interval that holds the zero of a decreasing function, and where to evaluate it next.

    Attributes:
        low, high: the function is positive at ``low`` and not at ``high``.
    """

    def __init__(self, low: float, high: float, at_zero: float, *, reachable: bool) -> None:
        """Args:
        low: where the function is known to be positive, >= 0; at ``low`` > 0 its value is not known.
        high: where it is known not to be; if ``reachable``, only where the search ends.
        at_zero: its value at 0, > 0.
        """
        self.low, self.high = low, high
        self._reachable = reachable
        self._below = [(0.0, at_zero)]
        self._above: tuple[float, float] | None = None
        self._last: bool | None = None

    @property
    def closed(self) -> bool:
        """Whether the ends are as near to each other as is asked for."""
        return not self.high - self.low > TOLERANCE * self.high

    def next(self) -> float:
        """A point above ``low`` and not above ``high``, where the zero is expected."""
        middle = (self.low + self.high) / 2
        if self._last is None:
            return min(self.low * FIRST_STEP, middle) if self.low > 0 else self.high / 16
        guess = self._zero()
        # Aimed past the zero as seen from the last point, so that the bracket closes from both ends.
        guess *= 1 + TOLERANCE / 4 if self._last else 1 - TOLERANCE / 4
        if guess >= self.high and self._above is None and self._reachable:
            return self.high
        return guess if self.low < guess < self.high else middle

    def tell(self, eps: float, value: float) -> None:
        """The function's value at a point; NaN counts as not positive."""
        positive = value > 0
        if positive:
            self.low = max(self.low, eps)
            if self._last is True and self._above is not None:
                self._above = (self._above[0], self._above[1] / 2)
            self._below = [self._below[-1], (eps, value)]
        else:
            self.high = min(self.high, eps)
            if self._last is False:
                self._below[-1] = (self._below[-1][0], self._below[-1][1] / 2)
            self._above = (eps, value)
        self._last = positive

    def _zero(self) -> float:
        """Where the line through the two last points, one on each side if there are such, is 0; infinite if nowhere."""
        (a, f), (b, g) = (self._below[-1], self._above) if self._above is not None else self._below[-2:]
        return a - f * (b - a) / (g - f) if g < f else math.inf


@dataclass(frozen=True, eq=False)
class FoundRadius:
    """What a search found: ``eps``, a decimal, with the method's result there; None if nothing above ``low``."""

    eps: str | None
    bound: BoundResult | None
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False)
class SearchRadius:
    """The task of a worker: the largest radius at which the method claims the rows of one example.

    Attributes:
        x: (1, n_0); ``spec`` its claim, which holds at x.
        norm, clip: of the balls.
        low: a radius that is proved already, or 0; ``high``: where the search ends.
        reachable: whether ``high`` itself may be proved; else a counterexample is known there.
        seconds: for all of it.
    """

    method: AbstractBoundMethod
    x: Tensor
    spec: Specification
    norm: str
    clip: Clip
    low: float
    high: float
    reachable: bool
    seconds: float

    def __call__(self, network: Network) -> FoundRadius:
        """Evaluate the method at rising and falling radii; every one is a decimal of six digits."""
        began = time.perf_counter()
        deadline = began + self.seconds
        clean = float(self.spec.margins(network.forward(self.x.to(network.dtype))).min())
        bracket, evaluations = Bracket(self.low, self.high, clean, reachable=self.reachable), 0
        best: tuple[str | None, BoundResult | None] = None, None
        while not bracket.closed and evaluations < EVALUATIONS and (left := deadline - time.perf_counter()) > 0:
            text = decimal_below(bracket.next())
            if not float(text) > bracket.low:
                break
            method = replace(self.method, **{"seconds": left})
            with torch.no_grad():
                bound = method.bound(network, ball(self.x, float(text), self.norm, self.clip), self.spec)
            evaluations += 1
            least = float(bound.margins.min())
            bracket.tell(float(text), least)
            if least > 0:
                best = text, bound
        return FoundRadius(*best, evaluations, time.perf_counter() - began)


def decimal_below(eps: float, digits: int = 6) -> str:
    """The greatest decimal of so many digits not above eps: what is certified then is exact."""
    return _decimal(eps, digits, math.floor)


def decimal_above(eps: float, digits: int = 9) -> str:
    """The least decimal of so many digits not below eps."""
    return _decimal(eps, digits, math.ceil)


def _decimal(eps: float, digits: int, rounded: Callable[[Fraction], int]) -> str:
    if not eps > 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(eps))
    return f"{rounded(Fraction(eps) * Fraction(10) ** places)}e{-places}"
