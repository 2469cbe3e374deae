"""The lines of a run as a table: columns with a title and a kind, and rows of values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lpverify.report.fields import integer, number, text

Kind = Literal["count", "verdict", "number", "seconds", "text"]
Value = str | int | float | None
Row = tuple[Value, ...]


@dataclass(frozen=True)
class Column:
    """A column: its name in the run's lines, its heading, and how its values are written and compared."""

    name: str
    title: str
    kind: Kind


@dataclass(frozen=True)
class Columns:
    """Headings of a kind of run, by name in its lines, and names that say nothing there."""

    titles: Mapping[str, str]
    hidden: frozenset[str]


# All names that lines may have and people may want to see, in their order on the page.
KNOWN = (
    Column("index", "example", "count"),
    Column("verdict", "verdict", "verdict"),
    Column("flagged", "flagged", "text"),
    Column("method", "method", "text"),
    Column("label", "label", "count"),
    Column("true_label", "label", "count"),
    Column("predicted", "predicted", "count"),
    Column("stage", "stage", "count"),
    Column("answer", "answer", "count"),
    Column("certified", "certified radius", "number"),
    Column("exact_lower", "solver: at least", "number"),
    Column("exact_upper", "solver: point at", "number"),
    Column("attacked", "attacked radius", "number"),
    Column("margin_lower", "margin ≥", "number"),
    Column("margin_claimed", "claimed margin", "number"),
    Column("leaves", "leaves", "count"),
    Column("nodes", "nodes", "count"),
    Column("seconds", "seconds", "seconds"),
    Column("reason", "reason", "text"),
)


def table_of(records: Sequence[Mapping[str, Any]], given: Columns) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """The columns that some line has a value for, and the rows, in the order of the run."""
    def kind(column: Column) -> Kind:
        """Classes are numbers, but a cascade has one of each stage."""
        are_lists = column.name == "predicted" and any(isinstance(r.get("predicted"), list) for r in records)
        return "text" if are_lists else column.kind

    used = {name for record in records for name, value in record.items() if value not in (None, "", [])}
    columns = tuple(
        Column(column.name, given.titles.get(column.name, column.title), kind(column))
        for column in KNOWN
        if column.name not in given.hidden and (column.name in used or column.name == "index")
    )
    return columns, tuple(tuple(_value(record.get(c.name), c) for c in columns) for record in records)


def _value(value: Any, column: Column) -> Value:
    if column.kind == "count":
        return integer(value)
    if column.kind in ("number", "seconds"):
        return number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text(value)
