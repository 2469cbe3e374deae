"""Bounds on networks that were trained with one of them, by radius: errors, and what the bounds leave open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from lpverify.plots.style import GREY, PAGE, STYLES, legend_above, new_figure

Array = NDArray[np.float64]
_SIZES = {"dual": 7, "lp": 5}


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
