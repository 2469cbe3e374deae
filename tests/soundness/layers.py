"""Small dense networks as lists of (weight, bias) with few bits, which can be changed without rounding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from small_networks import dense_network

from lpverify.network import Network

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]


def random_layers(rng: np.random.Generator, sizes: Sequence[int], bits: int = 3) -> Layers:
    """Weights and biases that are multiples of 2^-bits, of the size that keeps values near 1."""
    unit = 2.0**-bits
    return [((rng.normal(size=(b, a)) * 1.4 / np.sqrt(a) / unit).round() * unit,
             (rng.normal(size=b) * 0.4 / unit).round() * unit) for a, b in itertools.pairwise(sizes)]  # fmt: skip


def network_of(layers: Layers) -> Network:
    """The float64 network with ReLUs between the layers."""
    return dense_network(*((torch.from_numpy(np.array(W)), torch.from_numpy(np.array(b))) for W, b in layers))


def with_constant(layers: Layers, constant: Array | float) -> Layers:
    """The outputs plus a constant."""
    weight, bias = layers[-1]
    return [*layers[:-1], (weight, bias + constant)]
