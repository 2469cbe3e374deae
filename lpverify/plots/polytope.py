"""The outputs that an input set reaches and the polygons that bound methods enclose them in.

Wong & Kolter 2018, figures 6 and 7, with the exact set in place of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
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
FAR = 3.0


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
    for name in reversed(drawn_methods(data)):
        closed, look = np.concatenate([data.outer[name], data.outer[name][:1]]), STYLES[name]
        # The LP often lies on alpha's polygon; both shall be seen.
        width = 2.2 if name == "alpha" else 1.2
        axes.plot(*closed.T, color=look.color, linestyle=look.linestyle, linewidth=width, gid=name)
    axes.margins(0.06)


def legend_handles(data: Polytope) -> list[Any]:
    """What the legend shows: the set or its points, and each method, from the tightest on."""
    handles: list[Any] = []
    if data.rings:
        handles.append(Patch(facecolor=FILL, edgecolor=BLACK, linewidth=0.6, label="exact"))
    else:
        handles.append(Line2D([], [], color=GREY, marker=".", linestyle="none", label="random"))
        handles.append(Line2D([], [], color=VERMILION, marker="x", linestyle="none", markersize=3, label="attacked"))
    drawn = drawn_methods(data)
    for name in sorted(data.outer, key=lambda name: area(data.outer[name])):
        look = STYLES[name]
        label = look.label if name in drawn else f"{look.label} (outside)"
        handles.append(Line2D([], [], color=look.color, linestyle=look.linestyle, label=label))
    return handles


def ratios(data: Polytope) -> str:
    """By how much the areas of all polygons exceed that of the exact set, from the tightest on, in two lines."""
    names = sorted(data.outer, key=data.looseness)
    said = [f"{STYLES[name].label} {_short(data.looseness(name))}" for name in names]
    half = (len(said) + 1) // 2
    return ", ".join(said[:half]) + ",\n" + ", ".join(said[half:])


def polytope_figure(data: Polytope, labels: tuple[str, str], title: str, **size: Any) -> Any:
    """One picture with its legend below; call inside ``styled``."""
    figure, axes = new_figure(**size)
    draw_polytope(axes, data)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    handles = legend_handles(data)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.6, columnspacing=1.0)
    return figure


def polytopes_figure(
    panels: Sequence[Sequence[tuple[str, Polytope]]], labels: tuple[str, str], *, wall: bool = False, **size: Any
) -> Any:
    """A table of panels, (title, data) each, with one legend; call inside ``styled``.

    Args:
        wall: draw the line where the first coordinate is 0.
    """
    figure, axes = new_figure(len(panels), len(panels[0]), squeeze=False, **size)
    handles: dict[str, Any] = {}
    for row, line in zip(axes, panels, strict=True):
        for place, (title, data) in zip(row, line, strict=True):
            draw_polytope(place, data)
            if wall:
                place.axvline(0, color=BLACK, linewidth=0.6, linestyle="--")
            place.set_title(f"{title}\n{ratios(data)}", fontsize=7)
            place.ticklabel_format(scilimits=(-2, 3))
            place.locator_params(nbins=5)
            handles |= {handle.get_label().removesuffix(" (outside)"): handle for handle in legend_handles(data)}
        row[0].set_ylabel(labels[1])
    for place in axes[-1]:
        place.set_xlabel(labels[0])
    if wall:
        handles["equal"] = Line2D([], [], color=BLACK, linewidth=0.6, linestyle="--", label="equal outputs")
    figure.suptitle("Below each title: the polygons' areas over that of the exact set", fontsize=7)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=len(handles))
    return figure


def _short(value: float) -> str:
    """Two digits, or more before the point: 1.7, 58, 258, 3e6."""
    if value < 10:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 10_000 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
