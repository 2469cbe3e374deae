"""The two regularisers of Shi et al. 2021 for interval bounds: tight bounds, and ReLUs of both states.

Source: arXiv 2103.17268, section 3.3. They are meant for the ramp of the radius and fade out with it. The paper also
puts batch normalisation before every ReLU; the architectures here have none, because a normalisation folded into the
weights at test time is not what was trained. Its job, centring the pre-activations, is left to ``balance``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpverify.problem import LayerBounds, Region

TOLERANCE = 0.5


def tightness(layers: Mapping[int, LayerBounds], region: Region) -> Tensor:
    """How far the mean width of pre-activations exceeds 1 / TOLERANCE times the input's: a mean over ReLUs, >= 0."""
    start = (region.upper - region.lower).mean()
    terms = [_shortfall(start / (layer.upper - layer.lower).mean().clamp(min=1e-12)) for layer in layers.values()]
    return torch.stack(terms).mean()


def balance(layers: Mapping[int, LayerBounds]) -> Tensor:
    """How unequal active and inactive neurons are, by sum and by spread of their centers: a mean over ReLUs, >= 0."""
    terms = []
    for layer in layers.values():
        center = (layer.lower + layer.upper) / 2
        active, inactive = (layer.lower > 0).to(center.dtype), (layer.upper < 0).to(center.dtype)
        spread = (center - center.mean()).square()
        sums = _ratio((center * active).sum(), -(center * inactive).sum())
        terms.append(_shortfall(sums) + _shortfall(_ratio((spread * active).sum(), (spread * inactive).sum())))
    return torch.stack(terms).mean()


def regulariser(
    factor: float, progress: float, layers: Mapping[int, LayerBounds], region: Region
) -> Tensor | None:
    """The sum of both times ``factor``, which falls to 0 with the ramp's progress; None where nothing is left."""
    weight = factor * (1 - progress)
    return weight * (tightness(layers, region) + balance(layers)) if weight and layers else None


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    """The lesser of two numbers >= 0 over the greater; 0, without a gradient, where both are 0."""
    return torch.minimum(one, other) / torch.maximum(one, other).clamp(min=1e-12)


def _shortfall(ratio: Tensor) -> Tensor:
    """By what part of TOLERANCE a ratio falls short of it."""
    return (TOLERANCE - ratio).clamp(min=0) / TOLERANCE
