"""``lpverify figure radius``: certified and attacked radii over examples, sorted."""

from __future__ import annotations

from pathlib import Path

import click

from lpverify.cli.pictures.stem import report, stem_option


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--title", default="", help="Above the picture.")
@stem_option
def radius(runs: tuple[Path, ...], title: str, out: Path) -> None:
    """Draw the radii of run folders of `lpverify radius`: several runs, one a method, on the same examples.

    Each curve is sorted by itself. STEM.csv holds what is drawn.
    """
    from lpverify.files import write_csv
    from lpverify.plots.radius import radius_curves
    from lpverify.plots.runs import radii_of
    from lpverify.plots.style import save, styled

    examples, found = radii_of(runs)
    columns = {**found.certified, "attacked": found.attacked}
    if found.exact is not None:
        columns.update(exact_lower=found.exact[0], exact_upper=found.exact[1])
    numbers = out.with_name(out.name + ".csv")
    lines = [[str(example), *(f"{values[i]:.9g}" for values in columns.values())] for i, example in enumerate(examples)]
    write_csv(numbers, ["example", *columns], lines)
    with styled():
        report([*save(radius_curves({title: found}), out), numbers])
