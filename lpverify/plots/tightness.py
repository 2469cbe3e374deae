"""Bounds of every method on the same rows, sorted by the best of them (paper, figure 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, PAGE, STYLES, legend_above, new_figure

Array = NDArray[np.float64]


def sorted_bounds(problems: Mapping[str, Mapping[str, Array]]) -> Figure:
    """A panel for each problem: lower bounds of the rows' margins by method, and the attack's upper bound.

    Args:
        problems: by name, then by method, the margins (R,) of the same rows in one order; NaN where a method has none.
            The rows are drawn in the order of the attack's margins, or, without it, of the first method's.
    """
    width, height = (COLUMN, 2.6) if len(problems) == 1 else (PAGE, 2.35)
    figure, grid = new_figure(1, len(problems), width=width, height=height, squeeze=False)
    axes = list(grid.flat)
    for ax, (name, methods) in zip(axes, problems.items(), strict=True):
        _panel(ax, methods)
        ax.set_title(name)
        ax.set_xlabel("rows (example, class), sorted")
    axes[0].set_ylabel("margin, lower bound (logits)")
    legend_above(figure, axes, 4 if len(problems) == 1 else 8)
    return figure


def _panel(ax: Any, methods: Mapping[str, Array]) -> None:
    order = np.argsort(methods.get("attack", next(iter(methods.values()))), kind="stable")
    places = np.arange(1, len(order) + 1)
    lowest = np.inf
    for method, values in methods.items():
        style, shown = STYLES[method], values[order]
        ax.plot(places, shown, color=style.color, linestyle="none", marker=style.marker, markersize=2.2,
                markeredgewidth=0.6, label=style.label)  # fmt: skip
        if method != "interval" and np.isfinite(shown).any():
            lowest = min(lowest, float(np.nanmin(shown)))
    ax.axhline(0, color="black", linewidth=0.6)
    # Interval bounds lie far below everything else; what leaves the picture is said on it.
    interval = methods.get("interval")
    if interval is not None and np.isfinite(lowest):
        top = max(float(np.nanmax(values)) for values in methods.values() if np.isfinite(values).any())
        bottom = lowest - 0.25 * (top - lowest)
        hidden = int((interval < bottom).sum())
        if hidden:
            ax.set_ylim(bottom, top + 0.05 * (top - bottom))
            said = f"{hidden} of {len(interval)} interval bounds are lower"
            ax.annotate(said, (0.98, 0.02), xycoords="axes fraction",
                        ha="right", va="bottom", fontsize=6)  # fmt: skip
