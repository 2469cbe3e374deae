"""Certified and attacked radii over examples, sorted (paper, figure 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, PAGE, STYLES, legend_above, new_figure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Radii:
    """The radii of the same N examples, each (N,), NaN where unknown.

    Attributes:
        certified: by method, what it certifies.
        attacked: distances of the nearest counterexamples.
        exact: the least and the greatest that the exact radius can be; None where nothing better is known.
    """

    certified: Mapping[str, Array]
    attacked: Array
    exact: tuple[Array, Array] | None = None


def radius_curves(networks: Mapping[str, Radii]) -> Figure:
    """A panel for each network: every kind of radius, each sorted by itself, against the share of examples."""
    count = len(networks)
    columns = min(count, 2)
    rows = -(-count // columns)
    width, height = (COLUMN, 2.5) if count == 1 else (PAGE, 1.9 * rows + 0.35)
    figure, grid = new_figure(rows, columns, width=width, height=height, squeeze=False)
    axes = list(grid.flat)
    for ax, (name, radii) in zip(axes, networks.items(), strict=False):
        _panel(ax, radii)
        ax.set_title(name)
        ax.set_xlabel("examples, sorted (%)")
        ax.set_ylabel(r"radius $\epsilon$ ($\ell_\infty$)")
        ax.set_xlim(0, 100)
        ax.set_ylim(bottom=0)
    for ax in axes[count:]:
        ax.set_axis_off()
    legend_above(figure, axes[:count], 3 if count == 1 else 6)
    return figure


def _panel(ax: Any, radii: Radii) -> None:
    share = 100 * (np.arange(len(radii.attacked)) + 0.5) / len(radii.attacked)
    if radii.exact is not None:
        low, high = np.sort(radii.exact[0]), np.sort(radii.exact[1])
        ax.fill_between(share, low, high, color="black", alpha=0.25, linewidth=0, label="exact radius (bracket)")
        ax.plot(share, low, color="black", linewidth=0.6)
        ax.plot(share, high, color="black", linewidth=0.6)
    for method, values in radii.certified.items():
        style = STYLES[method]
        ax.plot(share, np.sort(values), color=style.color, linestyle=style.linestyle, label=style.label)
    style = STYLES["attack"]
    ax.plot(share, np.sort(radii.attacked), color=style.color, linestyle=style.linestyle, label="attack")
