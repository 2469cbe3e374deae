"""Composition of linear maps, for folding one affine node into its neighbour.

While a network is being lowered, everything that only selects and scales (batch-norm, normalisation, slices,
transposes, concatenation) is one ``Gather``; it is absorbed by the Dense or Conv2d beside it where that is
possible, and otherwise becomes a Diagonal or a Sparse map at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Diagonal, Shape, Sparse


@dataclass(frozen=True, eq=False)
class Gather(AbstractLinearMap):
    """out[i] = weight[which[i]] * in[source[i]]; only used while lowering.

    Attributes:
        in_shape, out_shape: shapes of the flat input and output.
        source: (n_out,) int64, -1 for a zero row; None for the identity.
        weight: (m,) the distinct factors, live parameters perhaps; None for ones.
        which: (n_out,) int64, the factor of each row. It keeps the structure: a factor per channel can be
            absorbed by a convolution, and its gradient still reaches the one parameter of that channel.
    """

    in_shape: Shape
    out_shape: Shape
    source: Tensor | None = None
    weight: Tensor | None = None
    which: Tensor | None = None

    def factors(self) -> Tensor | None:
        """The factor of every row, (n_out,), or None for ones."""
        return None if self.weight is None or self.which is None else self.weight[self.which]

    def apply(self, x: Tensor) -> Tensor:
        y = x if self.source is None else F.pad(x, (0, 1)).index_select(1, self.source % (self.in_size + 1))
        factors = self.factors()
        return y if factors is None else y * factors

    def transpose(self, y: Tensor) -> Tensor:
        factors = self.factors()
        y = y if factors is None else y * factors
        if self.source is None:
            return y
        x = y.new_zeros(y.shape[0], self.in_size + 1)
        return x.index_add(1, self.source % (self.in_size + 1), y)[:, :-1]

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Gather:
        return self if self.weight is None else replace(self, weight=change(self.weight))

    def fan(self) -> tuple[int, int]:
        return 1, 1 if self.source is None else int((self.source % (self.in_size + 1)).bincount().max())

    @property
    def is_identity(self) -> bool:
        """Whether the map returns its input unchanged."""
        return self.source is None and self.weight is None

    def per_channel(self, channels: int) -> Tensor | None:
        """The factor of each channel (C,) if the map scales whole channels of an image, else None."""
        if self.source is not None or self.weight is None or self.which is None:
            return None
        which = self.which.view(channels, -1)
        return self.weight[which[:, 0]] if bool((which == which[:, :1]).all()) else None

    def final(self, like: Tensor) -> AbstractLinearMap:
        """The same map as one of the network's own kinds, with the dtype and device of ``like``."""
        factors = self.factors()
        factors = like.new_ones(self.out_size) if factors is None else factors
        if self.source is None:
            return Diagonal(factors, self.out_shape)
        rows = (self.source >= 0).nonzero().squeeze(1)
        return Sparse(rows, self.source[rows], factors[rows], self.in_shape, self.out_shape)


@dataclass(frozen=True)
class Composed:
    """A composition; ``exact`` says that no entry was rounded."""

    linear: AbstractLinearMap
    exact: bool


def gather(source: Tensor, in_shape: Shape, out_shape: Shape) -> Gather:
    """The selection out[i] = in[source[i]] (0 where source is -1)."""
    same = len(source) == _size(in_shape) and bool((source == torch.arange(len(source), device=source.device)).all())
    return Gather(in_shape, out_shape, None if same else source)


def compose(outer: AbstractLinearMap, inner: AbstractLinearMap) -> Composed | None:
    """outer after inner as one map, or None where that is impossible or would cost more than it saves."""
    if isinstance(outer, Gather) and outer.is_identity:
        return Composed(inner, True)
    if isinstance(inner, Gather) and inner.is_identity:
        return Composed(outer, True)
    if isinstance(outer, Gather) and isinstance(inner, Gather):
        return _gathers(outer, inner)
    if isinstance(outer, Dense) and isinstance(inner, Dense):
        return _denses(outer, inner)
    if _grows(outer, inner):
        return None
    if isinstance(outer, Dense) and isinstance(inner, Gather):
        factors = inner.factors()
        exact = inner.fan()[1] <= 1 and (factors is None or products_exact(outer.weight, factors))
        return Composed(Dense(inner.transpose(outer.weight)), exact)
    if isinstance(outer, Gather) and isinstance(inner, Dense):
        factors = outer.factors()
        exact = factors is None or products_exact(inner.weight, factors)
        return Composed(Dense(outer.apply(inner.weight.T).T), exact)
    if isinstance(outer, Gather) and isinstance(inner, Conv2d):
        scale = outer.per_channel(inner.out_shape[0])
        if scale is None:
            return None
        weight = inner.weight * scale.view(-1, 1, 1, 1)
        return Composed(replace(inner, weight=weight), products_exact(inner.weight, scale))
    if isinstance(outer, Conv2d) and isinstance(inner, Gather):
        scale = inner.per_channel(outer.in_shape[0])
        return None if scale is None else _scaled_inputs(outer, scale)
    if isinstance(outer, Conv2d) and isinstance(inner, Conv2d):
        return _conv_after_padding(outer, inner)
    return None


def add(first: AbstractLinearMap, second: AbstractLinearMap, like: Tensor) -> Composed | None:
    """The sum of two maps of one kind and geometry (in the dtype and device of ``like``), or None."""
    if isinstance(first, Gather) and isinstance(second, Gather):
        return _sum_of_gathers(first, second, like)
    if isinstance(first, Dense) and isinstance(second, Dense):
        return Composed(Dense(first.weight + second.weight), sums_exact(first.weight, second.weight))
    if isinstance(first, Conv2d) and isinstance(second, Conv2d):
        alike = replace(first, weight=second.weight) if first.weight.shape == second.weight.shape else None
        geometry = ("in_shape", "stride", "padding", "dilation", "groups")
        if alike is not None and all(getattr(alike, name) == getattr(second, name) for name in geometry):
            total = replace(first, weight=first.weight + second.weight)
            return Composed(total, sums_exact(first.weight, second.weight))
    return None


def _grows(outer: AbstractLinearMap, inner: AbstractLinearMap) -> bool:
    """Whether a matrix with a selection beside it would become a much larger matrix, mostly of zeros."""
    if not any(isinstance(m, Dense) for m in (outer, inner)):
        return False
    before = next(m.in_size * m.out_size for m in (outer, inner) if isinstance(m, Dense))
    return outer.out_size * inner.in_size > 4 * before + 2**20


def _gathers(outer: Gather, inner: Gather) -> Composed:
    rows = outer.out_size
    device = next(t.device for t in (outer.source, inner.source, outer.which, inner.which) if t is not None)
    middle = torch.arange(rows, device=device) if outer.source is None else outer.source
    source: Tensor | None = middle
    if inner.source is not None:
        source = F.pad(inner.source, (0, 1), value=-1)[middle]
    exact, weight, which = True, outer.weight, outer.which
    if inner.weight is not None and inner.which is not None:
        below = inner.which[middle.clamp(min=0)]
        if outer.weight is None or outer.which is None:
            weight, which = inner.weight, below
        else:
            pairs, which = torch.unique(outer.which * len(inner.weight) + below, return_inverse=True)
            left, right = outer.weight[pairs // len(inner.weight)], inner.weight[pairs % len(inner.weight)]
            weight, exact = left * right, products_exact(left, right)
    assert source is not None
    placed = gather(source, inner.in_shape, outer.out_shape)
    return Composed(replace(placed, weight=weight, which=which), exact)


def _sum_of_gathers(first: Gather, second: Gather, like: Tensor) -> Composed | None:
    a, b = first.source, second.source
    if (a is None) != (b is None) or (a is not None and b is not None and not torch.equal(a, b)):
        return None
    weights, whiches = [], []
    for part in (first, second):
        weights.append(like.new_ones(1) if part.weight is None else part.weight)
        none = torch.zeros(part.out_size, dtype=torch.int64, device=like.device)
        whiches.append(none if part.which is None else part.which)
    pairs, which = torch.unique(whiches[0] * len(weights[1]) + whiches[1], return_inverse=True)
    left, right = weights[0][pairs // len(weights[1])], weights[1][pairs % len(weights[1])]
    return Composed(replace(first, weight=left + right, which=which), sums_exact(left, right))


def _denses(outer: Dense, inner: Dense) -> Composed | None:
    """One matrix instead of two, unless that rounds or is larger than both together."""
    rows, cols, between = outer.out_size, inner.in_size, inner.out_size
    alone = bool(((outer.weight != 0).sum(1) <= 1).all()) or bool(((inner.weight != 0).sum(0) <= 1).all())
    if rows * cols > between * (rows + cols) or not alone or not products_exact(outer.weight, inner.weight):
        return None
    return Composed(Dense(outer.weight @ inner.weight), True)


def _scaled_inputs(conv: Conv2d, scale: Tensor) -> Composed:
    out_per_group = conv.weight.shape[0] // conv.groups
    per_weight = scale.view(conv.groups, 1, -1).expand(-1, out_per_group, -1).reshape(conv.weight.shape[0], -1)
    weight = conv.weight * per_weight[:, :, None, None]
    return Composed(replace(conv, weight=weight), products_exact(conv.weight, scale))


def _conv_after_padding(outer: Conv2d, inner: Conv2d) -> Composed | None:
    """A convolution of a zero-padded image, the padding being a 1x1 convolution by ones."""
    plain = inner.weight.shape[1:] == (1, 1, 1) and inner.groups == inner.in_shape[0] == inner.weight.shape[0]
    if not plain or inner.stride != (1, 1) or inner.weight.requires_grad or bool((inner.weight != 1).any()):
        return None
    top, left, bottom, right = (a + b for a, b in zip(outer.padding, inner.padding, strict=True))
    return Composed(replace(outer, in_shape=inner.in_shape, padding=(top, left, bottom, right)), True)


def products_exact(left: Tensor, right: Tensor) -> bool:
    """Whether every product of an entry of each is certainly exact in their dtype (barring under- and overflow)."""
    if _powers_of_two(left) or _powers_of_two(right):
        return True
    return left.dtype == torch.float64 and _fits_float32(left) and _fits_float32(right)


def applies_exactly(linear: AbstractLinearMap, x: Tensor) -> bool:
    """Whether ``linear`` maps the vector x (n_in,) without rounding: each entry is one exact product."""
    if isinstance(linear, Gather):
        return linear.weight is None or products_exact(linear.weight, x)
    if isinstance(linear, Dense):
        return bool(((linear.weight != 0).sum(1) <= 1).all()) and products_exact(linear.weight, x)
    return False


def sums_exact(left: Tensor, right: Tensor) -> bool:
    """Whether left + right is exact entry by entry (Knuth's error term of the sum is 0)."""
    a, b = left.detach(), right.detach()
    total = a + b
    part = total - a
    return not bool(((a - (total - part)) + (b - part)).any())


def _powers_of_two(tensor: Tensor) -> bool:
    mantissa = torch.frexp(tensor.detach()).mantissa.abs()
    return bool(((mantissa == 0.5) | (mantissa == 0)).all())


def _fits_float32(tensor: Tensor) -> bool:
    return bool((tensor.detach().float().double() == tensor.detach()).all())


def _size(shape: Shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
