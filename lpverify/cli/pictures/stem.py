"""Where a picture goes: the option --out STEM that every picture takes, and the line that says what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

SUFFIXES = (".pdf", ".png")


def as_stem(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """The path without a picture's suffix: x.png and x.pdf mean the stem x."""
    return value.with_suffix("") if value.suffix in SUFFIXES else value


def stem_option(command: Any) -> Any:
    """Add ``out``, the stem of the files that are written."""
    return click.option("--out", type=click.Path(path_type=Path), required=True, callback=as_stem, metavar="STEM",
                        help="Write STEM.pdf, STEM.png and the drawn numbers beside them.")(command)  # fmt: skip


def report(written: Iterable[Path]) -> None:
    """Print the files that were written, one a line."""
    for path in written:
        click.echo(str(path))
