"""Builds a Network operation by operation; shared by the torch and the ONNX front ends.

A ``Value`` is a view of one item's units: its shape and, after a transpose, the order in which it lists them.
Reshapes and transposes therefore cost nothing until a convolution or a sum needs another order. Shapes carry
no batch axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.errors import ModelError, UsageError
from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Shape
from lpverify.lowering.graph import Item, Step, network
from lpverify.lowering.maps import Gather, gather
from lpverify.network import Input, Network, ReLU

PerChannel = float | Sequence[float]
# Most numbers that a shape in a file may ask for: ten times the widest layer of VGG-16.
LARGEST = 2**25


@dataclass(frozen=True, eq=False)
class Value:
    """Units of item ``item``: entry i of the value is unit ``order[i]`` (None: unit i). ``order`` is a permutation."""

    item: int
    shape: Shape
    order: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)


class Builder:
    """The items so far, and the operations that add to them. Constants are cast to ``dtype`` differentiably."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device | None = None) -> None:
        require_units(shape, "the input")
        self.dtype = dtype
        self.device = device or torch.device("cpu")
        self.items: list[Item] = [Input(shape)]
        self.notes: list[str] = []
        self.input = Value(0, shape)

    def network(self, output: Value) -> Network:
        """The Network whose output is ``output``, simplified."""
        plain = self.plain(output)
        notes, device = list(self.notes), self.device
        return network(self.items, plain.item, self.dtype, device, notes)

    def const(self, tensor: Tensor) -> Tensor:
        """A constant or parameter in the network's dtype and device; gradients flow."""
        return tensor.to(device=self.device, dtype=self.dtype)

    def note(self, sentence: str) -> None:
        """Record a sentence for the network's reader."""
        self.notes.append(sentence)

    # Views and selections -------------------------------------------------------------------------------------

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same units in the same order under another shape."""
        return replace(value, shape=shape)

    def permute(self, value: Value, axes: Sequence[int]) -> Value:
        """The axes of ``value`` in another order."""
        order = self._positions(value).reshape(value.shape).permute(*axes)
        return self._ordered(value.item, tuple(order.shape), order.flatten())

    def select(self, value: Value, source: Tensor, shape: Shape, name: str) -> Value:
        """Entry i is entry ``source[i]`` of ``value`` (flat), 0 where it is -1."""
        source = source.flatten().to(self.device)
        if value.order is not None:
            source = torch.where(source < 0, source, value.order[source.clamp(min=0)])
        linear = gather(source, self._shape(value.item), shape)
        return self._affine([(value.item, linear)], None, shape, name)

    def pick(self, value: Value, source: Tensor, name: str) -> Value:
        """``select`` by an index array that has the result's shape."""
        return self.select(value, source, tuple(source.shape), name)

    def positions(self, value: Value) -> Tensor:
        """Flat positions of ``value``'s entries in its own shape, to index and hand to ``pick``."""
        return torch.arange(value.size, device=self.device).reshape(value.shape)

    def expand(self, value: Value, shape: Shape, name: str) -> Value:
        """``value`` broadcast to ``shape``."""
        if value.shape == shape:
            return value
        require_units(shape, name)
        if value.size == math.prod(shape):
            return self.reshape(value, shape)
        return self.pick(value, self.positions(value).expand(shape), name)

    def concat(self, values: Sequence[Value], axis: int, name: str) -> Value:
        """The values one after the other along ``axis``."""
        shape = list(values[0].shape)
        shape[axis] = sum(v.shape[axis] for v in values)
        require_units(tuple(shape), name)
        terms: list[tuple[int, AbstractLinearMap]] = []
        start = 0
        for value in values:
            plain = self.plain(value)
            source = torch.full(tuple(shape), -1, device=self.device)
            source.narrow(axis, start, value.shape[axis]).copy_(self.positions(value))
            terms.append((plain.item, gather(source.flatten(), self._shape(plain.item), tuple(shape))))
            start += value.shape[axis]
        return self._affine(terms, None, tuple(shape), name)

    def plain(self, value: Value) -> Value:
        """``value`` as an item of its own shape, in its own order."""
        if value.order is None and value.shape == self._shape(value.item):
            return value
        source = self._positions(value)
        linear = gather(source, self._shape(value.item), value.shape)
        return self._affine([(value.item, linear)], None, value.shape, "reorder")

    # Affine operations ----------------------------------------------------------------------------------------

    def linear(self, value: Value, weight: Tensor, bias: Tensor | None, name: str) -> Value:
        """value @ weight.T + bias over the last axis; ``weight`` (n_out, n_in), ``bias`` (n_out,)."""
        *lead, width = value.shape
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ModelError(f"{name}: weight {tuple(weight.shape)} does not take an input of shape {value.shape}")
        rows = math.prod(lead)
        if rows == 1:
            plain = self.plain(value)
            shape = (*lead, weight.shape[0])
            return self._affine([(plain.item, Dense(self.const(weight)))], self._bias(bias), shape, name)
        # The same matrix on every row is a 1x1 convolution with the rows as pixels.
        image = self.permute(self.reshape(value, (rows, width)), (1, 0))
        kernel = weight[:, :, None, None]
        out = self.conv(self.reshape(image, (width, 1, rows)), kernel, bias, name=name)
        out = self.permute(self.reshape(out, (weight.shape[0], rows)), (1, 0))
        return self.reshape(out, (*lead, weight.shape[0]))

    def conv(
        self,
        value: Value,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        *,
        name: str,
    ) -> Value:
        """A convolution of a value of shape (C, H, W); ``padding`` is (top, left, bottom, right)."""
        if len(value.shape) != 3 or weight.ndim != 4 or weight.shape[1] * groups != value.shape[0]:
            raise ModelError(f"{name}: weight {tuple(weight.shape)} in {groups} groups does not fit {value.shape}")
        linear = Conv2d(self.const(weight), value.shape, stride, padding, dilation, groups)
        if min(linear.out_shape) < 1 or min(padding) < 0 or weight.shape[0] % groups:
            raise ModelError(f"{name}: kernel {tuple(weight.shape)} with padding {padding} does not fit {value.shape}")
        channels, height, width = linear.out_shape
        require_units(linear.out_shape, name)
        require_units(_padded(value.shape, padding), name)
        full = None if bias is None else self.const(bias).repeat_interleave(height * width)
        plain = self.plain(value)
        return self._affine([(plain.item, linear)], self._bias(full), (channels, height, width), name)

    def scale_shift(self, value: Value, scale: Tensor | None, shift: Tensor | None, name: str) -> Value:
        """value * scale + shift, both broadcast against the value."""
        shapes = [tuple(t.shape) for t in (scale, shift) if t is not None]
        value = self.expand(value, _broadcast([value.shape, *shapes], name), name)
        inverse = None if value.order is None else torch.argsort(value.order)
        linear = Gather(self._shape(value.item), value.shape)
        if scale is not None:
            which = self._spread(scale, value.shape)
            which = which if inverse is None else which[inverse]
            linear = replace(linear, weight=self.const(scale).flatten(), which=which)
        bias = None
        if shift is not None:
            bias = self.const(shift).flatten()[self._spread(shift, value.shape)]
            bias = self._bias(bias if inverse is None else bias[inverse])
        # The new item keeps the order of the one it reads, so that a convolution can absorb it.
        kept = self._shape(value.item)
        out = self._affine([(value.item, replace(linear, out_shape=kept))], bias, kept, name)
        return replace(value, item=out.item)

    def add(self, values: Sequence[Value], factors: Sequence[float], name: str) -> Value:
        """The sum of factor * value, broadcast to one shape."""
        shape = _broadcast([v.shape for v in values], name)
        values = [self.expand(v, shape, name) for v in values]
        first = values[0]
        kept = self._shape(first.item)
        inverse = torch.argsort(self._positions(first))
        terms: list[tuple[int, AbstractLinearMap]] = []
        for value, factor in zip(values, factors, strict=True):
            linear = gather(self._positions(value)[inverse], self._shape(value.item), kept)
            if factor != 1.0:
                which = torch.zeros(value.size, dtype=torch.int64, device=self.device)
                weight = torch.tensor([factor], dtype=self.dtype, device=self.device)
                linear = replace(linear, weight=weight, which=which)
            terms.append((value.item, linear))
        return replace(first, item=self._affine(terms, None, kept, name).item, shape=shape)

    def pad(self, value: Value, padding: tuple[int, int, int, int], fill: float, name: str) -> Value:
        """A value (C, H, W) with (top, left, bottom, right) rows and columns of ``fill`` around it; negative crops."""
        crop = tuple(max(0, -p) for p in padding)
        if any(crop):
            _, height, width = value.shape
            kept = self.positions(value)[:, crop[0] : height - crop[2], crop[1] : width - crop[3]]
            value = self.pick(value, kept, name)
        top, left, bottom, right = (max(0, p) for p in padding)
        require_units(_padded(value.shape, (top, left, bottom, right)), name)
        if not any((top, left, bottom, right)):
            return value
        ones = torch.ones(value.shape[0], 1, 1, 1, dtype=self.dtype, device=self.device)
        out = self.conv(value, ones, None, padding=(top, left, bottom, right), groups=value.shape[0], name=name)
        frame = F.pad(torch.zeros(value.shape, dtype=torch.float64), (left, right, top, bottom), value=fill)
        return self.scale_shift(out, None, frame, name) if fill else out

    def normalise(self, value: Value, mean: PerChannel | None, std: PerChannel | None) -> Value:
        """(x - mean) / std, numbers or one per channel (the first axis, or else the last).

        Raises:
            UsageError: if a number is not finite, a deviation is 0, or the count fits no axis.
        """
        numbers = [None if p is None else _per_channel(p, value.shape, n) for p, n in ((mean, "mean"), (std, "std"))]
        if numbers[1] is not None and bool((numbers[1] == 0).any()):
            raise UsageError("std: must not be 0")
        if numbers[0] is not None:
            value = self.scale_shift(value, None, -numbers[0], "mean")
        return value if numbers[1] is None else self.scale_shift(value, 1 / numbers[1], None, "std")

    # Piecewise-linear operations ------------------------------------------------------------------------------

    def relu(self, value: Value) -> Value:
        """max(value, 0)."""
        if isinstance(self.items[value.item], ReLU):
            return value
        self.items.append(ReLU(value.item))
        return replace(value, item=len(self.items) - 1)

    def maximum(self, a: Value, b: Value, name: str) -> Value:
        """max(a, b) = a + relu(b - a)."""
        return self.add([a, self.relu(self.add([b, a], [1.0, -1.0], name))], [1.0, 1.0], name)

    def minimum(self, a: Value, b: Value, name: str) -> Value:
        """min(a, b) = a - relu(a - b)."""
        return self.add([a, self.relu(self.add([a, b], [1.0, -1.0], name))], [1.0, -1.0], name)

    def absolute(self, value: Value, name: str) -> Value:
        """|x| = 2 relu(x) - x."""
        return self.add([self.relu(value), value], [2.0, -1.0], name)

    def leaky(self, value: Value, slope: Tensor, name: str) -> Value:
        """slope * x + (1 - slope) * relu(x), the slope broadcast against the value."""
        slope = self.const(slope)
        rest = 1 - slope
        pairs = zip(slope.flatten().tolist(), rest.flatten().tolist(), strict=True)
        if not all(Fraction(a) + Fraction(b) == 1 for a, b in pairs):
            self.note(f"{name}: 1 - slope is rounded to {str(self.dtype).removeprefix('torch.')}")
        below = self.scale_shift(value, slope, None, name)
        above = self.scale_shift(self.relu(value), rest, None, name)
        return self.add([below, above], [1.0, 1.0], name)

    def clip(self, value: Value, low: float | None, high: float | None, name: str) -> Value:
        """min(max(x, low), high), either limit optional (as in torch, high wins if it is below low)."""
        if any(limit is not None and math.isnan(limit) for limit in (low, high)):
            raise ModelError(f"{name}: a limit of the clip is NaN")
        low = None if low == -math.inf else low
        high = None if high == math.inf else high
        if low is not None:
            value = self._shifted(self.relu(self._shifted(value, -low, name)), low, name)
        if high is not None:
            below = self.relu(self._shifted(self._negated(value, name), high, name))
            value = self._shifted(self._negated(below, name), high, name)
        return value

    # Internals ------------------------------------------------------------------------------------------------

    def _shifted(self, value: Value, by: float, name: str) -> Value:
        if by == 0:
            return value
        return self.scale_shift(value, None, torch.tensor(by, dtype=torch.float64), name)

    def _negated(self, value: Value, name: str) -> Value:
        return self.scale_shift(value, torch.tensor(-1.0, dtype=torch.float64), None, name)

    def _affine(
        self, terms: list[tuple[int, AbstractLinearMap]], bias: Tensor | None, shape: Shape, name: str
    ) -> Value:
        self.items.append(Step(tuple(terms), bias, shape, name))
        return Value(len(self.items) - 1, shape)

    def _bias(self, bias: Tensor | None) -> Tensor | None:
        if bias is None or (not bias.requires_grad and not bool(bias.any())):
            return None
        return self.const(bias)

    def _shape(self, item: int) -> Shape:
        found = self.items[item]
        return self._shape(found.input) if isinstance(found, ReLU) else found.shape

    def _positions(self, value: Value) -> Tensor:
        return torch.arange(value.size, device=self.device) if value.order is None else value.order

    def _ordered(self, item: int, shape: Shape, order: Tensor) -> Value:
        same = bool((order == torch.arange(len(order), device=order.device)).all())
        return Value(item, shape, None if same else order)

    def _spread(self, tensor: Tensor, shape: Shape) -> Tensor:
        """For each entry of ``shape``, the flat position of the entry of ``tensor`` that broadcasts to it."""
        flat = torch.arange(tensor.numel(), device=self.device).reshape(tensor.shape)
        return flat.expand(shape).flatten()


def _broadcast(shapes: list[Shape], name: str) -> Shape:
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ModelError(f"{name}: shapes {', '.join(map(str, shapes))} do not match") from None


def _per_channel(numbers: PerChannel, shape: Shape, name: str) -> Tensor:
    tensor = torch.as_tensor(numbers, dtype=torch.float64)
    if tensor.ndim > 1 or not bool(tensor.isfinite().all()):
        raise UsageError(f"{name}: {numbers!r} is not a finite number or a sequence of them")
    count = tensor.numel()
    if tensor.ndim == 0 or count == 1:
        return tensor.reshape(())
    if shape and count == shape[0]:
        return tensor.reshape(count, *([1] * (len(shape) - 1)))
    if shape and count == shape[-1]:
        return tensor
    raise UsageError(f"{name}: {count} numbers fit neither the first nor the last axis of an input of shape {shape}")


def require_units(shape: Shape, name: str) -> None:
    """Refuse a shape that would take gigabytes, before they are taken: a file of some bytes may state any.

    Raises:
        ModelError: if it is that of more than LARGEST numbers.
    """
    if math.prod(shape) > LARGEST:
        raise ModelError(f"{name}: shape {tuple(shape)} is of {math.prod(shape)} numbers, more than {LARGEST}")


def _padded(shape: Shape, padding: tuple[int, int, int, int]) -> Shape:
    top, left, bottom, right = padding
    return shape[0], shape[1] + top + bottom, shape[2] + left + right
