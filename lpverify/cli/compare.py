"""``lpverify compare``: every method on the same examples, a CSV row each, what must hold between them asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import CLIP, DATA, ENGINE, METHOD_NAMES, MODEL, Names, Positive, Radius


class Radii(click.ParamType[tuple[str, ...]]):
    """Decimals >= 0 joined by commas."""

    name = "eps,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The texts, each once."""
        return tuple(dict.fromkeys(Radius().convert(part, param, ctx) for part in str(value).split(",")))


@click.command()
@MODEL
@DATA
@click.option("--eps", "radii", type=Radii(), required=True, help="Radii in raw input units, joined by commas.")
@CLIP
@click.option("--method", "methods", type=Names("attack", *METHOD_NAMES), metavar="METHODS", show_default=True,
              default="attack,interval,dual,crown,alpha,lp,lp-tight,milp", help="Which methods, joined by commas; sdp "
              "takes small networks with one hidden layer.")  # fmt: skip
@click.option("--timeout", type=Positive(), default=60.0, show_default=True, metavar="S", help="Seconds for an "
              "example by a method that needs a solver, the same share for each class.")  # fmt: skip
@click.option("--costly-examples", type=click.IntRange(min=0), metavar="N", help="Give such methods the first N "
              "examples only.")  # fmt: skip
@click.option("--backend", default="highs", show_default=True, help="The solver interface of lp, lp-tight and milp.")
@click.option("--solver", default="", metavar="NAME", help="Which of the interface's solvers; its first choice by "
              "default.")  # fmt: skip
@ENGINE
@click.option("--name", metavar="NAME", help="The problem's name in the file; the model file's by default.")
@click.option("--layers", type=click.Path(path_type=Path), metavar="DIR", help="Keep every neuron's pre-activation "
              "bounds by every method, one npz file an example.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE.csv", help="Continued where it "
              "was stopped: what is there is not measured again.")  # fmt: skip
def compare(model: Path, out: Path, **given: Any) -> None:
    """Compare bound methods: margins, gaps to the least margin known, unstable neurons, seconds, what is proved.

    Several models and radii can share a file. If two methods contradict each other, the run ends with exit code 6 and
    the case is saved in a folder beside the file.
    """
    from lpverify.bounds import METHODS
    from lpverify.cli.loading import load_job
    from lpverify.comparison.case import Case, Limit
    from lpverify.comparison.rows import RowFile
    from lpverify.comparison.run import Options
    from lpverify.comparison.run import compare as measure
    from lpverify.comparison.summary import HEADER, tables
    from lpverify.table import print_table, progress

    job = load_job(model, given)
    solver_backed = [m for m in given["methods"] if m in METHODS and METHODS[m].isolated]
    some = len(job.x) if given["costly_examples"] is None else given["costly_examples"]
    case = Case(
        given["name"] or model.stem, job.network, job.x, job.y, job.indices, given["radii"], given["norm"],
        given["clip"], tuple(m for m in given["methods"] if m not in solver_backed),
        {m: Limit(some, given["timeout"]) for m in solver_backed},
    )  # fmt: skip
    options = Options(
        given["device"], given["dtype"], given["backend"], given["solver"], given["seed"], given["layers"]
    )
    file = RowFile(out)
    for _ in progress(measure(case, file, options), len(case.x) * len(case.radii), "compare"):
        pass
    for problem, rows in tables(file.rows).items():
        print_table(problem, HEADER, rows)
    click.echo(f"rows: {out}")
