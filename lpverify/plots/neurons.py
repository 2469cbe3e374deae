"""How many neurons of each layer are active, inactive or unstable over the balls about examples (paper, figure 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import BLUE, GREY, PAGE, VERMILION, legend_above, new_figure

Shares = NDArray[np.float64]
KINDS = (("active", BLUE), ("inactive", GREY), ("unstable", VERMILION))


def neuron_histograms(networks: Mapping[str, Mapping[str, Sequence[Shares]]]) -> Figure:
    """A row for each network, a column for each layer: histograms over examples of the share of each kind, in per cent.

    Args:
        networks: by network, then by kind, for each layer the shares (N,) over examples.
    """
    layers = max(len(kinds["active"]) for kinds in networks.values())
    figure, grid = new_figure(
        len(networks), layers, width=PAGE, height=1.35 * len(networks) + 0.4, squeeze=False, sharex=True
    )
    bins = np.linspace(0, 100, 26)
    for row, (name, kinds) in zip(grid, networks.items(), strict=True):
        for layer, ax in enumerate(row):
            for kind, color in KINDS:
                values = 100 * kinds[kind][layer]
                weights = np.full(len(values), 100 / len(values))
                ax.hist(values, bins, weights=weights, color=color, alpha=0.55, label=kind)
            ax.set_ylim(0, 100)
        row[0].set_ylabel(f"{name}\nexamples (%)")
    for layer, ax in enumerate(grid[0]):
        ax.set_title(f"ReLU layer {layer + 1}")
    for ax in grid[-1]:
        ax.set_xlabel("share of the layer's neurons (%)")
    legend_above(figure, grid[0][:1], 3)
    return figure
