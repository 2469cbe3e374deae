"""Seconds an image for the LP relaxation: lpverify's ``lp`` beside cvxpy, scipy and PuLP, one thread each.

    PYTHONPATH=. python benchmarks/lp_speed.py --data ../shared/data

The first MNIST test images that the network classifies correctly, l-infinity balls (clipped to [0, 1] where the
subject's name says so), all nine rows of the label claim. Every contender gets the same pre-activation bounds,
CROWN's; what it is timed for is everything from there to the nine values: building its model and solving. All take
turns image by image. A contender solves as many rows of each image as its ``--seconds`` of CPU time allow, at least
one, and stops when they are spent; fewer rows than nine are extrapolated by their mean.

``lp_speed_images.csv`` has a line for each contender and image, ``lp_speed.csv`` the medians over the images;
``failed`` counts rows without an optimum. Exit code 1 says that some optimum disagrees with lpverify's by more than
1e-5, relative to 1 + |value|.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from common import NETWORKS, Table, correct, images, load, machine, parser, timed
from lp_contenders import (
    Image,
    Ours,
    Rows,
    cvxpy_matrices,
    cvxpy_neurons,
    cvxpy_parameter,
    cvxpy_textbook,
    pulp_model,
    scipy_linprog,
)
from threadpoolctl import threadpool_limits

from lpverify.bounds.root import root_bounds
from lpverify.problem import Specification, ball


class Subject(NamedTuple):
    """A network, a radius and whether balls are clipped to [0, 1]."""

    network: str
    eps: float
    clipped: bool


SUBJECTS = {
    "conv-0.1": Subject("conv", 0.1, False),
    "dense-0.015-clipped": Subject("6x100", 0.015, True),
    "dense-0.026-clipped": Subject("6x100", 0.026, True),
    "dense-0.015": Subject("6x100", 0.015, False),
    "dense-0.026": Subject("6x100", 0.026, False),
}
OURS = "lpverify lp"
RAW = (
    "subject", "image", "contender", "form", "rows", "setup_cpu", "row_cpu", "total_cpu", "total_wall", "failed",
    "difference", "other_share",
)  # fmt: skip
COLUMNS = (
    "subject", "contender", "form", "network", "eps", "clipped", "images", "rows", "total_cpu", "total_wall",
    "times_slower", "failed", "largest_difference", "other_share", "machine",
)  # fmt: skip
TOLERANCE = 1e-5


@dataclass
class Contender:
    """``start`` takes an image and returns what solves a row; the seconds are those of the last image."""

    name: str
    form: str
    start: Callable[[Image], Rows]
    spent: float = 0.0
    setup_seconds: float = 0.0
    row_seconds: float = 0.0

    def rows(self, budget: float, images_left: int, most: int) -> int:
        """How many rows of the next image are affordable; 0 if not even one is."""
        left = budget - self.spent
        if not self.spent:
            return 1
        if left < self.setup_seconds + self.row_seconds:
            return 0
        return max(1, min(most, int((left / images_left - self.setup_seconds) / self.row_seconds)))


def contenders(names: list[str]) -> list[Contender]:
    """Ours first; the others in the order of the issue."""
    found = [Contender(OURS, "program", Ours()), Contender("lpverify lp, presolve", "program", Ours(presolve=True))]
    found += [Contender("cvxpy, neuron by neuron", "layers", cvxpy_neurons)]
    found += [Contender("cvxpy, text-book", "layers", cvxpy_textbook)]
    for form in ("layers", "program"):
        found += [
            Contender("cvxpy, matrices", form, cvxpy_matrices(form)),
            Contender("cvxpy, parameter", form, cvxpy_parameter(form, warm=False)),
            Contender("scipy linprog", form, scipy_linprog(form)),
            Contender("PuLP CBC", form, pulp_model(form, "CBC")),
            Contender("PuLP HiGHS", form, pulp_model(form, "HiGHS")),
        ]
    # In the other form this was seen to run for more than eight minutes on one row, or to fail.
    found.append(Contender("cvxpy, parameter, warm", "program", cvxpy_parameter("program", warm=True)))
    return [c for c in found if c.name == OURS or not names or any(name in c.name for name in names)]


def measure(subject: str, contestants: list[Contender], arguments: argparse.Namespace, raw: Table) -> None:
    """All contenders on each image in turn; a line for each."""
    about = SUBJECTS[subject]
    network = load(arguments.data, NETWORKS[about.network])
    x, y = images(arguments.data, network)
    chosen = correct(network, x, y, arguments.images)
    for at, index in enumerate(chosen):
        todo = [c for c in contestants if not raw.has(subject, index, c.name, c.form)]
        if not todo:
            continue
        point = torch.as_tensor(x[[index]]).double()
        spec = Specification.label(torch.as_tensor(y[[index]]), network.output_size)
        with torch.no_grad():
            region = ball(point, about.eps, clip=(0.0, 1.0) if about.clipped else None)
            image = Image(network, region, spec, root_bounds(network, region, "crown"))
        reference = Ours()(image)
        for contender in todo:
            most = spec.C.shape[1]
            ours = isinstance(contender.start, Ours)
            rows = most if ours else contender.rows(arguments.seconds, len(chosen) - at, most)
            if rows:
                line = run(contender, image, rows, most, reference)
                raw.add(subject=subject, image=index, contender=contender.name, form=contender.form, **line)
        done = [line for line in raw.lines if (line["subject"], line["image"]) == (subject, str(index))]
        print(f"  {subject}, image {index}: " + ", ".join(f"{r['total_cpu']} ({r['rows']})" for r in done), flush=True)


def run(contender: Contender, image: Image, rows: int, most: int, reference: Rows) -> dict[str, object]:
    """One contender on one image: its times, extrapolated to all rows, and how far its values are from ours."""
    # Any rows are as good as others; they are spread over the claim.
    picked = np.linspace(0, most - 1, rows).astype(int).tolist()
    with timed() as setup:
        solve = contender.start(image)
    with timed() as solving:
        values = [solve(i) for i in picked]
    gaps = [abs(v - reference(i)) / (1 + abs(reference(i))) for i, v in zip(picked, values, strict=True)]
    contender.spent += setup.cpu + solving.cpu
    contender.setup_seconds, contender.row_seconds = setup.cpu, solving.cpu / rows
    line: dict[str, object] = {
        "rows": rows, "setup_cpu": setup.cpu, "row_cpu": solving.cpu / rows,
        "total_cpu": setup.cpu + solving.cpu / rows * most, "total_wall": setup.wall + solving.wall / rows * most,
        "failed": int(np.isnan(gaps).sum()), "difference": np.nanmax([0.0, *gaps]),
    }  # fmt: skip
    return line | ({"other_share": contender.start.other_share[-1]} if isinstance(contender.start, Ours) else {})


def summary(raw: Table, out: Path) -> bool:
    """Medians over the images beside ours on the same images; whether all values agree."""
    out.unlink(missing_ok=True)
    table, about = Table(out, COLUMNS, 3), machine()
    for subject, contender, form in dict.fromkeys((r["subject"], r["contender"], r["form"]) for r in raw.lines):
        rows = [r for r in raw.lines if (r["subject"], r["contender"], r["form"]) == (subject, contender, form)]
        ours = {r["image"]: r for r in raw.lines if (r["subject"], r["contender"]) == (subject, OURS)}
        base = median(float(ours[r["image"]]["total_cpu"]) for r in rows)
        shares = [float(r["other_share"]) for r in rows if r["other_share"]]
        total, where = median(float(r["total_cpu"]) for r in rows), SUBJECTS[subject]
        table.add(
            subject=subject, contender=contender, form=form, network=NETWORKS[where.network], eps=where.eps,
            clipped=where.clipped, images=len(rows), rows=sum(int(r["rows"]) for r in rows), total_cpu=total,
            total_wall=median(float(r["total_wall"]) for r in rows), times_slower=total / base,
            failed=sum(int(r["failed"]) for r in rows), largest_difference=max(float(r["difference"]) for r in rows),
            other_share=median(shares) if shares else "", machine=about,
        )  # fmt: skip
        last = table.lines[-1]
        print(f"{subject:20s} {contender:26s} {form:8s} {last['images']:>3s} images {last['rows']:>4s} rows "
              f"{total:9.3f} s {total / base:7.1f} times, difference {last['largest_difference']}, "
              f"failed {last['failed']}")  # fmt: skip
    return all(float(line["largest_difference"]) <= TOLERANCE for line in table.lines)


def main() -> int:
    """Measure, write, print; 1 if values disagree."""
    options = parser(__doc__, "lp_speed.csv")
    options.add_argument("--networks", nargs="+", choices=tuple(SUBJECTS), default=list(SUBJECTS))
    options.add_argument("--images", type=int, default=20, help="images of each network")
    options.add_argument("--seconds", type=float, default=40.0, help="for one contender on one network")
    options.add_argument("--only", nargs="*", default=[], help="contenders whose name contains one of these")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    raw = Table(arguments.out.with_stem(arguments.out.stem + "_images"), RAW, 4)
    began = time.perf_counter()
    with threadpool_limits(1):
        for subject in arguments.networks:
            measure(subject, contenders(arguments.only), arguments, raw)
    print(f"{time.perf_counter() - began:.0f} s")
    if summary(raw, arguments.out):
        return 0
    print("some optimum disagrees", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
