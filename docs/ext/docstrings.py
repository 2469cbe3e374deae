"""Docstrings as pages show them: plain text without markup of its own, and sections of named fields as lists."""

from __future__ import annotations

import re
import textwrap
from typing import Any

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
FIELD = re.compile(r"^(\S[^:]*): (.*)$")


def escape(line: str) -> str:
    """A star or a bar outside of double backquotes is no markup."""
    parts = line.split("``")
    return "``".join(part if i % 2 else re.sub(r"[*|]", r"\\\g<0>", part) for i, part in enumerate(parts))


def listed(title: str, body: list[str]) -> list[str]:
    """One section: a list of its fields, each with all of its names; text where it has none."""
    shown = [f"**{title}**", ""]
    for line in body:
        field = FIELD.match(line)
        if field and title not in ("Returns", "Yields"):
            shown.append(f"- ``{field[1]}``: {field[2]}")
        else:
            shown.append("  " + line.strip() if shown[-1][:2] in ("- ", "  ") else line.strip())
    return [*shown, ""]


def render(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    shown: list[str] = []
    waiting = [escape(line) for line in lines]
    while waiting:
        line = waiting.pop(0)
        section = SECTION.match(line)
        if section is None:
            shown.append(line)
            continue
        body = []
        while waiting and (not waiting[0].strip() or waiting[0].startswith(" ")):
            body.append(waiting.pop(0))
        shown += listed(section[1], textwrap.dedent("\n".join(body)).strip("\n").split("\n"))
    return shown


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What autodoc calls for each docstring."""
    lines[:] = render(lines)


def setup(app: Any) -> dict[str, Any]:
    """Register with autodoc."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
