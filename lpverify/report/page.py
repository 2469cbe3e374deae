"""From reports of runs to the bytes of one page of HTML, and that page to a file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lpverify.errors import UsageError
from lpverify.files import write_atomic
from lpverify.report.comparison import compare, letter
from lpverify.report.counts import VERDICTS
from lpverify.report.figures import comparison_figures, run_figures
from lpverify.report.rows import Column, Row
from lpverify.report.run import Kind, RunReport
from lpverify.report.words import (
    MEANING,
    RADIUS_MEANING,
    asked_in_words,
    count_of,
    numbers,
    percent,
    settings,
    side_by_side,
    state,
)

TEMPLATE, STYLE, SCRIPT = "page.html.j2", "style.css", "table.js"
# What a page begins with, by which a file is known as one that may be written anew.
MARK = '<!doctype html>\n<html lang="en" data-made-by="lpverify report">\n'
# Within JSON inside a script element: nothing that HTML could take for markup.
ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def render(runs: Sequence[RunReport]) -> bytes:
    """The page about one run, or about several and their comparison."""
    environment = Environment(
        loader=PackageLoader("lpverify.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "count_of": count_of, "short": _short, "seconds": _seconds}
    loader = environment.loader
    assert loader is not None
    style, script = (loader.get_source(environment, name)[0] for name in (STYLE, SCRIPT))
    together = compare(runs) if len(runs) > 1 else None
    sections = [
        {
            "letter": letter(place) if len(runs) > 1 else "",
            "id": letter(place).lower(),
            "run": run,
            "asked": asked_in_words(run),
            "settings": settings(run) | {"state": state(run)},
            "figures": run_figures(run, f"fig-{letter(place).lower()}-"),
            "table": table_data(run.columns, run.rows),
        }
        for place, run in enumerate(runs)
    ]
    page = environment.get_template(TEMPLATE).render(
        mark=Markup(MARK),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=sections,
        together=together,
        together_figures=comparison_figures(runs) if together is not None else (),
        together_asked=side_by_side([settings(run) for run in runs]),
        together_numbers=side_by_side([numbers(run) for run in runs]),
        together_table=None if together is None else table_data(together.columns, together.rows),
        letter=letter,
        Kind=Kind,
        verdicts=VERDICTS,
        meaning=MEANING,
        radius_meaning=RADIUS_MEANING,
    )
    return page.encode()


def write_page(path: Path, page: bytes, *, overwrite: bool) -> None:
    """Write a page; an earlier one is replaced, another file only with ``overwrite``.

    Raises:
        UsageError: if there is another file.
        ResourceError: if the disk refuses.
    """
    require_writable(path, overwrite=overwrite)
    write_atomic(path, page)


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse a path where ``write_page`` would write nothing, before the work is done; raises UsageError."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give --out FILE.html")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist; make it first")
    if path.exists() and not overwrite:
        try:
            with path.open("rb") as file:
                begins = file.read(len(MARK))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror}); choose another file") from None
        if begins != MARK.encode():
            raise UsageError(f"{path}: exists and is no report; choose another file or pass --overwrite")


def table_data(columns: Sequence[Column], rows: Sequence[Row]) -> Markup:
    """A table as JSON that can stand inside a script element."""
    content: dict[str, Any] = {
        "columns": [{"name": c.name, "title": c.title, "kind": c.kind} for c in columns],
        "rows": rows,
    }
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(ESCAPES))


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if len(digest) > 16 else digest


def _seconds(value: float) -> str:
    return f"{value:.2f}"
