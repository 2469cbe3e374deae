"""Errors of several networks side by side: clean, attacked, certified."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lpverify.plots.style import BLACK, BLUE, COLUMN, ORANGE, SKY, VERMILION, legend_above, new_figure

# What each bar means, and its colour: those of the methods that are behind it.
KINDS = (
    ("clean", "clean", BLUE), ("fgsm", "FGSM", SKY), ("pgd", "PGD", VERMILION), ("certified", "not verified", BLACK),
    ("dual", "dual bound", ORANGE),
)  # fmt: skip


def error_bars(networks: Mapping[str, Mapping[str, float]]) -> Figure:
    """A group of bars for each network.

    Args:
        networks: by name, the errors in per cent by the first words of ``KINDS``.
    """
    figure, ax = new_figure(width=COLUMN, height=2.4)
    width = 0.8 / len(KINDS)
    for place, (kind, label, color) in enumerate(KINDS):
        at = np.arange(len(networks)) + (place - (len(KINDS) - 1) / 2) * width
        bars = ax.bar(at, [errors[kind] for errors in networks.values()], width * 0.92, color=color, label=label)
        ax.bar_label(bars, fmt="%.0f", fontsize=5.5, padding=1)
    ax.set_xticks(range(len(networks)), list(networks))
    ax.set_ylim(0, 105)
    ax.set_ylabel("error (%)")
    ax.set_xlabel("training")
    ax.grid(visible=False, axis="x")
    legend_above(figure, [ax], 3)
    return figure
