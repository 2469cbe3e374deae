"""``lpverify verify``: the main job, from a model and examples (or a property) to a run folder and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lpverify.cli.options import (
    ENGINE,
    METHOD_NAMES,
    MODEL,
    OBJECTIVE,
    PROOF,
    SCHEDULER,
    SOLVER,
    Names,
    data_options,
    out_options,
    region_options,
)

if TYPE_CHECKING:
    from lpverify.result import Result

# What examples need, and a property states itself or has no use for.
EXAMPLES = (
    "data", "data_dir", "split", "scale", "index", "eps", "norm", "clip", "objective", "scheduler", "keep_going",
)  # fmt: skip
NEEDED = ("data", "eps", "out")


@click.command()
@MODEL
@click.option("--vnnlib", type=click.Path(path_type=Path), metavar="FILE.vnnlib[.gz]", help="Decide the property of "
              "this file (VNN-LIB 1.0 or 2.0) instead of examples; takes no --data, --eps or other ball, and --out "
              "only to keep the evidence.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="With --vnnlib: end with the result as one line of JSON.")
@data_options(required=False)
@region_options(required=False)
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="auto tries attacks and cheap bounds first, then searches on what is left.")  # fmt: skip
@PROOF
@SOLVER
@SCHEDULER
@OBJECTIVE
@ENGINE
@out_options(required=False)
@click.option("--keep-going", is_flag=True, help="Give an example that is refused by itself (label out of range, NaN, "
              "values further outside the clip than eps) a line with verdict unknown, and go on with the "
              "others.")  # fmt: skip
@click.option("--fail-on", type=Names("falsified", "unknown", "verified"), metavar="VERDICTS",
              help="Exit with 1 if one of these verdicts occurs, like falsified,unknown.")  # fmt: skip
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    model: Path,
    vnnlib: Path | None,
    as_json: bool,
    out: Path | None,
    overwrite: bool,
    fail_on: tuple[str, ...] | None,
    **given: Any,
) -> int:
    """Decide for each example whether the network's answer is the same on the whole ball about it.

    Writes RUN/results.jsonl (one line an example), RUN/summary.json, the lowered network, a certificate for
    every verified example and a witness for every falsified one. `lpverify check RUN` judges them again. The same
    command goes on with a run that was interrupted or killed.

    MODEL may be a cascade: a file CASCADE.toml with its stages, like stages = ["first.safetensors", "second.onnx"].
    Verified then means that it answers rightly at the example and nowhere in the ball wrongly: elsewhere in the ball
    it may have no certificate to answer with.

    With --vnnlib, decide one property: falsified if an input of the file's unsafe set exists, verified if there is
    none. RUN then has one line for each box of the file, and a copy of the file.
    """
    began = time.perf_counter()
    is_cascade = model.suffix == ".toml"
    if vnnlib is not None:
        if is_cascade:
            raise click.UsageError(f"{model}: a cascade answers about examples; give one of its stages with --vnnlib")
        _refuse_examples(ctx, given)
        return _verify_property(model, vnnlib, given, out, overwrite, as_json, fail_on, began)
    missing = next((name for name in NEEDED if {**given, "out": out}[name] is None), None)
    if missing is not None:
        raise click.UsageError(f"Missing option '--{missing}'.")
    if as_json:
        raise click.UsageError("--json is for --vnnlib; runs over examples write RUN/results.jsonl")
    assert out is not None
    if is_cascade:
        from lpverify.cli.cascade import run_cascade

        if given.pop("keep_going"):
            raise click.UsageError("--keep-going is for single networks; a cascade's data must be good as a whole")
        if given["scheduler"]:
            raise click.UsageError("--scheduler: a cascade is decided in one process; leave it out")
        verdicts = run_cascade(model, given, out, overwrite)
        return int(any(verdicts[name] for name in fail_on or ()))
    return _verify_examples(model, given, out, overwrite, fail_on)


def _refuse_examples(ctx: click.Context, given: dict[str, Any]) -> None:
    """Options that a property has no use for are refused, not ignored."""
    for name in EXAMPLES:
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option}: a property states inputs and outputs itself; leave it out with --vnnlib")
    if given["method"] != "auto":
        raise click.UsageError(f"--method {given['method']}: properties are decided by auto alone; leave it out")


def _verify_property(
    model: Path,
    vnnlib: Path,
    given: dict[str, Any],
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    fail_on: tuple[str, ...] | None,
    began: float,
) -> int:
    from lpverify.cli.property import report, run_property, to_json

    done = run_property(model, vnnlib, given, out=out, overwrite=overwrite, began=began)
    click.echo(report(done))
    if as_json:
        click.echo(json.dumps(to_json(done), allow_nan=False))
    return int(done.conclusion.verdict.value in (fail_on or ()))


def _verify_examples(
    model: Path, given: dict[str, Any], out: Path, overwrite: bool, fail_on: tuple[str, ...] | None
) -> int:
    from lpverify.cli.loading import describe, load_job, make_settings
    from lpverify.cli.running import run_stream
    from lpverify.runs.summary import Stopwatch
    from lpverify.verify import verify_stream

    def stream(finished: frozenset[int]) -> Iterator[Result]:
        return verify_stream(job.network, job.x, job.y, settings, job.indices.tolist(), finished)

    watch = Stopwatch()
    with watch("load"):
        settings = make_settings(given)
        job = load_job(model, given)
    options = {**describe(model, given, settings), "keep_going": given["keep_going"]}
    tally = run_stream(job, settings, options, stream, watch, out=out, overwrite=overwrite, what="verify")
    return int(any(tally.verdicts[name] for name in fail_on or ()))
