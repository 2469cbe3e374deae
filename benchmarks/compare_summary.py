"""The comparison as two Markdown tables for the README: how tight, and how quick.

    PYTHONPATH=. python benchmarks/compare_summary.py

Only the examples on which every method of a problem was run count, so that a line's means are over the same rows.
"""

from __future__ import annotations

import sys

from common import parser

from lpverify.bounds import METHODS
from lpverify.comparison.rows import read_rows
from lpverify.comparison.summary import Line, common, milliseconds, share_text, summarise

COLUMNS = [name for name in METHODS if name != "interval"]


def tight(line: Line) -> str:
    """The share of the gap, and of how many examples every row is certified."""
    return f"{share_text(line)} ({line.certified})"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table with numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def main() -> int:
    """Print both tables."""
    arguments = parser(__doc__, "compare.csv").parse_args()
    lines: dict[tuple[str, str], dict[str, Line]] = {}
    for line in summarise(common(read_rows(arguments.out))):
        lines.setdefault((line.problem, line.eps), {})[line.method] = line
    gaps, times = [], []
    for (problem, eps), found in lines.items():
        examples = str(found["interval"].examples)
        gaps.append([problem, eps, examples, str(found["interval"].certified),
                     *(tight(found[m]) if m in found else "" for m in COLUMNS), str(found["attack"].falsified)])
        times.append([problem, eps, *(milliseconds(found[m].cpu) if m in found else ""
                                      for m in ("attack", "interval", *COLUMNS))])  # fmt: skip
    print(markdown(["problem", "eps", "examples", "interval", *COLUMNS, "falsified"], gaps))
    print()
    print(markdown(["problem", "eps", "attack", "interval", *COLUMNS], times))
    return 0


if __name__ == "__main__":
    sys.exit(main())
