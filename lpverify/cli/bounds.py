"""``lpverify bounds``: the margins of several methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import DATA, ENGINE, METHOD_NAMES, MODEL, OBJECTIVE, QUICK_METHODS, REGION, SOLVER, Names


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", "methods", type=Names(*METHOD_NAMES), default=",".join(QUICK_METHODS), show_default=True,
              metavar="METHODS", help="Which methods, joined by commas.")  # fmt: skip
@SOLVER
@OBJECTIVE
@ENGINE
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.csv", help="Save every margin: index, label, "
              "target class and one column a method.")  # fmt: skip
def bounds(model: Path, out: Path | None, methods: tuple[str, ...], **given: Any) -> None:
    """Print each example's least margin by several bound methods; a margin > 0 for all classes means robust.

    These are the engines' numbers in floating point, to compare methods with: nothing is certified.
    """
    from lpverify.cli.loading import load_job, make_settings
    from lpverify.files import write_csv
    from lpverify.margins import least_rows, margin_rows
    from lpverify.table import print_table, setting_line
    from lpverify.verify import bound_table

    settings = make_settings(given)
    job = load_job(model, given)
    table = bound_table(job.network, job.x, job.y, settings, list(methods))
    header, rows = least_rows(job.indices, job.y, table)
    note = setting_line(settings, given["mean"], given["std"], ", ".join(methods))
    print_table("least margin of each example", header, rows, note)
    if out is not None:
        write_csv(out, *margin_rows(job.indices, job.y, table))
        click.echo(f"all margins: {out}")
