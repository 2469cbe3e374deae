"""Active, inactive and unstable neurons of each ReLU layer, over the balls about the digits' test examples.

    PYTHONPATH=. python benchmarks/neurons.py --examples 100 --eps 0.05

A line for each network, method, example and ReLU layer: how many of its neurons the method's own pre-activation bounds
prove active or inactive, and how many they leave unstable. Balls are l-infinity, kept in [0, 1].
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from common import Table, machine, parser

from lpverify.bounds import METHODS
from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.problem import Specification
from lpverify.session import Session
from lpverify.settings import Settings

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
NETWORKS = ("digits-standard", "digits-pgd", "digits-dual", "digits-ibp")
QUICK = ("interval", "dual", "crown")
COLUMNS = ("network", "eps", "method", "example", "layer", "active", "inactive", "unstable", "machine")


def main() -> int:
    """Every network by every method."""
    options = parser(__doc__, "neurons.csv")
    options.add_argument("--examples", type=int, default=100, help="the first so many of the test set")
    options.add_argument("--eps", default="0.05", help="radius in raw input units")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    arguments.out.unlink(missing_ok=True)
    table, examples = Table(arguments.out, COLUMNS, 5), load_data("digits")
    x = torch.as_tensor(examples.x[: arguments.examples]).flatten(1).double()
    y = torch.as_tensor(examples.y[: arguments.examples])
    for name in NETWORKS:
        settings = Settings(arguments.eps, clip=("0", "1"), dtype="float64")
        session = Session(load_model(ASSETS / f"{name}.safetensors"), settings)
        for method in QUICK:
            found = session.bound(METHODS[method](), settings.region(x), Specification.label(y, 10))
            for place, layer in enumerate(found.layers.values(), start=1):
                kinds = {kind: getattr(layer, kind).sum(1).tolist() for kind in ("active", "inactive", "unstable")}
                for example in range(len(x)):
                    counts = {kind: of[example] for kind, of in kinds.items()}
                    table.add(network=name, eps=arguments.eps, method=method, example=example, layer=place, **counts,
                              machine=machine() if example == 0 else "")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
