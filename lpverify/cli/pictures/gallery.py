"""``lpverify figure gallery``: the counterexamples of a run as images."""

from __future__ import annotations

from pathlib import Path

import click

from lpverify.cli.pictures.stem import report, stem_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=6, show_default=True, help="The first so many.")
@click.option("--columns", type=click.Choice(("1", "2")), default="1", show_default=True,
              help="Counterexamples side by side; two fill a page's width.")  # fmt: skip
@stem_option
def gallery(run: Path, count: int, columns: str, out: Path) -> None:
    """Draw counterexamples of the run folder RUN of `lpverify verify` or `attack`: input, change, result.

    Above each the right class and the network's answer. STEM.npz holds what is drawn.
    """
    import numpy as np

    from lpverify.files import write_npz
    from lpverify.plots.gallery import counterexample_gallery
    from lpverify.plots.runs import counterexamples
    from lpverify.plots.style import save, styled

    shown = counterexamples(run, count)
    numbers = out.with_name(out.name + ".npz")
    names = ("index", "x", "found", "label", "answer")
    write_npz(numbers, {name: np.array([getattr(one, name) for one in shown]) for name in names})
    with styled():
        report([*save(counterexample_gallery(shown, int(columns)), out), numbers])
