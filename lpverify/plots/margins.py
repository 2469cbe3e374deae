"""Rows of a comparison arranged for pictures: the same claims by every method, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpverify.comparison.rows import Row
from lpverify.plots.pareto import Cost
from lpverify.plots.robust_error import Errors
from lpverify.plots.style import STYLES
from lpverify.plots.tightness import Margins

Array = NDArray[np.float64]
ATTACK = "attack"


def margins_of(rows: Sequence[Row]) -> Margins:
    """The bounds on every claim by method, in one order of claims; NaN where a method was not asked or has none.

    A claim is one row of one example of one problem at one radius.
    """
    claims = {claim: place for place, claim in enumerate(dict.fromkeys(map(_claim, rows)))}
    methods = [method for method in STYLES if method != ATTACK and any(row.method == method for row in rows)]
    lower = {method: np.full(len(claims), np.nan) for method in methods}
    upper, certified = np.full(len(claims), np.nan), np.full(len(claims), np.nan)
    for row in rows:
        place = claims[_claim(row)]
        upper[place], certified[place] = row.bracket_upper, row.bracket_lower
        if row.method != ATTACK:
            lower[row.method][place] = row.margin
    return Margins(lower, upper, certified)


def costs(rows: Sequence[Row]) -> list[Cost]:
    """Mean CPU seconds an example and mean gap a row, by method, over the examples that all methods were given."""
    methods = [method for method in STYLES if method != ATTACK and any(row.method == method for row in rows)]
    groups: dict[object, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row.group, {}).setdefault(row.method, []).append(row)
    full = [group for group in groups.values() if all(_whole(group.get(method, [])) for method in methods)]
    return [
        Cost(
            method,
            float(np.mean([group[method][0].cpu_seconds for group in full])),
            float(np.mean([row.gap for group in full for row in group[method]])),
        )
        for method in methods
        if full
    ]


def errors_by_radius(rows: Sequence[Row]) -> Errors:
    """The robust errors of one problem's examples at each radius, by method: certified means every row is.

    A method that was given fewer examples at some radius than others is left out: its share is that of others.
    """
    radii = sorted({row.eps for row in rows}, key=float)
    examples = {eps: {row.example for row in rows if row.eps == eps} for eps in radii}
    upper = {}
    for method in STYLES:
        given = {eps: {r.example for r in rows if (r.eps, r.method) == (eps, method)} for eps in radii}
        if method == ATTACK or given != examples:
            continue
        bad = {(r.eps, r.example) for r in rows if r.method == method and r.verdict != "verified"}
        upper[method] = np.array([len({e for at, e in bad if at == eps}) / len(examples[eps]) for eps in radii])
    broken = {(r.eps, r.example) for r in rows if r.verdict == "falsified"}
    lower = np.array([len({e for at, e in broken if at == eps}) / len(examples[eps]) for eps in radii])
    return Errors(np.array([float(eps) for eps in radii]), upper, lower)


def _claim(row: Row) -> tuple[object, ...]:
    return *row.group, row.target


def _whole(rows: Sequence[Row]) -> bool:
    return bool(rows) and all(np.isfinite(row.gap) for row in rows)
