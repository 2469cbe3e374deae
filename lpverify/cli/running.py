"""From a stream of results to a run folder and the closing table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lpverify.cli.loading import Job
    from lpverify.result import Result
    from lpverify.settings import Settings
    from lpverify.summary import Stopwatch, Tally


def run_stream(
    job: Job,
    settings: Settings,
    options: dict[str, Any],
    stream: Iterator[Result],
    watch: Stopwatch,
    *,
    out: Path,
    overwrite: bool,
    what: str,
) -> Tally:
    """Write each result as it comes, then the summary, also when something ends the run early; print the table.

    Args:
        options: the summary's "options".
        stream: one result an example, in the job's order.
        what: the command, for the progress bar and the stage's time.
    """
    from lpverify.cli.loading import provenance
    from lpverify.run_folder import RunFolder, network_file
    from lpverify.summary import Tally, summary
    from lpverify.table import print_summary, progress
    from lpverify.verify import claim_of

    tally = Tally()
    data, sha256 = network_file(job.network)

    def summarise(stopped: str | None) -> dict[str, Any]:
        parts = provenance(job, sha256, settings)
        return summary(tally, stopped=stopped, options=options, seconds=watch.seconds(), **parts)

    with RunFolder(out, overwrite=overwrite) as run:
        run.write_network(data, sha256)
        try:
            for position, result in enumerate(progress(watch.iterate(what, stream), len(job.x), what)):
                with watch("write"):
                    run.add(result, claim_of(settings, job.x[position], int(job.y[position]), job.network.output_size))
                tally.add(result)
        except BaseException as error:
            run.write_summary(summarise(type(error).__name__))
            raise
        final = summarise(None)
        run.write_summary(final)
    print_summary(final)
    click.echo(f"results and evidence: {out}")
    return tally
