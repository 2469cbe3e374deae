"""The figures of the page: verdicts by method and by run, seconds, margins, radii."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lpverify.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLES,
    VERMILION,
    MethodStyle,
    legend_above,
    new_figure,
)
from lpverify.report.comparison import letter
from lpverify.report.counts import VERDICTS
from lpverify.report.run import Kind, RunReport
from lpverify.report.svg import INK, page_style, svg

Array = NDArray[np.float64]

# Inches: as wide as the page of a phone, where the letters then have their size.
WIDTH = 3.7
COLORS = {"verified": GREEN, "falsified": VERMILION, "unknown": GREY}
# How what decides is drawn where it is no bound method: as the attack or the search that it is part of.
DRAWN_AS = {
    "pgd": "attack", "fgsm": "attack", "candidate": "attack", "clean": "attack",
    "phase splits": "search", "input splits": "search",
}  # fmt: skip
# Neither a method nor an attack, such as the stages of a cascade.
OTHER = MethodStyle("other", "#6A7B8C", "o", "-")
RUN_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
BINS = 30


@dataclass(frozen=True)
class Drawn:
    """A figure on the page: its heading and its SVG element."""

    title: str
    image: Markup


def run_figures(run: RunReport, prefix: str) -> tuple[Drawn, ...]:
    """The figures of one run; ``prefix`` is a word that no other run of the page has."""
    if not run.examples:
        return ()
    with page_style():
        return tuple(
            Drawn(title, svg(figure, f"{prefix}{number}", title, description))
            for number, (title, description, figure) in enumerate(_of_run(run))
        )


def comparison_figures(runs: Sequence[RunReport]) -> tuple[Drawn, ...]:
    """The figures of several runs together."""
    with page_style():
        return tuple(
            Drawn(title, svg(figure, f"together{number}", title, description))
            for number, (title, description, figure) in enumerate(_of_runs(runs))
        )


def _of_run(run: RunReport) -> Iterator[tuple[str, str, Figure]]:
    if run.kind is Kind.RADIUS:
        yield "Robust up to which radius", _radius_text(run), _radii([run], [""])
    elif any(method.name != "none" for method in run.methods):
        told = "; ".join(f"{m.name}: {m.verified} verified, {m.falsified} falsified, {m.unknown} unknown"
                         for m in run.methods)  # fmt: skip
        yield "What decided", told, _by_method(run)
    told = "; ".join(f"{m.name}: {m.seconds:.3g} s for {m.examples}" for m in run.methods)
    yield "Seconds by method", told, _seconds(run)
    margins = np.array([value for value in run.values("margin_lower") if value is not None])
    if len(margins):
        told = f"{len(margins)} proved lower bounds, median {np.median(margins):.3g}"
        yield "Proved margins", told, _margins(run)


def _of_runs(runs: Sequence[RunReport]) -> Iterator[tuple[str, str, Figure]]:
    counted = [(letter(place), run) for place, run in enumerate(runs) if run.kind is not Kind.RADIUS and run.examples]
    radii = [(letter(place), run) for place, run in enumerate(runs) if run.kind is Kind.RADIUS and run.examples]
    if counted:
        told = "; ".join(
            f"{name}: " + ", ".join(f"{run.verdicts[v]} {v}" for v in VERDICTS) for name, run in counted
        )
        yield "Verdicts of the runs", told, _by_run(counted)
    if radii:
        names, drawn = [name for name, _ in radii], [run for _, run in radii]
        told = "; ".join(f"{name}: {_radius_text(run)}" for name, run in radii)
        yield "Robust up to which radius", told, _radii(drawn, names)
    every = [(letter(place), run) for place, run in enumerate(runs)]
    told = "; ".join(f"{name}: {sum(m.seconds for m in run.methods):.3g} s" for name, run in every)
    yield "Seconds of the examples", told, _seconds_by_run(every)


def _style(method: str) -> MethodStyle:
    """As in every picture, but black is the colour of the page's ink."""
    style = STYLES.get(DRAWN_AS.get(method, method), OTHER)
    return replace(style, color=INK) if style.color == BLACK else style


def _named(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


def _bars(names: Sequence[str], *, legend: bool = True) -> tuple[Figure, Any]:
    """Axes for bars that lie below each other, the first uppermost, with their names."""
    figure, ax = new_figure(width=WIDTH, height=(0.85 if legend else 0.6) + 0.25 * len(names))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    return figure, ax


def _by_method(run: RunReport) -> Figure:
    figure, ax = _bars([_named(method.name) for method in run.methods])
    _stack(ax, [[getattr(method, verdict) for verdict in VERDICTS] for method in run.methods])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("claims" if run.kind is Kind.PROPERTY else "examples")
    legend_above(figure, [ax], 3)
    return figure


def _by_run(runs: Sequence[tuple[str, RunReport]]) -> Figure:
    figure, ax = _bars([name for name, _ in runs])
    _stack(ax, [[100 * run.verdicts[verdict] / run.examples for verdict in VERDICTS] for _, run in runs])
    ax.set_xlim(0, 100)
    ax.set_xlabel("examples (%)")
    legend_above(figure, [ax], 3)
    return figure


def _stack(ax: Any, rows: Sequence[Sequence[float]]) -> None:
    """Stacked bars: of each verdict so much."""
    left = np.zeros(len(rows))
    for place, verdict in enumerate(VERDICTS):
        values = np.array([row[place] for row in rows], dtype=float)
        ax.barh(range(len(rows)), values, left=left, height=0.7, color=COLORS[verdict], label=verdict)
        left += values


def _seconds(run: RunReport) -> Figure:
    """All seconds of a method as a bar, with those of an example beside it."""
    methods = run.methods
    figure, ax = _bars([_named(method.name) for method in methods], legend=False)
    seconds = [method.seconds for method in methods]
    ax.barh(range(len(methods)), seconds, height=0.7, color=OTHER.color)
    top = max(seconds) or 1.0
    for place, method in enumerate(methods):
        each = f"{_duration(method.seconds / method.examples)} each"
        ax.annotate(each, (method.seconds, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    # Room for the words behind the longest bar.
    ax.set_xlim(0, 1.35 * top)
    ax.set_xlabel("seconds of all its examples")
    return figure


def _seconds_by_run(runs: Sequence[tuple[str, RunReport]]) -> Figure:
    """Seconds of each run, by what decided."""
    figure, ax = _bars([name for name, _ in runs])
    styles = {_style(method.name).label: _style(method.name) for _, run in runs for method in run.methods}
    left = np.zeros(len(runs))
    for label, style in styles.items():
        values = np.array([
            sum(method.seconds for method in run.methods if _style(method.name).label == label) for _, run in runs
        ])  # fmt: skip
        ax.barh(range(len(runs)), values, left=left, height=0.7, color=style.color, label=label)
        left += values
    ax.set_xlabel("seconds of all examples")
    legend_above(figure, [ax], 4)
    return figure


def _duration(seconds: float) -> str:
    """Two digits or more, without an exponent."""
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def _margins(run: RunReport) -> Figure:
    """Histogram of the proved lower bounds, by verdict."""
    pairs = [(v, m) for v, m in zip(run.texts("verdict"), run.values("margin_lower"), strict=True) if m is not None]
    groups = {verdict: [margin for found, margin in pairs if found == verdict] for verdict in VERDICTS}
    groups = {verdict: margins for verdict, margins in groups.items() if margins}
    figure, ax = new_figure(width=WIDTH, height=2.1)
    bins, colors = _bins([margin for _, margin in pairs]), [COLORS[verdict] for verdict in groups]
    ax.hist(list(groups.values()), bins=bins, stacked=True, color=colors, label=list(groups))
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("proved lower bound of the least margin")
    ax.set_ylabel("claims" if run.kind is Kind.PROPERTY else "examples")
    legend_above(figure, [ax], 3)
    return figure


def _bins(values: Sequence[float]) -> Array:
    """Edges of bins of equal width that hold all values: fewer for few, and zero is an edge, for it decides."""
    low, high = min(0.0, *values), max(0.0, *values)
    # A little wider, so that rounding leaves no value out.
    width = (1 + 1e-9) * (high - low) / min(BINS, 5 + math.isqrt(2 * len(values))) or 1.0
    return np.array([width * place for place in range(math.floor(low / width), math.floor(high / width) + 2)])


def _radii(runs: Sequence[RunReport], names: Sequence[str]) -> Figure:
    """For every radius the share that is certified up to it, and the share that no counterexample excludes."""
    figure, ax = new_figure(width=WIDTH, height=2.3)
    for run, name, color in zip(runs, names, cycle(RUN_COLORS), strict=False):
        end = _greatest(runs)
        certified, open_still = _certified(run), _unbroken(run)
        low, high = _survivors(certified, end), _survivors(open_still, end)
        ax.fill_between(*_between(low, high), step="post", color=color, alpha=0.2, linewidth=0)
        ax.step(*low, where="post", color=color, linestyle="-", label=f"{name} certified".strip())
        ax.step(*high, where="post", color=color, linestyle=":", label=f"{name} not broken".strip())
    ax.set_xlim(left=0)
    ax.set_ylim(0, 102)
    ax.set_xlabel("radius (input units)")
    ax.set_ylabel("examples (%)")
    legend_above(figure, [ax], 2)
    return figure


def _certified(run: RunReport) -> Array:
    """(N,) certified radii, 0 where there is none."""
    return np.array([value or 0.0 for value in run.values("certified")])


def _unbroken(run: RunReport) -> Array:
    """(N,) distances of the nearest counterexamples known, infinite where there is none."""
    nearest = zip(run.values("exact_upper"), run.values("attacked"), strict=True)
    return np.array([min((v for v in pair if v is not None), default=np.inf) for pair in nearest])


def _greatest(runs: Sequence[RunReport]) -> float:
    """Where the axis ends: a little beyond the greatest radius that is known."""
    known = np.concatenate([np.concatenate([_certified(run), _unbroken(run)]) for run in runs])
    finite = known[np.isfinite(known)]
    return 1.05 * float(finite.max(initial=0.0)) or 1.0


def _survivors(radii: Array, end: float) -> tuple[Array, Array]:
    """The corners of the share, in percent, of ``radii`` that are greater than each radius from 0 to ``end``."""
    places = np.sort(radii[np.isfinite(radii)])
    share = 100 * (len(radii) - np.arange(1, len(places) + 1)) / len(radii)
    last = share[-1] if len(share) else 100.0
    return np.array([0.0, *places, end]), np.array([100.0, *share, last])


def _between(low: tuple[Array, Array], high: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """Two stairs over the corners of both."""
    places = np.union1d(low[0], high[0])
    lower, upper = (stair[1][np.searchsorted(stair[0], places, side="right") - 1] for stair in (low, high))
    return places, lower, upper


def _radius_text(run: RunReport) -> str:
    told = ", ".join(f"{count} {name}, median {_number(quartiles['median'])}" for name, count, quartiles in run.radii)
    return f"radii of {run.examples} examples: {told}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
