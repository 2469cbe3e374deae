"""``lpverify verify CASCADE.toml``: a cascade as one model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click


def run_cascade(model: Path, given: dict[str, Any], out: Path, overwrite: bool) -> Counter[str]:
    """Verify a cascade on examples, write its run folder and print the table; the results by verdict."""
    from lpverify.cascade import Cascade, CascadeTally, read_cascade
    from lpverify.cli.loading import describe, examples_for, load_network, make_settings, provenance
    from lpverify.runs.cascade_folder import CascadeFolder
    from lpverify.runs.summary import Stopwatch
    from lpverify.settings import require_device
    from lpverify.table import progress

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        require_device(given["device"])
        stages = read_cascade(model, lambda file: load_network(file, given))
        job = examples_for(stages[0], given)
    options, tally = describe(model, given, settings), CascadeTally(len(stages))
    with CascadeFolder(out, stages, settings, overwrite=overwrite) as run, Cascade(stages, settings) as cascade:

        def summarise(stopped: str | None) -> dict[str, Any]:
            about = {"stages": run.networks, "notes": [list(stage.notes) for stage in stages]}
            parts = {**provenance(job, "", settings), "network": about}
            return tally.summary(stopped=stopped, options=options, seconds=watch.seconds(), **parts)

        stream = watch.iterate("verify", cascade.verify(job.x, job.y, job.indices.tolist()))
        try:
            for position, result in enumerate(progress(stream, len(job.x), "verify")):
                with watch("write"):
                    run.add(result, job.x[position])
                tally.add(result)
        except BaseException as error:
            run.write_summary(summarise(type(error).__name__))
            raise
        final = summarise(None)
        run.write_summary(final)
    _print(final)
    click.echo(f"results and evidence: {out}")
    return Counter(tally.verdicts)


def _print(summary: dict[str, Any]) -> None:
    from lpverify.table import caption, percent, print_table

    n, reasons = summary["examples"], summary["unknown_reasons"]
    rows = [
        ("verified: no wrong answer in the ball, the right one at the input", summary["verified"]),
        ("falsified: certified for a wrong class", summary["falsified"]),
        *((f"unknown: {reason}", count) for reason, count in reasons.items()),
        ("error of the cascade: no certificate at the input, or a wrong one",
         summary["no_certificate"] + summary["certified_wrong"]),
        *((f"answered by stage {k}", count) for k, count in enumerate(summary["answers_by_stage"], start=1)),
    ]  # fmt: skip
    shown = [(name, str(count), percent(count, n)) for name, count in rows]
    print_table(f"{n} examples, {_stages(len(summary['answers_by_stage']))}", ("result", "examples", "share"), shown,
                caption(summary["options"]))  # fmt: skip


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"


def check_cascade(run: Path, exact: bool, examples: Any) -> None:
    """Judge a cascade's run again and say what was found."""
    from lpverify.runs.cascade_audit import judge_cascade

    found = judge_cascade(run, exact=exact, examples=examples)
    arithmetic = "integer arithmetic" if exact else "rigorous float64"
    if found.stopped:
        click.echo(f"{run}: the run did not finish ({found.stopped}); what it wrote was checked")
    click.echo(f"certificates accepted: {found.certificates} of {_stages(found.stages)} ({arithmetic})")
    click.echo(f"leaves of the certificates: {found.leaves}")
    click.echo(f"counterexamples of stages accepted: {found.witnesses} (exact evaluation)")
    if examples is not None:
        click.echo(f"inputs and labels: those of {examples.source}")
    verdicts = ", ".join(f"{found.verdicts.get(name, 0)} {name}" for name in ("verified", "falsified", "unknown"))
    click.echo(f"cascade: {verdicts}; they follow from this")
