"""``lpverify figure tightness``: the bounds of every method on the same claims, sorted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.cli.options import (
    ENGINE,
    METHOD_NAMES,
    MODEL,
    QUICK_METHODS,
    Names,
    Positive,
    data_options,
    region_options,
)
from lpverify.cli.pictures.rows import PROBLEM, chosen_rows
from lpverify.cli.pictures.stem import report, stem_option

if TYPE_CHECKING:
    from lpverify.comparison.rows import Row

METHODS = (*QUICK_METHODS, "lp")


@click.command()
@MODEL
@data_options(required=False)
@region_options(required=False)
@click.option("--method", "methods", type=Names(*METHOD_NAMES), default=",".join(METHODS), show_default=True,
              metavar="METHODS", help="Which bounds are measured, joined by commas.")  # fmt: skip
@click.option("--seconds", type=Positive(), default=30.0, show_default=True, metavar="S",
              help="For all programs of an example by one method.")  # fmt: skip
@PROBLEM
@ENGINE
@stem_option
def tightness(
    model: Path, out: Path, methods: tuple[str, ...], seconds: float, problem: str | None, **given: Any
) -> None:
    """Measure the bounds of several methods on examples, and draw them sorted, with each method's gap.

    MODEL may be FILE.csv, the file of `lpverify compare`: then its rows are drawn, those of --problem and --eps, and
    nothing is measured. Else --data and --eps are needed, and STEM.csv holds what was measured; it is continued where
    it ends.
    """
    from lpverify.plots.margins import margins_of
    from lpverify.plots.style import save, styled
    from lpverify.plots.tightness import sorted_bounds

    numbers = out.with_name(out.name + ".csv")
    if model.suffix == ".csv":
        rows, written = chosen_rows(model, problem, given["eps"]), []
    else:
        rows, written = _measured(model, numbers, methods, seconds, given), [numbers]
    if len({row.eps for row in rows}) > 1:
        raise click.UsageError(f"{model}: has rows at several radii; choose one with --eps")
    title = f"{rows[0].problem}, eps {rows[0].eps}"
    with styled():
        report([*save(sorted_bounds({title: margins_of(rows)}), out), *written])


def _measured(
    model: Path, path: Path, methods: tuple[str, ...], seconds: float, given: dict[str, Any]
) -> list[Row]:
    """What the file at ``path`` has of this network and these examples, after it was continued."""
    for name in ("data", "eps"):
        if given[name] is None:
            raise click.UsageError(f"Missing option '--{name}'.")
    from lpverify.bounds import METHODS as ALL
    from lpverify.cli.loading import load_job
    from lpverify.comparison.case import Case, Limit
    from lpverify.comparison.rows import ATTACK, RowFile, read_rows
    from lpverify.comparison.run import Options, compare
    from lpverify.table import progress

    job = load_job(model, given)
    costly = {name: Limit(len(job.x), seconds) for name in methods if ALL[name].isolated}
    quick = tuple(name for name in (ATTACK, *methods) if name not in costly)
    case = Case(model.stem, job.network, job.x, job.y, job.indices, (given["eps"],), given["norm"], given["clip"],
                quick, costly)  # fmt: skip
    file, options = RowFile(path), Options(given["device"], given["dtype"], seed=given["seed"])
    for _ in progress(compare(case, file, options), len(job.x), "measure"):
        pass
    wanted = set(job.indices.tolist())
    kept = [row for row in read_rows(path) if (row.problem, row.eps) == (case.name, given["eps"])]
    return [row for row in kept if row.example in wanted]
