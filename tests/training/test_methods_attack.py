"""The attacking methods: where their points lie, what they cost, and that what they minimise rises along the attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import live, make_batch, parameters
from networks import NETWORKS
from torch import Tensor

from lpverify.attack.walk import walk
from lpverify.linear import Conv2d
from lpverify.network import Network
from lpverify.problem import Ball, ball
from lpverify.training.methods import METHODS, Batch
from lpverify.training.methods.free import CARRIED, FreeTraining
from lpverify.training.methods.points import attacked_point, random_start

NAMES = sorted(NETWORKS)
ATTACKING = ("standard", "pgd", "fgsm", "free")


def inside(batch: Batch, points: Tensor) -> bool:
    region, slack = batch.region, 1e-12
    box = bool(((points >= region.lower - slack) & (points <= region.upper + slack)).all())
    if isinstance(region, Ball):
        return box and bool((torch.linalg.vector_norm(points - region.point, dim=1) <= region.eps + slack).all())
    return box


def loss_at(batch: Batch, points: Tensor) -> Tensor:
    return F.cross_entropy(batch.network.forward(points), batch.y, reduction="none").detach()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many examples each forward pass took."""
    sizes: list[int] = []
    plain = Network.values

    def counted(self: Network, x: Tensor) -> list[Tensor]:
        sizes.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(Network, "values", counted)
    yield sizes


@pytest.mark.parametrize(("method", "cost"), [("standard", 1), ("fgsm", 2), ("pgd", 11), ("free", 1)])
def test_a_step_costs_the_attacks_gradients_and_one_pass_more(method: str, cost: int, passes: list[int]) -> None:
    batch = make_batch(live(NAMES[0]), size=5)
    passes.clear()
    METHODS[method]().losses(batch)
    assert passes == [5] * cost


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("name", NAMES)
def test_attacked_points_lie_in_the_ball_and_raise_the_loss(name: str, norm: str) -> None:
    batch = make_batch(live(name), norm=norm, eps=0.05, size=8)
    points = attacked_point(batch, steps=8, step_size=0.25)
    assert inside(batch, points)
    assert not points.requires_grad
    assert float(loss_at(batch, points).mean()) > float(loss_at(batch, batch.x).mean())
    assert all(parameter.grad is None for parameter in parameters(batch.network))


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_random_starts_are_uniform_in_the_ball(norm: str) -> None:
    center = torch.full((20000, 2), 0.5, dtype=torch.float64)
    start = random_start(ball(center, 0.2, norm), torch.Generator().manual_seed(0)) - center
    far = start.abs().amax(1) if norm == "inf" else torch.linalg.vector_norm(start, dim=1)
    # In the plane the share of points within r of radius 1 is r^2; three standard deviations of 20000 draws.
    for r in (0.25, 0.5, 0.75):
        share = float((far <= 0.2 * r).double().mean())
        assert abs(share - r * r) < 3 * (r * r * (1 - r * r) / 20000) ** 0.5
    assert float(far.max()) <= 0.2 + 1e-12
    assert float(start.mean(0).abs().max()) < 0.003


def test_fgsm_takes_one_step_of_a_quarter_more_than_the_radius() -> None:
    batch = make_batch(live(NAMES[0]), eps=0.1, size=6)
    start = random_start(batch.region, torch.Generator().manual_seed(0))
    found = walk(batch.network, batch.region, batch.spec, start, steps=1, step_size=1.25)
    moved = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(batch.network.forward(moved), batch.y, reduction="sum"), moved)
    x = batch.x.flatten(1)
    wanted = torch.minimum(torch.maximum(start + 0.125 * slope.sign(), x - 0.1), x + 0.1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ATTACKING)
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_gradients_are_those_of_the_loss_at_a_fixed_point(method: str, norm: str) -> None:
    """Danskin: the point counts as fixed. Central differences with the same draws, the point's own move left out."""
    batch = make_batch(live(NAMES[0]), norm=norm, size=5)
    made = METHODS[method]()
    losses = made.losses(batch)
    if method == "standard":
        point = batch.x.flatten(1)
    elif method == "free":
        point = batch.x.flatten(1)  # nothing is carried yet
    else:
        again = replace(batch, generator=torch.Generator().manual_seed(0))
        steps, size = (1, 1.25) if method == "fgsm" else (10, 0.25)
        point = attacked_point(again, steps=steps, step_size=size)
    weights = parameters(batch.network)
    slopes = torch.autograd.grad(losses.loss, weights, allow_unused=True)
    generator = torch.Generator().manual_seed(7)
    h = 1e-6
    for weight, slope in zip(weights, slopes, strict=True):
        assert slope is not None
        direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * h * direction
                values.append(float(F.cross_entropy(batch.network.forward(point), batch.y)))
                weight -= sign * h * direction
        numeric = (values[0] - values[1]) / (2 * h)
        assert float((slope * direction).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_free_carries_its_perturbation_from_minibatch_to_minibatch(norm: str) -> None:
    batch = make_batch(live(NAMES[0]), norm=norm, eps=0.1, size=6)
    free = FreeTraining()
    for _ in range(4):
        torch.autograd.backward(free.losses(batch).loss)
    carried = batch.memory[CARRIED]
    assert inside(batch, batch.x.flatten(1) + carried) and not carried.requires_grad
    assert float(loss_at(batch, batch.x.flatten(1) + carried).mean()) > float(loss_at(batch, batch.x).mean())
    # A smaller minibatch takes the first rows, moves them and leaves the others.
    small = make_batch(batch.network, norm=norm, eps=0.1, size=2, seed=3)
    torch.autograd.backward(free.losses(replace(small, memory=batch.memory)).loss)
    assert batch.memory[CARRIED].shape == carried.shape
    assert torch.equal(batch.memory[CARRIED][2:], carried[2:])
    assert not torch.equal(batch.memory[CARRIED][:2], carried[:2])


@pytest.mark.parametrize("method", ATTACKING)
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_held_out_examples_are_attacked_and_judged_at_x_too(method: str, norm: str) -> None:
    batch = make_batch(live(NAMES[0]), norm=norm, eps=0.3 if norm == "inf" else 0.9, size=40)
    with torch.no_grad():
        measured = METHODS[method]().measure(batch)
    at_x = loss_at(batch, batch.x)
    assert measured.nominal is not None and measured.wrong is not None
    assert float(measured.nominal) == pytest.approx(float(at_x.mean()), rel=1e-12)
    assert float(measured.robust) > float(measured.nominal)
    # What is wrong at x is broken, and some that is right at x is broken too.
    assert bool((measured.broken | ~measured.wrong).all())
    assert 0 < int(measured.wrong.sum()) < int(measured.broken.sum())


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 2, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_convolutions_gradient_for_its_input_is_the_librarys(
    channels: int, stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, channels, 3, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(3, channels * 7 * 8, generator=generator, dtype=torch.float64, requires_grad=True)
    slopes = []
    for kernel in (weight, weight.clone().requires_grad_()):  # only the first takes the shorter way
        y = Conv2d(kernel, (channels, 7, 8), stride, padding).apply(x)
        slopes.append(torch.autograd.grad((y * y).sum(), x)[0])
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_for_the_attack_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = make_batch(live(name), size=6)
    network = wide.network.map_tensors(lambda t: t.detach().float().requires_grad_())
    batch = replace(wide, network=network, x=wide.x.float(), spec=wide.spec.to(torch.float32))
    halves: list[bool] = []
    plain = Network.values

    def noted(self: Network, x: Tensor) -> list[Tensor]:
        halves.append(torch.is_autocast_enabled("cpu"))
        return plain(self, x)

    monkeypatch.setattr(Network, "values", noted)
    losses = METHODS["pgd"](amp=True, attack_steps=3).losses(batch)  # type: ignore[call-arg]
    assert halves == [True, True, True, False]
    assert losses.loss.dtype == torch.float32
    points = attacked_point(batch, steps=5, step_size=0.3, amp=True)
    assert points.dtype == torch.float32
    assert bool(((points >= batch.region.lower) & (points <= batch.region.upper)).all())


@pytest.mark.parametrize("method", ["pgd", "mtl-ibp"])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_of_several_starts_the_worst_end_counts_for_each_example(method: str, norm: str) -> None:
    batch = make_batch(live(NAMES[0]), norm=norm, eps=0.2, size=8)
    generator = torch.Generator().manual_seed(0)
    singles = [attacked_point(replace(batch, generator=generator), steps=1, step_size=0.3) for _ in range(4)]
    values = torch.stack([loss_at(batch, point) for point in singles])
    found = attacked_point(replace(batch, generator=torch.Generator().manual_seed(0)), steps=1, step_size=0.3,
                           restarts=4)  # fmt: skip
    # Different examples have their worst ends from different starts.
    assert len(set(values.argmax(0).tolist())) > 1
    assert torch.equal(loss_at(batch, found), values.max(0).values) and inside(batch, found)
    options: dict[str, Any] = {"share": 0.0, "regularise": 0.0} if method == "mtl-ibp" else {}
    made = METHODS[method](attack_steps=1, attack_step=0.3, attack_restarts=4, **options)  # type: ignore[call-arg]
    losses = made.losses(replace(batch, generator=torch.Generator().manual_seed(0)))
    assert float(losses.loss.detach()) == pytest.approx(float(values.max(0).values.mean()), rel=1e-12)
