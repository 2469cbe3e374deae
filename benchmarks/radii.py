"""Radii of the shipped digits networks: certified by ever better bounds and by complete search, and attacked.

    PYTHONPATH=. python benchmarks/radii.py --examples 25 --timeout 6

A line for each network, example and method. ``dual``, ``crown`` and ``lp-tight`` are ``lpverify radius``, whose
certificates the rigorous checker accepted. ``search`` is the exact radius as nearly as complete search finds it:
``lpverify verify --method auto`` at the middle of the bracket between CROWN's radius and the attack's, until the
bracket is closed to half a per cent or a question stays undecided; its ``certified`` was verified, and at distance
``attacked`` lies a counterexample. Radii are l-infinity, of balls kept in [0, 1], at most 0.5; misclassified examples
have radius 0. ``attacked`` is empty where no counterexample was found.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import Table, machine, parser, timed

from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.radius.distortion import distance_of
from lpverify.radius.radii import radii
from lpverify.radius.search import decimal_below
from lpverify.result import RadiusResult, Verdict
from lpverify.settings import Settings
from lpverify.verify import verify_stream

ASSETS = "lpverify/assets"
NETWORKS = ("digits-standard", "digits-pgd", "digits-dual", "digits-ibp")
METHODS = ("dual", "crown", "lp-tight", "search")
LARGEST, CLOSED = "0.5", 0.005
COLUMNS = (
    "network", "method", "example", "label", "certified", "attacked", "reason", "seconds", "norm", "clip", "timeout",
    "machine",
)  # fmt: skip


def search(network: Network, x: Any, y: Any, low: float, high: float, settings: Settings) -> tuple[float, float, str]:
    """The bracket of one example's radius after complete search: verified, attacked, and why it is not closed."""
    while high - low > CLOSED * high:
        eps = decimal_below((low + high) / 2)
        (found,) = verify_stream(network, x, y, replace(settings, eps=eps), [0])
        if found.verdict is Verdict.VERIFIED:
            low = float(eps)
        elif found.counterexample is not None:
            high = min(float(eps), distance_of(found.counterexample.x - x[0].ravel().astype(np.float64), "inf"))
        else:
            return low, high, found.reason
    return low, high, ""


def brackets(
    network: Network, x: Any, y: Any, todo: list[int], settings: Settings, crown: dict[int, tuple[float, float]]
) -> Iterator[RadiusResult]:
    """What ``search`` finds of the examples ``todo``, from what CROWN and the attack know of each."""
    for index in todo:
        part, (low, high) = slice(index, index + 1), crown[index]
        began = time.perf_counter()
        low, high, reason = search(network, x[part], y[part], low, min(high, float(LARGEST)), settings)
        yield RadiusResult(index, low, high, time.perf_counter() - began, None, method="search", reason=reason)


def main() -> int:
    """Every network by every method, continued where the file ends."""
    options = parser(__doc__, "radii.csv")
    options.add_argument("--examples", type=int, default=25, help="the first so many of the digits' test set")
    options.add_argument("--timeout", type=float, default=6.0, help="seconds of an example, or of a question")
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    examples = load_data("digits")
    x, y = examples.x, examples.y
    assert y is not None
    table = Table(arguments.out, COLUMNS, 3)
    for name in arguments.networks:
        network = load_model(f"{ASSETS}/{name}.safetensors")
        for method in METHODS:
            todo = [i for i in range(arguments.examples) if not table.has(name, method, i)]
            settings = Settings(LARGEST, clip=("0", "1"), timeout=arguments.timeout, dtype="float64", workers=0)
            if method == "search":
                known = (line for line in table.lines if (line["network"], line["method"]) == (name, "crown"))
                crown = {
                    int(line["example"]): (float(line["certified"]), float(line["attacked"] or "inf")) for line in known
                }
                stream = brackets(network, x, y, todo, settings, crown)
            else:
                stream = radii(network, x[todo], y[todo], replace(settings, method=method), todo)
            with timed() as clock:
                for found in stream:
                    table.add(
                        network=name, method=method, example=found.index, label=int(y[found.index]),
                        certified=found.certified, attacked=found.attacked if math.isfinite(found.attacked) else "",
                        reason=found.reason, seconds=found.seconds, norm="inf", clip="0 1", timeout=arguments.timeout,
                        machine=machine(),
                    )  # fmt: skip
            print(f"{name} {method}: {clock.cpu:.0f} s of CPU time, {clock.wall:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
