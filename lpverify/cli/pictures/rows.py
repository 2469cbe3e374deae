"""Rows of the file of ``lpverify compare`` that a picture is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lpverify.comparison.rows import Row

PROBLEM = click.option("--problem", metavar="NAME", help="Of FILE.csv, where it has several.")


def chosen_rows(path: Path, problem: str | None, eps: str | None = None) -> list[Row]:
    """The rows of one problem, at one radius if it is given.

    Raises:
        DataError: if the file cannot be read, or has no such row.
        UsageError: if it has several problems and none is named.
    """
    from lpverify.comparison.rows import read_rows
    from lpverify.errors import DataError, UsageError

    try:
        rows = read_rows(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    names = sorted({row.problem for row in rows})
    if problem is None and len(names) > 1:
        raise UsageError(f"{path}: has the problems {', '.join(names)}; choose one with --problem")
    found = [row for row in rows if row.problem == (problem or row.problem)]
    found = [row for row in found if eps is None or float(row.eps) == float(eps)]
    if not found:
        radii = ", ".join(sorted({row.eps for row in rows}, key=float))
        raise DataError(f"{path}: no row of problem {problem!r} at eps {eps}; it has {', '.join(names)} at {radii}")
    return found
