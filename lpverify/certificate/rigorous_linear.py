"""The rigorous checker's linear maps in float64, and rows kept as windows of an image. numpy only.

Nothing here rounds in a direction: every product is plain float64, and ``rigorous`` accounts for its error by
an a-priori bound that holds for any order of summation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lpverify.certificate.container import RawArray, require_subnormals
from lpverify.certificate.graph import PlainMap

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Up to this many entries a convolution's transpose on one window is applied as one dense matrix.
MAX_WINDOW_MATRIX = 2**17


def to_float(raw: RawArray) -> Array:
    """A raw array as float64 (exact for every dtype of the format but large int64)."""
    return stored(raw).astype(np.float64)


def stored(raw: RawArray) -> NDArray[Any]:
    """A raw array as it stands, read where it lies."""
    require_subnormals()
    return np.frombuffer(raw.data, dtype=raw.dtype).reshape(raw.shape)


def to_index(raw: RawArray) -> Index:
    """A raw integer array as int64."""
    return np.frombuffer(raw.data, dtype=raw.dtype).reshape(raw.shape).astype(np.int64)


@dataclass(frozen=True)
class Windows:
    """R rows, each a window of an image ``shape`` = (C, H, W): ``values`` (R, h, w, C), corners ``top``, ``left``.

    Rows are ordered example by example, ``batch`` examples. Positions outside the image count for nothing:
    ``gather`` returns 0 there for every table.
    """

    values: Array
    top: Index
    left: Index
    shape: tuple[int, int, int]
    batch: int

    def with_values(self, values: Array) -> Windows:
        """The same windows with other values."""
        return Windows(values, self.top, self.left, self.shape, self.batch)

    def _places(self) -> tuple[Index, NDArray[np.bool_]]:
        """Each position's place in its image (0 where outside), and whether it is inside: (R, h * w)."""
        rows, h, w, _ = self.values.shape
        y, x = self.top[:, None] + np.arange(h), self.left[:, None] + np.arange(w)
        inside = ((y >= 0) & (y < self.shape[1]))[:, :, None] & ((x >= 0) & (x < self.shape[2]))[:, None, :]
        place = np.where(inside, y[:, :, None] * self.shape[2] + x[:, None, :], 0)
        return place.reshape(rows, -1), inside.reshape(rows, -1)

    def cropped(self) -> Windows:
        """The same rows with zeros outside the image, where a convolution's padding reads nothing."""
        _, inside = self._places()
        return self.with_values(self.values * inside.reshape(*self.values.shape[:3], 1))

    def gather(self, *tables: Array) -> list[Array]:
        """The windows of tables (B, n), zero outside the image: each (R, h, w, C)."""
        channels, pixels = self.shape[0], self.shape[1] * self.shape[2]
        place, inside = self._places()
        example = np.repeat(np.arange(self.batch), len(place) // self.batch)[:, None] * pixels
        stacked = np.stack([np.broadcast_to(t, (self.batch, channels * pixels)) for t in tables], axis=1)
        flat = stacked.reshape(self.batch, -1, pixels).swapaxes(1, 2).reshape(self.batch * pixels, -1)
        flat = np.concatenate([flat, np.zeros((1, flat.shape[1]))])
        found = flat[np.where(inside, place + example, len(flat) - 1)]
        rows, h, w, _ = self.values.shape
        found = found.reshape(rows, h, w, len(tables), channels)
        return [found[..., i, :] for i in range(len(tables))]

    def dense(self) -> Array:
        """The rows over the whole image: (B, m, C * H * W)."""
        rows, channels = len(self.values), self.shape[0]
        pixels = self.shape[1] * self.shape[2]
        place, inside = self._places()
        full = np.zeros((rows, pixels, channels))
        row, position = np.nonzero(inside)
        full[row, place[row, position]] = self.values.reshape(rows, -1, channels)[row, position]
        return full.swapaxes(1, 2).reshape(self.batch, rows // self.batch, -1)

    def plus(self, other: Windows) -> Windows | None:
        """The sum, if the two differ by the same shift in every row."""
        shift_y, shift_x = other.top - self.top, other.left - self.left
        if self.shape != other.shape or np.ptp(shift_y) or np.ptp(shift_x):
            return None
        dy, dx = int(shift_y[0]), int(shift_x[0])
        rows, h, w, channels = self.values.shape
        _, h2, w2, _ = other.values.shape
        top, left = min(0, dy), min(0, dx)
        total = np.zeros((rows, max(h, dy + h2) - top, max(w, dx + w2) - left, channels))
        total[:, -top : h - top, -left : w - left] = self.values
        total[:, dy - top : dy - top + h2, dx - left : dx - left + w2] += other.values
        return Windows(total, self.top + top, self.left + left, self.shape, self.batch)


Rows = Array | Windows


def dense(rows: Rows) -> Array:
    """Rows over all units: (B, m, n)."""
    return rows.dense() if isinstance(rows, Windows) else rows


class LinearMap:
    """One map of the network file, ready to be applied to batches of float64 rows."""

    def __init__(self, plain: PlainMap) -> None:
        self.kind = plain.kind
        self.in_shape, self.out_shape = plain.in_shape, plain.out_shape
        self.values = to_float(plain.arrays["values" if plain.kind == "sparse" else "weight"])
        if plain.kind == "sparse":
            self.rows, self.cols = to_index(plain.arrays["rows"]), to_index(plain.arrays["cols"])
        if plain.kind == "conv2d":
            self.stride, self.dilation = plain.ints["stride"], plain.ints["dilation"]
            self.padding = plain.ints["padding"]
            self.values = _ungrouped(self.values, plain.ints["groups"][0])

    @property
    def fan(self) -> tuple[int, int]:
        """Upper bounds of the number of terms in a sum of ``apply`` and of ``transpose``."""
        if self.kind == "dense":
            return self.values.shape[1], self.values.shape[0]
        if self.kind == "conv2d":
            c_out, c_in, height, width = self.values.shape
            return c_in * height * width, c_out * height * width
        if self.kind == "diagonal" or not len(self.rows):
            return 1, 1
        return int(np.bincount(self.rows).max()), int(np.bincount(self.cols).max())

    def apply(self, x: Array, magnitude: bool = False) -> Array:
        """W x (or |W| x) for each row: (B, n_in) -> (B, n_out)."""
        weight = np.abs(self.values) if magnitude else self.values
        if self.kind == "dense":
            return x @ weight.T
        if self.kind == "diagonal":
            return x * weight
        if self.kind == "sparse":
            y = np.zeros((math.prod(self.out_shape), len(x)))
            np.add.at(y, self.rows, (x[:, self.cols] * weight).T)
            return y.T
        top, left, bottom, right = self.padding
        image = np.pad(x.reshape(-1, *self.in_shape), ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilation, weight.shape[2:], strict=True))
        views = sliding_window_view(image, (height, width), axis=(2, 3))
        views = views[:, :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]]
        y = np.tensordot(weight, views, axes=([1, 2, 3], [1, 4, 5]))
        return y.swapaxes(0, 1).reshape(len(x), -1)

    def transpose(self, y: Array) -> Array:
        """W^T y for each row: (R, n_out) -> (R, n_in)."""
        if self.kind == "dense":
            return y @ self.values
        if self.kind == "diagonal":
            return y * self.values
        if self.kind == "sparse":
            x = np.zeros((math.prod(self.in_shape), len(y)))
            np.add.at(x, self.cols, (y[:, self.rows] * self.values).T)
            return x.T
        channels, height, width = self.in_shape
        _, out_h, out_w = self.out_shape
        kernel = self.values.reshape(len(self.values), -1).T
        taps = np.matmul(kernel, y.reshape(len(y), len(self.values), -1))
        taps = taps.reshape(len(y), channels, *self.values.shape[2:], out_h, out_w)
        full_h, full_w = self._grown(out_h, out_w)
        top, left = self.padding[:2]
        full = np.zeros((len(y), channels, max(full_h, height + top), max(full_w, width + left)))
        for i, j in np.ndindex(self.values.shape[2:]):
            full[:, :, self._span(i, out_h, 0), self._span(j, out_w, 1)] += taps[:, :, i, j]
        return full[:, :, top : top + height, left : left + width].reshape(len(y), -1)

    def transpose_windows(self, rows: Windows) -> Windows:
        """W^T on windows; a convolution makes them grow."""
        if self.kind == "diagonal":
            (weight,) = rows.gather(self.values)
            return rows.with_values(rows.values * weight)
        values = self._grow(rows.values)
        top, left = self.padding[:2]
        shape = (self.in_shape[0], self.in_shape[1], self.in_shape[2])
        return Windows(values, rows.top * self.stride[0] - top, rows.left * self.stride[1] - left, shape, rows.batch)

    def first_rows(self, neurons: Index, windows: bool) -> Rows:
        """The matrix's rows for the output units ``neurons`` (B, m): (B, m, n_in) or windows."""
        if windows:
            channels, height, width = self.out_shape
            channel, place = np.divmod(neurons.ravel(), height * width)
            one_hot = np.zeros((neurons.size, 1, 1, channels))
            one_hot[np.arange(neurons.size), 0, 0, channel] = 1.0
            shape = (channels, height, width)
            unit = Windows(one_hot, place // width, place % width, shape, len(neurons))
            return self.transpose_windows(unit)
        if self.kind == "dense":
            return self.values[neurons]
        unit_rows = np.zeros((neurons.size, math.prod(self.out_shape)))
        unit_rows[np.arange(neurons.size), neurons.ravel()] = 1.0
        return self.transpose(unit_rows).reshape(*neurons.shape, -1)

    def _grow(self, values: Array) -> Array:
        """The transposed convolution of windows (R, h, w, C_out), nothing cropped: (R, h', w', C_in)."""
        rows, h, w, c_out = values.shape
        grown_h, grown_w = self._grown(h, w)
        size, c_in = h * w * c_out, self.values.shape[1]
        if rows > size and size * grown_h * grown_w * c_in <= MAX_WINDOW_MATRIX:
            matrix = self._grow(np.eye(size).reshape(size, h, w, c_out)).reshape(size, -1)
            return (values.reshape(rows, size) @ matrix).reshape(rows, grown_h, grown_w, c_in)
        kernel = self.values.transpose(0, 2, 3, 1).reshape(c_out, -1)
        taps = (values.reshape(-1, c_out) @ kernel).reshape(rows, h, w, *self.values.shape[2:], c_in)
        full = np.zeros((rows, grown_h, grown_w, c_in))
        for i, j in np.ndindex(self.values.shape[2:]):
            full[:, self._span(i, h, 0), self._span(j, w, 1)] += taps[:, :, :, i, j]
        return full

    def _grown(self, h: int, w: int) -> tuple[int, int]:
        kernel = self.values.shape[2:]
        sizes = (s * (n - 1) + d * (k - 1) + 1
                 for s, n, d, k in zip(self.stride, (h, w), self.dilation, kernel, strict=True))  # fmt: skip
        height, width = sizes
        return height, width

    def _span(self, tap: int, count: int, axis: int) -> slice:
        start, step = tap * self.dilation[axis], self.stride[axis]
        return slice(start, start + step * (count - 1) + 1, step)


def _ungrouped(weight: Array, groups: int) -> Array:
    """A grouped kernel as an ordinary one with zeros between the groups."""
    if groups == 1:
        return weight
    c_out, c_in, height, width = weight.shape
    full = np.zeros((c_out, c_in * groups, height, width))
    each = c_out // groups
    for g in range(groups):
        full[g * each : (g + 1) * each, g * c_in : (g + 1) * c_in] = weight[g * each : (g + 1) * each]
    return full
