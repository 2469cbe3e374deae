"""The attack inside a training step: a few steps of steepest descent, of which only the end point is wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from lpverify.attack.losses import LOSSES
from lpverify.attack.steepest import descent_step, project
from lpverify.network import Network
from lpverify.problem import Region, Specification


def walk(
    network: Network,
    region: Region,
    spec: Specification,
    x: Tensor,
    *,
    steps: int,
    step_size: float,
    loss: str = "cross-entropy",
) -> Tensor:
    """Where ``steps`` steps of ``step_size`` radii lead from x (B, n_0), projected into the region each.

    Every step costs one forward and one backward pass; no iterate is evaluated, so the end may be worse than the start.

    Args:
        network: in the dtype and on the device of region and claim; no gradient reaches its parameters.
        loss: "margin" or "cross-entropy" (``losses``).
    """
    network = network.detach()
    targets = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for _ in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(LOSSES[loss](spec.margins(network.forward(x)), targets).sum(), x)
        x = project(x.detach() + descent_step(slope, x.detach(), region, step_size), region)
    return x.detach()
