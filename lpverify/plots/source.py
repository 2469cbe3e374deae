"""CSV files that pictures are drawn from, read with a clear refusal of files that are something else."""

from __future__ import annotations

import csv
from pathlib import Path

from lpverify.errors import DataError


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The lines of a CSV by column.

    Raises:
        DataError: if there is no such file, it has no line, or it lacks one of ``columns``.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lines, given = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}") from None
    missing = [column for column in columns if column not in given]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]!r}, expected {', '.join(columns)}")
    if not lines:
        raise DataError(f"{path}: has no line; measure first")
    return lines


def number(text: str) -> float:
    """The number in a cell; NaN in an empty one."""
    return float(text or "nan")
