"""Bounds without solvers: every method on every shape, norm and dtype keeps the promises of its docstring."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CLASSES, NETWORKS, TINY, Clip, Random, chain, dense, enumerate_minimum, permuted, rescaled, samples
from torch import Tensor

from lpverify.bounds import METHODS, AbstractBoundMethod, AlphaBound, BoundResult, CrownBound, DualBound, IntervalBound
from lpverify.linear import Conv2d, Dense
from lpverify.network import Affine, Input, Network, Node, ReLU
from lpverify.problem import NORMS, Box, Region, Specification, ball

CASES: dict[str, AbstractBoundMethod] = {
    **{name: method() for name, method in METHODS.items() if not method.isolated},
    "alpha": AlphaBound(steps=6),
    "dual-tight": DualBound(tighten=True),
    "alpha-intermediate": AlphaBound(steps=6, intermediate=True),
}
REGIONS: list[tuple[str, Clip]] = list(itertools.product(NORMS, (None, (0.0, 1.0))))
RADII = {"inf": 0.2, "2": 0.4, "1": 0.7}
# Rounding of a bound against one of values near 1 to 10; a wrong term is far larger.
ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-4}


def case(
    name: str, norm: str, clip: Clip, dtype: torch.dtype = torch.float64, eps: float | None = None, batch: int = 3
) -> tuple[Network, Tensor, Region, Specification]:
    """A network, its inputs (B, n_0), their regions and label claims about the predicted classes."""
    network = NETWORKS[name](7).to(dtype)
    x = torch.rand(batch, network.input_size, generator=torch.Generator().manual_seed(3)).to(dtype)
    spec = Specification.label(network.forward(x).argmax(1), CLASSES, dtype)
    return network, x, ball(x, RADII[norm] if eps is None else eps, norm, clip), spec


def layers_of(result: BoundResult) -> list[Tensor]:
    return [t for k in sorted(result.layers) for t in (result.layers[k].lower, -result.layers[k].upper)]


def pre_activations(network: Network, x: Tensor) -> list[Tensor]:
    """The values that the bounds of ``layers_of`` bound from below."""
    values = network.values(x)
    reads = [values[node.input] for node in network.nodes if isinstance(node, ReLU)]
    return [t for z in reads for t in (z, -z)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_point_gives_the_forward_margin(name: str, method: str, dtype: torch.dtype) -> None:
    for norm, clip in REGIONS:
        network, x, region, spec = case(name, norm, clip, dtype, eps=0.0)
        result = CASES[method].bound(network, region, spec)
        torch.testing.assert_close(result.margins, spec.margins(network.forward(x)), atol=ROUNDING[dtype], rtol=1e-5)
        for bound, value in zip(layers_of(result), pre_activations(network, x), strict=True):
            torch.testing.assert_close(bound, value, atol=ROUNDING[dtype], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_sampled_point_is_below_a_bound(name: str, method: str, dtype: torch.dtype) -> None:
    for norm, clip in REGIONS:
        network, x, region, spec = case(name, norm, clip, dtype)
        result = CASES[method].bound(network, region, spec)
        assert result.margins.dtype == dtype and result.margins.shape == spec.d.shape
        points = torch.cat([samples(region, 1000, seed=1), x.unsqueeze(0)])
        flat = points.flatten(0, 1)
        margins = (network.forward(flat).view(*points.shape[:2], -1).unsqueeze(2) * spec.C).sum(3) + spec.d
        slack = ROUNDING[dtype] * (1 + margins.abs().max())
        assert bool((result.margins <= margins.amin(0) + slack).all()), (norm, clip)
        for bound, value in zip(layers_of(result), pre_activations(network, flat), strict=True):
            assert bool((bound <= value.view(len(points), *bound.shape).amin(0) + slack).all()), (norm, clip)


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_equals_its_examples_one_by_one(name: str, method: str) -> None:
    # Adam divides a gradient by its own size, so that a gradient of pure rounding still takes a step: 0.004 was seen.
    tolerance = 0.01 if method.startswith("alpha") else 1e-11
    for norm, clip in REGIONS:
        network, _, region, spec = case(name, norm, clip)
        whole = CASES[method].bound(network, region, spec)
        single = [CASES[method].bound(network, region.select([i]), spec.select([i])) for i in range(len(spec.d))]
        torch.testing.assert_close(whole.margins, torch.cat([s.margins for s in single]), atol=tolerance, rtol=0)
        parts = zip(*(layers_of(s) for s in single), strict=True)
        for bound, one in zip(layers_of(whole), parts, strict=True):
            torch.testing.assert_close(bound, torch.cat(one), atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_the_order_of_neurons_changes_nothing(name: str, method: str) -> None:
    tolerance = 0.01 if method.startswith("alpha") else 1e-11
    for norm, clip in REGIONS:
        network, x, region, spec = case(name, norm, clip)
        other = permuted(network, seed=5)
        torch.testing.assert_close(other.forward(x), network.forward(x))
        one, two = (CASES[method].bound(n, region, spec).margins for n in (network, other))
        torch.testing.assert_close(one, two, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_no_bound_is_above_the_true_minimum(name: str) -> None:
    network, x, _, spec = case(name, "inf", None, batch=2)
    for clip in (None, (0.0, 1.0)):
        region = ball(x, 0.15, "inf", clip)
        results = {method: instance.bound(network, region, spec).margins for method, instance in CASES.items()}
        for i, row in np.ndindex(tuple(spec.d.shape)):
            box = region.lower[i].numpy(), region.upper[i].numpy()
            least, point = enumerate_minimum(network, *box, spec.C[i, row].numpy(), 0.0)
            attained = float(spec.margins(network.forward(torch.as_tensor(point)[None].expand(2, -1)))[i, row])
            assert abs(attained - least) <= 1e-7
            for method, margins in results.items():
                assert float(margins[i, row]) <= attained + 1e-12, method


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NETWORKS)
def test_guaranteed_order_of_the_methods(name: str, dtype: torch.dtype) -> None:
    """Layer bounds only nest where a method takes the better of two; margins only where alpha starts at CROWN's.

    Optimised layers need not nest in CROWN's: below a tightened layer CROWN chooses other slopes, as the checker does.
    """
    slack = ROUNDING[dtype]
    for norm, clip in REGIONS:
        network, _, region, spec = case(name, norm, clip, dtype)
        results = {method: instance.bound(network, region, spec) for method, instance in CASES.items()}
        assert bool((results["alpha"].margins >= results["crown"].margins - slack).all())
        looser = {"dual-tight": "interval", "crown": "interval", "alpha": "crown", "alpha-intermediate": "interval"}
        for tight, loose in looser.items():
            for below, above in zip(layers_of(results[loose]), layers_of(results[tight]), strict=True):
                assert bool((below <= above + slack).all()), (loose, tight)


@pytest.mark.parametrize("name", NETWORKS)
def test_interval_bounds_never_loosen_on_a_smaller_box(name: str) -> None:
    network, x, _, spec = case(name, "inf", None)
    radii = (0.4, 0.2, 0.1, 0.01, 0.0)
    margins = [IntervalBound().bound(network, ball(x, eps), spec).margins for eps in radii]
    for wide, narrow in itertools.pairwise(margins):
        assert bool((narrow >= wide - 1e-12).all())


def one_relu() -> Network:
    """m = relu(x) - 0.7 x."""
    maps = (Dense(torch.tensor([[1.0]], dtype=torch.float64)), Dense(torch.tensor([[-0.7]], dtype=torch.float64)))
    return Network((Input((1,)), ReLU(0), Affine((1, 0), maps, torch.zeros(1, dtype=torch.float64), (1,))))


@pytest.mark.parametrize(
    ("method", "high", "expected"),
    [
        # relu(x) >= a x. Dual has a = u / (u - l), 3/4 on [-1, 3]: 0.05 x >= -0.05; 1/2 on [-1, 1]: -0.2 x >= -0.2.
        ("dual", 3.0, -0.05),
        ("dual", 1.0, -0.2),
        # CROWN has a = 1 where u >= -l: 0.3 x >= -0.3 on both.
        ("crown", 3.0, -0.3),
        ("crown", 1.0, -0.3),
        # The best a is 0.7: the minimum itself, 0 at x = 0.
        ("alpha", 3.0, 0.0),
        ("alpha", 1.0, 0.0),
        # Interval arithmetic: relu(x) >= 0 and -0.7 x >= -0.7 u.
        ("interval", 3.0, -2.1),
        ("interval", 1.0, -0.7),
    ],
)
def test_one_relu_by_hand(method: str, high: float, expected: float) -> None:
    box = Box(torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64))
    spec = Specification(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    bound = (AlphaBound(steps=100) if method == "alpha" else CASES[method]).bound(one_relu(), box, spec)
    assert float(bound.margins) == pytest.approx(expected, abs=1e-4 if method == "alpha" else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", [m for m in CASES if m != "alpha-intermediate"])
@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_a_layer_pair_rescaled_by_powers_of_two_has_identical_margins(
    name: str, method: str, dtype: torch.dtype
) -> None:
    for norm in NORMS:
        network, _, region, spec = case(name, norm, None, dtype)
        expected = CASES[method].bound(network, region, spec).margins
        for layer in range(len(network.relus)):
            every = norm == "inf" and method != "alpha"
            for k in range(-44, 45) if every else (-44, -17, 13, 44):
                margins = CASES[method].bound(rescaled(network, layer, k), region, spec).margins
                assert torch.equal(margins, expected), (norm, layer, k)


@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_optimised_layer_bounds_survive_a_rescaled_layer_pair(name: str) -> None:
    network, _, region, spec = case(name, "inf", None)
    expected = CASES["alpha-intermediate"].bound(network, region, spec).margins
    for layer, k in itertools.product(range(len(network.relus)), (-44, -20, 20, 44)):
        margins = CASES["alpha-intermediate"].bound(rescaled(network, layer, k), region, spec).margins
        torch.testing.assert_close(margins, expected, atol=1e-4, rtol=0)


def small_dense() -> Network:
    return dense(2, 3, 4, 3, 2)


def small_conv() -> Network:
    r = Random(2)
    first = r.conv((1, 4, 4), 2, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    return chain(r, (1, 4, 4), first, r.conv(first.out_shape, 2, (2, 2)), r.dense(2, 2))


def small_residual() -> Network:
    r = Random(1)
    return Network((
        Input((3,)), r.affine((0,), r.dense(3, 3)), ReLU(1), r.affine((2, 0), r.dense(3, 3), r.dense(3, 3)), ReLU(3),
        r.affine((4, 2), r.dense(3, 2), r.dense(3, 2)),
    ))  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", [m for m, instance in CASES.items() if instance.differentiable])
@pytest.mark.parametrize("build", [small_dense, small_conv, small_residual])
def test_gradients_of_the_margins_are_their_finite_differences(
    build: Callable[[], Network], method: str, norm: str
) -> None:
    network = build().to(torch.float64)
    x = torch.rand(2, network.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = Specification.label(torch.tensor([0, 1]), 2)
    parameters: list[Tensor] = []
    network.map_tensors(lambda t: parameters.append(t.clone().requires_grad_()) or t)

    def margins(*values: Tensor) -> Tensor:
        given = iter(values)
        return CASES[method].bound(network.map_tensors(lambda _: next(given)), ball(x, 0.15, norm), spec).margins

    assert margins(*parameters).requires_grad
    assert torch.autograd.gradcheck(margins, parameters, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_gradients_reach_the_live_parameters_of_a_network() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 1.0]]))
    last = torch.nn.Parameter(torch.tensor([[1.0, -1.0]]))
    nodes = (Input((2,)), Affine((0,), (Dense(weight),), torch.zeros(2), (2,)), ReLU(1),
             Affine((2,), (Dense(last),), torch.zeros(1), (1,)))  # fmt: skip
    spec = Specification(torch.ones(1, 1, 1), torch.zeros(1, 1))
    CrownBound().bound(Network(nodes), ball(torch.ones(1, 2), 0.5), spec).margins.sum().backward()
    assert weight.grad is not None and last.grad is not None
    assert float(weight.grad.abs().sum()) > 0 and float(last.grad.abs().sum()) > 0


weights = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 2.0**-30, 2.0**30]), st.floats(-4, 4, width=32))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Network, Tensor, float, str]:
    """A chain of dense or convolutional layers with drawn weights, an input and a radius."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    nodes: list[Node] = []
    if draw(st.booleans()):
        channels, height, width = draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
        pad = draw(st.tuples(*[st.integers(0, 2)] * 4))
        kernel = draw(st.integers(1, height + pad[0] + pad[2])), draw(st.integers(1, width + pad[1] + pad[3]))
        stride, out = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), draw(st.integers(1, 2))
        count = out * channels * kernel[0] * kernel[1]
        values = draw(st.lists(weights, min_size=count, max_size=count))
        linear = Conv2d(torch.tensor(values).view(out, channels, *kernel), (channels, height, width), stride, pad)
        nodes = [Input(linear.in_shape), Affine((0,), (linear,), torch.zeros(linear.out_size), linear.out_shape)]
        sizes[0] = linear.out_size
    else:
        nodes = [Input((sizes[0],))]
    for a, b in itertools.pairwise(sizes):
        if len(nodes) > 1:
            nodes.append(ReLU(len(nodes) - 1))
        matrix = torch.tensor(draw(st.lists(weights, min_size=a * b, max_size=a * b))).view(b, a)
        bias = torch.tensor(draw(st.lists(weights, min_size=b, max_size=b)))
        nodes.append(Affine((len(nodes) - 1,), (Dense(matrix),), bias, (b,)))
    network = Network(tuple(nodes)).to(torch.float64)
    x = torch.tensor([draw(st.lists(st.floats(-2, 2), min_size=network.input_size, max_size=network.input_size))])
    eps = draw(st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.sampled_from([1e3, 1e-300])))
    return network, x.double(), eps, draw(st.sampled_from(NORMS))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(problems())
def test_any_shape_weight_and_radius(problem: tuple[Network, Tensor, float, str]) -> None:
    network, x, eps, norm = problem
    region = ball(x, eps, norm)
    m = network.output_size
    spec = Specification(torch.eye(m, dtype=torch.float64)[None], torch.zeros(1, m, dtype=torch.float64))
    points = torch.cat([samples(region, 200, seed=0)[:, 0], x])
    values, size = network.forward(points), float(network.map_tensors(torch.abs).forward(x.abs() + eps).max())
    for name, method in CASES.items():
        if name == "alpha-intermediate":
            method = AlphaBound(steps=2, intermediate=True)
        result = method.bound(network, region, spec)
        assert bool(result.margins.isfinite().all())
        assert bool((result.margins[0] <= values.amin(0) + 1e-12 * (1 + size)).all()), name
        for layer in result.layers.values():
            assert bool((layer.lower <= layer.upper + 1e-12 * (1 + size)).all()), name
