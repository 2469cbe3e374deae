"""What must hold between the methods' numbers on one example, whatever the network.

- Every lower bound is at most the least margin at any point of the exact input set. For certified margins this holds
  without any slack: the checker rounds down, the margins at points are rounded up.
- What the checker proves of a method is at most what the method claims.
- A relaxation that lies inside another one proves no less. The relaxations of interval, dual, CROWN and alpha contain
  the triangle relaxation over the same or tighter pre-activation bounds, so they prove no more than ``lp``,
  ``lp-tight``, ``sdp`` and ``milp`` wherever those worked a row out and their pre-activation bounds lie within the
  other's at every neuron that they leave unstable (at the others the relaxation is the neuron itself). For interval,
  CROWN, alpha and ``lp`` this is always so; the dual's own bounds are not ordered with CROWN's, on which ``lp``
  builds, so there it is looked up example by example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpverify.comparison.measure import Measured
from lpverify.comparison.rows import ATTACK
from lpverify.network import as_numpy
from lpverify.problem import LayerBounds

# A number may be above another by this share of 1 + the greater magnitude. In float64 the engines round far below that;
# what remains is a solver's, whose rows hold up to 1e-6 or 1e-7 before weights multiply that (seen in
# benchmarks/results/compare.csv: 1e-9). In float32 sums over some hundred terms that cancel lose three digits.
SLACK = {"float64": 1e-5, "float32": 1e-3}
# Certificates hold slopes in 16 bits and multipliers in float32: where an engine stopped short of the best slopes,
# rounded ones may prove a little more (seen: 1.3e-6).
STORED = 1e-5
# Pre-activation bounds count as equal within this share of 1 + their magnitude.
SAME = {"float64": 1e-9, "float32": 1e-5}

RELAXED = ("interval", "dual", "crown", "alpha", "lp", "lp-tight")
SOLVED = ("lp", "lp-tight", "sdp", "milp")


@dataclass(frozen=True)
class Violation:
    """Two numbers in the wrong order: row ``row``'s ``lower`` of ``low`` is above ``upper`` of ``high``."""

    row: int
    low: str
    lower: float
    high: str
    upper: float

    def __str__(self) -> str:
        return f"row {self.row}: {self.low} {self.lower:.9g} is above {self.high} {self.upper:.9g}"


def violations(measured: Sequence[Measured], uppers: NDArray[np.float64], dtype: str) -> list[Violation]:
    """Every ordering that does not hold between methods on one example.

    Args:
        measured: the methods.
        uppers: (m,) the least margins known at points.
        dtype: of the engines, a key of SLACK.
    """
    lower = [found for found in measured if found.method != ATTACK]
    wrong: list[Violation] = []
    for found in lower:
        claim, proof = found.method, f"{found.method} (certified)"
        wrong += _above(claim, found.margins, "the margin at a point", uppers, SLACK[dtype])
        wrong += _above(proof, found.certified, "the margin at a point", uppers, 0.0)
        wrong += _above(proof, found.certified, claim, found.margins, max(STORED, SLACK[dtype]))
    for loose in lower:
        for tight in lower:
            if is_within(tight, loose, dtype):
                high = np.where(tight.own, tight.margins, np.nan)
                wrong += _above(loose.method, loose.margins, tight.method, high, SLACK[dtype])
    return wrong


def is_within(tight: Measured, loose: Measured, dtype: str) -> bool:
    """Whether the first method's relaxation lies inside the second's, so that it proves no less."""
    pair = tight.method, loose.method
    if pair[0] not in SOLVED or pair[1] not in RELAXED or SOLVED.index(pair[0]) <= _rank(pair[1]):
        return False
    return bool(tight.layers) and all(_inside(tight.layers[k], loose.layers[k], SAME[dtype]) for k in loose.layers)


def _rank(method: str) -> int:
    return SOLVED.index(method) if method in SOLVED else -1


def _inside(tight: LayerBounds, loose: LayerBounds, share: float) -> bool:
    unstable = as_numpy(tight.unstable)
    sides = [as_numpy(side)[unstable] for side in (tight.lower, tight.upper, loose.lower, loose.upper)]
    slack = share * (1 + np.abs(sides[2:]).max(axis=0))
    return bool((sides[0] >= sides[2] - slack).all() and (sides[1] <= sides[3] + slack).all())


def _above(
    low: str, lower: NDArray[np.float64], high: str, upper: NDArray[np.float64], share: float
) -> list[Violation]:
    """Rows where both are known and the lower one is above; infinite values count as they are."""
    known = ~(np.isnan(lower) | np.isnan(upper))
    finite = np.isfinite(lower) & np.isfinite(upper)
    size = np.where(finite, np.maximum(np.abs(lower), np.abs(upper)), 0.0)
    # Written so that what cannot be compared is never passed over.
    right = lower <= upper + share * (1 + size)
    rows = np.flatnonzero(known & ~right).tolist()
    return [Violation(i, low, float(lower[i]), high, float(upper[i])) for i in rows]
