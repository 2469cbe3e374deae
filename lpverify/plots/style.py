"""How every picture looks: one colour and mark a method, sizes for one column of a page, PDF and PNG.

The colours are Okabe and Ito's, which the colour-blind can tell apart; marks and dashes tell the methods apart where
a picture is printed in grey.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

# Inches: one column of a two-column page, the whole page, and the usual height of a picture.
COLUMN, PAGE, HEIGHT = 3.35, 6.9, 2.3
DPI = 200

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#000000", "#8A8A8A"

_RC: Any = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "pdf.fonttype": 42,
    "svg.hashsalt": "lpverify",
}


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn, everywhere."""

    label: str
    color: str
    marker: str
    linestyle: Literal["-", "--", "-.", ":"]

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of ``Axes.plot``."""
        return {"label": self.label, "color": self.color, "marker": self.marker, "linestyle": self.linestyle}


STYLES = {
    "interval": MethodStyle("interval", GREY, "v", ":"),
    "dual": MethodStyle("dual", ORANGE, "s", "-"),
    "crown": MethodStyle("CROWN", SKY, "o", "-"),
    "alpha": MethodStyle("alpha", GREEN, "^", "--"),
    "lp": MethodStyle("LP", BLUE, "D", "-."),
    "lp-tight": MethodStyle("LP, tightened", PURPLE, "P", "--"),
    "sdp": MethodStyle("SDP", "#8C510A", "X", "-."),
    "exact": MethodStyle("exact", BLACK, "*", "-"),
    "milp": MethodStyle("MILP", BLACK, "*", "-"),
    "search": MethodStyle("search", BLACK, "*", "-"),
    "attack": MethodStyle("attack", VERMILION, "x", ":"),
}

# How networks were trained, where pictures tell networks apart: by a bound as that bound, against attacks as those.
TRAINED = {
    "standard": MethodStyle("standard", BLACK, "o", "-"),
    "pgd": MethodStyle("PGD", VERMILION, "x", ":"),
    "dual": MethodStyle("dual", ORANGE, "s", "-"),
    "ibp": MethodStyle("interval", GREY, "v", "--"),
    "random": MethodStyle("random", PURPLE, "P", "-."),
}


@contextmanager
def styled() -> Iterator[None]:
    """The style holds for figures made, drawn and saved inside; matplotlib's own settings are left as they were."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = COLUMN, height: float = HEIGHT, **given: Any
) -> tuple[Figure, Any]:
    """A figure that no global state knows, and its axes as ``Figure.subplots`` returns them; call inside ``styled``."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **given)


def legend_above(figure: Figure, axes: Any, columns: int) -> None:
    """One legend for all axes, above them: the labels of the first that have each."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=columns)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.pdf and STEM.png, equal bytes for equal pictures; returns both paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        path = stem.with_name(stem.name + suffix)
        figure.savefig(path, dpi=DPI, metadata=metadata)
        made.append(path)
    return made
