"""``lpverify figure boundaries``: the classes of a network of two inputs, and which balls about examples are theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import DATA, ENGINE, METHOD_NAMES, MODEL, REGION
from lpverify.cli.pictures.stem import report, stem_option


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="What certifies the balls.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", default=60, show_default=True,
              help="Seconds for an example.")  # fmt: skip
@ENGINE
@stem_option
def boundaries(model: Path, out: Path, **given: Any) -> None:
    """Draw the decision boundaries of a network of two inputs with the balls about the examples.

    The boundaries are exact: the network's linear regions are enumerated. A ball is drawn by its verdict, verified,
    falsified or unknown, as `lpverify verify` gives it. STEM.npz holds what is drawn.
    """
    from lpverify.cli.loading import load_job, make_settings
    from lpverify.errors import ShapeError
    from lpverify.files import write_npz
    from lpverify.geometry.boundaries import boundaries as measure
    from lpverify.geometry.boundaries import window_about
    from lpverify.plots.boundaries import boundaries_figure
    from lpverify.plots.style import COLUMN, save, styled
    from lpverify.verify import verify_stream

    settings = make_settings(given)
    job = load_job(model, given)
    if job.network.input_size != 2:
        raise ShapeError(f"{model}: {job.network.input_size} inputs; boundaries are drawn of networks of two")
    found = verify_stream(job.network, job.x, job.y, settings, job.indices.tolist())
    verdicts = [result.verdict.value for result in found]
    x = job.x.reshape(len(job.x), 2).astype(float)
    window = window_about(x, float(settings.eps))
    data = measure(
        job.network, window, x, job.y, eps=float(settings.eps), norm=settings.norm, verdicts=verdicts
    )
    numbers = out.with_name(out.name + ".npz")
    write_npz(numbers, data.arrays())
    with styled():
        figure = boundaries_figure({f"{model.stem}, eps {settings.eps}": data}, width=COLUMN, height=COLUMN * 1.2)
        report([*save(figure, out), numbers])
