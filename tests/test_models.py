"""The architectures of the papers: sizes, names, and that each lowers to the function that it computes."""

from __future__ import annotations

import pytest
import torch

from lpverify.errors import UsageError
from lpverify.lowering import lower_module
from lpverify.models import ARCHITECTURES, build, input_shape

# ReLUs and parameters, worked out layer by layer: deep-1 is (1*16*8 + 8) + (8*16*16 + 16) + 784*100 + 100 + 1010.
SIZES = {
    "small": (4804, 166_406),
    "small-cifar": (6244, 214_918),
    "large": (48_064, 1_974_762),
    "large-cifar": (62_464, 2_466_858),
    "resnet": (107_496, 4_214_850),
    "har": (500, 284_006),
    "toy2d": (400, 30_802),
    "wide-1": (1304, 52_182),
    "wide-2": (2608, 205_730),
    "deep-1": (2452, 81_710),
    "deep-2": (11_860, 85_902),
    "wide-1-cifar": (1664, 67_670),
    "fc-784-100-10": (100, 79_510),
    "cnn(3x32x32; conv 16 4 2 0; conv 32 4 2 0; fc 100; fc 10)": (4852, 125_318),
    "cnn(7; fc 3; fc 2)": (3, 32),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_lowering(name: str) -> None:
    torch.manual_seed(0)
    module, shape = build(name), input_shape(name)
    network = lower_module(module, shape, dtype=torch.float64)
    relus, parameters = SIZES[name]
    assert sum(network.sizes[i] for i in network.relus) == relus
    assert sum(p.numel() for p in module.parameters()) == parameters
    x = torch.rand(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network.forward(x), module.double()(x), atol=1e-12)
    assert not network.notes


def test_every_named_architecture_is_tested() -> None:
    assert set(ARCHITECTURES) <= set(SIZES)


def test_the_residual_network_has_the_authors_parameter_names() -> None:
    names = [name for name in build("resnet").state_dict() if name.endswith("weight")]
    assert names[:4] == ["0.weight", "2.Ws.0.weight", "4.Ws.0.weight", "4.Ws.2.weight"]
    assert names[-2:] == ["19.weight", "21.weight"]


@pytest.mark.parametrize(
    "name",
    ["", "Small", "wide", "wide-0", "wide--1", "fc-10", "fc-0-3", "cnn()", "cnn(3x32; fc 3)", "cnn(1x5x5)",
     "cnn(1x5x5; conv 3 3 1)", "cnn(1x5x5; pool 2)", "cnn(1x5x5; conv 2 9 1 0)", "cnn(5; conv 2 3 1 0)",
     "cnn(1x5x5; fc 3; conv 2 3 1 0)", "cnn(1x5x5; conv 2 3 0 1; fc 2)", "cnn(1x5x5; fc x)"],
)  # fmt: skip
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^architecture: ") as caught:
        build(name)
    assert "\n" not in str(caught.value)
