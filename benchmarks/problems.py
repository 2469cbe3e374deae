"""The named problems of ``compare.py``: networks, the radii, and how much of each a costly method is given.

Random networks of two inputs, made from a seed here with weights as torch draws them (``random-4x100`` has the sizes
and radii of Wong & Kolter 2018, figure 6; ``random-1x50`` has one hidden layer, for the semidefinite relaxation); the
shipped networks of the two-dimensional problem and of the digits; and MNIST networks by their authors, which need
``--data``. Images stay inside [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from common import correct, images, load
from numpy.typing import NDArray
from torch import nn

from lpverify.comparison.case import QUICK, Case, Limit
from lpverify.data import load_data
from lpverify.lowering import load_model, lower_module
from lpverify.network import Network

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
UNIT = ("0", "1")
IMAGES = 7

# A network with inputs x (N, n_0) and labels y (N,), from the folder of shared data.
Loaded = tuple[Network, NDArray[np.float32], NDArray[np.int64]]
Loader = Callable[[Path], Loaded]


@dataclass(frozen=True)
class Problem:
    """One problem of the table.

    Attributes:
        load: the network and the data.
        radii, clip: of the balls.
        examples: the first so many that the network classifies correctly.
            Seven of the images: their ten classes make the file large.
        costly: see ``Case``.
        shared: it needs the folder of shared data.
    """

    load: Loader
    radii: tuple[str, ...]
    clip: tuple[str, str] | None = None
    examples: int = 10
    costly: Mapping[str, Limit] = field(default_factory=dict)
    shared: bool = False

    def case(self, name: str, data: Path, *, quick: bool) -> Case:
        """The problem as it is measured; ``quick`` takes one radius, two examples, and one of costly methods."""
        network, x, y = self.load(data)
        chosen = np.array(correct(network, x, y, 2 if quick else self.examples), dtype=np.int64)
        radii = self.radii[len(self.radii) // 2 :][:1] if quick else self.radii
        costly = {m: Limit(1, min(2.0, limit.seconds)) for m, limit in self.costly.items()} if quick else self.costly
        return Case(name, network, x[chosen], y[chosen], chosen, radii, "inf", self.clip, QUICK, costly)


def random_net(seed: int, *sizes: int) -> Loader:
    """A fully connected network as torch initialises it, with points of [0, 1]^n labelled by the network itself."""

    def loaded(data: Path) -> Loaded:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Linear(n, m) for n, m in pairwise(sizes)]
            x = torch.rand(50, sizes[0])
        module = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
        network = lower_module(module, (sizes[0],), dtype=torch.float64).detach()
        y = network.forward(x.double()).argmax(1)
        return network, x.numpy(), y.numpy()

    return loaded


def shipped(file: str, name: str) -> Loader:
    """A network of lpverify/assets with the test part of its data set."""

    def loaded(data: Path) -> Loaded:
        examples = load_data(name)
        assert examples.y is not None
        return load_model(ASSETS / f"{file}.safetensors"), _flat(examples.x), examples.y

    return loaded


def shared(file: str) -> Loader:
    """A network of torch_networks.csv with the MNIST test images."""

    def loaded(data: Path) -> Loaded:
        network = load(data, file)
        return network, *images(data, network)

    return loaded


def _flat(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.reshape(len(x), -1).astype(np.float32)


def solvers(examples: int, lp: float, tight: float, milp: float, sdp: float = 0.0) -> dict[str, Limit]:
    """The solver-backed methods on the first examples, with seconds for each example; 0 leaves one out."""
    seconds = {"lp": lp, "lp-tight": tight, "milp": milp, "sdp": sdp}
    return {method: Limit(examples, limit) for method, limit in seconds.items() if limit}


FEW = solvers(3, 30.0, 60.0, 20.0)
LARGE = solvers(2, 45.0, 60.0, 20.0)
DIGITS_RADII = ("0.02", "0.05", "0.1")
PLANE = ("0.05", "0.1", "0.25")

PROBLEMS: dict[str, Problem] = {
    "random-4x100": Problem(random_net(0, 2, 100, 100, 100, 100, 2), PLANE, costly=solvers(5, 30.0, 60.0, 30.0)),
    "random-1x50": Problem(random_net(1, 2, 50, 5), ("0.1", "0.25", "0.5"), costly=solvers(3, 30.0, 30.0, 30.0, 60.0)),
    "toy2d-standard": Problem(shipped("toy2d-standard", "toy2d"), ("0.04", "0.08", "0.16"), costly=FEW),
    "toy2d-dual": Problem(shipped("toy2d-dual", "toy2d"), ("0.04", "0.08", "0.16"), costly=FEW),
    **{
        f"digits-{kind}": Problem(shipped(f"digits-{kind}", "digits"), DIGITS_RADII, UNIT, IMAGES, costly=FEW)
        for kind in ("standard", "pgd", "dual", "ibp")
    },
    "mnist-2x100-standard": Problem(
        shared("torch/salman/experiment_1/NOR_MLP_B.pth"), ("0.01", "0.03"), UNIT, IMAGES, costly=FEW, shared=True
    ),
    "mnist-2x100-pgd": Problem(
        shared("torch/salman/experiment_1/ADV_MLP_B_0.05.pth"), ("0.03", "0.05"), UNIT, IMAGES, costly=FEW, shared=True
    ),
    "mnist-2x100-dual": Problem(
        shared("torch/salman/experiment_1/LPD_MLP_B_0.1.pth"), ("0.05", "0.1"), UNIT, IMAGES, costly=FEW, shared=True
    ),
    "mnist-6x100-standard": Problem(
        shared("torch/eran/mnist_6_100_nat.pth"), ("0.015", "0.005"), UNIT, IMAGES, costly=LARGE, shared=True
    ),
    "mnist-conv-dual": Problem(
        shared("torch/convex_adversarial/mnist.pth"), ("0.1", "0.05"), UNIT, IMAGES, costly=LARGE, shared=True
    ),
    "mnist-wk17a": Problem(
        shared("torch/mipverify/WK17a_linf0.1.pth"), ("0.1", "0.05"), UNIT, IMAGES, costly=LARGE, shared=True
    ),
}  # fmt: skip
