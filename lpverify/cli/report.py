"""``lpverify report``: run folders as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lpverify.runs.audit import Judged


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...",
                type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE.html", help="The page. An earlier "
              "report is replaced.")  # fmt: skip
@click.option("--check/--no-check", default=True, show_default=True, help="Check all evidence now, as `lpverify check` "
              "does; the page says whether that was done.")  # fmt: skip
@click.option("--images", type=click.IntRange(min=0), default=24, show_default=True, help="Counterexamples that are "
              "shown of each run.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE.html also if it is no report.")
def report(runs: tuple[Path, ...], out: Path, check: bool, images: int, overwrite: bool) -> None:
    """Tell what run folders hold on one page that needs nothing else: no network, no other file.

    Any run will do, finished or not, of `lpverify verify`, `radius`, `attack` or `detect`. Several are compared: their
    settings and numbers side by side, and the examples on which verdicts differ. Where one run proves what another
    refutes, the page says so, and the exit code is 6.
    """
    from lpverify.errors import SoundnessError
    from lpverify.report.comparison import contradictions
    from lpverify.report.content import read_run
    from lpverify.report.page import render, require_writable, write_page
    from lpverify.table import progress

    require_writable(out, overwrite=overwrite)

    def watched(judged: Iterator[Judged], total: int) -> Iterator[Judged]:
        return progress(judged, total, "check")

    found = [read_run(run, check=check, images=images, watched=watched) for run in runs]
    write_page(out, render(found), overwrite=overwrite)
    click.echo(f"report: {out}")
    clash = next(contradictions(found), None)
    if clash is not None:
        proved, refuted = runs[clash.verified_by], runs[clash.falsified_by]
        raise SoundnessError(
            f"{proved} and {refuted} contradict each other about example {clash.index}, verified at eps "
            f"{clash.verified_eps} by the first and falsified at eps {clash.falsified_eps} by the second; {out} lists "
            "all such examples: please report them"
        )
