"""The closing table of a run, and the progress bar: for people; programs read the run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")
WIDTH = 80
LINE_SECONDS = 30.0
MEANING = {
    "verified": "proved: no input in the set fails",
    "falsified": "an input that fails was evaluated exactly",
    "unknown": "neither was found",
}
RADII = {
    "certified": "proved up to here, by a certificate that was checked",
    "claimed": "nothing fails nearer, in a solver's word; not proved",
    "nearest": "a counterexample at the solver's point, evaluated exactly (or the attack's, if nearer)",
    "attacked": "a counterexample of the attack, evaluated exactly",
}
QUARTILES = {"least": "least", "quarter": "25 %", "median": "median", "three_quarters": "75 %", "greatest": "greatest"}


def print_summary(summary: dict[str, Any], stream: TextIO | None = None) -> None:
    """Print the tables of a run's summary (``summary.summary``, with "options" and "seconds") on ``stream``."""
    console = _console(stream)
    for table in (verdict_table(summary), error_table(summary), method_table(summary)):
        console.print(table)
    lines = [*_data(summary), caption(summary["options"]), f"seconds: {_seconds(summary['seconds'])}"]
    if summary["trees"]:
        lines.append(f"proofs by split trees: {summary['trees']}, with {summary['leaves']} leaves together")
    if summary["unknown_reasons"]:
        reasons = ", ".join(f"{reason or 'no reason given'} ({n})" for reason, n in summary["unknown_reasons"].items())
        lines.append(f"unknown because: {reasons}")
    if summary["float32_disagrees"]:
        lines.append(f"counterexamples that the float32 forward pass does not show: {summary['float32_disagrees']}")
    lines.extend(f"note: {note}" for note in summary.get("notes", ()))
    console.print("\n".join(lines), highlight=False, markup=False)


def print_radii(summary: dict[str, Any], stream: TextIO | None = None) -> None:
    """Print the table of a run of ``lpverify radius`` on ``stream``."""
    console = _console(stream)
    table = Table(title=f"{summary['examples']} examples", title_justify="left", title_style="bold")
    table.add_column("radius")
    table.add_column("examples", justify="right")
    for heading in QUARTILES.values():
        table.add_column(heading, justify="right")
    shown = [name for name in RADII if name in ("certified", "attacked") or summary[name]["count"]]
    for name in shown:
        values = [summary[name][key] for key in QUARTILES]
        table.add_row(name, str(summary[name]["count"]), *("-" if v is None else f"{v:.4g}" for v in values))
    console.print(table)
    lines = [f"{name}: {RADII[name]}" for name in shown]
    lines.extend(_data(summary))
    lines.append(caption({**summary["options"], "eps": f"up to {summary['options']['eps']}"}))
    lines.append(f"seconds: {_seconds(summary['seconds'])}")
    lines.extend(f"without an answer: {reason} ({n})" for reason, n in summary["reasons"].items())
    lines.extend(f"note: {note}" for note in summary.get("notes", ()))
    console.print("\n".join(lines), highlight=False, markup=False)


def verdict_table(summary: dict[str, Any]) -> Table:
    """Counts and shares of the three verdicts, and of the unknown results that are claimed but not certified."""
    table = Table(title=f"{summary['examples']} examples", title_justify="left", title_style="bold")
    table.add_column("verdict")
    table.add_column("examples", justify="right")
    table.add_column("share", justify="right")
    table.add_column("meaning")
    for name, meaning in MEANING.items():
        table.add_row(name, str(summary[name]), percent(summary[name], summary["examples"]), meaning)
    if summary["uncertified"]:
        share = percent(summary["uncertified"], summary["examples"])
        table.add_row("uncertified", str(summary["uncertified"]), share, "unknown, though a method claims a proof")
    return table


def error_table(summary: dict[str, Any]) -> Table:
    """Clean error and the two ends of the robust error."""
    table = Table()
    table.add_column("error")
    table.add_column("share", justify="right")
    table.add_column("counts")
    n, verified = summary["examples"], summary["verified"]
    table.add_row("clean error", percent(summary["misclassified"], n), "wrong already without any change")
    table.add_row("robust error, at least", percent(summary["falsified"], n), "falsified, the wrong ones included")
    table.add_row("robust error, at most", percent(n - verified, n), "everything that is not verified")
    return table


def method_table(summary: dict[str, Any]) -> Table:
    """How the examples were decided, and the time it took."""
    table = Table()
    table.add_column("decided by")
    for name in (*MEANING, "seconds", "ms/example"):
        table.add_column(name, justify="right")
    for method, row in summary["methods"].items():
        total = sum(row[name] for name in MEANING)
        counts = [str(row[name]) for name in MEANING]
        table.add_row(method, *counts, f"{row['seconds']:.2f}", f"{1000 * row['seconds'] / total:.1f}")
    return table


def caption(options: dict[str, Any]) -> str:
    """Everything that changes what the numbers mean, in one line."""
    clip = "no clip" if options["clip"] is None else "clip " + " to ".join(options["clip"])
    if options["mean"] is None and options["std"] is None:
        normalised = "normalisation: as the model file has it"
    else:
        normalised = f"normalisation: mean {_list(options['mean'], 0)}, std {_list(options['std'], 1)}"
    return (
        f"eps {options['eps']} in raw input units, norm {options['norm']}, {clip}; {normalised}; "
        f"semantics {options['semantics']}; method {options['method']}"
    )


def setting_line(settings: Any, mean: Any, std: Any, method: str) -> str:
    """``caption`` for settings that no summary holds."""
    return caption({**vars(settings), "mean": mean, "std": std, "method": method})


def percent(count: int, total: int) -> str:
    """A share in percent with two decimals; a dash if there is nothing to share."""
    return f"{100 * count / total:.2f} %" if total else "-"


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], note: str = "") -> None:
    """Print a plain table on standard output, numbers to the right, and a note below."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console = _console(None)
    console.print(table)
    if note:
        console.print(note, highlight=False, markup=False)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass the items on while standard error counts them: by a bar, or by a line now and then if it is no terminal."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield from _told(items, total, what)
        return
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


def _told(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass the items on; a line on standard error says how many there are, if it is LINE_SECONDS since the last."""
    began = told = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= LINE_SECONDS:
            told = now
            print(f"{what}: {count} of {total} after {now - began:.0f} s", file=sys.stderr, flush=True)


class _Console(Console):
    """A console that lets a closed pipe through as the error it is, instead of ending the process with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: TextIO | None) -> Console:
    file = stream or sys.stdout
    # A file or a pipe gets WIDTH columns wherever it was made, so that outputs can be compared.
    return _Console(file=file, width=None if file.isatty() else WIDTH)


def _data(summary: dict[str, Any]) -> list[str]:
    """Which examples a run was about, where its summary says so."""
    data = summary.get("data", {})
    return [f"examples {data['index']} of {data['source']}"] if "index" in data else []


def _seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def _list(values: Any, default: int) -> str:
    return str(default) if values is None else ", ".join(f"{v:g}" for v in values)
