"""Random projections of the dual network: convergence, the estimators' distributions, what is exact, memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import NETWORKS, samples
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training.batches import live, make_batch

from lpverify.bounds import METHODS, DualBound
from lpverify.bounds.relaxation import dual_range
from lpverify.bounds.root import interval_step, root_bounds
from lpverify.errors import UsageError
from lpverify.linear import Conv2d, Dense, Diagonal
from lpverify.network import Affine, Input, Network, Node, ReLU
from lpverify.problem import LayerBounds, Region, Specification, ball
from lpverify.training import projection
from lpverify.training.estimators import (
    ESTIMATORS,
    geometric_estimate,
    geometric_factor,
    log_mean_tail,
    median_estimate,
    median_factor,
    normal_estimate,
    normal_factor,
)
from lpverify.training.methods import Batch
from lpverify.training.projection import (
    count_norms,
    enough_projections,
    estimated_layers,
    probable_margins,
    projected_margins,
)

NORMS = ("inf", "2")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cauchy(*shape: int, seed: int = 0) -> Tensor:
    angle = torch.rand(*shape, generator=seeded(seed), dtype=torch.float64) - 0.5
    return torch.tan(math.pi * angle)


def distance(layers: dict[int, LayerBounds], exact: dict[int, LayerBounds]) -> float:
    """The greatest distance of two sets of bounds, as a share of the widest range of its layer."""
    shares = []
    for index, layer in exact.items():
        width = (layer.upper - layer.lower).max()
        found = layers[index]
        shares += [((found.upper - layer.upper) / width).abs().max(), ((found.lower - layer.lower) / width).abs().max()]
    return float(torch.stack(shares).max()) if shares else 0.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("net", NETWORKS)
def test_estimates_converge_to_the_dual(net: str, norm: str, estimator: str) -> None:
    """With k projections the relative deviation of a median is about pi / 2 / sqrt(k): 1 % here."""
    batch = make_batch(live(net).detach(), norm=norm, size=2)
    network, region, spec = batch.network, batch.region, batch.spec
    layers = estimated_layers(network, region, 25000, seeded(0), estimator)
    assert distance(layers, root_bounds(network, region, "dual").layers) < 0.03
    exact = DualBound().bound(network, region, spec).margins
    scale = 1 + float(exact.abs().max())
    assert float((projected_margins(network, region, spec, layers) - exact).abs().max()) < 0.03 * scale


def test_error_falls_with_the_root_of_k() -> None:
    batch = make_batch(live("conv").detach())
    exact = root_bounds(batch.network, batch.region, "dual").layers
    errors = [
        sum(distance(estimated_layers(batch.network, batch.region, k, seeded(s)), exact) for s in range(10))
        for k in (25, 400, 6400)
    ]
    assert errors[0] > 2.5 * errors[1] > 2.5 * 2.5 * errors[2]


@pytest.mark.parametrize("norm", NORMS)
def test_given_exact_layers_margins_are_the_duals(norm: str) -> None:
    batch = make_batch(live("residual").detach(), norm=norm)
    layers = root_bounds(batch.network, batch.region, "dual").layers
    margins = projected_margins(batch.network, batch.region, batch.spec, layers)
    exact = DualBound().bound(batch.network, batch.region, batch.spec).margins
    assert torch.allclose(margins, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5, 8, 50])
def test_median_is_unbiased_in_the_median(k: int) -> None:
    draws = 40000
    above = float((median_estimate(cauchy(1, k, draws)) > 1).double().mean())
    assert abs(above - 0.5) < 4 * 0.5 / math.sqrt(draws)


def test_median_of_an_odd_number_is_the_middle_size() -> None:
    assert median_estimate(torch.tensor([[[-3.0], [1.0], [2.0]]])).tolist() == [[pytest.approx(2.0, rel=1e-6)]]


@pytest.mark.parametrize("k", [3, 10, 50])
def test_geometric_is_unbiased_in_the_mean(k: int) -> None:
    estimates = geometric_estimate(cauchy(1, k, 200000))
    error = float(estimates.std()) / math.sqrt(estimates.numel())
    assert abs(float(estimates.mean()) - 1) < 5 * error


def test_normal_estimate_has_an_unbiased_square() -> None:
    draws = torch.randn(1, 7, 200000, generator=seeded(0), dtype=torch.float64)
    squares = normal_estimate(draws).square()
    assert abs(float(squares.mean()) - 1) < 5 * float(squares.std()) / math.sqrt(200000)


@pytest.mark.parametrize("norm", NORMS)
def test_a_networks_half_widths_are_unbiased_in_the_median(norm: str) -> None:
    """Of many draws half of the estimates of a layer's unstable neurons are too small; so is half of an l2 estimate,
    up to the skewness of the chi-square distribution."""
    batch = make_batch(live("dense").detach(), norm=norm, size=1)
    exact = root_bounds(batch.network, batch.region, "dual").layers
    last = max(exact)
    open_ = exact[last].unstable
    draws = 1500
    below = sum(
        (estimated_layers(batch.network, batch.region, 9, seeded(s))[last].upper < exact[last].upper)[open_].double()
        for s in range(draws)
    )
    assert isinstance(below, Tensor)
    # The interval cuts estimates off from above only, which leaves the median where it is.
    allowed = 4 * 0.5 / math.sqrt(draws) + (0.05 if norm == "2" else 0)
    assert bool(((below / draws - 0.5).abs() < allowed).all())


def bounds_by_intervals(batch: Batch, layers: dict[int, LayerBounds]) -> dict[int, LayerBounds]:
    """The interval bounds of each ReLU's pre-activations, given those of the ReLUs before it, by ReLU node."""
    network, found = batch.network, dict[int, LayerBounds]()
    absolute, ranges = network.map_tensors(torch.abs), list[tuple[Tensor, Tensor]]()
    for index, node in enumerate(network.nodes):
        if isinstance(node, ReLU):
            found[index] = LayerBounds(*ranges[node.input])
            ranges.append(dual_range(layers[index]))
        elif isinstance(node, Affine):
            cheap = interval_step(node, absolute.nodes[index], ranges)
            ranges.append((cheap.lower, cheap.upper))
        else:
            ranges.append((batch.region.lower, batch.region.upper))
    return found


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("net", sorted(set(NETWORKS) - {"affine", "affine-affine", "shared-affine"}))
def test_first_layers_and_stable_neurons_are_exact(net: str, norm: str) -> None:
    """One projection knows next to nothing; what does not need it is right all the same."""
    batch = make_batch(live(net).detach(), norm=norm, eps=0.05)
    layers = estimated_layers(batch.network, batch.region, 1, seeded(0))
    for index, cheap in bounds_by_intervals(batch, layers).items():
        found, stable = layers[index], ~cheap.unstable
        assert torch.equal(found.lower[stable], cheap.lower[stable])
        assert torch.equal(found.upper[stable], cheap.upper[stable])
        assert bool((found.lower >= cheap.lower).all() and (found.upper <= cheap.upper).all())
    exact = root_bounds(batch.network, batch.region, "dual").layers
    first = min(exact)
    assert torch.allclose(layers[first].lower, exact[first].lower, rtol=0, atol=1e-12)
    assert torch.allclose(layers[first].upper, exact[first].upper, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_layer_above_a_normalisation_is_exact(norm: str) -> None:
    weight, zero = torch.randn(6, 4, generator=seeded(0)).double(), torch.zeros(6).double()
    scale = torch.tensor([0.5, -2.0, 3.0, 1.0]).double()
    network = Network((
        Input((4,)), Affine((0,), (Diagonal(scale, (4,)),), scale, (4,)), Affine((1,), (Dense(weight),), zero, (6,)),
        ReLU(2), Affine((3,), (Dense(weight[:, :3].T.contiguous()),), zero[:3], (3,)),
    ))  # fmt: skip
    region = ball(torch.rand(2, 4, generator=seeded(1), dtype=torch.float64), 0.3, norm)
    layer = estimated_layers(network, region, 1, seeded(0))[3]
    exact = root_bounds(network, region, "dual").layers[3]
    assert count_norms(network, region) == 0
    open_ = exact.unstable
    assert bool(open_.any())
    assert torch.allclose(layer.lower[open_], exact.lower[open_], rtol=0, atol=1e-12)
    assert torch.allclose(layer.upper[open_], exact.upper[open_], rtol=0, atol=1e-12)


def test_draws_come_from_the_generator_alone() -> None:
    batch = make_batch(live("dense").detach())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, same, other = (estimated_layers(batch.network, batch.region, 5, seeded(s)) for s in (0, 0, 1))
    last = max(one)
    assert torch.equal(one[last].lower, same[last].lower)
    assert not torch.equal(one[last].lower, other[last].lower)
    assert torch.equal(torch.get_rng_state(), state)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the most entries of a tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            self.entries = max(self.entries, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return out


def image_network(side: int) -> Network:
    generator = seeded(side)
    weights = [torch.randn(4, channels, 3, 3, generator=generator) / 4 for channels in (1, 4)]
    maps = [Conv2d(w, (w.shape[1], side, side), (1, 1), (1, 1, 1, 1)) for w in weights]
    last = Dense(torch.randn(3, 4 * side * side, generator=generator) / side)
    nodes: list[Node] = [
        Input((1, side, side)), Affine((0,), (maps[0],), torch.zeros(4 * side**2), (4, side, side)), ReLU(1),
        Affine((2,), (maps[1],), torch.zeros(4 * side**2), (4, side, side)), ReLU(3),
        Affine((4,), (last,), torch.zeros(3), (3,)),
    ]  # fmt: skip
    return Network(tuple(nodes))


def test_memory_grows_with_the_width_not_with_its_square() -> None:
    count, entries = 6, {}
    for side in (8, 16):
        network = image_network(side)
        region = ball(torch.rand(2, side * side, generator=seeded(0)), 0.1)
        spec = Specification.label(torch.tensor([0, 1]), 3, torch.float32)
        with Largest() as largest:  # type: ignore[no-untyped-call]
            layers = estimated_layers(network, region, count, seeded(0))
            projected_margins(network, region, spec, layers)
        entries[side] = largest.entries
        assert largest.entries <= 2 * count * 4 * side * side
    assert entries[16] == 4 * entries[8]


@pytest.mark.parametrize("count", [2, 3, 10, 50])
@pytest.mark.parametrize("failure", [0.2, 0.01])
def test_factors_miss_as_often_as_they_say(count: int, failure: float) -> None:
    draws = 200000
    noise = cauchy(1, count, draws)
    normal = torch.randn(1, count, draws, generator=seeded(1), dtype=torch.float64)
    for factor, estimates in (
        (median_factor(count, failure), median_estimate(noise)),
        (geometric_factor(count, failure), geometric_estimate(noise)),
        (normal_factor(count, failure), normal_estimate(normal)),
    ):
        missed = float((factor * estimates < 1).double().mean())
        assert abs(missed - failure) < 5 * math.sqrt(failure * (1 - failure) / draws)


@pytest.mark.parametrize("count", [1, 2, 7, 60])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_tail_of_the_geometric_mean(count: int, shift: float) -> None:
    """Half at 0 by symmetry; closed for one Cauchy number; below Chernoff's bound, and not by much."""
    tail = log_mean_tail(count, shift)
    if shift == 0:
        assert tail == pytest.approx(math.log(0.5), rel=1e-9)
    if count == 1:
        assert tail == pytest.approx(math.log(2 / math.pi * math.atan(math.exp(-shift))), rel=1e-9)
    a = 2 / math.pi * math.atan(2 * shift / math.pi)
    chernoff = count * (-a * shift - math.log(math.cos(math.pi * a / 2)))
    assert chernoff - 2 - math.log(count) < tail <= chernoff


def test_enough_projections_is_the_least_number() -> None:
    for name, estimator in ESTIMATORS.items():
        k = enough_projections(1000, 0.01, 1.8, name)
        assert estimator.factor(k, 1e-5) <= 1.8 < estimator.factor(k - 1, 1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("norm", NORMS)
def test_probable_bounds_hold_as_often_as_they_say(norm: str, estimator: str) -> None:
    """All bounds of an example's last layer at once, against those that are exact given the layer before."""
    batch = make_batch(live("dense").detach(), norm=norm, eps=0.3, size=1)
    network, region, spec = batch.network, batch.region, batch.spec
    exact, draws, delta, held = root_bounds(network, region, "dual").layers, 200, 0.2, 0
    last = max(exact)
    for seed in range(draws):
        _, layers = probable_margins(network, region, spec, 20, delta, seeded(seed), estimator)
        lower, upper = layers[last].lower, layers[last].upper
        held += int(bool((lower <= exact[last].lower + 1e-12).all() and (upper >= exact[last].upper - 1e-12).all()))
    assert held / draws >= 1 - delta
    loose, _ = probable_margins(network, region, spec, 20, 1e-6, seeded(0), estimator)
    close, _ = probable_margins(network, region, spec, 20000, 1e-6, seeded(0), estimator)
    margins = DualBound().bound(network, region, spec).margins
    assert bool((loose < close).all() and (close < margins).all())
    # Intervals keep the loose ones from growing as far as their factor says.
    assert bool((margins - close < 0.25 * (margins - loose)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_probable_margins_are_below_sampled_ones(norm: str) -> None:
    batch = make_batch(live("residual").detach(), norm=norm)
    margins, _ = probable_margins(batch.network, batch.region, batch.spec, 30, 1e-4, seeded(0))
    for points in samples(batch.region, 50, 0):
        assert bool((batch.spec.margins(batch.network.forward(points)) >= margins).all())


def test_layers_of_a_certificate_have_draws_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's columns must not be measured by the draws that decided the bounds before it."""
    drawn: list[int] = []
    draw = projection._cauchy

    def counted(shape: tuple[int, ...], region: Region, draws: torch.Generator) -> Tensor:
        drawn.append(shape[2])
        return draw(shape, region, draws)

    monkeypatch.setattr(projection, "_cauchy", counted)
    batch = make_batch(live("uneven-conv").detach())
    network = batch.network
    estimated_layers(network, batch.region, 4, seeded(0))
    once = [network.sizes[i] for i in (0, 2, 4)]
    assert drawn == once
    drawn.clear()
    probable_margins(network, batch.region, batch.spec, 4, 0.5, seeded(0))
    assert drawn == once[:2] + once


def test_projections_are_no_bound_method() -> None:
    assert not any("projection" in name or "projected" in name for name in METHODS)


@pytest.mark.parametrize(
    ("estimator", "count", "message"),
    [
        ("mean", 5, "projection_estimator: 'mean' is not one of median, geometric"),
        ("geometric", 1, "projections: 1 must be >= 2 for the geometric estimator"),
        ("median", 0, "projections: 0 must be >= 1 for the median estimator"),
    ],
)
def test_refused_estimators(estimator: str, count: int, message: str) -> None:
    batch = make_batch(live("dense").detach())
    with pytest.raises(UsageError, match=message):
        estimated_layers(batch.network, batch.region, count, seeded(0), estimator)


def test_l1_balls_and_bad_deltas_are_refused() -> None:
    batch = make_batch(live("dense").detach())
    with pytest.raises(UsageError, match="norm: '1' has no random projections"):
        estimated_layers(batch.network, ball(batch.x, 0.1, "1"), 5, seeded(0))
    with pytest.raises(UsageError, match=r"delta: 1.0 must be in \(0, 1\)"):
        probable_margins(batch.network, batch.region, batch.spec, 5, 1.0, seeded(0))
    with pytest.raises(UsageError, match=r"factor 1.0 > 1"):
        enough_projections(5, 0.1, 1.0)
