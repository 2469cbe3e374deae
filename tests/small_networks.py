"""Networks for tests, built by hand from weights: independent of the lowering."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from torch import Tensor

from lpverify.linear import Conv2d, Dense
from lpverify.network import Affine, Input, Network, Node, ReLU


def dense_network(*layers: tuple[Tensor, Tensor]) -> Network:
    nodes: list[Node] = [Input((layers[0][0].shape[1],))]
    for weight, bias in layers:
        if len(nodes) > 1:
            nodes.append(ReLU(len(nodes) - 1))
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias, tuple(bias.shape)))
    return Network(tuple(nodes))


def random_network(seed: int, sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Network:
    generator = torch.Generator().manual_seed(seed)
    pairs = itertools.pairwise(sizes)
    return dense_network(
        *((torch.randn(b, a, generator=generator, dtype=dtype) / math.sqrt(a),
           torch.randn(b, generator=generator, dtype=dtype) / 10) for a, b in pairs)
    )  # fmt: skip


def state_tensors(path: Path) -> list[Tensor]:
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    return list((state[0] if isinstance(state, list) else state).values())


def mnist_conv_network(path: Path) -> Network:
    w1, b1, w2, b2, w3, b3, w4, b4 = state_tensors(path)
    first = Conv2d(w1, (1, 28, 28), (2, 2), (1, 1, 1, 1))
    second = Conv2d(w2, first.out_shape, (2, 2), (1, 1, 1, 1))
    return Network((
        Input((1, 28, 28)),
        Affine((0,), (first,), b1.repeat_interleave(196), first.out_shape), ReLU(1),
        Affine((2,), (second,), b2.repeat_interleave(49), second.out_shape), ReLU(3),
        Affine((4,), (Dense(w3),), b3, (100,)), ReLU(5),
        Affine((6,), (Dense(w4),), b4, (10,)),
    ))  # fmt: skip
