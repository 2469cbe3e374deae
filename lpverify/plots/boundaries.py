"""The classes of a network of two inputs, its decision boundaries, and balls about examples.

Wong & Kolter 2018, figure 3; every ball by its verdict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle

from lpverify.geometry.boundaries import Boundaries
from lpverify.plots.rings import add_rings
from lpverify.plots.style import BLACK, BLUE, ORANGE, VERMILION, new_figure

# Pale, so that balls and examples stand out: by class, repeated where there are more.
FILLS = ("#CFE6F5", "#FBE3C3", "#CDEBDD", "#F3DCE9", "#E6E6E6", "#FAF6C4", "#E5D3C1")
MARKERS = "os^vDP*"
BALLS = {"verified": (BLUE, "-"), "falsified": (VERMILION, "--"), "unknown": (ORANGE, ":")}


def draw_boundaries(axes: Any, data: Boundaries, names: dict[str, str] | None = None) -> list[Line2D]:
    """Draw on square axes; returns handles for a legend.

    Args:
        names: what to call the verdicts.
    """
    names = {name: name for name in BALLS} if names is None else names
    for label, rings in enumerate(data.rings):
        add_rings(axes, rings, facecolor=FILLS[label % len(FILLS)], edgecolor=BLACK, linewidth=0.6)
    for point, label, verdict in zip(data.x, data.y, data.verdicts, strict=True):
        color, dashes = BALLS[str(verdict)]
        axes.add_patch(_ball(point, data.eps, data.norm, fill=False, edgecolor=color, linestyle=dashes, linewidth=1.2))
        axes.plot(*point, MARKERS[label % len(MARKERS)], color=BLACK, markersize=3, gid="example")
    axes.set(xlim=(data.lower[0], data.upper[0]), ylim=(data.lower[1], data.upper[1]), aspect="equal")
    axes.grid(False)
    used = [verdict for verdict in BALLS if verdict in set(data.verdicts)]
    handles = [
        Line2D([], [], color=BALLS[verdict][0], linestyle=BALLS[verdict][1], label=names[verdict]) for verdict in used
    ]
    for label in sorted(set(data.y.tolist())):
        handles.append(Line2D(
            [], [], color=BLACK, marker=MARKERS[label % len(MARKERS)], markersize=3, linestyle="none",
            label=f"example of class {label}",
        ))  # fmt: skip
    return handles


def boundaries_figure(panels: dict[str, Boundaries], names: dict[str, str] | None = None, **size: Any) -> Any:
    """One panel for each title, side by side, with one legend below; call inside ``styled``."""
    figure, axes = new_figure(1, len(panels), squeeze=False, sharey=True, **size)
    handles: dict[str, Line2D] = {}
    for place, (title, data) in zip(axes[0], panels.items(), strict=True):
        handles |= {str(handle.get_label()): handle for handle in draw_boundaries(place, data, names)}
        place.set(title=title, xlabel="input 0")
    axes[0, 0].set_ylabel("input 1")
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(3, len(handles)))
    return figure


def _ball(point: Any, eps: float, norm: str, **style: Any) -> Any:
    if norm == "inf":
        return Rectangle(tuple(point - eps), 2 * eps, 2 * eps, **style)
    if norm == "2":
        return Circle(tuple(point), eps, **style)
    return Polygon(point + eps * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), **style)
