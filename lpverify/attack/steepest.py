"""Steepest-descent steps, projections and random starts for the l-infinity, l2 and l1 regions.

All work on R runs at once: ``x``, ``gradient`` (R, n_0), a Region of R sets. Steps are measured in the
region's own radius, so one step size serves every norm and boxes with sides of different length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpverify.problem import Ball, Region


def start_point(region: Region) -> Tensor:
    """The region's middle: the ball's center moved into its box, or the box's center; (R, n_0)."""
    if isinstance(region, Ball):
        return torch.minimum(torch.maximum(region.point, region.lower), region.upper)
    return region.center


def descent_step(gradient: Tensor, x: Tensor, region: Region, rate: float) -> Tensor:
    """The step of length ``rate`` radii that decreases the linearised loss most; (R, n_0).

    l-infinity: the sign of the gradient times each side's half width. l2: along the gradient. l1: the
    budget goes to the coordinate with the largest gradient, and what finds no room before the box ends
    there goes to the next one.
    """
    if not isinstance(region, Ball):
        return torch.mul(region.radius, gradient.sign()).mul(-rate)
    budget = (rate * region.eps).unsqueeze(1)
    if region.norm == "2":
        # Scaling by the largest entry first keeps tiny gradients from underflowing when they are squared.
        scaled = gradient / gradient.abs().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        return torch.mul(scaled, -budget / length.clamp(min=1e-12))
    room = torch.where(gradient > 0, x - region.lower, region.upper - x).clamp(min=0)
    room = torch.where(gradient == 0, 0.0, room)
    order = gradient.abs().argsort(dim=1, descending=True)
    sorted_room = room.gather(1, order)
    spent_before = sorted_room.cumsum(1) - sorted_room
    take = torch.minimum((budget - spent_before).clamp(min=0), sorted_room)
    return -gradient.sign() * torch.zeros_like(x).scatter(1, order, take)


def full_step(region: Region) -> float:
    """How many radii one single step takes: from a ball's center to its rim, through a box from side to side."""
    return 1.0 if isinstance(region, Ball) else 2.0


def project(x: Tensor, region: Region) -> Tensor:
    """A point of the region near x (its Euclidean projection where no clip interferes); (R, n_0)."""
    if not isinstance(region, Ball):
        return torch.minimum(torch.maximum(x, region.lower), region.upper)
    offset = x - region.point
    offset = _shrink_l2(offset, region.eps) if region.norm == "2" else _shrink_l1(offset, region.eps)
    x = torch.minimum(torch.maximum(region.point + offset, region.lower), region.upper)
    # Entering the box brings x nearer to a center inside it. With a center outside the clip it may leave
    # the ball; then walk towards the box's nearest point, as far as convexity of the norm asks for.
    order = float(region.norm)
    near = start_point(region)
    far = torch.linalg.vector_norm(x - region.point, ord=order, dim=1)
    least = torch.linalg.vector_norm(near - region.point, ord=order, dim=1)
    share = ((far - region.eps) / (far - least).clamp(min=torch.finfo(x.dtype).tiny)).clamp(0, 1)
    outside = (far > region.eps) & (least > 0)
    return torch.where(outside.unsqueeze(1), x + share.unsqueeze(1) * (near - x), x)


def random_point(region: Region, noise: Tensor) -> Tensor:
    """A point of the region from uniform noise in (0, 1) of shape (R, n_0); in the ball mostly near its rim."""
    if not isinstance(region, Ball):
        return project(region.lower + noise * (region.upper - region.lower), region)
    signed = (2 * noise - 1).clamp(-1 + 1e-6, 1 - 1e-6)
    # erfinv makes normal entries, the logarithm Laplace entries: uniform directions for l2 and for l1.
    entries = torch.erfinv(signed) if region.norm == "2" else -signed.sign() * torch.log1p(-signed.abs())
    length = torch.linalg.vector_norm(entries, ord=float(region.norm), dim=1, keepdim=True)
    return project(region.point + region.eps.unsqueeze(1) * entries / length.clamp(min=1e-12), region)


def _shrink_l2(offset: Tensor, eps: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(offset, dim=1)
    share = (eps / length.clamp(min=torch.finfo(offset.dtype).tiny)).clamp(max=1)
    return offset.mul(share.unsqueeze(1))


def _shrink_l1(offset: Tensor, eps: Tensor) -> Tensor:
    """Soft thresholding by the one threshold that brings the l1 norm down to eps (Duchi et al. 2008, fig. 1)."""
    size = offset.abs()
    descending = size.sort(dim=1, descending=True).values
    count = torch.arange(1, offset.shape[1] + 1, dtype=offset.dtype, device=offset.device)
    excess = (descending.cumsum(1) - eps.unsqueeze(1)) / count
    kept = (descending > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = excess.gather(1, kept - 1).clamp(min=0)
    shrunk = offset.sign() * (size - threshold).clamp(min=0)
    return torch.where((size.sum(1) > eps).unsqueeze(1), shrunk, offset)
