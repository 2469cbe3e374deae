"""Pooling in terms of the builder's operations: average pooling is a grouped convolution, max-pooling ReLUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lpverify.errors import ModelError
from lpverify.linear import Shape
from lpverify.lowering.builder import Builder, Value, require_units
from lpverify.network import ReLU


@dataclass(frozen=True)
class Window:
    """A pooling window: sizes are (vertical, horizontal), ``padding`` is (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def out_shape(self, shape: Shape, name: str) -> Shape:
        """The pooled shape of an image (C, H, W).

        Raises:
            ModelError: if the window does not fit.
        """
        sizes = []
        for axis in (0, 1):
            before, after = self.padding[axis], self.padding[axis + 2]
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((shape[1 + axis] + before + after - span) // self.stride[axis] + 1)
            if sizes[-1] < 1 or min(before, after) < 0 or max(before, after) >= span:
                raise ModelError(f"{name}: pooling window {self} does not fit an image of shape {shape}")
        return (shape[0], sizes[0], sizes[1])

    def members(self, shape: Shape, name: str) -> Tensor:
        """Flat positions in (H, W) of every window's members: (kernel size, H', W'), -1 in the padding."""
        _, height, width = self.out_shape(shape, name)
        require_units((*self.kernel, height, width), name)
        axes = []
        for axis, count in ((0, height), (1, width)):
            start = torch.arange(count) * self.stride[axis] - self.padding[axis]
            axes.append(torch.arange(self.kernel[axis])[:, None] * self.dilation[axis] + start)
        rows, cols = axes[0][:, None, :, None], axes[1][None, :, None, :]
        inside = (rows >= 0) & (rows < shape[1]) & (cols >= 0) & (cols < shape[2])
        members = torch.where(inside, rows * shape[2] + cols, -1).reshape(-1, height, width)
        if bool((members < 0).all(0).any()):
            raise ModelError(f"{name}: some window of {self} lies in the padding of an image of shape {shape}")
        return members


def average_pool(
    b: Builder, value: Value, window: Window, count_padding: bool, name: str, divisor: int | None = None
) -> Value:
    """The mean over each window of an image (C, H, W); ``count_padding``: zeros of the padding count as members."""
    members = window.members(value.shape, name)
    channels, size = value.shape[0], math.prod(window.kernel)
    require_units((channels, size), name)
    counts = (members >= 0).sum(0)
    if divisor is not None or count_padding or bool((counts == size).all()):
        counts = torch.tensor(divisor or size)
    weight = torch.ones(channels, 1, *window.kernel, dtype=b.dtype)
    if counts.ndim == 0:
        weight = weight / counts
    if not bool((torch.frexp(counts.double()).mantissa == 0.5).all()):
        b.note(f"{name}: the average's 1/{int(counts.max())} is rounded to {str(b.dtype).removeprefix('torch.')}")
    out = b.conv(value, weight, None, window.stride, window.padding, window.dilation, channels, name=name)
    return out if counts.ndim == 0 else b.scale_shift(out, 1 / counts.to(b.dtype), None, name)


def max_pool(b: Builder, value: Value, window: Window, name: str) -> Value:
    """The greatest member of each window of an image (C, H, W), by a tree of max(a, b) = a + relu(b - a).

    Every level halves the candidates of a window: a grouped convolution takes the differences of pairs, a ReLU
    follows, and another grouped convolution adds it to the first of each pair.
    """
    channels, size = value.shape[0], math.prod(window.kernel)
    out = window.out_shape(value.shape, name)
    require_units((channels, size, -(-size // 2)), name)
    kernel, stride, dilation, padding = window.kernel, window.stride, window.dilation, window.padding
    # Zeros of the padding never win against a ReLU's values; otherwise a window's gaps repeat its own members.
    if any(padding) and not isinstance(b.items[value.item], ReLU):
        value = _candidates(b, value, window, name)
        kernel, stride, dilation, padding = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)
    while size > 1:
        pairs, rest = size // 2, size - size // 2
        first, difference = _pairing(size)

        def grouped(rows: Tensor, kernel: tuple[int, int] = kernel) -> Tensor:
            per_channel = rows.reshape(len(rows), -1, *kernel)
            return per_channel.repeat(channels, 1, 1, 1)

        gain = b.relu(b.conv(value, grouped(difference), None, stride, padding, dilation, channels, name=name))
        base = b.conv(value, grouped(first), None, stride, padding, dilation, channels, name=name)
        if pairs < rest:
            spread = torch.eye(rest, pairs).reshape(rest, pairs, 1, 1).repeat(channels, 1, 1, 1)
            gain = b.conv(gain, spread, None, groups=channels, name=name)
        value = b.add([base, gain], [1.0, 1.0], name)
        kernel, stride, dilation, padding, size = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), rest
    if value.shape != out:  # a 1x1 window, perhaps with a stride
        weight = torch.ones(channels, 1, 1, 1)
        value = b.conv(value, weight, None, stride, padding, dilation, channels, name=name)
    return value


def _pairing(size: int) -> tuple[Tensor, Tensor]:
    """For candidates 0..size-1: rows that pick the first of each pair (a last one without a partner stays), and
    rows that take second - first."""
    unit = torch.eye(size, dtype=torch.float64)
    first = unit[0::2]
    return first, unit[1::2] - first[: size // 2]


def _candidates(b: Builder, value: Value, window: Window, name: str) -> Value:
    """Every window's members as channels (C * size, H', W'); a member in the padding repeats one of the image."""
    members = window.members(value.shape, name).to(b.device)
    fallback = members.max(0).values
    members = torch.where(members < 0, fallback, members)
    area = value.shape[1] * value.shape[2]
    source = torch.arange(value.shape[0], device=b.device).view(-1, 1, 1, 1) * area + members
    return b.pick(value, source.flatten(0, 1), name)
