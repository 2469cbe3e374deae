"""Rows of a comparison arranged for pictures: the same claims by every method, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpverify.comparison.rows import ATTACK, Row
from lpverify.errors import DataError
from lpverify.plots.pareto import Cost
from lpverify.plots.robust_error import Errors
from lpverify.plots.style import STYLES
from lpverify.plots.tightness import Margins

Array = NDArray[np.float64]


def margins_of(rows: Sequence[Row]) -> Margins:
    """The bounds by every method on the claims that all of them bounded, in one order of claims.

    A claim is one row of one example of one problem at one radius.

    Raises:
        DataError: if there is no such claim.
    """
    methods = [method for method in STYLES if method != ATTACK and any(row.method == method for row in rows)]
    claims: dict[object, dict[str, Row]] = {}
    for row in rows:
        claims.setdefault((*row.group, row.target), {})[row.method] = row
    whole = [claim for claim in claims.values() if all(m in claim and np.isfinite(claim[m].margin) for m in methods)]
    if not whole:
        raise DataError(f"margins: no claim of {rows[0].problem} is bounded by all of {', '.join(methods)}")
    return Margins(
        {method: np.array([claim[method].margin for claim in whole]) for method in methods},
        np.array([claim[methods[0]].bracket_upper for claim in whole]),
        np.array([claim[methods[0]].bracket_lower for claim in whole]),
    )


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


def _whole(rows: Sequence[Row]) -> bool:
    return bool(rows) and all(np.isfinite(row.gap) for row in rows)
