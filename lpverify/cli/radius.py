"""``lpverify radius``: for each example the largest certified radius, the attack's from above, and the exact one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import CLIP, DATA, ENGINE, METHOD_NAMES, MODEL, OUT, PROOF, SOLVER, Radius


@click.command()
@MODEL
@DATA
@click.option("--max-eps", "eps", type=Radius(), default="1", show_default=True, help="No radius above this is tried.")
@CLIP
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="The bound that certifies: auto is crown; milp certifies by lp-tight and claims more.")  # fmt: skip
@PROOF
@SOLVER
@ENGINE
@OUT
def radius(model: Path, out: Path, overwrite: bool, **given: Any) -> None:
    """Find for each example the largest eps that can be certified, and a larger one at which a counterexample is known.

    Writes RUN/radii.jsonl (one line an example: index, label, certified, attacked, exact_lower, exact_upper, method,
    reason, seconds, certificate, counterexample), the certificates and the nearest counterexamples, which
    `lpverify check RUN` judges again. exact_lower is what a solver claims: a report, not a proof.
    """
    from lpverify.cli.loading import describe, load_job, make_settings, provenance
    from lpverify.radius import radii
    from lpverify.run_folder import RADII, RunFolder, network_file
    from lpverify.summary import RadiusTally, Stopwatch
    from lpverify.table import print_radii, progress

    watch, tally = Stopwatch(), RadiusTally()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given)
        data, sha256 = network_file(job.network)
    options = describe(model, given, settings)
    with RunFolder(out, overwrite=overwrite, results=RADII) as run:
        run.write_network(data, sha256)
        stream = radii(job.network, job.x, job.y, settings, job.indices.tolist())
        for position, found in enumerate(progress(watch.iterate("radius", stream), len(job.x), "radius")):
            run.add_radius(found, int(job.y[position]))
            tally.add(found)
        final = {**tally.summary(), "options": options, "seconds": watch.seconds(), **provenance(job, sha256, settings)}
        run.write_summary(final)
    print_radii(final)
    click.echo(f"results and evidence: {out}")
