"""``lpverify check``: judge a run again from its files alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.cli.options import SOURCE

if TYPE_CHECKING:
    from lpverify.runs.audit import Judged, Run


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--exact", is_flag=True, help="Check certificates in integer arithmetic instead of rigorous float64.")
@click.option("--data", metavar="NAME|FILE.npz", help="Also require the inputs and labels of this data set.")
@SOURCE
def check(run: Path, exact: bool, data: str | None, **source: Any) -> None:
    """Re-check every certificate and counterexample of a run folder.

    Reads nothing but RUN, and with --data the data set that the run was about. The first piece of evidence that
    is missing, foreign or rejected ends the check with exit code 7. Counterexamples are always evaluated exactly.
    Of a run about a property, the property is read again, and its claims must be those that were proved.
    """
    from lpverify.errors import UsageError
    from lpverify.runs.audit import judge_lines, open_run
    from lpverify.runs.cascade_audit import is_cascade
    from lpverify.table import progress

    opened = None if is_cascade(run) else open_run(run)
    examples = None
    if data is not None:
        from lpverify.data import load_data

        if opened is not None and opened.asked is not None:
            raise UsageError("--data: the run is about a property, not about examples; leave --data out")
        # Of examples that a run left out nothing is claimed: they may be as bad as they were.
        lenient = opened is not None and opened.has_refused
        examples = load_data(data, **source, keep_going=lenient)
    if opened is None:
        from lpverify.cli.cascade import check_cascade

        check_cascade(run, exact, examples)
        return
    lines = list(progress(judge_lines(opened, exact=exact, examples=examples), len(opened.lines), "check"))
    found, leaves = Counter(line.kind for line in lines), sum(line.leaves for line in lines)
    arithmetic = "integer arithmetic" if exact else "rigorous float64"
    if opened.summary is None:
        click.echo(f"{run}: no summary.json: the run did not finish, or another tool wrote it")
    elif opened.summary.get("stopped"):
        click.echo(f"{run}: the run was stopped ({opened.summary['stopped']}); what it wrote was checked")
    if opened.asked is not None:
        _print_property(opened, lines, leaves, arithmetic)
        return
    click.echo(f"certificates accepted: {found['certificate'] + found['both']} ({arithmetic})")
    if any(line.leaves > 1 for line in lines):
        click.echo(f"leaves of the certificates: {leaves}")
    click.echo(f"counterexamples accepted: {found['witness'] + found['both']} (exact evaluation)")
    if opened.is_detection:
        flagged = sum(line.record["flagged"] for line in opened.lines)
        click.echo(f"flagged: {flagged} of {len(opened.lines)}; the claims are about the predicted classes")
    if examples is not None:
        click.echo(f"inputs and labels: those of {examples.source}")
    click.echo(f"lines without a claim: {found['nothing']}")


def _print_property(opened: Run, lines: list[Judged], leaves: int, arithmetic: str) -> None:
    """What the evidence says of the property."""
    assert opened.asked is not None
    claims, proved = len(opened.asked.claims), sum(line.kind == "certificate" for line in lines)
    if opened.verdict == "falsified":
        message = next(line.message for line in lines if line.kind == "witness")
        click.echo(f"counterexample accepted: {message} (exact evaluation)")
    elif opened.verdict == "verified":
        click.echo(f"certificate accepted: {leaves} leaves")
    click.echo(f"property: {opened.verdict}; claims proved: {proved} of {claims} ({arithmetic})")
