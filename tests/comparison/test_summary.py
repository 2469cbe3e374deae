"""The summary of a comparison, on rows whose shares are known."""

from __future__ import annotations

import math
from dataclasses import replace

from test_rows import ROW

from lpverify.comparison.rows import Row
from lpverify.comparison.summary import common, milliseconds, share_text, summarise, tables


def row(method: str, margin: float, example: int = 0, lower: float = 3.0, upper: float = 3.0, **more: object) -> Row:
    changes = {"method": method, "margin": margin, "bracket_lower": lower, "bracket_upper": upper, **more}
    return replace(ROW, example=example, **changes)  # type: ignore[arg-type]


def test_shares_of_the_gap() -> None:
    rows = [row("crown", 1.0), row("interval", -1.0), row("milp", 3.0), row("attack", 3.0)]
    found = {line.method: line for line in summarise(rows)}
    assert [(found[m].least, found[m].greatest) for m in ("interval", "crown", "milp")] == [(0, 0), (0.5, 0.5), (1, 1)]
    assert math.isnan(found["attack"].least) and share_text(found["attack"]) == "-"
    assert share_text(found["crown"]) == "50.0"


def test_an_open_bracket_leaves_a_range() -> None:
    (_, line) = summarise([row("interval", 0.0, lower=2.0, upper=4.0), row("crown", 1.0, lower=2.0, upper=4.0)])
    assert (line.least, line.greatest) == (0.25, 0.5) and share_text(line) == "25.0 to 50.0"


def test_rows_without_a_gap_are_left_out() -> None:
    rows = [row("interval", 3.0), row("crown", 3.0), row("interval", 1.0, 1), row("crown", 2.0, 1)]
    assert [line.least for line in summarise(rows)] == [0.0, 0.5]


def test_examples_are_counted_once_and_failures_have_no_time() -> None:
    rows = [
        row("lp", 1.0, target=target, example=example, verdict=verdict, cpu_seconds=seconds, note=note)
        for example, verdict, seconds, note in ((0, "verified", 0.1, ""), (1, "unknown", 0.3, ""), (2, "", 0.0, "lost"))
        for target in (0, 1)
    ]
    (line,) = summarise(rows)
    assert (line.examples, line.certified, line.falsified, line.cpu) == (3, 1, 0, 0.2)
    assert tables(rows) == {"p": [["0.1", "lp", "3", "-", "1", "0", "200"]]}


def test_common_examples() -> None:
    rows = [row("interval", 0.0), row("lp", 0.0), row("interval", 0.0, 1), row("interval", 0.0, eps="0.2")]
    assert [(r.method, r.eps, r.example) for r in common(rows)] == [
        ("interval", "0.1", 0), ("lp", "0.1", 0), ("interval", "0.2", 0)
    ]  # fmt: skip


def test_milliseconds() -> None:
    assert [milliseconds(s) for s in (0.00012345, 1.23456, math.nan)] == ["0.123", "1230", "-"]
