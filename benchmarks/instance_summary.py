"""The CSVs of ``instances.py`` and ``marabou.py`` as Markdown tables, a line for each family.

    PYTHONPATH=. python benchmarks/instance_summary.py
    PYTHONPATH=. python benchmarks/instance_summary.py --clock cpu --join oval21=oval21_2021,oval21_2022

Seconds are medians and means over the decided instances, checks apart. The last columns compare on the instances
that both decided, and rightly. ``uncertified`` counts verdicts without an accepted proof or witness, and unknowns
for that reason.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median

HERE = Path(__file__).resolve().parent
Line = dict[str, str]
OURS = ("family", "instances", "decided", "wrong", "uncertified", "overruns", "median s", "mean s", "median check s")
OTHERS = ("Marabou: instances", "decided", "wrong", "median s", "mean s", "both", "our median s", "its median s")


def read(path: Path, joined: dict[str, str]) -> list[Line]:
    """The lines of a CSV, with families renamed; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [line | {"family": joined.get(line["family"], line["family"])} for line in csv.DictReader(file)]


def decided(lines: Sequence[Line]) -> list[Line]:
    """Those with a verdict."""
    return [line for line in lines if line["verdict"] in ("sat", "unsat")]


def uncertified(line: Line) -> bool:
    """Whether an answer lacks its proof or witness."""
    if line["verdict"] in ("sat", "unsat"):
        return line["certified"] != "yes"
    return "uncertified" in line["reason"]


def seconds(lines: Sequence[Line], column: str, statistic: Callable[[list[float]], float] = median) -> str:
    """A statistic of a column, or a dash."""
    values = [float(line[column]) for line in lines if line[column]]
    return f"{statistic(values):.3g}" if values else "–"


def row(family: str, ours: Sequence[Line], others: Sequence[Line], column: str) -> list[str]:
    """One family's cells."""
    found, theirs = decided(ours), decided(others)
    cells = [family, len(ours), len(found), _wrong(ours), sum(map(uncertified, ours)),
             sum(line["overrun"] == "yes" for line in ours), seconds(found, column), seconds(found, column, mean),
             seconds(found, "check_s")]  # fmt: skip
    if others:
        right = {_key(line): line for line in theirs if line["ok"] != "no"}
        both = [line for line in found if line["ok"] != "no" and _key(line) in right]
        cells += [len(others), len(theirs), _wrong(others), seconds(theirs, column), seconds(theirs, column, mean),
                  len(both), seconds(both, column), seconds([right[_key(line)] for line in both], column)]  # fmt: skip
    return [str(cell) for cell in cells]


def _wrong(lines: Sequence[Line]) -> int:
    return sum(line["ok"] == "no" for line in lines)


def _key(line: Line) -> tuple[str, str]:
    return line["onnx"], line["vnnlib"]


def table(ours: Sequence[Line], others: Sequence[Line], column: str) -> str:
    """The Markdown table; the last line is for all families together."""
    header = OURS + (OTHERS if others else ())
    rows = [list(header), ["---", *["---:"] * (len(header) - 1)]]
    for family in dict.fromkeys(line["family"] for line in [*ours, *others]):
        mine = [line for line in ours if line["family"] == family]
        rows.append(row(family, mine, [line for line in others if line["family"] == family], column))
    rows.append(row("all", ours, others, column))
    return "\n".join(f"| {' | '.join(cells + [''] * (len(header) - len(cells)))} |" for cells in rows)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--instances", type=Path, default=HERE / "results" / "instances.csv")
    options.add_argument("--marabou", type=Path, default=HERE / "results" / "marabou.csv")
    options.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options.add_argument("--join", action="append", default=[], metavar="NAME=FAMILY,...", help="families as one")
    arguments = options.parse_args()
    joined = {}
    for text in arguments.join:
        name, _, families = text.partition("=")
        joined.update(dict.fromkeys(families.split(","), name))
    ours, others = read(arguments.instances, joined), read(arguments.marabou, joined)
    print(table(ours, others, f"{arguments.clock}_s"))


if __name__ == "__main__":
    main()
