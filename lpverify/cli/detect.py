"""``lpverify detect``: flag every input whose predicted class is not certified about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.cli.options import (
    DATA,
    ENGINE,
    METHOD_NAMES,
    MODEL,
    OBJECTIVE,
    PROOF,
    REGION,
    SCHEDULER,
    SOLVER,
    out_options,
)

if TYPE_CHECKING:
    from lpverify.result import Result


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="What certifies. auto tries cheap bounds first, then searches on what is left.")  # fmt: skip
@PROOF
@SOLVER
@SCHEDULER
@OBJECTIVE
@ENGINE
@click.option("--json", "as_json", is_flag=True, help="End with the summary as one line of JSON.")
@out_options(required=False)
def detect(model: Path, out: Path | None, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Flag every input that is not certified for the class that the network predicts there.

    An input that passes has, by its certificate, the class of every original within eps of it (and inside the clip):
    no change by at most eps that turned the network's answer passes. There are no false negatives under this threat;
    an original that the network gets wrong by itself may pass. Give --eps a little room for rounding of stored inputs.

    No labels are needed. Where the data has some, they only serve to report the false positives: the flagged among the
    inputs that are classified rightly, all taken as clean. RUN/results.jsonl has "flagged" and, as "label", the
    predicted class; `lpverify check RUN` judges the certificates again.
    """
    from dataclasses import replace

    from lpverify.cli.loading import describe, load_job, make_settings
    from lpverify.cli.running import run_stream
    from lpverify.detect import Detection, detect_stream, predictions
    from lpverify.runs.summary import Stopwatch

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given, labelled=False)
        true = job.examples.y
        labels = None if true is None else dict(zip(job.indices.tolist(), true.tolist(), strict=True))
        job = replace(job, y=predictions(job.network, job.x))

    def stream(finished: frozenset[int]) -> Iterator[Result]:
        return detect_stream(job.network, job.x, settings, job.indices.tolist(), finished)

    options = describe(model, given, settings)
    run_stream(
        job, settings, options, stream, watch,
        out=out, overwrite=overwrite, what="detect", also=Detection(labels), show=_show, as_json=as_json,
    )  # fmt: skip


def _show(summary: dict[str, Any]) -> None:
    """The closing table."""
    from lpverify.table import caption, percent, print_table

    found, total = summary["detection"], summary["examples"]
    rows = [
        ("flagged", str(found["flagged"]), str(total), percent(found["flagged"], total)),
        ("passed, with a certificate", str(summary["verified"]), str(total), percent(summary["verified"], total)),
    ]
    if "right" in found:
        right, wrong = found["right"], total - found["right"]
        rows += [
            ("flagged though classified rightly (false positives)", str(found["false_positives"]), str(right),
             percent(found["false_positives"], right)),
            ("classified wrongly and flagged", str(found["wrong_flagged"]), str(wrong),
             percent(found["wrong_flagged"], wrong)),
        ]  # fmt: skip
    print_table("detection", ("inputs", "count", "of", "share"), rows, caption(summary["options"]))
