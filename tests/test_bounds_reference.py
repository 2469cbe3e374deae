"""Golden references: margins of three published networks on 100 MNIST images by the codes of other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import dense_network, mnist_conv_network, state_tensors

from lpverify.bounds import METHODS
from lpverify.data import load_data
from lpverify.network import Network
from lpverify.problem import Specification, ball

pytestmark = pytest.mark.shared

# Reference file, network file and radius. The references were computed in float32 throughout.
CASES = {
    "mnist_paper_conv": ("torch/convex_adversarial/mnist.pth", 0.1),
    "wk17a": ("torch/mipverify/WK17a_linf0.1.pth", 0.1),
    "mnist_6x100": ("torch/eran/mnist_6_100_nat.pth", 0.015),
}
COLUMNS = [
    ("dual_unclipped", "dual", None),
    ("dual_clipped", "dual", (0.0, 1.0)),
    ("crown_clipped", "crown", (0.0, 1.0)),
    ("interval_clipped", "interval", (0.0, 1.0)),
]


def load(path: Path) -> Network:
    if "6_100" in path.name:
        tensors = state_tensors(path)
        return dense_network(*zip(tensors[::2], tensors[1::2], strict=True))
    return mnist_conv_network(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_margins_equal_those_of_other_implementations(shared_data: Path, name: str, dtype: torch.dtype) -> None:
    file, eps = CASES[name]
    network = load(shared_data / file).to(dtype)
    reference = np.load(shared_data / "reference" / f"{name}.npz")
    data = load_data("mnist", data_dir=shared_data / "datasets" / "mnist")
    count = 100 if dtype == torch.float32 else 25
    x = torch.from_numpy(data.x[:count]).flatten(1).to(dtype)
    assert np.array_equal(reference["label"], data.y[:100])
    spec = Specification.label(torch.from_numpy(data.y[:count]), 10, dtype)
    np.testing.assert_allclose(network.forward(x).numpy(), reference["logits"][:count], rtol=1e-5, atol=1e-4)
    for column, method, clip in COLUMNS:
        with torch.no_grad():
            margins = METHODS[method]().bound(network, ball(x, eps, clip=clip), spec).margins.double().numpy()
        expected = reference[column][:count].astype(np.float64)
        # A float32 sum of n terms strays by about sqrt(n) * 2^-24 of their size; margins cancel terms about ten
        # times larger, n is about 1000: 2e-5 of the margin's own size, and of 10 where it is small.
        rounding = 2e-5 * np.maximum(np.abs(expected), 10.0)
        assert bool((margins >= expected - rounding).all()), column
        if method != "crown":
            assert bool((margins <= expected + rounding).all()), column
