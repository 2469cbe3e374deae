"""WK17a at eps 0.1, clipped to [0, 1], on the 250 reference images: verdicts, unstable neurons, seconds an image.

    PYTHONPATH=. python benchmarks/wk17a.py --data ../shared/data

Four passes; ``wk17a_images.csv`` has a line for each image, ``wk17a.csv`` one for each pass:

- ``tighten``: the method ``lp-tight`` without stopping early: the pre-activation bounds of every layer by LP, and
  every row of the claim. Neurons that it leaves unstable beside the reference's, the number of LPs, and whether
  the rigorous checker accepts its certificate.
- ``lp-tight``: the whole pipeline with that method (attack, LPs where they are needed, check).
- ``milp``: the same with ``milp`` for the images that are still open.
- ``auto``: attacks, cheap bounds, then the complete search, on all images. ``leaves`` is the certificate's, and
  ``exact`` whether the exact checker accepts it too (its time is not counted).

The reference is MIPVerify's (``reference/wk17a_mipverify_samples.csv``). A contradiction, that is a certificate of an
image with a known adversarial example or a witness for one that is known to be robust, gives exit code 1. ``claim``
is what the method said where the verdict is unknown.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from common import NETWORKS, Table, images, load, machine, parser, timed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lpverify.bounds.lp_tight import LPTightBound
from lpverify.certificate import exact, rigorous
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.evidence import certificate, claim_of
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.serialize import network_bytes
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.verify import verify_stream

PASSES = ("tighten", "lp-tight", "milp", "auto")
RAW = (
    "pass", "image", "reference", "verdict", "method", "claim", "unstable1", "unstable2", "unstable3", "reference1",
    "reference2", "reference3", "lps", "solver_s", "cpu_s", "wall_s", "leaves", "exact",
)  # fmt: skip
COLUMNS = (
    "pass", "images", "verified", "falsified", "unknown", "contradictions", "cpu_median", "cpu_mean", "cpu_total",
    "wall_median", "wall_mean", "wall_total", "lps_mean", "unstable1", "unstable2", "unstable3", "reference1",
    "reference2", "reference3", "other_counts", "certified", "leaves", "machine",
)  # fmt: skip
# The reference's words for a verdict.
SAME = {"robust": "verified", "attackable": "falsified", "misclassified": "falsified"}
Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def reference(data: Path) -> dict[int, dict[str, str]]:
    """The reference's lines by image."""
    with (data / "reference" / "wk17a_mipverify_samples.csv").open() as file:
        return {int(line["mnist_test_index"]): line for line in csv.DictReader(file)}


def tighten(network: Network, examples: Arrays, lines: dict[int, dict[str, str]], todo: list[int], out: Table) -> None:
    """Full progressive tightening of each image, with nothing before it."""
    settings = Settings("0.1", clip=("0", "1"), dtype="float64")
    session, method, (x, y) = Session(network, settings), LPTightBound(), examples
    for index in todo:
        region = settings.region(torch.as_tensor(x[[index]]).double())
        spec = Specification.label(torch.as_tensor(y[[index]]), network.output_size)
        with timed() as clock:
            found = method.bound(session.exact, region, spec)
        claim = claim_of(settings, x[index], int(y[index]), network.output_size)
        proposed = certificate(session.plain.sha256, "real", claim, found, 0, list(range(9)))
        (outcome,) = rigorous.check(session.checker, [proposed])
        unstable = [int(layer.unstable.sum()) for layer in found.layers.values()]
        line = lines[index]
        out.add(
            **{"pass": "tighten"}, image=index, reference=line["verdict"],
            verdict="verified" if outcome.accepted else "unknown", method="lp-tight",
            claim="robust" if bool((found.margins > 0).all()) else "open",
            **{f"unstable{i + 1}": n for i, n in enumerate(unstable)}, reference1=line["unstable_relu_layer1_interval"],
            reference2=line["unstable_relu_layer2_lp"], reference3=line["unstable_relu_layer3_lp"],
            lps=int(found.stats["solves"]), solver_s=found.stats["solver_seconds"], cpu_s=clock.cpu,
            wall_s=clock.wall,
        )  # fmt: skip
        print(f"  tighten {index}: {unstable}, {int(found.stats['solves'])} LPs, {clock.wall:.2f} s", flush=True)


def decide(
    method: str, network: Network, examples: Arrays, lines: dict[int, dict[str, str]], todo: list[int], timeout: float,
    out: Table,
) -> None:  # fmt: skip
    """The pipeline, one image at a time and in this process, so that each is timed."""
    settings = Settings("0.1", clip=("0", "1"), method=method, timeout=timeout, batch_size=1, workers=0)
    stream = verify_stream(network, examples[0][todo], examples[1][todo], settings, todo)
    integers = convert(parse_network(network_bytes(network)))
    for index in todo:
        with timed() as clock:
            found = next(stream)
        more: dict[str, object] = {"leaves": found.leaves or ""}
        if method == "auto" and found.certificate is not None:
            more["exact"] = "accepted" if exact.check(integers, decode(found.certificate)).accepted else "rejected"
        out.add(
            **{"pass": method}, image=index, reference=lines[index]["verdict"], verdict=found.verdict.value,
            method=found.method, claim=found.reason, cpu_s=clock.cpu, wall_s=clock.wall, **more,
        )  # fmt: skip
        print(f"  {method} {index}: {found.verdict.value} by {found.method}, {clock.wall:.2f} s", flush=True)


def summary(raw: Table, out: Path, made: Sequence[str]) -> int:
    """A line for each pass, and one for ``lp-tight`` and then ``milp`` together; the number of contradictions.

    Passes that were not ``made`` now keep the machine that they were made on.
    """
    had = {}
    if out.is_file():
        with out.open(newline="") as file:
            had = {line["pass"]: line["machine"] for line in csv.DictReader(file)}
    out.unlink(missing_ok=True)
    table, contradictions = Table(out, COLUMNS, 1), 0
    groups = {name: [r for r in raw.lines if r["pass"] == name] for name in PASSES}
    second = {r["image"]: r for r in groups["milp"]}
    groups["lp-tight, milp"] = [_joined(r, second.get(r["image"])) for r in groups["lp-tight"]]
    for name, rows in groups.items():
        if not rows:
            continue
        wrong = [r["image"] for r in rows if r["verdict"] != "unknown" and r["verdict"] != SAME[r["reference"]]]
        contradictions += len(wrong)
        line: dict[str, object] = {v: sum(r["verdict"] == v for r in rows) for v in COLUMNS[2:5]}
        for clock in ("cpu", "wall"):
            seconds = [float(r[f"{clock}_s"]) for r in rows]
            line |= {f"{clock}_median": median(seconds), f"{clock}_mean": mean(seconds), f"{clock}_total": sum(seconds)}
        if name == "tighten":
            line["lps_mean"] = mean(int(r["lps"]) for r in rows)
            known = [r for r in rows if r["reference3"]]
            for c in COLUMNS[13:19]:
                line[c] = mean(int(r[c]) for r in known)
            line["other_counts"] = sum(any(r[f"unstable{i}"] != r[f"reference{i}"] for i in "123") for r in known)
        if name == "auto":
            line["certified"] = sum(r["verdict"] == "falsified" or r["exact"] == "accepted" for r in rows)
            line["leaves"] = sum(int(r["leaves"] or 0) for r in rows)
        where = machine() if set(name.split(", ")) & set(made) else had.get(name, machine())
        table.add(**{"pass": name}, images=len(rows), contradictions=len(wrong), machine=where, **line)
        print("  ".join(f"{c} {v}" for c, v in table.lines[-1].items() if v and c != "machine"))
    return contradictions


def _joined(first: dict[str, str], then: dict[str, str] | None) -> dict[str, str]:
    """One image's lines of two passes as one: the later verdict, the sum of the times."""
    if then is None:
        return first
    return then | {c: str(float(first[c]) + float(then[c])) for c in ("cpu_s", "wall_s")}


def main() -> int:
    """Run the passes, print; 1 for a contradiction."""
    options = parser(__doc__, "wk17a.csv")
    options.add_argument("--images", type=int, default=250, help="the first so many of the reference's")
    options.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    options.add_argument("--timeout", type=float, default=120.0, help="seconds for one image")
    arguments: argparse.Namespace = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network = load(arguments.data, NETWORKS["wk17a"])
    examples, lines = images(arguments.data, network), reference(arguments.data)
    chosen = list(lines)[: arguments.images]
    out = Table(arguments.out.with_stem(arguments.out.stem + "_images"), RAW, 2)
    with threadpool_limits(1), torch.no_grad():
        made = []
        for name in arguments.passes:
            todo = [i for i in chosen if not out.has(name, i)]
            if name == "milp":
                done = {r["image"] for r in out.lines if r["pass"] == "lp-tight" and r["verdict"] != "unknown"}
                todo = [i for i in todo if str(i) not in done]
            made += [name] * bool(todo)
            if todo and name == "tighten":
                tighten(network, examples, lines, todo, out)
            elif todo:
                decide(name, network, examples, lines, todo, arguments.timeout, out)
    return 1 if summary(out, arguments.out, made) else 0


if __name__ == "__main__":
    sys.exit(main())
