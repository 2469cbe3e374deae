"""Bounds on networks that were trained with one of them: errors by several bounds, and what the bounds leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, GREY, PAGE, STYLES, legend_above, new_figure

Array = NDArray[np.float64]
_SIZES = {"dual": 7, "lp": 5}
_HATCHED = {"color": "white", "hatch": "//////", "linewidth": 0.6, "edgecolor": STYLES["sdp"].color}
_OTHER_BARS: dict[str, tuple[str, dict[str, Any]]] = {
    "clean": ("clean", {"color": "#CCCCCC"}),
    "sdp": ("SDP of the ball", {}),
    "global sdp": ("SDP of training", _HATCHED),
}


@dataclass(frozen=True, eq=False)
class ByRadius:
    """Networks by their radius: arrays over ``eps``, errors as shares by method, mean gaps to the exact margin."""

    eps: Array
    errors: Mapping[str, Array]
    gaps: Mapping[str, Array]


def tightness_by_radius(networks: Mapping[str, ByRadius]) -> Figure:
    """A column for each kind of network: errors above, mean gap of the bounds below."""
    figure, grid = new_figure(2, len(networks), width=PAGE, height=3.6, sharex=True, sharey="row", squeeze=False)
    for column, (name, found) in zip(grid.T, networks.items(), strict=True):
        for method, values in found.errors.items():
            column[0].plot(found.eps, 100 * values, **_line(method))
        for method, values in found.gaps.items():
            column[1].plot(found.eps, values, **_line(method))
        column[1].xaxis.set_major_locator(MultipleLocator(0.05))
        column[0].set_title(name)
        column[0].set_ylim(0, 107)
        column[1].set_xlabel(r"radius $\epsilon$")
    grid[1, 0].set_yscale("log")
    grid[0, 0].set_ylabel("error (%)")
    grid[1, 0].set_ylabel("mean gap to exact margin")
    legend_above(figure, list(grid.flat), 5)
    return figure


def _line(method: str) -> dict[str, Any]:
    if method == "clean":
        return {"label": "clean", "color": GREY, "linestyle": ":", "marker": ""}
    # Where errors coincide, marks inside one another show it.
    return STYLES[method].line | {"markersize": _SIZES.get(method, 4), "markerfacecolor": "none", "linewidth": 0.9}


def judged_bars(networks: Mapping[str, Mapping[str, float]], methods: Sequence[str]) -> Figure:
    """A group of bars for each network: its error in per cent by each of the bounds.

    Args:
        methods: the bounds, in order: "clean", "global sdp", or keys of ``STYLES``.
    """
    figure, ax = new_figure(width=COLUMN, height=2.7)
    width = 0.86 / len(methods)
    for place, method in enumerate(methods):
        at = np.arange(len(networks)) + (place - (len(methods) - 1) / 2) * width
        label, look = _OTHER_BARS.get(method, ("", {}))
        values = [100 * errors[method] for errors in networks.values()]
        look = look or {"color": STYLES[method].color}
        bars = ax.bar(at, values, width * 0.9, label=label or STYLES[method].label, **look)
        ax.bar_label(bars, fmt="%.0f", fontsize=5, padding=1)
    ax.set_xticks(range(len(networks)), list(networks))
    ax.set_ylim(0, 105)
    ax.set_ylabel("not certified (%)")
    ax.set_xlabel("training")
    ax.grid(visible=False, axis="x")
    legend_above(figure, [ax], 3)
    return figure
