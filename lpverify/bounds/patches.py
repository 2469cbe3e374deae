"""Rows of a backward pass that live on a small window of an image: one window a row, all of one size.

A neuron of a convolution sees only a patch of the layer before, so its row is kept as that patch (and grows
with every convolution it passes) instead of as a vector over the whole layer. Positions outside the image
hold values that no table multiplies: every use gathers a table that is zero there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.linear import Conv2d, Diagonal, Shape

# Up to this many entries a convolution's transpose on one window is applied as one dense matrix.
MAX_WINDOW_MATRIX = 2**17


@dataclass(frozen=True, eq=False)
class Patches:
    """R = B * m rows, each a window of an image of shape ``image`` = (C, H, W).

    Attributes:
        values: (R, h, w, C), channels last.
        top, left: (R,) int64, where the window begins; may be negative or run past the image.
        image: the shape (C, H, W) of the node the rows stand at.
        batch: B; rows are ordered example by example.
    """

    values: Tensor
    top: Tensor
    left: Tensor
    image: Shape
    batch: int

    @property
    def positions(self) -> Tensor:
        """(R, h * w) int64: each window position's place in a (B * H * W + 1)-row table; the last row is outside."""
        rows, height, width, _ = self.values.shape
        _, image_h, image_w = self.image
        y = self.top.unsqueeze(1) + torch.arange(height, device=self.top.device)
        x = self.left.unsqueeze(1) + torch.arange(width, device=self.top.device)
        inside = ((y >= 0) & (y < image_h)).unsqueeze(2) & ((x >= 0) & (x < image_w)).unsqueeze(1)
        example = torch.arange(self.batch, device=y.device).repeat_interleave(rows // self.batch)
        place = (example.view(-1, 1, 1) * image_h + y.unsqueeze(2)) * image_w + x.unsqueeze(1)
        return torch.where(inside, place, self.batch * image_h * image_w).flatten(1)

    def cropped(self) -> Patches:
        """The same rows with zeros outside the image, where a convolution's padding reads nothing."""
        outside = self.batch * self.image[1] * self.image[2]
        inside = (self.positions < outside).view(*self.values.shape[:3], 1)
        return replace(self, values=self.values * inside)

    def gather(self, *tables: Tensor) -> tuple[Tensor, ...]:
        """The windows of per-unit tables (B, n) or (n,), zero outside the image: each (R, h, w, C)."""
        channels, height, width = self.image
        stacked = torch.stack([t.expand(self.batch, -1) for t in tables], dim=1)
        last = stacked.view(self.batch, len(tables), channels, height * width).permute(0, 3, 1, 2)
        padded = F.pad(last.reshape(self.batch * height * width, -1), (0, 0, 0, 1))
        found = F.embedding(self.positions, padded)
        rows, h, w, _ = self.values.shape
        return found.view(rows, h, w, len(tables), channels).unbind(3)

    def dense(self) -> Tensor:
        """The rows over the whole image: (B, m, C * H * W)."""
        rows, _, _, channels = self.values.shape
        _, height, width = self.image
        per_image = height * width
        place = self.positions
        local = torch.where(place < self.batch * per_image, place % per_image, per_image)
        full = self.values.new_zeros(rows, per_image + 1, channels)
        index = local.unsqueeze(2).expand(-1, -1, channels)
        full = full.scatter_add(1, index, self.values.flatten(1, 2))[:, :per_image]
        return full.transpose(1, 2).reshape(self.batch, rows // self.batch, -1)

    def transpose(self, linear: Conv2d | Diagonal) -> Patches:
        """W^T applied to every row; the windows grow by the convolution's span."""
        if isinstance(linear, Diagonal):
            (weight,) = self.gather(linear.weight)
            return replace(self, values=self.values * weight)
        top, left, _, _ = linear.padding
        return Patches(
            _transpose_windows(self.values, linear),
            self.top * linear.stride[0] - top,
            self.left * linear.stride[1] - left,
            linear.in_shape,
            self.batch,
        )

    def can_add(self, other: Patches) -> bool:
        """Whether the windows of the two sets differ by the same shift in every row (two strides may not)."""
        shifts = torch.stack([other.top - self.top, other.left - self.left])
        return self.image == other.image and bool((shifts == shifts[:, :1]).all())

    def add(self, other: Patches) -> Patches:
        """The sum of two sets of rows; requires ``can_add``."""
        shift_y, shift_x = int(other.top[0] - self.top[0]), int(other.left[0] - self.left[0])
        above, before = min(0, shift_y), min(0, shift_x)
        below = max(self.values.shape[1], shift_y + other.values.shape[1])
        after = max(self.values.shape[2], shift_x + other.values.shape[2])

        def widen(values: Tensor, y: int, x: int) -> Tensor:
            right, bottom = after - x - values.shape[2], below - y - values.shape[1]
            return F.pad(values, (0, 0, x - before, right, y - above, bottom))

        total = widen(self.values, 0, 0) + widen(other.values, shift_y, shift_x)
        return replace(self, values=total, top=self.top + above, left=self.left + before)

    @property
    def worth_keeping(self) -> bool:
        """Whether the window is still clearly smaller than the image."""
        return worth_keeping(self.image, self.values.shape[1], self.values.shape[2])


def select(image: Shape, neurons: Tensor, signs: Tensor) -> Patches:
    """Rows ``signs`` * one-hot, both (B, m), for the units ``neurons`` of an image of shape (C, H, W)."""
    channels, height, width = image
    channel, place = neurons.flatten() // (height * width), neurons.flatten() % (height * width)
    one_hot = F.one_hot(channel, channels) * signs.reshape(-1, 1)
    return Patches(one_hot.view(-1, 1, 1, channels), place // width, place % width, image, neurons.shape[0])


def grown(conv: Conv2d, h: int, w: int) -> tuple[int, int]:
    """The size of a window (h, w) of the convolution's output after its transpose."""
    out_h = (h - 1) * conv.stride[0] + conv.dilation[0] * (conv.weight.shape[2] - 1) + 1
    return out_h, (w - 1) * conv.stride[1] + conv.dilation[1] * (conv.weight.shape[3] - 1) + 1


def worth_keeping(image: Shape, h: int, w: int) -> bool:
    """Whether a window (h, w) is still clearly smaller than its image (C, H, W)."""
    return 3 * h * w < 2 * image[1] * image[2]


def _transpose_windows(values: Tensor, conv: Conv2d) -> Tensor:
    """The transposed convolution of windows (R, h, w, C_out) without cropping: (R, h', w', C_in)."""
    rows, h, w, c_out = values.shape
    out_h, out_w = grown(conv, h, w)
    c_in, size = conv.in_shape[0], h * w * c_out
    if size * out_h * out_w * c_in <= MAX_WINDOW_MATRIX and size < rows:
        unit = torch.eye(size, dtype=values.dtype, device=values.device).view(size, h, w, c_out)
        matrix = _conv_transpose(unit, conv).reshape(size, -1)
        return (values.reshape(rows, size) @ matrix).view(rows, out_h, out_w, c_in)
    return _conv_transpose(values, conv)


def _conv_transpose(values: Tensor, conv: Conv2d) -> Tensor:
    return conv.spread(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
