"""mnist_6_100_nat at eps 0.015 and 0.026, clipped to [0, 1]: the complete search on the first 100 test images.

    PYTHONPATH=. python benchmarks/mnist_6_100.py --data ../shared/data
    PYTHONPATH=. python benchmarks/mnist_6_100.py --data ../shared/data --eps 0.015 --device cuda

``mnist_6_100_images.csv`` has a line for each image, ``mnist_6_100.csv`` one for each eps and device. An image that is
already there is skipped. Every image goes through the method ``auto`` by itself, in this process, for at most
``--limit`` seconds. ``nodes`` are those that the search bounded (empty where none was needed), ``leaves`` those of the
certificate, ``nodes_per_s`` all nodes by all wall seconds of the images with nodes: attacks, root bounds and the final
check are in these seconds. ``cpu_s`` counts all threads of this process. ``overrun`` is ``yes`` beyond 1.1 times the
limit and 2 s.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from statistics import mean, median

import torch
from common import NETWORKS, Table, images, load, machine, parser, timed
from threadpoolctl import threadpool_limits

from lpverify.settings import Settings
from lpverify.verify import verify_stream

RAW = (
    "eps", "image", "device", "verdict", "method", "reason", "nodes", "leaves", "certificate_bytes", "cpu_s", "wall_s",
    "overrun", "limit_s", "threads",
)  # fmt: skip
VERDICTS = ("verified", "falsified", "unknown")
COLUMNS = (
    "eps", "device", "images", *VERDICTS, "misclassified", "searched", "nodes", "leaves", "nodes_per_s", "cpu_median",
    "cpu_mean", "cpu_total", "wall_median", "wall_mean", "wall_total", "overruns", "limit_s", "threads", "machine",
)  # fmt: skip


def decide(data: Path, eps: str, todo: list[int], device: str, limit: float, out: Table) -> None:
    """The images one at a time, so that each is timed."""
    network = load(data, NETWORKS["6x100"])
    x, y = images(data, network)
    settings = Settings(eps, clip=("0", "1"), timeout=limit, device=device, batch_size=1, workers=0)
    stream = verify_stream(network, x[todo], y[todo], settings, todo)
    for index in todo:
        with timed() as clock:
            found = next(stream)
        out.add(
            eps=eps, image=index, device=device, verdict=found.verdict.value, method=found.method, reason=found.reason,
            nodes="" if found.nodes is None else found.nodes, leaves="" if found.leaves is None else found.leaves,
            certificate_bytes=len(found.certificate or b""), cpu_s=clock.cpu, wall_s=clock.wall,
            overrun="yes" if clock.wall > 1.1 * limit + 2 else "no", limit_s=limit, threads=torch.get_num_threads(),
        )  # fmt: skip
        print(f"  eps {eps}, image {index}: {found.verdict.value} by {found.method}, {clock.wall:.2f} s", flush=True)


def summary(raw: Table, out: Path) -> None:
    """A line for each eps and device, printed as well."""
    out.unlink(missing_ok=True)
    table = Table(out, COLUMNS, 2)
    for eps, device in dict.fromkeys((r["eps"], r["device"]) for r in raw.lines):
        rows = [r for r in raw.lines if (r["eps"], r["device"]) == (eps, device)]
        searched = [r for r in rows if r["nodes"]]
        nodes, seconds = sum(int(r["nodes"]) for r in searched), sum(float(r["wall_s"]) for r in searched)
        line: dict[str, object] = {v: sum(r["verdict"] == v for r in rows) for v in VERDICTS}
        for clock in ("cpu", "wall"):
            times = [float(r[f"{clock}_s"]) for r in rows]
            line |= {f"{clock}_median": median(times), f"{clock}_mean": mean(times), f"{clock}_total": sum(times)}
        table.add(
            eps=eps, device=device, images=len(rows), misclassified=sum(r["method"] == "clean" for r in rows),
            searched=len(searched), nodes=nodes, leaves=sum(int(r["leaves"] or 0) for r in rows),
            nodes_per_s=nodes / seconds if seconds else "", overruns=sum(r["overrun"] == "yes" for r in rows),
            limit_s=rows[0]["limit_s"], threads=rows[0]["threads"], machine=machine(), **line,
        )  # fmt: skip
        print("  ".join(f"{c} {v}" for c, v in table.lines[-1].items() if v and c != "machine"))


def main() -> int:
    """Run what is missing, print the counts."""
    options = parser(__doc__, "mnist_6_100.csv")
    options.add_argument("--eps", nargs="+", default=["0.015", "0.026"])
    options.add_argument("--images", type=int, default=100, help="the first so many of the test set")
    options.add_argument("--limit", type=float, default=60.0, help="seconds for one image")
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    arguments: argparse.Namespace = options.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    out = Table(arguments.out.with_stem(arguments.out.stem + "_images"), RAW, 3)
    with threadpool_limits(arguments.threads), torch.no_grad():
        for eps in arguments.eps:
            todo = [i for i in range(arguments.images) if not out.has(eps, i, arguments.device)]
            if todo:
                decide(arguments.data, eps, todo, arguments.device, arguments.limit, out)
    summary(out, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
