"""Tables 1 and 2 of Salman et al. 2019 (arXiv 1902.08722) again, by ``dual``, ``lp`` and ``lp-tight``.

    PYTHONPATH=. python benchmarks/salman.py --data ../shared/data

Clipping is as in the paper, which its numbers for the dual bound tell: table 1 with balls clipped to [0, 1], where
``dual`` meets all six to the last image; table 2 without, where it meets seven of eight within 0.1 percent (the
exception is mnist_MLP_2_100_LPD: 0.0672, published 0.0815).

Table 1, error in percent: images that a method cannot verify, misclassified ones included. ``dual`` ("LP-GREEDY")
on all 10,000 test images. ``LP-ALL``, the LP with LP bounds of every layer (``LPTightBound(skip=False)``), on the first
``--images``; it is never below ``dual`` or CROWN, so that LPs are only solved where these prove nothing and the attack
finds nothing. ``salman_table1_images.csv`` has a line for each image with LPs.

Table 2, mean certified radius over the ten images of ``reference/ten_test_images.npy``: the largest eps that a method
proves, by bisection to 0.5 percent from below; the rigorous checker accepts the certificate at that eps. The paper's
LP-LAST ("lp") has pre-activation bounds by the dual network; ours by CROWN.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from common import Table, images, load, machine, parser, timed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lpverify.attack import attack
from lpverify.bounds import AbstractBoundMethod, CrownBound, DualBound
from lpverify.bounds.lp import LPBound
from lpverify.bounds.lp_tight import LPTightBound
from lpverify.certificate import rigorous
from lpverify.evidence import certificate, claim_of
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.session import Session
from lpverify.settings import Settings

FOLDER = "torch/salman"
TABLE1 = (("LPD_MLP_B_0.1", "0.1"), ("ADV_MLP_B_0.05", "0.05"), ("NOR_MLP_B", "0.02"))
TABLE2 = (
    "mnist_MLP_2_100_NOR", "mnist_cnn_wide_1_LPD", "mnist_cnn_small_LPD", "mnist_cnn_wide_1_NOR", "mnist_MLP_9_100_NOR",
)  # fmt: skip
RAW1 = ("network", "eps", "image", "margin", "certified", "lps", "cpu_s", "wall_s")
COLUMNS1 = (
    "network", "eps", "images", "misclassified", "falsified", "by_dual", "by_crown", "by_lp_all", "certified", "open",
    "dual_error", "lp_all_error", "dual_error_10000", "published_lp_greedy", "published_lp_all", "cpu_median",
    "wall_median", "machine",
)  # fmt: skip
RAW2 = ("network", "image", "method", "radius", "certified", "bounds", "cpu_s", "wall_s")
COLUMNS2 = ("network", "method", "images", "mean_radius", "published", "ratio", "all_certified", "cpu_s", "machine")
PUBLISHED2 = {
    "dual": "mean_lower_bound_lp_greedy", "lp": "mean_lower_bound_lp_last", "lp-tight": "mean_lower_bound_lp_all",
}  # fmt: skip
BATCH = 500
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with images and their labels, and the clip of their balls."""

    session: Session
    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def settings(self, eps: float | str) -> Settings:
        """The session's settings at another radius."""
        return replace(self.session.settings, eps=eps if isinstance(eps, str) else repr(eps))

    def proved(self, method: AbstractBoundMethod, eps: float, chosen: list[int]) -> Flags:
        """Whether the method claims every row, for each of the chosen images."""
        found = []
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            region = self.settings(eps).region(torch.as_tensor(self.x[part]).double())
            margins = method.bound(self.session.exact, region, self.spec(part)).margins
            found.append((margins > 0).all(1).numpy())
        return np.concatenate([*found, np.zeros(0, dtype=bool)])

    def falsified(self, eps: float, chosen: list[int]) -> Flags:
        """Whether PGD finds a point of the ball with another label; nothing here is evaluated exactly."""
        found = []
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            x = torch.as_tensor(self.x[part]).double()
            region = self.settings(eps).region(x)
            found.append(attack(self.session.single, region, self.spec(part), start=x).falsified.numpy())
        return np.concatenate([*found, np.zeros(0, dtype=bool)])

    def spec(self, part: list[int]) -> Specification:
        """The label claims."""
        return Specification.label(torch.as_tensor(self.y[part]), self.session.exact.output_size)

    def certified(self, method: AbstractBoundMethod, eps: str, index: int) -> tuple[bool, float, dict[str, float]]:
        """Whether the rigorous checker accepts the method's certificate; the engine's least margin; its counts."""
        settings = self.settings(eps)
        region = settings.region(torch.as_tensor(self.x[[index]]).double())
        found = method.bound(self.session.exact, region, self.spec([index]))
        claim = claim_of(settings, self.x[index], int(self.y[index]), self.session.exact.output_size)
        rows = list(range(found.margins.shape[1]))
        proposed = certificate(self.session.plain.sha256, "real", claim, found, 0, rows)
        return rigorous.check(self.session.checker, [proposed])[0].accepted, float(found.margins.min()), found.stats


def subject(data: Path, file: str, clip: tuple[str, str] | None) -> Subject:
    """A network with the MNIST test set."""
    network: Network = load(data, file)
    return Subject(Session(network, Settings("0", clip=clip, dtype="float64")), *images(data, network))


def published(data: Path, table: int, file: str, eps: str = "") -> dict[str, str]:
    """The line of the paper's table."""
    with (data / "reference" / f"salman_table{table}.csv").open() as lines:
        return next(r for r in csv.DictReader(lines) if r["network"] == file and eps == r.get("eps_linf", ""))


def table1(data: Path, name: str, eps: str, count: int, raw: Table, out: Table) -> None:
    """One network of table 1."""
    file = f"{FOLDER}/experiment_1/{name}.pth"
    about = subject(data, file, ("0", "1"))
    everything = list(range(len(about.y)))
    dual_all = about.proved(DualBound(), float(eps), everything)
    chosen, by_dual = everything[:count], dual_all[:count]
    predicted = about.session.exact.forward(torch.as_tensor(about.x[:count]).double()).argmax(1).numpy()
    wrong = predicted != about.y[:count]
    rest = [i for i in chosen if not by_dual[i] and not wrong[i]]
    attacked = about.falsified(float(eps), rest)
    by_crown = about.proved(CrownBound(), float(eps), rest)
    method = LPTightBound(skip=False, stop_at_zero=True)
    todo = [i for i, done in zip(rest, attacked | by_crown, strict=True) if not done]
    for index in todo:
        if raw.has(file, eps, index):
            continue
        with timed() as clock:
            accepted, margin, stats = about.certified(method, eps, index)
        raw.add(network=file, eps=eps, image=index, margin=margin, certified=accepted, lps=int(stats["solves"]),
                cpu_s=clock.cpu, wall_s=clock.wall)  # fmt: skip
    rows = [r for r in raw.lines if (r["network"], r["eps"]) == (file, eps) and int(r["image"]) < count]
    by_lp = sum(float(r["margin"]) > 0 for r in rows)
    found = {
        "misclassified": int(wrong.sum()), "falsified": int(attacked.sum()), "by_dual": int(by_dual.sum()),
        "by_crown": int((by_crown & ~attacked).sum()), "by_lp_all": by_lp,
        "certified": sum(r["certified"] == "True" for r in rows),
    }  # fmt: skip
    verified = found["by_dual"] + found["by_crown"] + by_lp
    paper = published(data, 1, file, eps)
    out.add(
        network=file, eps=eps, images=count, **found, open=len(rows) - by_lp,
        dual_error=100 * float(1 - by_dual.mean()), lp_all_error=100 * (1 - verified / count),
        dual_error_10000=100 * float(1 - dual_all.mean()), published_lp_greedy=paper["lp_greedy_upper"],
        published_lp_all=paper["lp_all_upper"],
        cpu_median=median(float(r["cpu_s"]) for r in rows) if rows else "",
        wall_median=median(float(r["wall_s"]) for r in rows) if rows else "", machine=machine(),
    )  # fmt: skip
    print("  ".join(f"{c} {out.lines[-1][c]}" for c in COLUMNS1[:-1]), flush=True)


METHODS: dict[str, AbstractBoundMethod] = {
    "dual": DualBound(),
    "lp": LPBound(stop_at_zero=True),
    "lp-tight": LPTightBound(skip=False, stop_at_zero=True),
}


def radius(about: Subject, name: str, index: int, start: float, tolerance: float) -> tuple[float, bool, int]:
    """The largest eps found that the method proves, whether it is certified, and how many bounds that took.

    Args:
        start: an eps that is proved, or 0.
    """
    method, low, high, bounds = METHODS[name], start, start * 1.05 or 0.001, 0
    while about.proved(method, high, [index])[0]:
        low, high, bounds = high, high * 1.3, bounds + 1
    while high - low > tolerance * high:
        middle = (low + high) / 2
        proved = about.proved(method, middle, [index])[0]
        low, high, bounds = (middle, high, bounds + 1) if proved else (low, middle, bounds + 1)
    return low, low > 0 and about.certified(method, f"{low:.9f}", index)[0], bounds


def table2(data: Path, name: str, tolerance: float, raw: Table, out: Table) -> None:
    """One network of table 2."""
    file = f"{FOLDER}/experiment_2/{name}.pth"
    about = subject(data, file, None)
    with (data / "reference" / "ten_test_images_index.csv").open() as lines:
        chosen = [int(line["mnist_test_index"]) for line in csv.DictReader(lines)]
    for index in chosen:
        start = 0.0
        for method in METHODS:
            if not raw.has(file, index, method):
                with timed() as clock:
                    found, accepted, bounds = radius(about, method, index, start, tolerance)
                raw.add(network=file, image=index, method=method, radius=found, certified=accepted, bounds=bounds,
                        cpu_s=clock.cpu, wall_s=clock.wall)  # fmt: skip
                print(f"  {name} {index} {method}: {found:.5f} certified {accepted}, {clock.wall:.1f} s", flush=True)
            line = next(r for r in raw.lines if (r["network"], r["image"], r["method"]) == (file, str(index), method))
            start = float(line["radius"])
    paper = published(data, 2, file)
    for method in METHODS:
        rows = [r for r in raw.lines if (r["network"], r["method"]) == (file, method)]
        ours, theirs = mean(float(r["radius"]) for r in rows), float(paper[PUBLISHED2[method]])
        out.add(network=file, method=method, images=len(rows), mean_radius=ours, published=theirs,
                ratio=ours / theirs, all_certified=all(r["certified"] == "True" for r in rows),
                cpu_s=sum(float(r["cpu_s"]) for r in rows), machine=machine())  # fmt: skip
        print("  ".join(f"{c} {out.lines[-1][c]}" for c in COLUMNS2[:-1]), flush=True)


def main() -> int:
    """Both tables; the summaries are written anew, the images' lines continued."""
    options = parser(__doc__, "salman_table1.csv")
    options.add_argument("--tables", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    options.add_argument("--networks", nargs="*", default=[], help="only those whose name contains one of these")
    options.add_argument("--images", type=int, default=1000, help="first test images for LP-ALL of table 1")
    options.add_argument("--tolerance", type=float, default=0.005, help="of the radii of table 2, relative")
    arguments: argparse.Namespace = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.perf_counter()

    def tables(out: Path, raw: tuple[str, ...], key: int, columns: tuple[str, ...]) -> tuple[Table, Table]:
        out.unlink(missing_ok=True)
        return Table(out.with_stem(out.stem + "_images"), raw, key), Table(out, columns, 2)

    def wanted(name: str) -> bool:
        return not arguments.networks or any(part in name for part in arguments.networks)

    with threadpool_limits(1), torch.no_grad():
        if 1 in arguments.tables:
            raw, out = tables(arguments.out, RAW1, 3, COLUMNS1)
            for name, eps in TABLE1:
                if wanted(name):
                    table1(arguments.data, name, eps, arguments.images, raw, out)
        if 2 in arguments.tables:
            raw, out = tables(arguments.out.with_stem(arguments.out.stem.replace("1", "2")), RAW2, 3, COLUMNS2)
            for name in TABLE2:
                if wanted(name):
                    table2(arguments.data, name, arguments.tolerance, raw, out)
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
