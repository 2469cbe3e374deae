"""From a stream of results to a run folder and the closing table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from lpverify.certificate.claim import Claim
    from lpverify.cli.loading import Job
    from lpverify.result import Result
    from lpverify.runs.folder import RunFolder
    from lpverify.runs.summary import Stopwatch, Tally
    from lpverify.settings import Settings


class Counts(Protocol):
    """What a command counts besides the verdicts."""

    def add(self, result: Result) -> dict[str, Any]:
        """Count one result; returns what its line says besides."""

    def parts(self) -> dict[str, Any]:
        """What the summary says besides, or instead."""


def run_stream(
    job: Job,
    settings: Settings,
    options: dict[str, Any],
    stream: Callable[[frozenset[int]], Iterator[Result]],
    watch: Stopwatch,
    *,
    out: Path | None,
    overwrite: bool,
    what: str,
    asked: dict[str, Any] | None = None,
    also: Counts | None = None,
    show: Callable[[dict[str, Any]], None] | None = None,
    as_json: bool = False,
) -> Tally:
    """Write each result as it comes, then the summary, also when something ends the run early; print the table.

    A run of the same kind that is in the folder is gone on with, or shown again if it is finished.

    Args:
        options: the summary's "options".
        stream: from the examples that have a result already to one result for each of the others, in the job's order,
            about the job's labels.
        out: the run folder; None keeps nothing.
        what: the command, for the progress bar and the stage's time.
        asked: options besides the settings on which results depend.
        also: what is counted besides.
        show: prints the closing table from the summary; by default that of the verdicts.
        as_json: print the summary as a line of JSON, too.
    """
    from lpverify.cli.loading import header, provenance
    from lpverify.runs.folder import RunFolder
    from lpverify.runs.summary import Tally, summary
    from lpverify.serialize import network_file
    from lpverify.table import print_summary, progress

    tally = Tally()
    data, sha256 = network_file(job.network)
    places = {index: place for place, index in enumerate(job.indices.tolist())}
    order = {index: place for place, index in enumerate(job.asked.tolist())}
    about = header(job, what, sha256, settings, asked)

    def summarise(stopped: str | None) -> dict[str, Any]:
        parts = {**provenance(job, sha256, settings), **({} if also is None else also.parts())}
        missing = len(job.asked) - tally.examples
        return summary(tally, missing=missing, stopped=stopped, options=options, seconds=watch.seconds(), **parts)

    with nullcontext(None) if out is None else RunFolder(out, overwrite=overwrite, header=about) as run:
        finished: frozenset[int] = frozenset()
        final = None
        if run is not None:
            announce(run, len(job.asked))
            finished, final = run.finished, run.summary
            for result in run.results():
                tally.add(result)
                if also is not None:
                    also.add(result)
        if final is None:
            if run is not None:
                run.write_network(data, sha256)
            try:
                left = watch.iterate(what, _results(job, stream, finished))
                for result in progress(left, len(job.asked) - len(finished), what):
                    more = {} if also is None else also.add(result)
                    if run is not None:
                        claim = _claim(job, settings, places.get(result.index))
                        with watch("write"):
                            result = run.add(result, claim, place=order[result.index], **more)
                    tally.add(result)
            except BaseException as error:
                if run is not None:
                    # The interruption may have come between a row and its count.
                    tally = Tally()
                    for result in run.results():
                        tally.add(result)
                    run.write_summary(summarise(type(error).__name__))
                raise
            final = summarise(None)
            if run is not None:
                run.write_summary(final)
    (show or print_summary)(final)
    click.echo("evidence was not kept: no --out" if out is None else f"results and evidence: {out}")
    if as_json:
        click.echo(json.dumps(final, allow_nan=False))
    return tally


def _results(
    job: Job, stream: Callable[[frozenset[int]], Iterator[Result]], finished: frozenset[int]
) -> Iterator[Result]:
    """The lines of examples that cannot be used, then the results of the others; none that is finished already."""
    from lpverify.result import Result

    yield from (Result.refused(index, reason) for index, reason in job.refused.items() if index not in finished)
    if len(job.x):
        yield from stream(finished)


def _claim(job: Job, settings: Settings, place: int | None) -> Claim | None:
    """The claim about the example at this place of the job's; none about one that was refused."""
    from lpverify.evidence import claim_of

    if place is None:
        return None
    return claim_of(settings, job.x[place], int(job.y[place]), job.network.output_size)


def announce(run: RunFolder, total: int, examples: str = "examples") -> None:
    """Say that a run that was there is gone on with, or that it is finished."""
    if run.summary is not None:
        click.echo(f"{run.path}: the run is finished; nothing is computed again (--overwrite makes it anew)", err=True)
    elif run.sessions > 1:
        click.echo(f"{run.path}: going on after {len(run.finished)} of {total} {examples}", err=True)
