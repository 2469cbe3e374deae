"""Values out of a run's files as what they should be, whatever they are: the files may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Longer texts are cut: a reason is a line, not a page. Greater numbers are none: their sums could overflow.
LONGEST = 400
LARGEST = 1e100


def text(value: Any) -> str:
    """One line of text; empty for null. Lists are joined by commas."""
    if value is None:
        return ""
    if isinstance(value, list):
        value = ", ".join(map(text, value))
    line = " ".join(str(value).split())
    # Half of a surrogate pair is a string of Python and of JSON, but of no file.
    line = line.encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def number(value: Any) -> float | None:
    """A number of a size that can be added and drawn, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) <= LARGEST else None


def integer(value: Any) -> int | None:
    """An integer of at most 53 bits, else None."""
    return value if type(value) is int and abs(value) <= 2**53 else None


def mapping(value: Any) -> Mapping[str, Any]:
    """An object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}
