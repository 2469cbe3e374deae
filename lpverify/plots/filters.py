"""The filters of a convolutional network's first layer as images (paper, figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lpverify.plots.style import COLUMN, new_figure


def filter_images(networks: Mapping[str, NDArray[np.float32]], columns: int = 8) -> Figure:
    """Rows of images for each network, on one scale a network, from minus to plus its largest weight.

    Args:
        networks: by name, the filters (filters, height, width); those of a network are all drawn.
        columns: images in a row.
    """
    rows = [
        (name if start == 0 else "", filters[start : start + columns] / np.abs(filters).max(), np.abs(filters).max())
        for name, filters in networks.items()
        for start in range(0, len(filters), columns)
    ]
    size = (COLUMN - 0.6) / columns
    figure, grid = new_figure(len(rows), columns, width=COLUMN, height=(size + 0.2) * len(rows), squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for line, (name, filters, top) in zip(grid, rows, strict=True):
        for ax, one in zip(line, filters, strict=False):
            image = ax.imshow(one, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, linewidth=0.4, color="grey"))
        # Not part of the layout: a title is wider than the image below it.
        said = f"{name}, largest weight {top:.2f}" if name else ""
        title = line[0].text(0, 1.15, said, transform=line[0].transAxes, fontsize=7)
        title.set_in_layout(False)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.5, aspect=15, ticks=(-1, 0, 1))
    bar.set_label("weight / largest")
    return figure
