"""The linear relaxation of one ReLU layer as tables that a backward pass multiplies its rows by.

A row w of the backward pass bounds w.relu(z) from below by v.z - gain, with the slope v/w depending on the
sign of w (Wong & Kolter 2018, eq. 5 and algorithm 1; thesis eq. 3.4 to 3.6):

    w > 0:  relu(z) >= a z                       any 0 <= a <= 1; 1 where active, 0 where inactive
    w < 0:  relu(z) <= s (z - lower)             s = upper / (upper - lower) where unstable

Both signs are served at once by even and odd parts: v = w (a+s)/2 + |w| (a-s)/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lpverify.problem import LayerBounds

RULES = ("interval", "dual", "crown")


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Tables of one ReLU, each (B, n_k); with rows of their own slopes (B, m, n_k).

    Attributes:
        lower_slope: a, for positive entries of a row.
        upper_slope: s, for negative entries.
        lower_gain, upper_gain: what one unit of a positive (negative) entry adds to the bound: the
            pre-activation's bias, where it is accounted for here, and minus the upper line's intercept.
    """

    lower_slope: Tensor
    upper_slope: Tensor
    lower_gain: Tensor
    upper_gain: Tensor


def relax(layer: LayerBounds, bias: Tensor | None, rule: str, slopes: Tensor | None = None) -> Relaxation:
    """The relaxation of a ReLU with pre-activation bounds ``layer``.

    Args:
        layer: bounds, (B, n_k).
        bias: (n_k,) the pre-activation's bias if it is to be counted here, else None.
        rule: "dual": a = s (Wong & Kolter); "crown": a = 1 where upper >= -lower, else 0 (Zhang et al.
            2018); "interval": both slopes 0, the post-activation's range alone.
        slopes: (B, m, n_k) lower slopes in [0, 1] to use at unstable neurons instead of the rule's.
    """
    lower, upper = layer.lower, layer.upper
    if rule == "interval":
        zero = torch.zeros_like(lower)
        return Relaxation(zero, zero, lower.clamp(min=0), upper.clamp(min=0))
    active, unstable = layer.active, layer.unstable
    width = torch.where(unstable, upper - lower, 1.0)
    s = torch.where(unstable, upper / width, active.to(lower.dtype))
    intercept = torch.where(unstable, -s * lower, 0.0)
    if slopes is not None:
        a = torch.where(unstable.unsqueeze(1), slopes, s.unsqueeze(1))
        s, intercept = s.unsqueeze(1), intercept.unsqueeze(1)
    elif rule == "dual":
        a = s
    else:
        a = torch.where(unstable, (upper >= -lower).to(lower.dtype), s)
    if bias is None:
        return Relaxation(a, s, torch.zeros_like(s), intercept)
    return Relaxation(a, s, a * bias, s * bias + intercept)


def post_activation(layer: LayerBounds, rule: str) -> tuple[Tensor, Tensor]:
    """The range of relu(z) in the relaxed problem: (B, n_k) lower and upper.

    Under the rule "dual" it is the range in the dual's own relaxation, lower end s * lower: an interval
    from it proves a neuron stable only where the dual's bound would have (so skipping that neuron's row
    leaves the published algorithm's margins unchanged).
    """
    lower, upper = layer.lower, layer.upper
    top = upper.clamp(min=0)
    if rule != "dual":
        return lower.clamp(min=0), top
    width = torch.where(layer.unstable, upper - lower, 1.0)
    return torch.where(layer.unstable, upper * lower / width, lower.clamp(min=0)), top
