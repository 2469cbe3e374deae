"""Every method on the rows of a standard, a robust and a random network of one architecture.

    PYTHONPATH=. python benchmarks/sorted_bounds.py --examples 5

The columns are those of ``compare.py``, and the orderings are asserted as there. The random network is as torch
initialises it from seed 0, and its labels are its own answers. Balls are l-infinity of radius 0.1, kept in [0, 1].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from common import correct, machine, parser

from lpverify.comparison.case import QUICK, Case, Limit
from lpverify.comparison.rows import RowFile
from lpverify.comparison.run import Options, compare
from lpverify.data import load_data
from lpverify.lowering import load_model, lower_module
from lpverify.models import build
from lpverify.network import Network

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
ARCH = "cnn(1x8x8; conv 8 3 1 1; conv 16 4 2 1; fc 32; fc 10)"
EPS = "0.1"


def network(name: str) -> Network:
    """A shipped network, or the random one."""
    if name != "digits-random":
        return load_model(ASSETS / f"{name}.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lower_module(build(ARCH), (1, 8, 8), dtype=torch.float64).detach()


def main() -> int:
    """The three networks, continued where the file ends."""
    options = parser(__doc__, "sorted_bounds.csv")
    options.add_argument("--examples", type=int, default=5, help="the first so many that are classified correctly")
    options.add_argument("--seconds", type=float, default=20.0, help="for all LPs or MILPs of an example")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    examples, file = load_data("digits"), RowFile(arguments.out)
    x = examples.x.reshape(len(examples), -1).astype(np.float32)
    costly = dict.fromkeys(("lp", "lp-tight", "milp"), Limit(arguments.examples, arguments.seconds))
    commit = machine().rsplit("commit ", 1)[1]
    for name in ("digits-random", "digits-standard", "digits-dual"):
        net = network(name)
        with torch.no_grad():
            answers = net.forward(torch.as_tensor(x).to(net.dtype)).argmax(1).numpy()
        y = answers if name == "digits-random" else examples.y
        chosen = np.array(correct(net, x, y, arguments.examples))
        case = Case(name, net, x[chosen], y[chosen], chosen, (EPS,), clip=("0", "1"), methods=QUICK, costly=costly)
        for rows in compare(case, file, Options(commit=commit)):
            print(f"{name} {rows[0].example}: {len(rows)} rows", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
