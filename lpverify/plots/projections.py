"""Random projections of the dual: errors of the estimates, cost beside the exact bound, training by their number k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter
from numpy.typing import NDArray

from lpverify.plots.style import BLACK, ORANGE, PAGE, SKY, MethodStyle, legend_above, new_figure

Array = NDArray[np.float64]
# The dual by k; 0: exact. One colour, as it is one method.
PROJECTED = {
    0: MethodStyle("dual, exact", ORANGE, "s", "-"),
    10: MethodStyle("dual, $k = 10$", ORANGE, "1", ":"),
    50: MethodStyle("dual, $k = 50$", ORANGE, "2", "--"),
}
# Where the lines of one picture are all the dual's, they need colours of their own.
_BY_K = {0: BLACK, 10: SKY, 50: ORANGE}


@dataclass(frozen=True, eq=False)
class Histogram:
    """Shares of errors in bins: ``edges`` (n + 1,), ``shares`` and ``expected`` (n,); the last bin is open above."""

    edges: Array
    shares: Array
    expected: Array


def error_histograms(rows: Mapping[str, Mapping[int, Histogram]]) -> Figure:
    """A row of panels for each estimator, a panel for each k."""
    columns = max(map(len, rows.values()))
    figure, grid = new_figure(
        len(rows), columns, width=PAGE, height=1.45 * len(rows) + 0.6, sharex=True, sharey=True, squeeze=False
    )
    for line, (estimator, panels) in zip(grid, rows.items(), strict=True):
        for ax, (k, found) in zip(line, panels.items(), strict=True):
            ax.stairs(100 * found.shares, found.edges, fill=True, color=ORANGE, alpha=0.6, label="measured")
            ax.stairs(100 * found.expected, found.edges, color=BLACK, linewidth=0.9, label="expected of one norm")
            ax.axvline(0, color=BLACK, linewidth=0.5, linestyle=":")
            ax.set_title(f"{estimator}, $k = {k}$")
            ax.set_xlim(found.edges[0], found.edges[-1])
            ax.set_xticks(np.arange(np.ceil(found.edges[0]), found.edges[-1] + 0.1))
        line[0].set_ylabel("neurons (%)")
    for ax in grid[-1]:
        ax.set_xlabel("relative error of the half width")
    legend_above(figure, [grid[0, 0]], 2)
    return figure


@dataclass(frozen=True, eq=False)
class CostCurve:
    """What a bound costs over the width: arrays over networks."""

    hidden: Array
    seconds: Array
    mib: Array


def cost_curves(panels: Mapping[str, Mapping[int, CostCurve]]) -> Figure:
    """A row for each thing that is timed: seconds and memory by the hidden units, a line for each k."""
    figure, grid = new_figure(len(panels), 2, width=PAGE, height=1.7 * len(panels) + 0.4, squeeze=False, sharex=True)
    for line, (name, curves) in zip(grid, panels.items(), strict=True):
        for ax, values, label in zip(line, ("seconds", "mib"), ("CPU seconds", "peak memory (MiB)"), strict=True):
            for k, curve in curves.items():
                style = PROJECTED[k].line | {"color": _BY_K[k], "markeredgewidth": 1.2}
                ax.plot(curve.hidden, getattr(curve, values), **style)
            ax.set_yscale("log")
            log_ticks(ax, curves[min(curves)].hidden)
            ax.set_ylabel(label)
            ax.set_title(name)
    for ax in grid[-1]:
        ax.set_xlabel("hidden units")
    legend_above(figure, [grid[0, 0]], len(PROJECTED))
    return figure


def log_ticks(ax: Any, sizes: Array | None) -> None:
    """A logarithmic axis of sizes with a tick at each, every other with its number; None: at the decades."""
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    if sizes is not None:
        shown = sizes[len(sizes) % 2 == 0 :: 2] if len(sizes) > 4 else sizes
        ax.xaxis.set_minor_locator(FixedLocator(sizes.tolist()))
        ax.xaxis.set_major_locator(FixedLocator(shown.tolist()))
        ax.xaxis.set_major_formatter("{x:g}")


@dataclass(frozen=True, eq=False)
class Training:
    """One training by epoch: errors as shares, CPU seconds of each epoch."""

    epochs: Array
    error: Array
    robust_error: Array
    seconds: Array


def training_by_k(runs: Mapping[int, Training]) -> Figure:
    """Errors on the test set by the exact bound, against epochs and against the CPU time of training so far."""
    figure, axes = new_figure(1, 2, width=PAGE, height=2.3, sharey=True)
    for k, run in runs.items():
        for ax, at in zip(axes, (run.epochs, np.cumsum(run.seconds)), strict=True):
            look = {"color": _BY_K[k], "linestyle": PROJECTED[k].linestyle}
            ax.plot(at, 100 * run.robust_error, label=f"{PROJECTED[k].label}: by the bound", **look)
            ax.plot(at, 100 * run.error, label=f"{PROJECTED[k].label}: clean", alpha=0.5, linewidth=0.8, **look)
    axes[0].set_xlabel("epoch")
    axes[1].set_xlabel("CPU seconds of training")
    axes[0].set_ylabel("error, test set (%)")
    axes[0].set_ylim(0, 100)
    legend_above(figure, [axes[0]], len(runs))
    return figure
