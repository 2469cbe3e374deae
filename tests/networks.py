"""Small networks of every shape that the graph allows, points of their input sets, and their exact minima.

Weights are float32 numbers in every dtype, so that both semantics of the checker apply to all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from lpverify.linear import Conv2d, Dense, Diagonal, Sparse
from lpverify.network import Affine, Input, Network, Node, ReLU, as_numpy
from lpverify.problem import Ball, Region

Array = NDArray[np.float64]
Clip = tuple[float, float] | None
CLASSES = 3


class Random:
    """Seeded float32 weights of the size that keeps values near 1."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * scale

    def dense(self, n_in: int, n_out: int) -> Dense:
        return Dense(self.normal(n_out, n_in, scale=1.3 / math.sqrt(n_in)))

    def conv(self, in_shape: tuple[int, ...], channels: int, kernel: tuple[int, int], **options: Any) -> Conv2d:
        fan = in_shape[0] // options.get("groups", 1) * kernel[0] * kernel[1]
        weight = self.normal(channels, in_shape[0] // options.get("groups", 1), *kernel, scale=1.3 / math.sqrt(fan))
        return Conv2d(weight, in_shape, **options)

    def affine(self, sources: tuple[int, ...], *maps: Any) -> Affine:
        shape = maps[0].out_shape
        return Affine(sources, maps, self.normal(math.prod(shape), scale=0.2), shape)


def chain(r: Random, in_shape: tuple[int, ...], *maps: Any) -> Network:
    nodes: list[Node] = [Input(in_shape)]
    for linear in maps:
        if len(nodes) > 1:
            nodes.append(ReLU(len(nodes) - 1))
        nodes.append(r.affine((len(nodes) - 1,), linear))
    return Network(tuple(nodes))


def dense(seed: int, *sizes: int) -> Network:
    r = Random(seed)
    return chain(r, (sizes[0],), *(r.dense(a, b) for a, b in itertools.pairwise(sizes)))


def conv(seed: int) -> Network:
    r = Random(seed)
    first = r.conv((1, 6, 6), 2, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    second = r.conv(first.out_shape, 3, (2, 2), padding=(0, 0, 1, 1))
    return chain(r, (1, 6, 6), first, second, r.dense(second.out_size, CLASSES))


def uneven_conv(seed: int) -> Network:
    """Groups, uneven padding, stride and dilation, and rows and columns that no window reads."""
    r = Random(seed)
    first = r.conv((2, 7, 6), 4, (3, 2), stride=(2, 1), padding=(0, 1, 2, 1), dilation=(1, 2), groups=2)
    second = r.conv(first.out_shape, 2, (2, 3), stride=(3, 2), dilation=(2, 1))
    return chain(r, (2, 7, 6), first, second, r.dense(second.out_size, 4), r.dense(4, CLASSES))


def residual(seed: int) -> Network:
    """A residual block: two convolutions beside the identity."""
    r = Random(seed)
    first = r.conv((1, 4, 4), 2, (3, 3), padding=(1, 1, 1, 1))
    inner = r.conv(first.out_shape, 2, (3, 3), padding=(1, 1, 1, 1))
    outer = r.conv(first.out_shape, 2, (3, 3), padding=(1, 1, 1, 1))
    identity = Diagonal(torch.ones(32), first.out_shape)
    return Network((
        Input((1, 4, 4)), r.affine((0,), first), ReLU(1), r.affine((2,), inner), ReLU(3),
        r.affine((4, 2), outer, identity), ReLU(5), r.affine((6,), r.dense(32, CLASSES)),
    ))  # fmt: skip


def uneven_residual(seed: int) -> Network:
    """Two branches of different strides between images of the same sizes."""
    r = Random(seed)
    first = r.conv((1, 6, 6), 2, (3, 3), padding=(1, 1, 1, 1))
    strided = r.conv(first.out_shape, 2, (2, 2), stride=(2, 2))
    sliding = r.conv(first.out_shape, 2, (4, 4))
    return Network((
        Input((1, 6, 6)), r.affine((0,), first), ReLU(1), r.affine((2, 2), strided, sliding), ReLU(3),
        r.affine((4,), r.dense(18, CLASSES)),
    ))  # fmt: skip


def sparse_and_diagonal(seed: int) -> Network:
    """A normalisation, a selection with a difference and a repeated unit, and a scaling."""
    r = Random(seed)
    rows, cols = torch.tensor([0, 0, 1, 2, 3, 4, 5]), torch.tensor([3, 1, 0, 4, 4, 2, 1])
    pick = Sparse(rows, cols, torch.tensor([1.0, -1.0, 1.0, 2.0, -0.5, 1.0, 1.0]), (5,), (6,))
    scaled = Diagonal(r.normal(6), (6,))
    return chain(r, (5,), Diagonal(torch.full((5,), 2.0), (5,)), pick, scaled, r.dense(6, CLASSES))


def input_and_output_relu(seed: int) -> Network:
    r = Random(seed)
    return Network((
        Input((4,)), ReLU(0), r.affine((1, 0), r.dense(4, 5), r.dense(4, 5)), ReLU(2),
        r.affine((3,), r.dense(5, CLASSES)), ReLU(4),
    ))  # fmt: skip


def shared_affine(seed: int) -> Network:
    """An affine node read by two ReLUs and by another affine node."""
    r = Random(seed)
    return Network((
        Input((3,)), r.affine((0,), r.dense(3, 4)), ReLU(1), ReLU(1),
        r.affine((2, 3, 1), r.dense(4, 4), r.dense(4, 4), r.dense(4, 4)), ReLU(4),
        r.affine((5, 4), r.dense(4, CLASSES), r.dense(4, CLASSES)),
    ))  # fmt: skip


def affine_after_affine(seed: int) -> Network:
    """Affine nodes in a row, and one without any input: a constant."""
    r = Random(seed)
    return Network((
        Input((3,)), r.affine((0,), r.dense(3, 4)), r.affine((1,), r.dense(4, 5)), ReLU(2),
        Affine((), (), r.normal(2), (2,)), r.affine((3, 4), r.dense(5, 4), r.dense(2, 4)),
        ReLU(5), r.affine((6,), r.dense(4, 4)), r.affine((7,), r.dense(4, CLASSES)),
    ))  # fmt: skip


def dead_units(seed: int) -> Network:
    """Neurons that are always inactive, always active and exactly 0."""
    network = dense(seed, 4, 6, 5, CLASSES)
    first = network.nodes[1]
    assert isinstance(first, Affine) and isinstance(first.maps[0], Dense)
    weight, bias = first.maps[0].weight.clone(), first.bias.clone()
    bias[0], bias[1], bias[2], weight[2] = -5.0, 5.0, 0.0, 0.0
    nodes = list(network.nodes)
    nodes[1] = replace(first, maps=(Dense(weight),), bias=bias)
    return Network(tuple(nodes))


NETWORKS: dict[str, Callable[[int], Network]] = {
    "affine": lambda seed: dense(seed, 4, CLASSES),
    "dense": lambda seed: dense(seed, 5, 12, 10, CLASSES),
    "deep": lambda seed: dense(seed, 3, 4, 4, 4, CLASSES),
    "conv": conv,
    "uneven-conv": uneven_conv,
    "residual": residual,
    "uneven-residual": uneven_residual,
    "sparse-diagonal": sparse_and_diagonal,
    "input-relu": input_and_output_relu,
    "shared-affine": shared_affine,
    "affine-affine": affine_after_affine,
    "dead-units": dead_units,
}

# Few enough ReLUs and inputs to enumerate every activation pattern.
TINY = ("affine", "deep", "sparse-diagonal", "input-relu", "shared-affine", "affine-affine", "dead-units")


def permuted(network: Network, seed: int) -> Network:
    """The same function with the hidden units of a chain of Dense and ungrouped Conv2d maps in another order.

    Channels are permuted, so that a convolution stays one.
    """
    nodes, generator = list(network.nodes), torch.Generator().manual_seed(seed)
    affine = [i for i, node in enumerate(nodes) if isinstance(node, Affine)]
    for this, following in itertools.pairwise(affine):
        here, there = nodes[this], nodes[following]
        assert isinstance(here, Affine) and isinstance(there, Affine) and len(there.maps) == 1
        channels = here.shape[0]
        order = torch.randperm(channels, generator=generator)
        linear, after = here.maps[0], there.maps[0]
        assert isinstance(linear, Dense | Conv2d) and isinstance(after, Dense | Conv2d)
        bias = here.bias.view(channels, -1)[order].flatten()
        nodes[this] = replace(here, maps=(replace(linear, weight=linear.weight[order]),), bias=bias)
        if isinstance(after, Conv2d):
            weight = after.weight[:, order]
        else:
            weight = after.weight.view(len(after.weight), channels, -1)[:, order].flatten(1)
        nodes[following] = replace(there, maps=(replace(after, weight=weight),))
    return Network(tuple(nodes))


def rescaled(network: Network, layer: int, k: int) -> Network:
    """The same function of a chain: affine node number ``layer`` times 2^k, the next one's maps times 2^-k."""
    nodes = list(network.nodes)
    affine = [i for i, node in enumerate(nodes) if isinstance(node, Affine)]
    for place, power in ((affine[layer], k), (affine[layer + 1], -k)):
        node = nodes[place]
        assert isinstance(node, Affine)
        maps = tuple(linear.map_tensors(lambda t, p=power: t * 2.0**p) for linear in node.maps)  # type: ignore[misc]
        nodes[place] = replace(node, maps=maps, bias=node.bias * 2.0**k if power == k else node.bias)
    return Network(tuple(nodes))


def samples(region: Region, count: int, seed: int) -> Tensor:
    """Points of every example's region, half of them on its border: (count, B, n_0)."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = region.lower, region.upper
    noise = torch.rand(count, *lower.shape, generator=generator, dtype=torch.float64).to(lower)
    noise[: count // 2] = noise[: count // 2].round()
    if not isinstance(region, Ball):
        return torch.minimum(torch.maximum(lower + noise * (upper - lower), lower), upper)
    step = torch.randn(count, *lower.shape, generator=generator, dtype=torch.float64).to(lower)
    if region.norm == "1":
        step = step**3
        # Corners of the l1 ball: one coordinate takes the whole radius.
        top = torch.nn.functional.one_hot(step.abs().argmax(-1), step.shape[-1])
        step[: count // 4] *= top[: count // 4]
    step = step / torch.linalg.vector_norm(step, ord=float(region.norm), dim=-1, keepdim=True)
    length = torch.rand(count, len(lower), 1, generator=generator, dtype=torch.float64).to(lower)
    length[: count // 2] = 1.0
    # The center lies in the box, so clamping into it brings a point nearer to the center.
    x = region.point + step * length * region.eps.unsqueeze(-1)
    return torch.minimum(torch.maximum(x, lower), upper)


@dataclass(frozen=True, eq=False)
class Piece:
    """A cell of the input box on which the network is linear: outputs ``A`` x + ``b`` where ``G`` x <= ``h``."""

    A: Array
    b: Array
    G: Array
    h: Array


def pieces(network: Network, lower: Array, upper: Array) -> Iterator[Piece]:
    """The linear pieces of a network over the box [lower, upper], each (n_0,), by activation patterns.

    Cells thinner than 1e-9 are left out: by continuity their minima are those of their neighbours to that order.
    """
    inputs = len(lower)
    start = (np.eye(inputs), np.zeros(inputs))
    matrices = [
        [as_numpy(torch.as_tensor(m.matrix().toarray())) for m in node.maps] if isinstance(node, Affine) else []
        for node in network.nodes
    ]
    pending: list[tuple[list[tuple[Array, Array]], Array, Array]] = [
        ([start], np.zeros((0, inputs)), np.zeros(0))
    ]
    while pending:
        forms, G, h = pending.pop()
        if len(forms) == len(network.nodes):
            yield Piece(*forms[-1], G, h)
            continue
        node = network.nodes[len(forms)]
        if isinstance(node, Affine):
            A, b = np.zeros((len(node.bias), inputs)), as_numpy(node.bias).astype(np.float64)
            for source, matrix in zip(node.inputs, matrices[len(forms)], strict=True):
                A, b = A + matrix @ forms[source][0], b + matrix @ forms[source][1]
            pending.append(([*forms, (A, b)], G, h))
        else:
            assert isinstance(node, ReLU)
            A, b = forms[node.input]
            for active, cut, bound in _patterns(A, b, G, h, lower, upper):
                pending.append(([*forms, (A * active[:, None], b * active)], cut, bound))


def _patterns(
    A: Array, b: Array, G: Array, h: Array, lower: Array, upper: Array
) -> list[tuple[Array, Array, Array]]:
    """All activation patterns of relu(A x + b) on a cell: which units are active, and the smaller cell."""
    found = [(np.zeros(0), G, h)]
    for row, shift in zip(A, b, strict=True):
        split: list[tuple[Array, Array, Array]] = []
        for active, cut, bound in found:
            least = _least(row, cut, bound, lower, upper)[0] + shift
            most = shift - _least(-row, cut, bound, lower, upper)[0]
            inactive = least < -1e-9
            sides = [side for side, possible in ((1.0, most > 1e-9 or not inactive), (0.0, inactive)) if possible]
            for side in sides:
                sign = 1 - 2 * side
                narrower = (np.vstack([cut, sign * row]), np.append(bound, -sign * shift))
                split.append((np.append(active, side), *(narrower if len(sides) == 2 else (cut, bound))))
        found = split
    return found


def _least(row: Array, G: Array, h: Array, lower: Array, upper: Array) -> tuple[float, Array]:
    """The least row . x over a cell of the box, and where."""
    corner = np.where(row > 0, lower, upper)
    if not len(G) or bool((G @ corner <= h).all()):
        return float(row @ corner), corner
    solved = linprog(row, A_ub=G, b_ub=h, bounds=np.stack([lower, upper], axis=1), method="highs")
    assert solved.status == 0, solved.message
    return float(solved.fun), np.clip(solved.x, lower, upper)


def enumerate_minimum(network: Network, lower: Array, upper: Array, c: Array, d: float) -> tuple[float, Array]:
    """The least c . f(x) + d over the box (to about 1e-9), and a point of the box that attains it."""
    best, point = math.inf, lower
    for piece in pieces(network, lower, upper):
        value, x = _least(c @ piece.A, piece.G, piece.h, lower, upper)
        value += float(c @ piece.b) + d
        if value < best:
            best, point = value, x
    return best, point
