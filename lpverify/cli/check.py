"""``lpverify check``: judge a run again from its files alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import SOURCE


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--exact", is_flag=True, help="Check certificates in integer arithmetic instead of rigorous float64.")
@click.option("--data", metavar="NAME|FILE.npz", help="Also require the inputs and labels of this data set.")
@SOURCE
def check(run: Path, exact: bool, data: str | None, **source: Any) -> None:
    """Re-check every certificate and counterexample of a run folder.

    Reads nothing but RUN, and with --data the data set that the run was about. The first piece of evidence that
    is missing, foreign or rejected ends the check with exit code 7. Counterexamples are always evaluated exactly.
    """
    from lpverify.audit import audit, open_run
    from lpverify.table import progress

    opened = open_run(run)
    examples = None
    if data is not None:
        from lpverify.data import load_data

        examples = load_data(data, **source)
    found = Counter(progress(audit(opened, exact=exact, examples=examples), len(opened.lines), "check"))
    arithmetic = "integer arithmetic" if exact else "rigorous float64"
    if opened.summary is None:
        click.echo(f"{run}: no summary.json: the run did not finish, or another tool wrote it")
    elif opened.summary.get("stopped"):
        click.echo(f"{run}: the run was stopped ({opened.summary['stopped']}); what it wrote was checked")
    click.echo(f"certificates accepted: {found['certificate'] + found['both']} ({arithmetic})")
    click.echo(f"counterexamples accepted: {found['witness'] + found['both']} (exact evaluation)")
    if examples is not None:
        click.echo(f"inputs and labels: those of {examples.source}")
    click.echo(f"lines without a claim: {found['nothing']}")
