"""Batches for tests of training methods: small networks in float64 whose tensors take gradients."""

from __future__ import annotations

import torch
from networks import NETWORKS
from torch import Tensor

from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.training.methods import Batch


def parameters(network: Network) -> list[Tensor]:
    found: list[Tensor] = []
    network.map_tensors(lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def live(name: str, seed: int = 1) -> Network:
    """The network NETWORKS[name] with tensors that take gradients, moved off round numbers, where losses have kinks."""
    generator = torch.Generator().manual_seed(seed)

    def move(t: Tensor) -> Tensor:
        return (t.double() + 0.01 * torch.randn(t.shape, generator=generator, dtype=torch.float64)).requires_grad_()

    return NETWORKS[name](seed).map_tensors(move)


def make_batch(
    network: Network, *, norm: str = "inf", eps: float = 0.1, progress: float = 1.0, seed: int = 0, size: int = 4
) -> Batch:
    generator = torch.Generator().manual_seed(100 + seed)
    x = torch.rand(size, *network.shapes[0], generator=generator, dtype=torch.float64)
    y = torch.randint(network.output_size, (size,), generator=generator)
    with torch.no_grad():
        y[::2] = network.forward(x)[::2].argmax(1)
    spec = Specification.label(y, network.output_size)
    return Batch(network, x, y, spec, eps, progress, torch.Generator().manual_seed(seed), {}, norm, None)
