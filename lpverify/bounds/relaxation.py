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


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Tables of one ReLU, each (B, n_k); with rows of their own slopes (B, m, n_k).

    Attributes:
        lower_slope: a, for positive entries of a row.
        upper_slope: s, for negative entries.
        lower_gain, upper_gain: what one unit of a positive (negative) entry adds to the bound: the
            pre-activation's bias, where it is accounted for here, and minus the upper line's intercept.
        is_flat: all slopes are 0, so that nothing of a row passes.
    """

    lower_slope: Tensor
    upper_slope: Tensor
    lower_gain: Tensor
    upper_gain: Tensor
    is_flat: bool = False

    def select(self, examples: Tensor) -> Relaxation:
        """The tables of some of the examples."""
        return Relaxation(
            self.lower_slope[examples],
            self.upper_slope[examples],
            self.lower_gain[examples],
            self.upper_gain[examples],
            self.is_flat,
        )


def adaptive_slope(lower: Tensor, upper: Tensor) -> Tensor:
    """CROWN's lower slope: 1 where upper >= -lower, else 0, the smaller triangle (Zhang et al. 2018)."""
    return (upper >= -lower).to(lower.dtype)


def relax(layer: LayerBounds, bias: Tensor | None, lower_slope: Tensor | None) -> Relaxation:
    """The triangle relaxation of a ReLU with pre-activation bounds ``layer``, one lower line chosen.

    Args:
        layer: bounds, (B, n_k).
        bias: (n_k,) the pre-activation's bias if it is to be counted here, else None.
        lower_slope: slopes in [0, 1] of the lower line at unstable neurons, (B, n_k) or (B, m, n_k) for
            rows with slopes of their own; None for the upper line's own slope (Wong & Kolter's dual).
    """
    lower, upper, unstable = layer.lower, layer.upper, layer.unstable
    width = torch.where(unstable, upper - lower, 1.0)
    s = torch.where(unstable, upper / width, layer.active.to(lower.dtype))
    intercept = torch.where(unstable, -s * lower, 0.0)
    if lower_slope is None:
        a = s
    elif lower_slope.ndim == 3:
        s, intercept = s.unsqueeze(1), intercept.unsqueeze(1)
        a = torch.where(unstable.unsqueeze(1), lower_slope, s)
    else:
        a = torch.where(unstable, lower_slope, s)
    if bias is None:
        return Relaxation(a, s, torch.zeros_like(s), intercept)
    return Relaxation(a, s, a * bias, s * bias + intercept)


def flat(layer: LayerBounds) -> Relaxation:
    """The relaxation of interval arithmetic: both slopes 0, the post-activation's range alone."""
    zero = torch.zeros_like(layer.lower)
    return Relaxation(zero, zero, layer.lower.clamp(min=0), layer.upper.clamp(min=0), is_flat=True)


def dual_range(layer: LayerBounds) -> tuple[Tensor, Tensor]:
    """The range of relu(z) in the dual's own relaxation, (B, n_k) lower and upper: [s lower, upper].

    An interval from it proves a neuron stable only where the published dual's bound would have, so skipping
    that neuron's row leaves the margins as published.
    """
    lower, upper, unstable = layer.lower, layer.upper, layer.unstable
    width = torch.where(unstable, upper - lower, 1.0)
    return torch.where(unstable, upper * lower / width, lower.clamp(min=0)), upper.clamp(min=0)
