"""The classes of networks of two inputs, their decision boundaries, and balls about examples.

Wong & Kolter 2018, figure 3; every ball by its verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon, Rectangle
from numpy.typing import NDArray

from lpverify.geometry.boundaries import Boundaries
from lpverify.plots.rings import add_rings
from lpverify.plots.style import BLACK, BLUE, VERMILION, new_figure

# Pale, so that balls and examples stand out: by class, repeated where there are more.
FILLS = ("#CFE6F5", "#FBE3C3", "#CDEBDD", "#F3DCE9", "#E6E6E6", "#FAF6C4", "#E5D3C1")
MARKERS = "os^vDP*"
BALLS: dict[str, tuple[str, Any]] = {"verified": (BLUE, "-"), "falsified": (VERMILION, "--"), "unknown": (BLACK, ":")}
VERDICTS = {name: name for name in BALLS}


def draw_boundaries(axes: Any, data: Boundaries, *, fill: bool = True) -> None:
    """Fill the classes' parts and draw the boundaries between them, on square axes that show the window."""
    for label, rings in enumerate(data.rings):
        add_rings(axes, rings, facecolor=_fill(label) if fill else "none", edgecolor=BLACK, linewidth=0.6)
    axes.set(xlim=(data.lower[0], data.upper[0]), ylim=(data.lower[1], data.upper[1]), aspect="equal", xlabel="input 0")
    axes.grid(False)


def draw_balls(axes: Any, data: Boundaries, *, centers: bool = True, width: float = 1.2) -> None:
    """Draw the balls by their verdicts, and the examples by their labels."""
    for point, label, verdict in zip(data.x, data.y, data.verdicts, strict=True):
        color, dashes = BALLS[str(verdict)]
        style = {"fill": False, "edgecolor": color, "linestyle": dashes, "linewidth": width, "gid": str(verdict)}
        axes.add_patch(_ball(point, data.eps, data.norm, **style))
        if centers:
            axes.plot(*point, MARKERS[label % len(MARKERS)], color=BLACK, markersize=3)


def legend_handles(data: Sequence[Boundaries], names: dict[str, str], centers: bool) -> list[Any]:
    """What the legend shows: the verdicts that occur, and the classes."""
    occur = {str(verdict) for each in data for verdict in each.verdicts}
    handles: list[Any] = [
        Line2D([], [], color=color, linestyle=dashes, label=names[verdict])
        for verdict, (color, dashes) in BALLS.items()
        if verdict in occur
    ]
    for label in range(len(data[0].rings)):
        mark = MARKERS[label % len(MARKERS)] if centers else "none"
        handles.append(Line2D(
            [], [], color=_fill(label), linewidth=7, marker=mark, markersize=3, markerfacecolor=BLACK,
            markeredgecolor=BLACK, label=f"class {label}",
        ))  # fmt: skip
    return handles


def boundaries_figure(
    panels: dict[str, Boundaries], names: dict[str, str] | None = None, *, centers: bool = True, **size: Any
) -> Any:
    """One panel for each title, side by side, with one legend below; call inside ``styled``.

    Args:
        names: what to call the verdicts.
        centers: mark the examples too.
    """
    figure, axes = new_figure(1, len(panels), squeeze=False, sharey=True, **size)
    for place, (title, data) in zip(axes[0], panels.items(), strict=True):
        draw_boundaries(place, data)
        draw_balls(place, data, centers=centers, width=1.2 if centers else 0.9)
        place.set_title(title)
    axes[0, 0].set_ylabel("input 1")
    handles = legend_handles(list(panels.values()), names or VERDICTS, centers)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def cascade_figure(stages: Sequence[Boundaries], answers: Sequence[NDArray[np.int8]], **size: Any) -> Any:
    """Each stage's certified answers and boundary with the balls, then the cascade's answers; call inside ``styled``.

    Args:
        answers: of each stage and then of the cascade, classes on a square grid over the window, -1 for none.
    """
    titles = [*(f"stage {number} alone" for number in range(1, len(stages) + 1)), "the cascade"]
    figure, axes = new_figure(1, len(titles), squeeze=False, sharey=True, **size)
    low, high = stages[0].lower, stages[0].upper
    colors = ListedColormap(["white", *(_fill(label) for label in range(len(stages[0].rings)))])
    for place, title, answer, stage in zip(axes[0], titles, answers, [*stages, None], strict=True):
        place.imshow(
            answer, cmap=colors, vmin=-1.5, vmax=colors.N - 1.5, origin="lower", interpolation="nearest",
            extent=(low[0], high[0], low[1], high[1]),
        )  # fmt: skip
        if stage is None:
            for point, label in zip(stages[0].x, stages[0].y, strict=True):
                place.plot(*point, MARKERS[label % len(MARKERS)], color=BLACK, markersize=3)
        else:
            draw_boundaries(place, stage, fill=False)
            draw_balls(place, stage)
        place.set(title=f"{title}: {np.mean(answer >= 0):.0%} certified", xlabel="input 0")
        place.grid(False)
    axes[0, 0].set_ylabel("input 1")
    handles = legend_handles(list(stages), {**VERDICTS, "verified": "ball certified", "unknown": "ball not certified",
                                            "falsified": "ball falsified"}, centers=True)  # fmt: skip
    handles.append(Patch(facecolor="white", edgecolor=BLACK, linewidth=0.4, label="no certified answer"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _fill(label: int) -> str:
    return FILLS[label % len(FILLS)]


def _ball(point: Any, eps: float, norm: str, **style: Any) -> Any:
    if norm == "inf":
        return Rectangle(tuple(point - eps), 2 * eps, 2 * eps, **style)
    if norm == "2":
        return Circle(tuple(point), eps, **style)
    return Polygon(point + eps * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), **style)
