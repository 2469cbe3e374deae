"""Errors of several networks side by side, as groups of bars: clean, attacked, certified, or by several bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lpverify.plots.style import BLACK, BLUE, COLUMN, ORANGE, SKY, STYLES, VERMILION, legend_above, new_figure

# What each bar means, and its colour: those of the methods that are behind it.
KINDS = (
    ("clean", "clean", BLUE), ("fgsm", "FGSM", SKY), ("pgd", "PGD", VERMILION), ("certified", "not verified", BLACK),
    ("dual", "dual bound", ORANGE),
)  # fmt: skip
_HATCHED = {"color": "white", "hatch": "//////", "linewidth": 0.6, "edgecolor": STYLES["sdp"].color}
_OTHER_BARS: dict[str, tuple[str, dict[str, Any]]] = {
    "clean": ("clean", {"color": "#CCCCCC"}),
    "sdp": ("SDP of the ball", {"color": STYLES["sdp"].color}),
    "global sdp": ("SDP of training", _HATCHED),
}
# (key, label, look): what a bar of each group shows.
Bar = tuple[str, str, Mapping[str, Any]]


def error_bars(networks: Mapping[str, Mapping[str, float]]) -> Figure:
    """A group of bars for each network.

    Args:
        networks: by name, the errors in per cent by the first words of ``KINDS``.
    """
    return _groups(networks, [(kind, label, {"color": color}) for kind, label, color in KINDS], "error (%)", 2.4)


def judged_bars(networks: Mapping[str, Mapping[str, float]], methods: Sequence[str]) -> Figure:
    """A group of bars for each network: what each of the bounds does not certify.

    Args:
        networks: by name, the errors as shares by method.
        methods: the bounds, in order: "clean", "global sdp", or keys of ``STYLES``.
    """
    bars = []
    for method in methods:
        label, look = _OTHER_BARS.get(method) or (STYLES[method].label, {"color": STYLES[method].color})
        bars.append((method, label, look))
    shown = {name: {method: 100 * share for method, share in errors.items()} for name, errors in networks.items()}
    return _groups(shown, bars, "not certified (%)", 2.7)


def _groups(networks: Mapping[str, Mapping[str, float]], bars: Sequence[Bar], label: str, height: float) -> Figure:
    """The bars (key, label, look) of all networks, with their values in per cent above them."""
    figure, ax = new_figure(width=COLUMN, height=height)
    width = 0.84 / len(bars)
    for place, (key, said, look) in enumerate(bars):
        at = np.arange(len(networks)) + (place - (len(bars) - 1) / 2) * width
        drawn = ax.bar(at, [errors[key] for errors in networks.values()], width * 0.92, label=said, **look)
        ax.bar_label(drawn, fmt="%.0f", fontsize=5.5 if len(bars) < 6 else 5, padding=1)
    ax.set_xticks(range(len(networks)), list(networks))
    ax.set_ylim(0, 105)
    ax.set_ylabel(label)
    ax.set_xlabel("training")
    ax.grid(visible=False, axis="x")
    legend_above(figure, [ax], 3)
    return figure
