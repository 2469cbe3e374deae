"""Counterexamples side by side: the input, what was added to it, the result, with the network's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, PAGE, new_figure

Image = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shown:
    """One counterexample.

    Attributes:
        index: of the example.
        x, found: the input and the counterexample, each (height, width) or (height, width, 3).
        label, answer: the right class, and the network's at the counterexample.
    """

    index: int
    x: Image
    found: Image
    label: int
    answer: int


def counterexample_gallery(shown: Sequence[Shown], columns: int = 1) -> Figure:
    """A row of three images for each; the perturbation's scale is symmetric and the same for all."""
    rows = -(-len(shown) // columns)
    width = COLUMN if columns == 1 else PAGE
    # What the scale beside the images takes is not theirs.
    cell = (width - 1.0) / (3 * columns)
    figure, grid = new_figure(rows, 3 * columns, width=width, height=(cell + 0.2) * rows + 0.25, squeeze=False)
    top = max(float(np.abs(one.found - one.x).max()) for one in shown)
    low = min(float(min(one.x.min(), one.found.min())) for one in shown)
    high = max(float(max(one.x.max(), one.found.max())) for one in shown)
    for ax in grid.flat:
        ax.set_axis_off()
    for place, one in enumerate(shown):
        first, middle, last = grid[place // columns][3 * (place % columns) :][:3]
        first.imshow(one.x, cmap="gray_r", vmin=low, vmax=high)
        change = one.found - one.x
        # Of a colour image the channels' mean, with its sign.
        image = middle.imshow(change if change.ndim == 2 else change.mean(-1), cmap="RdBu_r", vmin=-top, vmax=top)
        last.imshow(one.found, cmap="gray_r", vmin=low, vmax=high)
        first.set_title(f"{one.index}: a {one.label}", fontsize=7)
        middle.set_title("change", fontsize=7)
        last.set_title(f"called {one.answer}", fontsize=7)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.6, aspect=20)
    bar.set_label("change of the input")
    return figure
