"""``lpverify radius``: for each example the largest certified radius, the attack's from above, and the exact one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import CLIP, DATA, ENGINE, METHOD_NAMES, MODEL, OUT, PROOF, SCHEDULER, SOLVER, Radius


@click.command()
@MODEL
@DATA
@click.option("--max-eps", "eps", type=Radius(), default="1", show_default=True, help="No radius above this is tried.")
@CLIP
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="The bound that certifies: auto is crown; milp certifies by lp-tight and claims more.")  # fmt: skip
@PROOF
@SOLVER
@SCHEDULER
@ENGINE
@OUT
def radius(model: Path, out: Path, overwrite: bool, **given: Any) -> None:
    """Find for each example the largest eps that can be certified, and a larger one at which a counterexample is known.

    Writes RUN/radii.jsonl (one line an example: index, label, certified, attacked, exact_lower, exact_upper, method,
    reason, seconds, certificate, counterexample), the certificates and the nearest counterexamples, which
    `lpverify check RUN` judges again. exact_lower is what a solver claims: a report, not a proof. The same command
    goes on with a run that was interrupted or killed.
    """
    from lpverify.cli.loading import describe, header, load_job, make_settings, provenance
    from lpverify.cli.running import announce
    from lpverify.radius.radii import radii
    from lpverify.runs.folder import RADII, RunFolder
    from lpverify.runs.summary import RadiusTally, Stopwatch
    from lpverify.serialize import network_file
    from lpverify.table import print_radii, progress

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given)
        data, sha256 = network_file(job.network)
    options = describe(model, given, settings)
    labels = dict(zip(job.indices.tolist(), job.y.tolist(), strict=True))
    order = {index: place for place, index in enumerate(job.indices.tolist())}

    with RunFolder(out, overwrite=overwrite, results=RADII, header=header(job, "radius", sha256, settings)) as run:

        def summarise(stopped: str | None) -> dict[str, Any]:
            tally = RadiusTally()
            for found in run.radii():
                tally.add(found)
            parts = {"stopped": stopped, "options": options, "seconds": watch.seconds()}
            return tally.summary(**parts, **provenance(job, sha256, settings))

        announce(run, len(job.x))
        final = run.summary
        if final is None:
            run.write_network(data, sha256)
            stream = radii(job.network, job.x, job.y, settings, job.indices.tolist(), run.finished)
            try:
                for found in progress(watch.iterate("radius", stream), len(job.x) - len(run.finished), "radius"):
                    run.add_radius(found, labels[found.index], place=order[found.index])
            except BaseException as error:
                run.write_summary(summarise(type(error).__name__))
                raise
            final = summarise(None)
            run.write_summary(final)
    print_radii(final)
    click.echo(f"results and evidence: {out}")
