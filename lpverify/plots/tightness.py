"""Bounds of every method on the same claims, sorted, and how far each is from the truth (paper, figure 11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, PAGE, STYLES, legend_above, new_figure

Array = NDArray[np.float64]
# Smaller gaps, in logits, are drawn here: the last digits of solvers and attacks.
SMALLEST = 1e-4


@dataclass(frozen=True, eq=False)
class Margins:
    """Bounds on the margins of the same R claims, each array (R,).

    Attributes:
        lower: by method, what it claims.
        upper: the least margin known at any point.
        certified: the greatest lower bound known.
    """

    lower: Mapping[str, Array]
    upper: Array
    certified: Array


def sorted_bounds(problems: Mapping[str, Margins]) -> Figure:
    """Two panels for each problem: the margins in the order of ``upper``; each method's gap below it, sorted by itself.

    A gap is shaded as far as the truth is not known: a method cannot be further from it than its gap.
    """
    alone = len(problems) == 1
    width, height = (COLUMN, 4.2) if alone else (PAGE, 4.0)
    figure, grid = new_figure(2, len(problems), width=width, height=height, squeeze=False)
    for (above, below), (name, margins) in zip(grid.T, problems.items(), strict=True):
        _margins(above, margins)
        _gaps(below, margins)
        above.set_title(name)
        above.set_xlabel("claims, by their margin")
        below.set_xlabel("claims, by the method's gap")
    grid[0, 0].set_ylabel("margin (logits)")
    grid[1, 0].set_ylabel("gap to the least\nknown margin (logits)")
    legend_above(figure, grid[0], 3 if alone else 8)
    return figure


def _margins(ax: Any, margins: Margins) -> None:
    order = np.argsort(margins.upper, kind="stable")
    places = np.arange(1, len(order) + 1)
    # Interval bounds lie far below everything else; how many leave the picture is said on it.
    others = [values for method, values in margins.lower.items() if method != "interval"] or [margins.upper]
    least, top = float(np.min(others)), float(np.max(margins.upper))
    bottom = least - 0.25 * (top - least)
    for method, values in margins.lower.items():
        style = STYLES[method]
        ax.plot(places, values[order], color=style.color, linestyle="none", marker=style.marker, markersize=2.5,
                markeredgewidth=0.6, label=style.label)  # fmt: skip
    style = STYLES["attack"]
    ax.plot(places, margins.upper[order], color=style.color, linewidth=0.8, label="least known margin")
    ax.axhline(0, color="black", linewidth=0.6)
    hidden = int((margins.lower.get("interval", np.zeros(0)) < bottom).sum())
    if hidden:
        ax.set_ylim(bottom, top + 0.05 * (top - bottom))
        ax.annotate(f"{hidden} of {len(order)} interval bounds are lower", (0.98, 0.02), xycoords="axes fraction",
                    ha="right", va="bottom", fontsize=6)  # fmt: skip


def _gaps(ax: Any, margins: Margins) -> None:
    unknown = np.sort(margins.upper - margins.certified)
    gaps = {method: np.sort(margins.upper - values) for method, values in margins.lower.items()}
    bottom = max(SMALLEST, 0.3 * min(float(of[0]) for of in gaps.values()))
    places = np.arange(1, len(unknown) + 1)
    ax.set_yscale("log")
    for method, of in gaps.items():
        style = STYLES[method]
        ax.plot(places, np.maximum(of, bottom), color=style.color, linestyle=style.linestyle)
    ax.fill_between(places, bottom, np.maximum(unknown, bottom), color="black", alpha=0.1, linewidth=0)
    ax.set_ylim(bottom=bottom)
