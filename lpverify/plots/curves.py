"""Learning curves: loss and error of several trainings by epoch (paper, figures 4 and 12 to 14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lpverify.plots.style import PAGE, TRAINED, legend_above, new_figure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """One training: arrays over its epochs, errors as shares; NaN where a value was not measured."""

    epochs: Array
    error: Array
    robust_error: Array
    test_error: Array
    test_robust_error: Array
    test_robust_loss: Array


def learning_curves(runs: Mapping[str, Curves], robust: Mapping[str, str]) -> Figure:
    """A panel for each training of its errors in per cent, and one of all robust losses on the test set.

    Args:
        runs: by the name of the training, a key of ``TRAINED``.
        robust: by the same, what its robust loss and error are those of.
    """
    columns = 3
    rows = -(-(len(runs) + 1) // columns)
    figure, grid = new_figure(rows, columns, width=PAGE, height=1.75 * rows + 0.3, squeeze=False)
    axes = list(grid.flat)
    for name, ax in zip(runs, axes, strict=False):
        run, color = runs[name], TRAINED[name].color
        ax.plot(run.epochs, 100 * run.robust_error, color=color, linestyle=":", label="robust error, training set")
        ax.plot(run.epochs, 100 * run.test_robust_error, color=color, label="robust error, test set")
        ax.plot(run.epochs, 100 * run.error, color=color, linestyle=":", alpha=0.5, label="error, training set")
        ax.plot(run.epochs, 100 * run.test_error, color=color, alpha=0.5, label="error, test set")
        ax.set_title(f"{TRAINED[name].label} (robust: {robust[name]})")
        ax.set_ylim(0, 100)
        ax.set_xlabel("epoch")
        ax.set_ylabel("error (%)")
    last = axes[len(runs)]
    for name, run in runs.items():
        last.plot(run.epochs, run.test_robust_loss, color=TRAINED[name].color, label=TRAINED[name].label)
    last.set_title("robust loss, test set")
    last.set_yscale("log")
    last.set_xlabel("epoch")
    last.set_ylabel("robust loss (nats)")
    last.legend()
    for ax in axes[len(runs) + 1 :]:
        ax.set_axis_off()
    legend_above(figure, axes[:1], 4)
    return figure
