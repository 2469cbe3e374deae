"""The initialisation and the regularisers of Shi et al. 2021."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lpverify import models
from lpverify.bounds.root import root_bounds
from lpverify.lowering.module import trace
from lpverify.problem import Box, LayerBounds, ball
from lpverify.training.initial import initialise
from lpverify.training.regularisers import balance, regulariser, tightness


def fresh(arch: str, init: str, seed: int = 0) -> nn.Module:
    module = models.build(arch)
    initialise(module, init, torch.Generator().manual_seed(seed))
    return module


def test_deviation_is_that_of_the_paper() -> None:
    module = fresh("small", "ibp")
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers[:-1]:
        fan_in = layer.weight[0].numel()
        # The deviation of n samples is off by about 1 / sqrt(2 n) of itself.
        allowed = 5 / math.sqrt(2 * layer.weight.numel())
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=allowed)


def test_what_is_left_alone() -> None:
    torch.manual_seed(3)
    module = models.build("fc-6-5-4-3")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    initialise(module, "default", torch.Generator().manual_seed(0))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    initialise(module, "ibp", torch.Generator().manual_seed(0))
    changed = {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"1.weight", "3.weight"}


def test_seed_decides() -> None:
    one, same, other = (fresh("small", "ibp", seed).state_dict()["0.weight"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def radii(module: nn.Module, shape: tuple[int, ...]) -> list[float]:
    region = ball(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)), 0.1)
    layers = root_bounds(trace(module, shape).network(), region, "interval").layers
    return [float((layer.upper - layer.lower).mean() / 2 / 0.1) for layer in layers.values()]


@pytest.mark.parametrize(("arch", "shape"), [("fc-400-400-400-400-400-10", (400,)), ("resnet", (3, 32, 32))])
def test_interval_bounds_keep_their_width(arch: str, shape: tuple[int, ...]) -> None:
    """A first layer doubles the radius (no ReLU before it); then it stays. The usual weights let it grow tenfold."""
    torch.manual_seed(0)
    assert all(0.5 < r < 4 for r in radii(fresh(arch, "ibp"), shape))
    assert radii(models.build(arch), shape)[-1] > 50


def layer(lower: list[float], upper: list[float]) -> LayerBounds:
    return LayerBounds(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))


def test_tightness_by_hand() -> None:
    region = Box(torch.zeros(1, 2), torch.ones(1, 2))
    wide, narrow = layer([0, 0], [8, 0]), layer([0, 0], [2, 1])
    # Mean widths 4 and 1.5: ratios 1/4 and 2/3, against a tolerance of 1/2.
    assert float(tightness({1: wide}, region)) == 0.5
    assert float(tightness({1: narrow}, region)) == 0
    assert float(tightness({1: wide, 3: narrow}, region)) == 0.25


def test_balance_by_hand() -> None:
    even = layer([1, -3, -1], [3, -1, 1])
    assert float(balance({1: even})) == 0
    # Centers 8 and -2, -0 left out: sums 8 and 2, ratio 1/4. Squares about the mean 2: 36, 16 -> 16/36.
    uneven = layer([7, -3, -1], [9, -1, 1])
    expected = (0.5 - 0.25) / 0.5 + (0.5 - 16 / 36) / 0.5
    assert float(balance({1: uneven})) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bounds", [([1.0, 2.0], [2.0, 3.0]), ([-2.0, -3.0], [-1.0, -1.0]), ([-1.0, -1.0], [1.0, 1.0])])
def test_balance_of_one_state_has_finite_gradients(bounds: tuple[list[float], list[float]]) -> None:
    one = layer(*bounds)
    tensors = [t.requires_grad_() for t in (one.lower, one.upper)]
    value = balance({1: LayerBounds(*tensors)})
    assert float(value.detach()) == 2
    gradients: tuple[Tensor, ...] = torch.autograd.grad(value, tensors)
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_regularisers_fade_out() -> None:
    region, layers = Box(torch.zeros(1, 2), torch.ones(1, 2)), {1: layer([0, 0], [8, 0])}
    full = float(tightness(layers, region) + balance(layers))
    assert float(regulariser(0.5, 0.0, layers, region)) == pytest.approx(0.5 * full)  # type: ignore[arg-type]
    assert float(regulariser(0.5, 0.75, layers, region)) == pytest.approx(0.125 * full)  # type: ignore[arg-type]
    assert regulariser(0.5, 1.0, layers, region) is None
    assert regulariser(0.0, 0.0, layers, region) is None
