"""The rows of a comparison as a CSV that survives being killed: a group is there whole, or it is measured again.

A group is everything about one example of one problem at one radius: every method's row for every class. It is
appended at once; ``group_rows`` on each of its lines says how many there are, so that a group cut short shows.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from lpverify.errors import DataError
from lpverify.files import write_atomic

# The attack stands among the methods: it gives upper bounds where they give lower ones.
ATTACK = "attack"
# Digits of a margin in the file, those that figures can show and some more; and of seconds.
DIGITS, CLOCK_DIGITS = 8, 4
_CLOCKS = ("seconds", "cpu_seconds")


@dataclass(frozen=True)
class Row:
    """One method on one row of one example's claim: the columns of the CSV, in this order.

    Attributes:
        problem: its name in the table of problems.
        network_sha256: the first twelve hexadecimal digits of that of the network file.
        eps: the radius in raw input units, an exact decimal.
        norm: "inf", "2" or "1".
        clip: the two decimals that bound every input, with a blank between; "" for none.
        method: one of METHODS, or "attack".
        example: its index in the data.
        label, target: the margin is that of the label's output over the target's.
        margin: what the method claims, a lower bound of the least margin; NaN ("" in the file) where it has none. Of
            the attack: the least margin at a point that it found, an upper bound.
        certified_margin: what the rigorous checker proves from the method's multipliers; NaN for the attack.
        bracket_lower: the greatest of all methods' certified margins and of what ``milp`` claims for this row.
        bracket_upper: the least margin at a point of the exact input set that anything proposed for this row (the clean
            input, attacks, solvers' points), evaluated in float64 and rounded up.
        gap: how far margin is from bracket_upper: below it for a method, above it for the attack.
        unstable: unstable neurons of each ReLU by the method's own pre-activation bounds, joined by "/".
        verdict: of the method alone on the whole example: "verified" where the checker proves all rows, "falsified"
            where a point that it proposed is a witness, else "unknown".
        certified: 1 where certified_margin > 0, else 0.
        seconds, cpu_seconds: of the method for all rows of the example (the same on each), by the wall's clock and of
            the processor; a batch of one, the checker not counted.
        note: why there is no margin, or "".
        device, dtype, lpverify, torch, commit: what it was measured with; solvers work in float64 on the CPU always.
        group_rows: the number of lines of this row's group.
    """

    problem: str
    network_sha256: str
    eps: str
    norm: str
    clip: str
    method: str
    example: int
    label: int
    target: int
    margin: float
    certified_margin: float
    bracket_lower: float
    bracket_upper: float
    gap: float
    unstable: str
    verdict: str
    certified: int
    seconds: float
    cpu_seconds: float
    note: str
    device: str
    dtype: str
    lpverify: str
    torch: str
    commit: str
    group_rows: int

    @property
    def group(self) -> Group:
        """What identifies its group."""
        return self.problem, self.network_sha256, self.eps, self.norm, self.clip, self.dtype, self.example


Group = tuple[str, str, str, str, str, str, int]
COLUMNS = tuple(field.name for field in fields(Row))
_KINDS = {field.name: field.type for field in fields(Row)}


def read_rows(path: Path) -> list[Row]:
    """The rows of all whole groups of the file; what was cut short at its end is left out.

    Raises:
        DataError: if it is not such a file, or a group that is not the last one is cut short.
    """
    return _parse(path.read_bytes(), path)[0]


class RowFile:
    """A CSV of rows that grows by groups; opening it drops a group that was cut short."""

    def __init__(self, path: Path) -> None:
        """Open, or begin, the file.

        Raises:
            DataError: if the path holds anything else.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.is_file() else b""
        self.rows, whole = _parse(data, path)
        if not whole:
            path.write_bytes(_text([COLUMNS]))
        elif whole < len(data):
            os.truncate(path, whole)
        self._methods: dict[Group, set[str]] = {}
        for row in self.rows:
            self._methods.setdefault(row.group, set()).add(row.method)

    def has(self, group: Group, methods: Sequence[str]) -> bool:
        """Whether the group is there with all of these methods."""
        return self._methods.get(group, set()) >= set(methods)

    def add(self, rows: Sequence[Row]) -> None:
        """Append one whole group and have it reach the disk; it takes the place of one that had fewer methods."""
        (group,) = {row.group for row in rows}
        if any(row.group_rows != len(rows) for row in rows):
            raise ValueError(f"group_rows: must be {len(rows)} on all rows of {group}")
        if group in self._methods:
            kept = [row for row in self.rows if row.group != group]
            write_atomic(self.path, _text([COLUMNS]) + _text(map(_cells, kept)))
            self.rows = kept
        with self.path.open("ab") as file:
            file.write(_text(map(_cells, rows)))
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self._methods[group] = {row.method for row in rows}


def _cells(row: Row) -> list[str]:
    return [_cell(name, value) for name, value in zip(COLUMNS, astuple(row), strict=True)]


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{CLOCK_DIGITS if name in _CLOCKS else DIGITS}g}"
    return " ".join(str(value).split())


def _text(lines: Iterable[Sequence[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue().encode()


def _row(cells: list[str]) -> Row:
    values = {name: _value(str(kind), cell) for (name, kind), cell in zip(_KINDS.items(), cells, strict=True)}
    return Row(**values)


def _value(kind: str, cell: str) -> Any:
    if kind == "float":
        return float(cell or "nan")
    return int(cell) if kind == "int" else cell


def _parse(data: bytes, path: Path) -> tuple[list[Row], int]:
    """The rows of the whole groups, and how many bytes of the file they are."""
    header = _text([COLUMNS])
    if header.startswith(data) and data != header:
        return [], 0
    if not data.startswith(header):
        raise DataError(f"{path}: not a comparison's file: its first line is not {','.join(COLUMNS[:3])},...")
    rows: list[Row] = []
    waiting: list[Row] = []
    whole = at = len(header)
    for line in data[at:].splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        at += len(line)
        try:
            row = _row(next(csv.reader([line.decode()])))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: byte {at - len(line)}: {error}; remove this line and its group") from None
        if waiting and row.group != waiting[0].group:
            raise DataError(f"{path}: byte {at - len(line)}: the group before has too few lines; remove it")
        waiting.append(row)
        if len(waiting) == row.group_rows:
            rows.extend(waiting)
            waiting, whole = [], at
    return rows, whole
