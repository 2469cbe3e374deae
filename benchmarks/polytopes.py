"""The outputs that balls reach, exactly, and the polygons of bound methods around them: polytopes.npz.

    PYTHONPATH=. python benchmarks/polytopes.py --out benchmarks/results

Random 2-100-100-100-100-2 networks, as Wong & Kolter 2018 draws them in figure 6, at eps 0.05, 0.1 and 0.25 about
(0.5, 0.5): weights and biases as torch initialises them, and weights of standard normal numbers with torch's biases
("N(0, 1) weight initialization" in that figure's caption). Then the networks of the same sizes that were trained on the
2-D problem, normally and robustly at eps 0.08 (figure 7), about an example. Their two outputs are nearly opposite
numbers, so their difference and their sum are kept in place of the outputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from lpverify.bounds import METHODS
from lpverify.data import load_data
from lpverify.files import write_npz
from lpverify.geometry.arrays import Arrays
from lpverify.geometry.polygon import Array
from lpverify.geometry.polytope import Polytope, polytope
from lpverify.lowering import load_model, lower_module
from lpverify.models import toy2d
from lpverify.network import Network
from lpverify.problem import Box

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
RADII = ("0.05", "0.1", "0.25")
NAMES = ("interval", "dual", "crown", "alpha", "lp")
SEED = 0
EXAMPLE = 4
OUTPUTS, DIFFERENCE = np.eye(2), np.array([[1.0, -1.0], [1.0, 1.0]])


def random_network(normal: bool) -> Network:
    """A network as torch draws it, or with standard normal weights."""
    torch.manual_seed(SEED)
    module = toy2d()
    if normal:
        for parameter in module.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter)
    return lower_module(module, (2,))


def measure(network: Network, x: torch.Tensor, rows: Array, eps: str) -> Polytope:
    """Everything about one ball, in float64."""
    methods = {name: METHODS[name]() for name in NAMES}
    return polytope(network.detach().to(torch.float64), Box.linf(x.double(), float(eps)), rows, methods)


def main() -> None:
    """Measure all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for polytopes.npz")
    out = parser.parse_args().out
    middle = torch.full((1, 2), 0.5)
    example = torch.as_tensor(load_data("toy2d").x[EXAMPLE : EXAMPLE + 1])
    cases = {
        "random-default": (random_network(False), middle, OUTPUTS),
        "random-normal": (random_network(True), middle, OUTPUTS),
        "trained-standard": (load_model(ASSETS / "toy2d-standard.safetensors"), example, DIFFERENCE),
        "trained-dual": (load_model(ASSETS / "toy2d-dual.safetensors"), example, DIFFERENCE),
    }
    arrays: Arrays = {}
    for name, (network, x, rows) in cases.items():
        for eps in RADII:
            data = measure(network, x, rows, eps)
            arrays |= {f"{name}/{eps}/{key}": value for key, value in data.arrays().items()}
            areas = ", ".join(f"{method} {data.looseness(method):.4g}" for method in NAMES)
            print(f"{name} eps {eps}: {data.regions} regions, area {data.area:.4g}, areas over it: {areas}", flush=True)
    write_npz(out / "polytopes.npz", arrays)


if __name__ == "__main__":
    main()
