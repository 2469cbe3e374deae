"""From a proposed point to a witness against any claim: moved into the exact region, then evaluated exactly.

A coordinate that a rational box fixes at 1/10 holds no float. The point meant is therefore the stored one, clamped
into the exact box; the stored one is the nearest float32 of the box, else its nearest float64, else an end rounded.
If that is no counterexample, inputs at an end of their side are tried at its exact end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack.exact import nearest, rational_outputs
from lpverify.attack.membership import into_exact_box, round_up
from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, ClauseRows, Inequality, LabelRows, RationalBox
from lpverify.network import Network
from lpverify.result import Counterexample

Floats = NDArray[np.float64]
Placed = tuple[Floats, list[Fraction]]


@dataclass(frozen=True, eq=False)
class Judge:
    """Decides whether points are counterexamples to one claim.

    Attributes:
        exact: the network in float64, whose parameters define the real function.
        single: the same in float32, for ``margin_float32``.
        claim: any claim; of rows, each is a clause by itself.
        open_faces: sides of a box that are left out, as (input, upper side); see ``vnnlib.Property``.
    """

    exact: Network
    single: Network
    claim: Claim
    open_faces: tuple[tuple[int, bool], ...] = ()

    def __call__(self, point: NDArray[Any]) -> Counterexample | None:
        """The counterexample at ``point`` (n_0,), or None if the region or the claim excludes it.

        A clause fails where all of its rows do, a strict row where its value is <= 0, another where it is < 0. Of
        several failing clauses the one with the least margin is named; its margin is the greatest of its rows' values.
        """
        proposed = np.asarray(point, dtype=np.float64).ravel()
        for placed in self._places(proposed):
            found = self._at(*placed)
            if found is not None:
                return found
        return None

    def _at(self, x: Floats, meant: list[Fraction]) -> Counterexample | None:
        """The counterexample at the stored point x, which means ``meant``."""
        outputs = rational_outputs(self.exact, meant)
        failing: list[tuple[Fraction | float, int]] = []
        for clause, rows in enumerate(self._clauses):
            values = [_value(row, outputs) for row in rows]
            if all(value < 0 or (value == 0 and row.strict) for value, row in zip(values, rows, strict=True)):
                failing.append((max(values, default=-math.inf), clause))
        if not failing:
            return None
        margin, clause = min(failing)
        with torch.no_grad():
            single = self.single.forward(torch.from_numpy(x).to(self.single.device, torch.float32).unsqueeze(0))[0]
        seen = single.double().cpu().numpy()
        value = nearest(margin) if isinstance(margin, Fraction) else margin
        return Counterexample(x, clause, value, self._float_margin(clause, seen), outputs=seen.astype(np.float32))

    def _float_margin(self, clause: int, outputs: Floats) -> float:
        """The clause's margin at float outputs, in float64; a row that is not strict holds at 0."""
        values = [
            float(row.constant) + sum(float(c) * outputs[u] for u, c in zip(row.units, row.coefficients, strict=True))
            for row in self._clauses[clause]
        ]
        held = [v or (0.0 if row.strict else 5e-324) for v, row in zip(values, self._clauses[clause], strict=True)]
        return float(max(held, default=-math.inf))

    @cached_property
    def _clauses(self) -> tuple[tuple[Inequality, ...], ...]:
        rows = self.claim.rows
        if isinstance(rows, ClauseRows):
            return rows.clauses
        if isinstance(rows, LabelRows):
            others = (j for j in range(rows.classes) if j != rows.label)
            return tuple((_difference(rows.label, j),) for j in others)
        entries, width = [Fraction(v) for v in rows.C.values()], rows.C.shape[1]
        units = tuple(range(width))
        return tuple(
            (Inequality(units, tuple(entries[i * width : (i + 1) * width]), Fraction(d), True),)
            for i, d in enumerate(rows.d.values())
        )

    def _places(self, point: Floats) -> Iterator[Placed]:
        """The float64 points to be stored, each with the exact point of the region that it means; at most two."""
        region = self.claim.region
        if isinstance(region, BallRegion):
            center = np.frombuffer(region.center.data, dtype=region.center.dtype)
            inside = into_exact_box(point, center, region.eps, region.norm, region.clip)
            if inside is not None:
                yield inside, [Fraction(v) for v in inside.tolist()]
            return
        low, high, free = self._ends
        with np.errstate(over="ignore"):
            rounded = point.astype(np.float32).astype(np.float64)
        rounded = np.where(self._is_single & np.isfinite(rounded), rounded, np.where(np.isnan(point), low, point))
        x = np.clip(rounded, low, high) + 0.0
        if not isinstance(region, RationalBox):
            yield x, [Fraction(v) for v in x.tolist()]
            return
        yield from self._clamped(region, x, ~free)
        # A claim may fail at the very end of a side only: a float beyond it means that end.
        below, above = x <= low, x >= high
        for i in np.flatnonzero((below | above) & free).tolist():
            x[i] = -round_up(-region.lower[i], np.float64) if below[i] else round_up(region.upper[i], np.float64)
        yield from self._clamped(region, x, below | above | ~free)

    def _clamped(self, region: RationalBox, stored: Floats, which: NDArray[np.bool_]) -> Iterator[Placed]:
        """The point that ``stored`` means, of which the inputs ``which`` may be outside; none on an open face."""
        x = stored.copy()
        values = [Fraction(v) for v in x.tolist()]
        for i in np.flatnonzero(which).tolist():
            values[i] = min(max(values[i], region.lower[i]), region.upper[i])
        for i, upper in self.open_faces:
            end = region.upper[i] if upper else region.lower[i]
            if values[i] == end:
                x[i] = np.nextafter(x[i], -np.inf if upper else np.inf)
                values[i] = min(max(Fraction(float(x[i])), region.lower[i]), region.upper[i])
        if not any(values[i] == (region.upper if upper else region.lower)[i] for i, upper in self.open_faces):
            yield x, values

    @cached_property
    def _single_ends(self) -> tuple[Floats, Floats]:
        return self._on_grid(np.float32)

    @cached_property
    def _is_single(self) -> NDArray[np.bool_]:
        """(n_0,) whether the box has a float32 between its ends."""
        low, high = self._single_ends
        return low <= high

    @cached_property
    def _ends(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """The least and the greatest float to be stored, and whether all floats between them lie in the box."""
        low, high = self._on_grid(np.float64)
        free, (low32, high32) = low <= high, self._single_ends
        if isinstance(self.claim.region, RationalBox) and not free.all():
            # No float64 lies between the ends: the one nearest to them is stored, and clamping gives an end.
            near = np.array([nearest(end) for end in self.claim.region.lower])
            low, high = np.where(free, low, near), np.where(free, high, near)
        return np.where(self._is_single, low32, low), np.where(self._is_single, high32, high), free

    def _on_grid(self, grid: Any) -> tuple[Floats, Floats]:
        region = self.claim.region
        if isinstance(region, BoxRegion):
            ends = tuple(map(Fraction, region.lower.values())), tuple(map(Fraction, region.upper.values()))
        else:
            assert isinstance(region, RationalBox)
            ends = region.lower, region.upper
        low = np.array([round_up(end, grid) for end in ends[0]])
        high = np.array([-round_up(-end, grid) for end in ends[1]])
        return low, high + 0.0


def _value(row: Inequality, outputs: list[Fraction]) -> Fraction:
    return sum((c * outputs[u] for u, c in zip(row.units, row.coefficients, strict=True)), row.constant)


def _difference(label: int, other: int) -> Inequality:
    """f_label - f_other > 0."""
    signs = (Fraction(1), Fraction(-1)) if label < other else (Fraction(-1), Fraction(1))
    return Inequality((min(label, other), max(label, other)), signs, Fraction(0), True)
