"""Figures as text for the page: SVG that takes the page's colours and fonts, with a title and a description.

What is drawn in INK takes the colour of the text around the picture, grid lines take the page's; so a picture stands
on a light and on a dark page. Text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from lpverify.plots.style import styled

# Colours that nothing else is drawn in, which the page's own replace.
INK, GRID = "#010203", "#040506"
_RC: Any = {
    "svg.fonttype": "none",
    # Names of methods are anybody's text: no dollar sign begins a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
}
_STYLE = re.compile(r'style="([^"]*)"')
_FONT = re.compile(r"font: ([^;]*?px) [^;]*")
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)


@contextmanager
def page_style() -> Iterator[None]:
    """The style of all pictures, in the page's colours."""
    with styled(), matplotlib.rc_context(_RC), warnings.catch_warnings():
        # A letter that matplotlib's font lacks is drawn by the browser.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        yield


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """A figure as an SVG element, equal text for equal figures; call inside ``page_style``.

    Args:
        name: a word that no other picture of the page has: its ids begin so.
        title, description: what is seen, for those who do not see it.
    """
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    whole = data.getvalue().decode("utf-8")
    start = whole.index("<svg")
    # Without the declaration and without its width and height, which the page decides.
    head, body = whole[start:].split(">", 1)
    box = re.search(r'viewBox="[0-9. ]+"', head)
    assert box is not None
    body = _STYLE.sub(_page_colours, _ID.sub(rf"\g<1>{name}-", _LEFT_OUT.sub("", body)))
    labels = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" {box[0]}>'
    return Markup(opening + labels + body.replace("xlink:href", "href"))


def _page_colours(found: re.Match[str]) -> str:
    style = found[1].replace(INK, "currentColor").replace("#000000", "currentColor").replace(GRID, "var(--grid)")
    style = _FONT.sub(r"font: \1 var(--sans)", style)
    return f'style="{style}"'
