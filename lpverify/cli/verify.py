"""``lpverify verify``: the main job, from a model and examples to a run folder and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import (
    DATA,
    ENGINE,
    METHOD_NAMES,
    MODEL,
    OBJECTIVE,
    OUT,
    PROOF,
    REGION,
    SOLVER,
    Names,
)


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="auto tries the cheap methods first and the costly ones on what is left.")  # fmt: skip
@PROOF
@SOLVER
@OBJECTIVE
@ENGINE
@OUT
@click.option("--fail-on", type=Names("falsified", "unknown", "verified"), metavar="VERDICTS",
              help="Exit with 1 if one of these verdicts occurs, like falsified,unknown.")  # fmt: skip
def verify(model: Path, out: Path, overwrite: bool, fail_on: tuple[str, ...] | None, **given: Any) -> int:
    """Decide for each example whether the network's answer is the same on the whole ball about it.

    Writes RUN/results.jsonl (one line an example), RUN/summary.json, the lowered network, a certificate for
    every verified example and a witness for every falsified one. `lpverify check RUN` judges them again.
    """
    from lpverify.cli.loading import describe, load_job, make_settings
    from lpverify.cli.running import run_stream
    from lpverify.summary import Stopwatch
    from lpverify.verify import verify_stream

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given)
    stream = verify_stream(job.network, job.x, job.y, settings, job.indices.tolist())
    options = describe(model, given, settings)
    tally = run_stream(job, settings, options, stream, watch, out=out, overwrite=overwrite, what="verify")
    return int(any(tally.verdicts[name] for name in fail_on or ()))
