"""The initialisation of Shi et al. 2021, with which interval bounds keep their width from layer to layer.

Source: arXiv 2103.17268, section 3.1. Under interval arithmetic a layer multiplies the mean radius by n E|w| (n its
fan-in), of which a ReLU around 0 keeps about a half. Normal weights with deviation sqrt(2 pi) / n have E|w| = 2 / n, so
the radius stays; with the usual 1 / sqrt(n) it would grow by sqrt(n) a layer.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lpverify.models import Branches


def initialise(module: nn.Module, init: str, generator: torch.Generator) -> None:
    """With "ibp", draw the weights of all convolutions and linear layers but the last anew; biases stay.

    The terms of a residual sum share the deviation evenly, so that the sum keeps the radius too.

    Args:
        module: changed in place.
        init: "ibp", or "default", which leaves the weights as torch drew them.
        generator: of the CPU; every device gets the same numbers.
    """
    if init == "default":
        return
    terms = {id(conv): len(m.Ws) for m in module.modules() if isinstance(m, Branches) for conv in m.Ws.values()}
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    for layer in layers[:-1]:
        weight = layer.weight
        deviation = math.sqrt(2 * math.pi) / weight[0].numel() / terms.get(id(layer), 1)
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * deviation)
