"""``lpverify attack``: the search for counterexamples alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.cli.options import DATA, ENGINE, MODEL, OUT, REGION, SCHEDULER, WORKERS

if TYPE_CHECKING:
    from lpverify.result import Result


@click.command()
@MODEL
@DATA
@REGION
@click.option("--attack", "name", type=click.Choice(("pgd", "fgsm")), default="pgd", show_default=True)
@click.option("--loss", type=click.Choice(("margin", "targeted", "cross-entropy")), default="margin", show_default=True)
@click.option("--steps", type=click.IntRange(min=0), default=40, show_default=True)
@click.option("--restarts", type=click.IntRange(min=1), default=2, show_default=True)
@WORKERS
@SCHEDULER
@ENGINE
@OUT
def attack(
    model: Path, out: Path, overwrite: bool, name: str, loss: str, steps: int, restarts: int, **given: Any
) -> None:
    """Look for counterexamples; every one that is counted lies in the exact ball and was evaluated exactly.

    Writes a run folder as `lpverify verify` does. What no attack breaks stays unknown: an attack proves nothing.
    """
    from lpverify.cli.loading import describe, load_job, make_settings
    from lpverify.cli.running import run_stream
    from lpverify.falsify import attack_stream
    from lpverify.runs.summary import Stopwatch

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given)
    search: dict[str, Any] = {"method": name, "loss": loss, "steps": steps, "restarts": restarts}

    def stream(finished: frozenset[int]) -> Iterator[Result]:
        return attack_stream(job.network, job.x, job.y, settings, job.indices.tolist(), finished, **search)

    options = {**describe(model, given, settings), **search}
    run_stream(job, settings, options, stream, watch, out=out, overwrite=overwrite, what="attack", asked=search)
