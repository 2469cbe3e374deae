"""The rows of a comparison by problem and method: how much of the gap is closed, seconds, what is proved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from lpverify.comparison.rows import ATTACK, Group, Row

HEADER = ("eps", "method", "examples", "gap closed, %", "certified", "falsified", "CPU ms")
# A gap between interval and exact below this says nothing of a method.
LEAST_GAP = 1e-9


@dataclass(frozen=True)
class Line:
    """One method on one problem at one radius.

    Attributes:
        examples: how many the method was run on.
        least, greatest: between which the mean share of the gap lies that it closes between interval and the least
            margin: that is only known to be in the bracket. NaN without such a gap, and for the attack.
        certified, falsified: examples with this verdict.
        cpu: the median of its processor's seconds for an example.
    """

    problem: str
    eps: str
    method: str
    examples: int
    least: float
    greatest: float
    certified: int
    falsified: int
    cpu: float


def summarise(rows: Iterable[Row]) -> list[Line]:
    """One line a problem, radius and method, in the order in which they come."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    base: dict[tuple[object, ...], float] = {}
    for row in rows:
        groups.setdefault((row.problem, row.eps, row.method), []).append(row)
        if row.method == "interval":
            base[(*row.group, row.target)] = row.margin
    lines = []
    for (problem, eps, method), found in groups.items():
        shares = [_closed(row, base[(*row.group, row.target)]) for row in found
                  if method != ATTACK and (*row.group, row.target) in base]  # fmt: skip
        known = [pair for pair in shares if not math.isnan(pair[0])]
        least, greatest = (mean(pair[side] for pair in known) if known else math.nan for side in (0, 1))
        firsts = list({row.group: row for row in found}.values())
        verdicts = [row.verdict for row in firsts]
        timed = [row.cpu_seconds for row in firsts if not row.note]
        lines.append(Line(
            problem, eps, method, len(firsts), least, greatest, verdicts.count("verified"),
            verdicts.count("falsified"), median(timed) if timed else math.nan,
        ))  # fmt: skip
    return lines


def _closed(row: Row, interval: float) -> tuple[float, float]:
    """The least and the greatest share of the gap that the row's method may have closed; NaN without a gap."""
    ends = (row.bracket_upper - interval, row.bracket_lower - interval)
    if not (ends[0] > LEAST_GAP and ends[1] > LEAST_GAP and math.isfinite(row.margin)):
        return math.nan, math.nan
    done = row.margin - interval
    least, greatest = (min(1.0, done / end) for end in ends)
    return min(least, greatest), greatest


def tables(rows: Iterable[Row]) -> dict[str, list[list[str]]]:
    """Rows of text under HEADER, by problem."""
    found: dict[str, list[list[str]]] = {}
    for line in summarise(rows):
        found.setdefault(line.problem, []).append(
            [line.eps, line.method, str(line.examples), share_text(line), str(line.certified), str(line.falsified),
             milliseconds(line.cpu)]
        )  # fmt: skip
    return found


def common(rows: Sequence[Row]) -> list[Row]:
    """The rows of those examples on which every method of their problem and radius was run: for fair means."""
    methods: dict[tuple[str, str], set[str]] = {}
    groups: dict[Group, set[str]] = {}
    for row in rows:
        methods.setdefault((row.problem, row.eps), set()).add(row.method)
        groups.setdefault(row.group, set()).add(row.method)
    return [row for row in rows if groups[row.group] == methods[row.problem, row.eps]]


def milliseconds(seconds: float) -> str:
    """With three digits and no exponent."""
    return "-" if math.isnan(seconds) else f"{float(f'{1000 * seconds:.3g}'):g}"


def share_text(line: Line) -> str:
    """The share of the gap in percent, as a range where the bracket leaves one; "-" where there is none."""
    if math.isnan(line.least):
        return "-"
    least, greatest = f"{100 * line.least:.1f}", f"{100 * line.greatest:.1f}"
    return least if least == greatest else f"{least} to {greatest}"
