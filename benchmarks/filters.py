"""The filters of the first layer of convolutional networks, as one npz.

    PYTHONPATH=. python benchmarks/filters.py --data ../shared/data

Arrays (filters, height, width), float32, by the network's name: the shipped digits networks, and the authors' robust
MNIST network (``torch/convex_adversarial/mnist.pth``) where the folder of shared data has it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import load, parser
from numpy.typing import NDArray

from lpverify.linear import Conv2d
from lpverify.lowering import load_model
from lpverify.network import Affine, Network, as_numpy

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
SHIPPED = ("digits-standard", "digits-pgd", "digits-dual", "digits-ibp")
AUTHORS = "torch/convex_adversarial/mnist.pth"


def first_filters(network: Network) -> NDArray[np.float32]:
    """The weights of the first convolution, of one input channel: (filters, height, width)."""
    maps = (m for node in network.nodes if isinstance(node, Affine) for m in node.maps if isinstance(m, Conv2d))
    weight = as_numpy(next(maps).weight.detach())
    return weight[:, 0].astype(np.float32)


def main() -> int:
    """All networks into one file."""
    arguments = parser(__doc__, "filters.npz").parse_args()
    found = {name: first_filters(load_model(ASSETS / f"{name}.safetensors")) for name in SHIPPED}
    if (arguments.data / AUTHORS).is_file():
        found["mnist-conv-dual"] = first_filters(load(arguments.data, AUTHORS))
    else:
        print(f"{arguments.data / AUTHORS}: not there, left out", file=sys.stderr)
    np.savez_compressed(arguments.out, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
