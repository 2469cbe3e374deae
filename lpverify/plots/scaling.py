"""How time and memory of the methods grow: a column of panels for each thing that grows, all scales logarithmic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.projections import PROJECTED, log_ticks
from lpverify.plots.style import PAGE, STYLES, MethodStyle, legend_above, new_figure

Array = NDArray[np.float64]
LABELS = {"width": "units a layer", "depth": "hidden layers", "batch": "examples", "unstable": "unstable neurons"}


@dataclass(frozen=True, eq=False)
class Growth:
    """Arrays over sizes, in rising order; NaN in ``mib`` where memory was too little to be measured."""

    size: Array
    seconds: Array
    mib: Array


def style_of(method: str) -> MethodStyle:
    """Of a method, or of "dual, k = K"."""
    name, _, k = method.partition(", k = ")
    return PROJECTED[int(k)] if k else STYLES[name]


def scaling(axes: Mapping[str, Mapping[str, Growth]]) -> Figure:
    """Seconds above, memory below.

    Args:
        axes: by a key of ``LABELS``, the methods' growths.
    """
    figure, grid = new_figure(2, len(axes), width=PAGE, height=3.9, sharex="col", sharey="row", squeeze=False)
    for column, (axis, methods) in zip(grid.T, axes.items(), strict=True):
        for method, growth in methods.items():
            line = style_of(method).line | {"markersize": 3.5, "linewidth": 1.0}
            column[0].plot(growth.size, growth.seconds, **line)
            column[1].plot(growth.size, growth.mib, **line)
        sizes = np.unique(np.concatenate([growth.size for growth in methods.values()]))
        for ax in column:
            ax.set_yscale("log")
            log_ticks(ax, sizes if axis != "unstable" else None)
        column[1].set_xlabel(LABELS[axis])
    grid[0, 0].set_ylabel("CPU seconds a batch")
    grid[1, 0].set_ylabel("peak memory (MiB)")
    legend_above(figure, list(grid.flat), 7)
    return figure
