"""One table of everything that was timed beside other tools, from the files of speed.py, lp_speed.py and marabou.py.

    PYTHONPATH=. python benchmarks/speed_table.py

``speed.py`` calls it at its end. It writes ``speed_table.csv`` and puts the same table into benchmarks/README.md,
between two comments. ``cpu_ms`` is a median over images or instances (for bounds: over rounds, of the mean image);
``times_slower`` is a median of ratios to lpverify on the same image, instance or round. Lines of different parts come
from different runs: only ratios may be compared between them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from common import HERE, Table

RESULTS, README = HERE / "results", HERE / "README.md"
COLUMNS = ("part", "subject", "contender", "dtype", "measured", "cpu_ms", "times_slower", "source")
BEGIN, END = "<!-- table of speed: benchmarks/speed_table.py -->", "<!-- end of the table of speed -->"
OURS = "lpverify lp"


def lines(name: str) -> list[dict[str, str]]:
    """The lines of a result file."""
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def bounds() -> Iterator[dict[str, object]]:
    """speed.csv: dual, CROWN and checkers, an image."""
    for line in lines("speed.csv"):
        yield {
            "part": line["task"], "subject": f"{Path(line['network']).stem}, {line['eps']}", "contender": line["tool"],
            "dtype": line["dtype"], "measured": f"{line['images']} images", "cpu_ms": line["cpu_ms"],
            "times_slower": line["times_slower"] or 1, "source": "speed.csv",
        }  # fmt: skip


def programs() -> Iterator[dict[str, object]]:
    """lp_speed_images.csv: the LP relaxation, all nine rows of an image."""
    table = lines("lp_speed_images.csv")
    ours = {(r["subject"], r["image"]): float(r["total_cpu"]) for r in table if r["contender"] == OURS}
    for subject, contender, form in dict.fromkeys((r["subject"], r["contender"], r["form"]) for r in table):
        chosen = [r for r in table if (r["subject"], r["contender"], r["form"]) == (subject, contender, form)]
        given = ", given our program" if form == "program" and not contender.startswith("lpverify") else ""
        ratios = [float(r["total_cpu"]) / ours[subject, r["image"]] for r in chosen]
        yield {
            "part": "lp", "subject": subject, "contender": contender + given, "dtype": "float64",
            "measured": f"{len(chosen)} images", "cpu_ms": 1e3 * median(float(r["total_cpu"]) for r in chosen),
            "times_slower": median(ratios), "source": "lp_speed_images.csv",
        }  # fmt: skip


def searches() -> Iterator[dict[str, object]]:
    """marabou.csv beside instances.csv: the process's whole time, on the instances that both decide."""
    ours = {(r["onnx"], r["vnnlib"]): r for r in lines("instances.csv")}
    pairs = [(ours[r["onnx"], r["vnnlib"]], r) for r in lines("marabou.csv") if (r["onnx"], r["vnnlib"]) in ours]
    both = [(one, other) for one, other in pairs if one["verdict"] in DECIDED and other["verdict"] in DECIDED]
    for contender, which in (("lpverify auto", 0), ("Marabou", 1)):
        yield {
            "part": "complete search", "subject": "VNN-LIB instances", "contender": contender, "dtype": "float64",
            "measured": f"{len(both)} instances",
            "cpu_ms": 1e3 * median(float(pair[which]["cpu_s"]) for pair in both),
            "times_slower": median(float(pair[which]["cpu_s"]) / float(pair[0]["cpu_s"]) for pair in both),
            "source": "instances.csv, marabou.csv",
        }  # fmt: skip


DECIDED = ("sat", "unsat")


def markdown(table: list[dict[str, str]]) -> str:
    """The table for readers."""
    rows = ["| part | subject | contender | dtype | measured | CPU ms | times slower |",
            "|---|---|---|---|---|---:|---:|"]  # fmt: skip
    for line in table:
        numbers = [f"{float(line[name]):.3g}" for name in ("cpu_ms", "times_slower")]
        numbers = [f"{float(text):,.0f}" if "e" in text else text for text in numbers]
        cells = [line["part"], line["subject"], line["contender"], line["dtype"], line["measured"], *numbers]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def write(readme: Path = README) -> None:
    """Both: the CSV anew, and the README's part between the comments.

    Raises:
        ValueError: if the comments are not there.
    """
    path = RESULTS / "speed_table.csv"
    path.unlink(missing_ok=True)
    table = Table(path, COLUMNS, 4)
    for part in (bounds, programs, searches):
        for line in part():
            table.add(**line)
    text = readme.read_text(encoding="utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(f"{text[:before]}\n{markdown(table.lines)}\n{text[after:]}", encoding="utf-8")


if __name__ == "__main__":
    write()
