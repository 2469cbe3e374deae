"""A ReLU over an interval: its convex hull, what big-M relaxes to, and the lines of the dual (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lpverify.plots.style import BLUE, GREY, PAGE, STYLES, new_figure

Points = Sequence[tuple[float, float]]


def relu_hull(
    graph: Points, hull: Points, big_m: Mapping[str, Points], upper: Points, lower: Mapping[str, Points]
) -> Figure:
    """Three panels: the graph in its hull; the relaxed big-M sets; the lines of the dual methods.

    Args:
        graph: corners of the ReLU's graph over the interval [l, u], from left to right.
        hull: corners of its convex hull.
        big_m: by the bounds that the formulation is given, corners of its relaxation's part over the interval.
        upper: ends of the upper line.
        lower: by method, ends of the line from below.
    """
    figure, axes = new_figure(1, 3, width=PAGE, height=2.1, sharex=True, sharey=True)
    low, high = graph[0][0], graph[-1][0]
    for ax, title in zip(axes, ("convex hull", "big-M, relaxed", "lines of the dual"), strict=True):
        ax.set_title(title)
        ax.set_xlabel("before the ReLU, $z$")
        ax.set_xticks([low, 0, high], ["$l$", "0", "$u$"])
        ax.set_yticks([0, high], ["0", "$u$"])
    axes[0].set_ylabel(r"after it, $\hat z$")
    _region(axes[0], hull, BLUE, "hull")
    tints = (GREY, BLUE)
    # The larger region first: the smaller one lies in it.
    for tint, (label, corners) in zip(tints, big_m.items(), strict=False):
        _region(axes[1], corners, tint, label)
    axes[2].plot(*zip(*upper, strict=True), color=STYLES["lp"].color, label="upper line")
    for method, ends in lower.items():
        style = STYLES[method]
        axes[2].plot(*zip(*ends, strict=True), color=style.color, linestyle=style.linestyle, label=style.label)
    for ax in axes:
        # Room for the legends above the lines.
        ax.set_ylim(low - 0.1 * high, 2.5 * high)
        ax.plot(*zip(*graph, strict=True), color="black", linewidth=1.8, label="ReLU", zorder=3)
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.0))
    return figure


def _region(ax: Any, corners: Points, color: str, label: str) -> None:
    ax.fill(*zip(*corners, strict=True), facecolor=color, alpha=0.25, edgecolor=color, linewidth=1.0, label=label)
