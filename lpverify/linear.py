"""The linear maps of a network: dense, convolution, diagonal and sparse.

A map holds torch tensors, which may be the live parameters of a module, so gradients flow through a bound to the
weights. Shapes: ``B`` batch, ``n_in`` and ``n_out`` units of a map. Images are flattened in the order channel,
height, width.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable

Shape = tuple[int, ...]


class AbstractLinearMap(abc.ABC):
    """A linear map from ``n_in`` to ``n_out`` units, applied to batches of flat vectors."""

    in_shape: Shape
    out_shape: Shape

    @property
    def in_size(self) -> int:
        """Number of input units ``n_in``."""
        return math.prod(self.in_shape)

    @property
    def out_size(self) -> int:
        """Number of output units ``n_out``."""
        return math.prod(self.out_shape)

    @abc.abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """W x for each row: (B, n_in) -> (B, n_out)."""

    @abc.abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """W^T y for each row: (B, n_out) -> (B, n_in)."""

    @abc.abstractmethod
    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> AbstractLinearMap:
        """The same map with ``change`` applied to its real-valued tensors."""

    @abc.abstractmethod
    def fan(self) -> tuple[int, int]:
        """The greatest number of terms in one sum of ``apply`` and of ``transpose``."""

    def abs(self) -> AbstractLinearMap:
        """The map whose matrix is |W| entry by entry."""
        return self.map_tensors(torch.abs)

    def matrix(self) -> sparse.csr_array:
        """W as a scipy csr array (n_out, n_in) in float64."""
        exact = self.map_tensors(lambda t: t.detach().cpu().double())
        blocks = []
        step = max(1, 2**22 // max(1, self.out_size))
        for start in range(0, self.in_size, step):
            width = min(step, self.in_size - start)
            unit = torch.zeros(width, self.in_size, dtype=torch.float64)
            unit[torch.arange(width), start + torch.arange(width)] = 1.0
            blocks.append(sparse.csr_array(exact.apply(unit).numpy().T))
        return sparse.csr_array(sparse.hstack(blocks, format="csr"))


@dataclass(frozen=True, eq=False)
class Dense(AbstractLinearMap):
    """A full matrix: ``weight`` has shape (n_out, n_in)."""

    weight: Tensor

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        return (self.weight.shape[1],)

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        return (self.weight.shape[0],)

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def transpose(self, y: Tensor) -> Tensor:
        return y @ self.weight

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Dense:
        return Dense(change(self.weight))

    def fan(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Conv2d(AbstractLinearMap):
    """A convolution with zero padding; a 1-D convolution is one of height 1.

    Attributes:
        weight: (C_out, C_in / groups, k_h, k_w).
        in_shape: (C_in, H, W).
        stride, dilation: (vertical, horizontal), each >= 1.
        padding: (top, left, bottom, right), each >= 0.
        groups: number of channel groups.
    """

    weight: Tensor
    in_shape: Shape
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @cached_property
    def out_shape(self) -> Shape:  # type: ignore[override]
        top, left, bottom, right = self.padding
        span_h = self.dilation[0] * (self.weight.shape[2] - 1) + 1
        span_w = self.dilation[1] * (self.weight.shape[3] - 1) + 1
        height = (self.in_shape[1] + top + bottom - span_h) // self.stride[0] + 1
        width = (self.in_shape[2] + left + right - span_w) // self.stride[1] + 1
        return (self.weight.shape[0], height, width)

    def apply(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.requires_grad and not self.weight.requires_grad and torch.is_grad_enabled():
            flat: Tensor = _Convolve.apply(x.flatten(1), self)  # type: ignore[no-untyped-call]
            return flat
        top, left, bottom, right = self.padding
        image = x.reshape(-1, *self.in_shape)
        pad: tuple[int, int] = (top, left)
        if (top, left) != (bottom, right):
            image, pad = F.pad(image, (left, right, top, bottom)), (0, 0)
        y = F.conv2d(image, self.weight, None, self.stride, pad, self.dilation, self.groups)
        return y.flatten(1)

    def transpose(self, y: Tensor) -> Tensor:
        top, left, bottom, right = self.padding
        channels, height, width = self.in_shape
        full_h, full_w = self._reach(self.out_shape[1], 0), self._reach(self.out_shape[2], 1)
        rest = (height + top + bottom - full_h, width + left + right - full_w)
        even = (top, left) == (bottom, right) and max(rest) < max(*self.stride, *self.dilation)
        if even and not (channels == 1 and y.device.type == "cpu"):
            # Cropping inside the call takes down to a third of the time; so does this order of the weights.
            weight = self.weight
            if y.device.type == "cpu" and self.stride != (1, 1):
                weight = weight.contiguous(memory_format=torch.channels_last)
            image = y.reshape(-1, *self.out_shape)
            options = (self.stride, (top, left), rest, self.groups, self.dilation)
            return F.conv_transpose2d(image, weight, None, *options).flatten(1)
        full = self.spread(y.reshape(-1, *self.out_shape))
        # `full` starts `padding` before the image and may end before or after it.
        grown = F.pad(full, (-left, left + width - full_w, -top, top + height - full_h))
        return grown.flatten(1)

    def spread(self, y: Tensor) -> Tensor:
        """The transposed convolution without cropping by the padding: (R, C_out, h, w) -> (R, C_in, h', w')."""
        kernel = self.weight.shape[2:]
        if self.in_shape[0] == 1 and y.device.type == "cpu":
            # One input channel: a matrix product and a fold take a quarter of the library call's time.
            size = (self._reach(y.shape[2], 0), self._reach(y.shape[3], 1))
            taps = self.weight.flatten(1).T @ y.flatten(2)
            return F.fold(taps, size, (kernel[0], kernel[1]), dilation=self.dilation, stride=self.stride)
        return F.conv_transpose2d(y, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)

    def _reach(self, count: int, axis: int) -> int:
        """How many input pixels in a line (0: vertical) ``count`` outputs read, the padding among them."""
        return self.stride[axis] * (count - 1) + self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Conv2d:
        return replace(self, weight=change(self.weight))

    def fan(self) -> tuple[int, int]:
        c_out, c_in, height, width = self.weight.shape
        return c_in * height * width, c_out // self.groups * height * width


class _Convolve(torch.autograd.Function):
    """``Conv2d.apply`` for x alone: its gradient is the transpose, on a CPU in a half of the library's own time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: Conv2d) -> Tensor:
        ctx.conv = conv
        return conv.apply(x.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.conv.transpose(slope), None


@dataclass(frozen=True, eq=False)
class Diagonal(AbstractLinearMap):
    """Elementwise scaling: ``weight`` has shape (n,); all ones is the identity of a residual sum."""

    weight: Tensor
    shape: Shape

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        return self.shape

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        return self.shape

    def apply(self, x: Tensor) -> Tensor:
        return x * self.weight

    def transpose(self, y: Tensor) -> Tensor:
        return y * self.weight

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Diagonal:
        return Diagonal(change(self.weight), self.shape)

    def fan(self) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True, eq=False)
class Sparse(AbstractLinearMap):
    """A sparse matrix by its entries: selection, permutation, concatenation, pooling differences.

    Attributes:
        rows, cols: (nnz,) int64, the positions; each pair occurs once.
        values: (nnz,) the entries.
        in_shape, out_shape: shapes of the flat input and output.
    """

    rows: Tensor
    cols: Tensor
    values: Tensor
    in_shape: Shape
    out_shape: Shape

    def apply(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], self.out_size)
        return y.index_add(1, self.rows, x.index_select(1, self.cols) * self.values)

    def transpose(self, y: Tensor) -> Tensor:
        x = y.new_zeros(y.shape[0], self.in_size)
        return x.index_add(1, self.cols, y.index_select(1, self.rows) * self.values)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Sparse:
        values = change(self.values)
        rows, cols = self.rows.to(values.device), self.cols.to(values.device)
        return Sparse(rows, cols, values, self.in_shape, self.out_shape)

    def fan(self) -> tuple[int, int]:
        if not len(self.rows):
            return 0, 0
        return int(self.rows.bincount().max()), int(self.cols.bincount().max())
