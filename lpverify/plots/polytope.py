"""The outputs that an input set reaches and the polygons that bound methods enclose them in.

Wong & Kolter 2018, figures 6 and 7, with the exact set in place of samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lpverify.geometry.polygon import area
from lpverify.geometry.polytope import Polytope
from lpverify.plots.rings import add_rings
from lpverify.plots.style import BLACK, GREY, STYLES, VERMILION, new_figure

FILL = "#C9C9C9"
# A polygon more than so many times as wide as the next one is left out, as the others would be dots beside it.
FAR = 6.0


def drawn_methods(data: Polytope) -> list[str]:
    """The methods whose polygons are drawn: from the narrowest on, until one is ``FAR`` times as wide as the last."""
    widths = {name: float(np.ptp(polygon, axis=0).max()) for name, polygon in data.outer.items()}
    names = sorted(widths, key=lambda name: widths[name])
    for place in range(1, len(names)):
        if widths[names[place]] > FAR * widths[names[place - 1]]:
            return names[:place]
    return names


def draw_polytope(axes: Any, data: Polytope) -> None:
    """Draw the set, or the points known of it, and the outer polygons that are not too far away."""
    add_rings(axes, data.rings, facecolor=FILL, edgecolor=BLACK, linewidth=0.6)
    axes.plot(*data.points.T, ".", color=GREY, markersize=1, gid="random")
    axes.plot(*data.attacked.T, "x", color=VERMILION, markersize=3, markeredgewidth=0.7, gid="attacked")
    for name in drawn_methods(data):
        closed, look = np.concatenate([data.outer[name], data.outer[name][:1]]), STYLES[name]
        axes.plot(*closed.T, color=look.color, linestyle=look.linestyle, gid=name)
    axes.margins(0.06)


def legend_handles(data: Polytope) -> list[Any]:
    """What the legend shows: the set or its points, and each method, from the tightest on."""
    handles: list[Any] = []
    if data.rings:
        handles.append(Patch(facecolor=FILL, edgecolor=BLACK, linewidth=0.6, label="exact"))
    else:
        handles.append(Line2D([], [], color=GREY, marker=".", linestyle="none", label="random inputs"))
        handles.append(Line2D([], [], color=VERMILION, marker="x", linestyle="none", markersize=3, label="attacked"))
    drawn = drawn_methods(data)
    for name in sorted(data.outer, key=lambda name: area(data.outer[name])):
        look = STYLES[name]
        label = look.label if name in drawn else f"{look.label} (beyond the picture)"
        handles.append(Line2D([], [], color=look.color, linestyle=look.linestyle, label=label))
    return handles


def ratios(data: Polytope) -> str:
    """The areas of the polygons over that of the exact set, a line each, from the tightest on."""
    names = sorted(data.outer, key=data.looseness)
    return "\n".join(f"{STYLES[name].label} ×{_short(data.looseness(name))}" for name in names)


def polytope_figure(data: Polytope, labels: tuple[str, str], title: str, **size: Any) -> Any:
    """One picture with its legend below; call inside ``styled``."""
    figure, axes = new_figure(**size)
    draw_polytope(axes, data)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    figure.legend(handles=legend_handles(data), loc="outside lower center", ncols=3)
    return figure


def _short(value: float) -> str:
    """Two or three digits: 1.68, 58.5, 258, 3e+06."""
    return f"{value:.3g}" if value < 10_000 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
