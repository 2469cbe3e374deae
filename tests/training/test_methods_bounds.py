"""The certified training methods: gradients against finite differences, bounds against points of the ball."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import samples
from torch import Tensor
from training.batches import live, make_batch, parameters

from lpverify.attack import attack
from lpverify.bounds import CrownBound, DualBound, IntervalBound
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.training.methods import METHODS, AbstractTrainingMethod
from lpverify.training.methods.crown_ibp import CrownIBPTraining
from lpverify.training.methods.dual import DualTraining
from lpverify.training.methods.ibp import IBPTraining
from lpverify.training.methods.mtl_ibp import MTLIBPTraining
from lpverify.training.robust_loss import robust_loss

BOUNDS: dict[str, AbstractTrainingMethod] = {
    "dual": DualTraining(),
    "ibp": IBPTraining(),
    "crown-ibp": CrownIBPTraining(),
    "mtl-ibp": MTLIBPTraining(),
}
DIFFERENTIATED: dict[str, AbstractTrainingMethod] = {
    **BOUNDS,
    "projected": DualTraining(projections=9),
    "projected-geometric": DualTraining(projections=9, projection_estimator="geometric"),
    "ibp-alone": IBPTraining(share=1.0),
}
NETS = ("dense", "conv", "residual", "input-relu", "sparse-diagonal")


def moved(network: Network, direction: list[Tensor], length: float) -> Network:
    steps = iter(direction)
    return network.map_tensors(lambda t: t.detach() + length * next(steps))


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradient(name: str, net: str, norm: str, progress: float) -> None:
    method = DIFFERENTIATED[name]
    if isinstance(method, MTLIBPTraining) and norm == "2":
        # The loss takes the attacked point as given; in l2 it moves with the weights, in l-infinity it does not.
        method = replace(method, share=1.0)
    network = live(net)

    def loss(changed: Network) -> Tensor:
        return method.losses(make_batch(changed, norm=norm, progress=progress)).loss

    tensors = parameters(network)
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors]
    gradients = torch.autograd.grad(loss(network), tensors, allow_unused=True, materialize_grads=True)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    h = 1e-7  # a geometric mean bends sharply where a projection is near 0
    with torch.no_grad():
        difference = float(loss(moved(network, direction, h)) - loss(moved(network, direction, -h))) / (2 * h)
    assert slope == pytest.approx(difference, rel=1e-5, abs=1e-7)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", BOUNDS)
def test_no_point_of_the_ball_is_worse(name: str, net: str, norm: str, progress: float) -> None:
    network, bounded = live(net).detach(), 0
    for seed in range(3):
        batch = make_batch(network, norm=norm, eps=0.02, seed=seed, progress=progress)
        losses = BOUNDS[name].losses(batch)
        found = attack(
            network, batch.region, batch.spec, steps=30, restarts=2, loss="cross-entropy", early_stop=False
        )
        for points in (*samples(batch.region, 40, seed), found.points, batch.x.flatten(1)):
            outputs = network.forward(points)
            assert float(F.cross_entropy(outputs, batch.y)) <= float(losses.robust) + 1e-12
            assert not bool(((outputs.argmax(1) != batch.y) & ~losses.broken).any())
        bounded += int((~losses.broken).sum())
    # Something is certified somewhere, or the second assertion above would say nothing.
    assert bounded


JUDGES = {"dual": DualBound(), "ibp": IntervalBound(), "mtl-ibp": CrownBound()}


@pytest.mark.parametrize("name", JUDGES)
def test_held_out_examples_are_judged_by_the_packages_own_bound(name: str) -> None:
    batch = make_batch(live("dense").detach())
    judged = BOUNDS[name].measure(batch)
    margins = JUDGES[name].bound(batch.network, batch.region, batch.spec).margins
    assert float(judged.robust) == float(robust_loss(margins, batch.y))
    assert torch.equal(judged.broken, ~(margins > 0).all(1))


def test_projected_training_is_judged_exactly() -> None:
    batch = make_batch(live("dense").detach())
    exact, projected = DualTraining(), DualTraining(projections=3)
    assert torch.equal(projected.measure(batch).robust, exact.measure(batch).robust)
    assert not torch.equal(projected.losses(batch).robust, exact.losses(batch).robust)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp"])
def test_the_ramp_begins_with_the_nominal_loss(name: str) -> None:
    batch = make_batch(live("dense").detach(), progress=0.0)
    losses = replace(BOUNDS[name], regularise=0.0).losses(batch)  # type: ignore[call-arg]
    assert float(losses.loss) == float(losses.nominal)  # type: ignore[arg-type]


def test_crown_ibp_goes_from_backward_to_interval_bounds() -> None:
    batches = [make_batch(live("dense").detach(), progress=p) for p in (0.0, 0.5, 1.0)]
    first, half, last = (float(CrownIBPTraining().losses(b).robust) for b in batches)
    assert first < half < last
    assert last == float(IBPTraining().losses(batches[2]).robust)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_mtl_attacks_a_ball_of_its_own_radius(norm: str) -> None:
    network = live("dense")
    near, far = (make_batch(network, norm=norm, eps=eps) for eps in (0.1, 0.3))
    options = {"attack_steps": 3, "attack_step": 0.4, "share": 0.0, "regularise": 0.0}
    wide = MTLIBPTraining(attack_radius=3.0, **options).losses(near)
    assert torch.allclose(wide.loss, MTLIBPTraining(**options).losses(far).loss, rtol=1e-12)
    assert wide.loss > MTLIBPTraining(**options).losses(near).loss
    assert torch.equal(wide.broken, MTLIBPTraining(**options).losses(near).broken)  # bounded: the near ball


def test_mtl_share_mixes_the_ends() -> None:
    def loss(share: float) -> float:
        return float(MTLIBPTraining(share=share).losses(make_batch(live("dense").detach())).loss)

    assert loss(0.3) == pytest.approx(0.7 * loss(0) + 0.3 * loss(1), rel=1e-12)


@pytest.mark.parametrize("name", BOUNDS)
def test_radius_zero_gives_the_cross_entropy(name: str) -> None:
    batch = make_batch(live("conv").detach(), eps=0.0)
    nominal = float(F.cross_entropy(batch.network.forward(batch.x), batch.y))
    assert float(BOUNDS[name].losses(batch).robust) == pytest.approx(nominal, rel=1e-12)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_are_finite_where_weights_and_radius_are_zero(name: str) -> None:
    network = live("conv").map_tensors(lambda t: (0 * t.detach()).requires_grad_())
    for norm in ("inf", "2"):
        batch = make_batch(network, norm=norm, eps=0.0, progress=0.5)
        loss = DIFFERENTIATED[name].losses(batch).loss
        gradients = torch.autograd.grad(loss, parameters(network), allow_unused=True, materialize_grads=True)
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_every_certified_method_is_tested() -> None:
    assert set(BOUNDS) == {name for name, method in METHODS.items() if method.bounds}


def test_float32_losses_are_those_of_float64() -> None:
    wide = make_batch(live("conv").detach())
    x = wide.x.float()
    narrow = replace(
        wide, network=wide.network.to(torch.float32), x=x,
        spec=Specification.label(wide.y, wide.network.output_size, torch.float32),
    )  # fmt: skip
    for name, method in BOUNDS.items():
        if name != "mtl-ibp":
            assert float(method.losses(narrow).loss) == pytest.approx(float(method.losses(wide).loss), rel=1e-5)
