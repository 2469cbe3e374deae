"""``lpverify vnncomp``: one instance of the competition, from its files to its result file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import click

from lpverify.cli.options import ENGINE, Positive

# So many seconds before the timeout the search is to end (a share of the timeout more, if that is short), then it is
# interrupted, then the process ends as it is. What is left is for its start and its end.
SEARCH_SECONDS, SEARCH_SHARE, STOP_SECONDS, EXIT_SECONDS = 1.5, 0.05, 1.2, 0.8
NO_OPTIONS = {"arch": None, "input_shape": None, "mean": None, "std": None, "workers": 1}


@click.command()
@click.argument("category")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("vnnlib", metavar="PROPERTY", type=click.Path(path_type=Path))
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("timeout", type=Positive())
@ENGINE
def vnncomp(category: str, model: Path, vnnlib: Path, results: Path, timeout: float, **given: object) -> None:
    """Decide one instance as the rules of VNN-COMP ask for, and write RESULTS.

    RESULTS has sat (with a counterexample), unsat, unknown or timeout. The command ends before TIMEOUT seconds have
    passed. CATEGORY is the benchmark's name; nothing depends on it.
    """
    began = time.perf_counter()
    from lpverify.cli.property import competition_text, run_property
    from lpverify.files import write_atomic

    write_atomic(results, b"timeout\n")
    watchdog = threading.Timer(max(0.0, timeout - EXIT_SECONDS), os._exit, (0,))
    watchdog.daemon = True
    watchdog.start()
    text = "unknown\n"
    try:
        budget = max(EXIT_SECONDS, timeout - min(SEARCH_SECONDS, SEARCH_SHARE * timeout + STOP_SECONDS))
        done = run_property(
            model, vnnlib, {**NO_OPTIONS, **given, "timeout": budget}, out=None, overwrite=False, began=began,
            latest=began + timeout - STOP_SECONDS,
        )  # fmt: skip
        text = competition_text(done)
    finally:
        watchdog.cancel()
        write_atomic(results, text.encode())
    click.echo(f"{text.splitlines()[0]} ({category}, {done.seconds:.2f} s)")
