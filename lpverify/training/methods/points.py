"""Losses at points of the ball: what the attacking methods have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.attack import attack
from lpverify.attack.steepest import random_point, start_point
from lpverify.attack.walk import walk
from lpverify.problem import Ball, Region
from lpverify.training.methods.base import Batch, Losses


def random_start(region: Region, generator: torch.Generator) -> Tensor:
    """A point of each of B regions, (B, n_0): uniform in a box and in an l2 ball (before a clip moves it inwards)."""
    noise = torch.rand(region.lower.shape, generator=generator).to(region.lower)
    point = random_point(region, noise)
    if isinstance(region, Ball):
        # Random points of balls lie on the rim; the share of a uniform one's distance is u^(1/n).
        share = torch.rand(len(point), 1, generator=generator).to(point) ** (1 / point.shape[1])
        middle = start_point(region)
        point = middle + share * (point - middle)
    return point


def attacked_point(batch: Batch, *, steps: int, step_size: float, restarts: int = 1, amp: bool = False) -> Tensor:
    """Where an attack on the cross-entropy ends, (B, n_0): from a random start, ``steps`` of ``step_size`` radii.

    With ``restarts`` above 1, for each example the end with the greatest cross-entropy. ``amp`` runs the attack's
    passes in bfloat16.
    """
    region, spec = batch.region, batch.spec
    starts = [random_start(region, batch.generator) for _ in range(restarts)]
    with torch.autocast(starts[0].device.type, torch.bfloat16, enabled=amp):
        ends = [walk(batch.network, region, spec, start, steps=steps, step_size=step_size) for start in starts]
        if restarts == 1:
            return ends[0]
        with torch.no_grad():
            losses = [F.cross_entropy(batch.network.forward(end), batch.y, reduction="none") for end in ends]
    worst = torch.stack(losses).argmax(0)
    return torch.stack(ends)[worst, torch.arange(len(worst), device=worst.device)]


def losses_at_data(batch: Batch) -> Losses:
    """Everything at x itself."""
    outputs = batch.network.forward(batch.x)
    loss, wrong = F.cross_entropy(outputs, batch.y), outputs.detach().argmax(1) != batch.y
    return Losses(loss, loss.detach(), loss.detach(), wrong, wrong)


def losses_at(batch: Batch, points: Tensor) -> Losses:
    """The loss at points of the balls (B, n_0); nothing is evaluated at x itself."""
    outputs = batch.network.forward(points)
    loss, wrong = F.cross_entropy(outputs, batch.y), outputs.detach().argmax(1) != batch.y
    return Losses(loss, None, loss.detach(), None, wrong)


def attacked_losses(batch: Batch, steps: int) -> Losses:
    """The losses at x and, as the robust ones, at the best point that FGSM and PGD of ``steps`` steps find."""
    clean = losses_at_data(batch)
    if batch.eps == 0:
        return clean
    found = attack(
        batch.network, batch.region, batch.spec, method="pgd", steps=steps, restarts=1, loss="cross-entropy",
        early_stop=False,
    )  # fmt: skip
    robust = F.cross_entropy(batch.network.forward(found.points), batch.y).detach()
    return Losses(clean.loss, clean.nominal, robust, clean.wrong, found.falsified | clean.broken)
