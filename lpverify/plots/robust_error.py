"""Robust error against the radius: from above by certificates, from below by counterexamples."""

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
class Errors:
    """Robust errors of one network as shares of the same examples, over E rising radii; NaN where not measured.

    Attributes:
        radii: (E,) in raw input units.
        upper: by method, (E,) the share that it does not certify.
        lower: (E,) the share with a counterexample.
    """

    radii: Array
    upper: Mapping[str, Array]
    lower: Array


def robust_errors(networks: Mapping[str, Errors]) -> Figure:
    """A panel for each network; between the attack and the best certificate, shaded, lies the truth."""
    count = len(networks)
    columns = min(count, 4)
    width, height = (COLUMN, 2.5) if count == 1 else (PAGE, 2.3)
    figure, grid = new_figure(-(-count // columns), columns, width=width, height=height, squeeze=False, sharey=True)
    axes = list(grid.flat)
    for ax, (name, errors) in zip(axes, networks.items(), strict=False):
        _panel(ax, errors)
        ax.set_title(name)
        ax.set_xlabel(r"radius $\epsilon$ (input units)")
    axes[0].set_ylabel("robust error (%)")
    for ax in axes[count:]:
        ax.set_axis_off()
    legend_above(figure, axes[:count], 4 if count == 1 else 8)
    return figure


def _panel(ax: Any, errors: Errors) -> None:
    best = np.full(len(errors.radii), np.nan)
    for values in errors.upper.values():
        best = np.fmin(best, values)
    ax.fill_between(errors.radii, 100 * errors.lower, 100 * best, color="black", alpha=0.12, linewidth=0,
                    label="not known")  # fmt: skip
    for method, values in errors.upper.items():
        known = np.isfinite(values)
        ax.plot(errors.radii[known], 100 * values[known], markersize=3, **STYLES[method].line)
    found = {**STYLES["attack"].line, "label": "counterexamples"}
    ax.plot(errors.radii, 100 * errors.lower, markersize=3, **found)
    ax.set_ylim(0, 102)
