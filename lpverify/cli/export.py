"""``lpverify export``: one claim as a file for other solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import DATA, MODEL, REGION

METHODS = ("crown", "interval", "alpha", "lp-tight")


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", type=click.Choice(METHODS), default="crown", show_default=True,
              help="Where the pre-activation bounds come from.")  # fmt: skip
@click.option("--relaxation", type=click.Choice(("lp", "milp")), default="lp", show_default=True,
              help="ReLUs as triangles, or exactly, with a binary for each unstable one.")  # fmt: skip
@click.option("--target", type=int, metavar="CLASS", help="Against which class; the runner-up at the input by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Ends in .mps, .lp, "
              ".mps.gz or .lp.gz.")  # fmt: skip
def export(model: Path, out: Path, relaxation: str, target: int | None, **given: Any) -> None:
    """Write the relaxation or the exact MILP of one claim about one example to a file.

    The optimum is the least difference of the label's output and the target's over the ball, or below it for a
    relaxation; the claim holds where it is > 0. Bounds are computed in floating point: the file proves nothing.
    """
    from lpverify.cli.loading import load_job, make_settings
    from lpverify.errors import UsageError
    from lpverify.export import check_exportable, claim_program, counts, runner_up
    from lpverify.programfile import file_kind, write_program
    from lpverify.table import setting_line

    file_kind(out)
    settings = make_settings({**given, "dtype": "float64"})
    job = load_job(model, {**given, "device": settings.device})
    if len(job.x) != 1:
        raise UsageError(f"index: {len(job.x)} examples are selected; export writes one: give --index I")
    x, label = job.x[0], int(job.y[0])
    check_exportable(settings, label, job.network.output_size, target)
    against = runner_up(job.network, x, label) if target is None else target
    program = claim_program(job.network, x, label, against, settings, milp=relaxation == "milp")
    size = f"{relaxation}: {counts(program)}"
    claim = (
        f"claim: output {label} > output {against}, label {label}, example {job.indices[0]} of {job.examples.source}; "
        f"{setting_line(settings, given['mean'], given['std'], given['method'])}"
    )
    write_program(program, out, f"{relaxation}_{job.indices[0]}_{label}_{against}", (claim, size))
    click.echo(f"{size}: {out}\n{claim}")
