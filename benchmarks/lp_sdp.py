"""Networks trained on the LP's dual and on an SDP bound, each judged by both and by more (thesis, table 3.2).

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/lp_sdp.py

The source takes MNIST and 500 hidden units; here the bundled digits, averaged over 2 x 2 pixels to 16 inputs, and one
hidden layer of 24 units, which the local SDP of ``bounds/sdp.py`` can still solve. Balls are not clipped.

``lp-nn`` is trained by ``lpverify train`` on the dual bound, ``sdp-nn`` on the bound of Raghunathan, Steinhardt & Liang
2018 (arXiv 1801.09344, section 3), which is one number for a pair of classes and holds for all inputs. A margin falls
by at most eps times the greatest sum of (1 + t)_i / 2 v_i W_ij s_j over signs t, s, with v the row e_y - e_j times the
last layer and W the first; that is (1, s, t)^T M (1, s, t) / 4. For any c, with D = 1 + inputs + hidden,

    margin(x') >= margin(x) - eps / 4 (D max(0, greatest eigenvalue of M - diag c) + sum of max(0, c)),

both under the cross-entropy of the bounded margins; ``standard`` without any bound.

A line of ``lp_sdp.csv`` is one network and bound: ``error``, the share of test digits without a certificate, and
``mean_margin``, of each digit's class row with the least LP bound. Bounds: clean and attack (PGD), which are upper
bounds, exact (MILP), sdp (local), lp, dual, and "global sdp", the one above with c optimised for the network as it is.
The local SDP is solved for that row, and for others where it alone would leave the digit open. A bound above the exact
margin or the attack's stops the run.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import HERE, Table, machine
from torch import Tensor, nn

from lpverify.attack import attack
from lpverify.bounds import DualBound, LPBound, MILPBound, SDPBound
from lpverify.data import load_data
from lpverify.errors import SoundnessError
from lpverify.lowering import load_model
from lpverify.lowering.module import lower_module
from lpverify.network import Network
from lpverify.problem import Specification, ball
from lpverify.training.checkpoint import LAST
from lpverify.training.config import from_dict
from lpverify.training.loop import train

INPUTS, CLASSES = 16, 10
COLUMNS = (
    "network", "bound", "eps", "images", "error", "mean_margin", "unstable", "cpu_s", "hidden", "seed", "machine",
)  # fmt: skip
UPPER = ("clean", "attack", "exact")
# What a MILP's optimum and the SDP's solver may be off by.
TOLERANCE = 1e-3
NETWORKS = ("standard", "lp-nn", "sdp-nn")


def digits(split: str) -> tuple[Tensor, Tensor]:
    """The digits at half their resolution: x (N, 16) in [0, 1], and labels."""
    examples = load_data("digits", split=split)
    assert examples.y is not None
    images = torch.as_tensor(examples.x).float().reshape(-1, 1, 8, 8)
    return nn.functional.avg_pool2d(images, 2).flatten(1), torch.as_tensor(examples.y)


def architecture(hidden: int) -> str:
    """Of all three networks."""
    return f"fc-{INPUTS}-{hidden}-{CLASSES}"


def by_library(method: str, arguments: argparse.Namespace) -> Network:
    """Trained by ``lpverify train`` with the dual bound or without a bound."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "digits16.npz"
        x, y = digits("train")
        np.savez(data, x=x.numpy(), y=y.numpy())
        given = {
            "data": str(data), "method": method, "epochs": arguments.epochs, "eps": arguments.eps, "batch": 50,
            "arch": architecture(arguments.hidden), "lr": 0.005, "lr_schedule": "cosine", "seed": arguments.seed,
            "device": "cpu", "threads": 1, "eval_every": arguments.epochs,
        }  # fmt: skip
        if method == "dual":
            given |= {"eps_schedule": "linear", "eps_start": 0.001, "eps_ramp": arguments.epochs // 2}
        train(from_dict(given), Path(folder) / "run")
        return load_model(Path(folder) / "run" / LAST)


class GlobalSDP:
    """The bound of the module's docstring: how much any pair's margin falls at most, per unit of eps."""

    def __init__(self, hidden: int) -> None:
        self.first, self.second = torch.triu_indices(CLASSES, CLASSES, 1)
        self.size = 1 + INPUTS + hidden
        self.c = torch.zeros(len(self.first), self.size, requires_grad=True)

    def matrices(self, W: Tensor, V: Tensor) -> Tensor:
        """M of each pair first < second: (45, D, D)."""
        v = V[self.first] - V[self.second]
        M = W.new_zeros(len(v), self.size, self.size)
        block = v.unsqueeze(2) * W
        M[:, 1 + INPUTS :, 1 : 1 + INPUTS] = block
        M[:, 1 : 1 + INPUTS, 0] = block.sum(1)
        return M + M.mT

    def __call__(self, W: Tensor, V: Tensor) -> Tensor:
        """(10, 10), symmetric, zero on the diagonal; W (h, 16), V (10, h)."""
        M = self.matrices(W, V)
        top = torch.linalg.eigvalsh(M - torch.diag_embed(self.c))[:, -1]
        falls = (self.size * top.clamp(min=0) + self.c.clamp(min=0).sum(1)) / 4
        table = W.new_zeros(CLASSES, CLASSES)
        table = table.index_put((self.first, self.second), falls)
        return table + table.T


def by_sdp(arguments: argparse.Namespace) -> Network:
    """Trained on the global SDP bound: Adam on weights and c, the radius growing over the first half."""
    torch.manual_seed(arguments.seed)
    W, V = nn.Linear(INPUTS, arguments.hidden), nn.Linear(arguments.hidden, CLASSES)
    module, bound = nn.Sequential(W, nn.ReLU(), V), GlobalSDP(arguments.hidden)
    x, y = digits("train")
    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch.optim.Adam([*module.parameters(), bound.c], lr=0.005)
    steps = arguments.sdp_steps
    for step in range(steps):
        chosen = torch.randint(len(x), (200,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.0025 * (1 + math.cos(math.pi * step / steps))
        eps = arguments.eps * min(1.0, 2 * step / steps)
        logits = module(x[chosen])
        # Each other class gains what its margin can lose.
        loss = nn.functional.cross_entropy(logits + eps * bound(W.weight, V.weight)[y[chosen]], y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lower_module(module, (INPUTS,), dtype=torch.float64).detach()


def global_sdp(network: Network, hidden: int, steps: int = 300) -> Tensor:
    """The table (10, 10) of falls per unit of eps for the network as it is."""
    V, W = (torch.as_tensor(network.matrices(len(network.nodes) - k)[0].toarray()) for k in (1, 3))
    bound = GlobalSDP(hidden)
    bound.c = bound.c.detach().double().requires_grad_(True)
    best = torch.full((CLASSES, CLASSES), math.inf, dtype=torch.float64)
    optimizer = torch.optim.Adam([bound.c], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        falls = bound(W, V)
        best = torch.minimum(best, falls.detach())
        optimizer.zero_grad()
        falls.sum().backward()
        optimizer.step()
    return best


def judge(network: Network, name: str, table: Table, arguments: argparse.Namespace) -> None:
    """A line for every bound."""
    x, y = digits("test")
    x, y = x[: arguments.images].double(), y[: arguments.images]
    region, spec = ball(x, arguments.eps), Specification.label(y, CLASSES)
    with torch.no_grad():
        clean, lp = spec.margins(network.forward(x)), LPBound().bound(network, region, spec).margins
    picked = torch.arange(len(y)), lp.argmin(1)
    row = Specification(spec.C[picked].unsqueeze(1), spec.d[picked].unsqueeze(1))

    def attacked() -> tuple[Tensor, Tensor]:
        every, one = (attack(network, region, s, steps=100, restarts=5, early_stop=False).margins for s in (spec, row))
        return every.unsqueeze(1), one

    def global_bound() -> tuple[Tensor, Tensor]:
        falls = global_sdp(network, arguments.hidden)[y]
        others = torch.arange(CLASSES).expand(len(y), -1)
        others = others[others != y.unsqueeze(1)].reshape(len(y), -1)
        return both(clean - arguments.eps * falls.gather(1, others))

    def local_sdp() -> tuple[Tensor, Tensor]:
        one = SDPBound().bound(network, region, row).margins[:, 0]
        # The other rows decide only where this one is proved.
        open_ = ((one > 0) & (lp <= 0).any(1)).nonzero().flatten()
        every = torch.where((one > 0).unsqueeze(1), lp, one.unsqueeze(1))
        if len(open_):
            every[open_] = SDPBound(stop_at_zero=True).bound(network, region.select(open_), spec.select(open_)).margins
        return every, one

    def exact() -> tuple[Tensor, Tensor]:
        every = MILPBound(stop_at_zero=True).bound(network, region, spec).margins
        return every, MILPBound(value=True).bound(network, region, row).margins[:, 0]

    def both(margins: Tensor) -> tuple[Tensor, Tensor]:
        return margins, margins[picked]

    bounds = {
        "clean": lambda: both(clean), "attack": attacked, "exact": exact, "sdp": local_sdp, "lp": lambda: both(lp),
        "dual": lambda: both(DualBound().bound(network, region, spec).margins), "global sdp": global_bound,
    }  # fmt: skip
    least = torch.full((len(y),), math.inf, dtype=torch.float64)
    unstable = DualBound().bound(network, region, spec).stats["unstable"]
    for bound, run in bounds.items():
        began = time.process_time()
        every, one = (part.detach() for part in run())
        seconds = time.process_time() - began
        if bound in UPPER:
            least = torch.minimum(least, one)
        elif bool((one > least + TOLERANCE).any()):
            raise SoundnessError(f"{name}: {bound} is above a margin that was met, by {float((one - least).max()):.1e}")
        table.add(
            network=name, bound=bound, eps=arguments.eps, images=len(y),
            error=float((~(every > 0)).any(1).double().mean()), mean_margin=float(one.mean()), unstable=unstable,
            cpu_s=seconds, hidden=arguments.hidden, seed=arguments.seed, machine=machine(),
        )  # fmt: skip
        print({k: v for k, v in table.lines[-1].items() if k != "machine"}, flush=True)


def main() -> None:
    """Train, judge, write; lines that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lp_sdp.csv", help="continued")
    parser.add_argument("--eps", type=float, default=0.05)
    parser.add_argument("--images", type=int, default=100, help="first test digits")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--sdp-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(arguments.out, COLUMNS, 2)
    for name in NETWORKS:
        if table.has(name):
            continue
        kinds = {"standard": "standard", "lp-nn": "dual"}
        network = by_library(kinds[name], arguments) if name in kinds else by_sdp(arguments)
        judge(network, name, table, arguments)


if __name__ == "__main__":
    main()
