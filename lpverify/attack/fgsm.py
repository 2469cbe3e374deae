"""The fast gradient sign method and its l2 and l1 relatives: one full step from the start.

Source: Goodfellow, Shlens & Szegedy 2015, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpverify.attack.base import AttackOptions, AttackResult
from lpverify.attack.losses import LOSSES
from lpverify.attack.steepest import descent_step, full_step, project
from lpverify.network import Network
from lpverify.problem import Region, Specification


def gradient(
    network: Network, spec: Specification, x: Tensor, targets: Tensor, options: AttackOptions
) -> tuple[Tensor, Tensor]:
    """The loss's gradient at x (R, n_0) and the clauses' margins (R, k) there."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        margins, heights = options.margins_and_heights(spec, network.forward(x))
        (slope,) = torch.autograd.grad(LOSSES[options.loss](heights, targets).sum(), x)
    return slope.nan_to_num(), margins.detach()


def as_result(points: Tensor, margins: Tensor) -> AttackResult:
    """The result at the given points (B, n_0) from their margins (B, k); NaN margins never win."""
    least, rows = margins.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).min(1)
    return AttackResult(points, least, rows)


def fgsm(
    network: Network, region: Region, spec: Specification, start: Tensor, options: AttackOptions
) -> AttackResult:
    """The better of the start and one full step from it; with the loss "targeted", one step for each clause."""
    best: AttackResult | None = None
    for target in range(options.targets(spec)):
        chosen = torch.full((len(start),), target, device=start.device)
        slope, margins = gradient(network, spec, start, chosen, options)
        best = as_result(start, margins) if best is None else best
        x = project(start + descent_step(slope, start, region, full_step(region)), region)
        with torch.no_grad():
            best = best.better(as_result(x, options.margins(spec, network.forward(x))))
    assert best is not None  # a claim has at least one row
    return best
