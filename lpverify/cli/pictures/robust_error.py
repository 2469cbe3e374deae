"""``lpverify figure robust-error``: robust error against the radius, between counterexamples and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpverify.cli.pictures.rows import PROBLEM, chosen_rows
from lpverify.cli.pictures.stem import report, stem_option

if TYPE_CHECKING:
    from lpverify.plots.robust_error import Errors


@click.command(name="robust-error")
@click.argument("sources", nargs=-1, required=True, metavar="RUN...|FILE.csv", type=click.Path(path_type=Path))
@PROBLEM
@click.option("--title", default="", help="Above the picture.")
@stem_option
def robust_error(sources: tuple[Path, ...], problem: str | None, title: str, out: Path) -> None:
    """Draw robust error against eps, from run folders of `lpverify verify` or the file of `lpverify compare`.

    The runs are about one network and the same examples, at several radii, by one or several methods: auto is drawn as
    search. STEM.csv holds what is drawn.
    """
    from lpverify.files import write_csv
    from lpverify.plots.robust_error import robust_errors
    from lpverify.plots.style import save, styled

    errors = _errors(sources, problem)
    numbers = out.with_name(out.name + ".csv")
    columns = {"eps": errors.radii, "attack": errors.lower, **errors.upper}
    write_csv(numbers, list(columns), [[f"{v[i]:.9g}" for v in columns.values()] for i in range(len(errors.radii))])
    with styled():
        report([*save(robust_errors({title: errors}), out), numbers])


def _errors(sources: tuple[Path, ...], problem: str | None) -> Errors:
    if any(source.suffix == ".csv" for source in sources):
        if len(sources) > 1:
            raise click.UsageError("give one FILE.csv, or run folders, not several or both")
        from lpverify.plots.margins import errors_by_radius

        return errors_by_radius(chosen_rows(sources[0], problem))
    if problem is not None:
        raise click.UsageError("--problem is for FILE.csv; run folders are about one problem")
    from lpverify.plots.runs import errors_of

    return errors_of(sources)
