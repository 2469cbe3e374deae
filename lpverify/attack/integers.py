"""Exact linear algebra on dyadic rationals: every float is an integer times a power of two.

Products of matrices with vectors of big integers run through float64 matrix products of short limbs, each
small enough that no sum of products reaches 2^53, so nothing is rounded in any order of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Diagonal, Sparse
from lpverify.network import as_numpy

Floats = NDArray[np.float64]
Integers = NDArray[np.object_]
Product = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True, eq=False)
class Dyadic:
    """A vector of exact numbers ``ints * 2**exponent``; ``ints`` (n,) holds Python integers."""

    ints: Integers
    exponent: int

    def at(self, exponent: int) -> Integers:
        """The integers at a lower or equal exponent."""
        return self.ints << (self.exponent - exponent) if self.exponent > exponent else self.ints

    def __add__(self, other: Dyadic) -> Dyadic:
        exponent = min(self.exponent, other.exponent)
        return Dyadic(self.at(exponent) + other.at(exponent), exponent)

    def relu(self) -> Dyadic:
        """max(value, 0) for each entry."""
        return Dyadic(np.where(self.ints > 0, self.ints, 0).astype(object), self.exponent)

    def fractions(self) -> list[Fraction]:
        """The values as fractions."""
        unit = Fraction(2) ** self.exponent
        return [Fraction(int(n)) * unit for n in self.ints]


def dyadic(values: NDArray[Any]) -> Dyadic:
    """Finite floats (n,) as exact numbers."""
    mantissa, power, unit = _parts(np.asarray(values, dtype=np.float64))
    shift = np.where(mantissa == 0, 0, power - unit).astype(object)
    return Dyadic(np.asarray(mantissa.astype(object) << shift, dtype=object), unit)


def apply(linear: AbstractLinearMap, h: Dyadic) -> Dyadic:
    """The map's matrix times the vector, exactly: (n_in,) -> (n_out,)."""
    if isinstance(linear, Dense):
        return matrix_product(as_numpy(linear.weight), h)
    if isinstance(linear, Conv2d):
        weight = as_numpy(linear.weight).astype(np.float64)
        return _limb_product(weight, h, _convolution(linear), weight[0].size, linear.out_size)
    if isinstance(linear, Diagonal):
        scale = dyadic(as_numpy(linear.weight))
        return Dyadic(scale.ints * h.ints, scale.exponent + h.exponent)
    if isinstance(linear, Sparse):
        entries = dyadic(as_numpy(linear.values))
        total = np.zeros(linear.out_size, dtype=object)
        np.add.at(total, as_numpy(linear.rows), entries.ints * h.ints[as_numpy(linear.cols)])
        return Dyadic(total, entries.exponent + h.exponent)
    raise TypeError(f"exact evaluation knows no {type(linear).__name__}")


def matrix_product(matrix: NDArray[Any], h: Dyadic) -> Dyadic:
    """A float matrix (r, n) times an exact vector (n,), exactly."""
    kept = np.flatnonzero(h.ints != 0)
    weight = np.asarray(matrix, dtype=np.float64)[:, kept]
    return _limb_product(weight, Dyadic(h.ints[kept], h.exponent), lambda w, v: w @ v, len(kept), len(weight))


def _parts(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Odd mantissas and exponents with value = mantissa * 2**power, and the least power of a nonzero value."""
    fraction, power = np.frexp(values)
    mantissa = np.ldexp(fraction, 53).astype(np.int64)
    zeros = np.frexp((mantissa & -mantissa).astype(np.float64))[1] - 1
    zeros = np.where(mantissa == 0, 0, zeros)
    power = power.astype(np.int64) - 53 + zeros
    unit = int(power[mantissa != 0].min()) if mantissa.any() else 0
    return mantissa >> zeros, power, unit


def _limb_product(weight: Floats, h: Dyadic, product: Product, terms: int, size: int) -> Dyadic:
    """The sum of product(weight limb, limbs of h), each at its place; ``terms`` is the longest sum in a product."""
    bits = (53 - terms.bit_length()) // 2
    _, _, unit = _parts(weight)
    longest = max((abs(int(n)) for n in h.ints), default=0).bit_length()
    limbs = _vector_limbs(h.ints, bits, -(-longest // bits))
    sums: dict[int, NDArray[np.int64]] = {}
    for place, part in _weight_limbs(weight, unit, bits):
        columns = product(part, limbs).astype(np.int64)
        for k in range(limbs.shape[1]):
            # Each entry is at most 2^53, and a float64 has too few limbs for their sum to leave int64.
            sums[place + k] = sums[place + k] + columns[:, k] if place + k in sums else columns[:, k]
    total = np.zeros(size, dtype=object)
    for place in range(max(sums, default=-1), -1, -1):
        total = total << bits
        if place in sums:
            total = total + sums[place].astype(object)
    return Dyadic(total, unit + h.exponent)


def _weight_limbs(weight: Floats, unit: int, bits: int) -> list[tuple[int, Floats]]:
    """(place, limb) with weight = 2**unit * sum of limb * 2**(bits * place), integers |limb| < 2**bits."""
    top = int(np.frexp(np.abs(weight).max(initial=0.0))[1]) - unit
    rest, limbs = weight, []
    for place in range(-(-top // bits), -1, -1):
        # Truncating a float to a multiple of a power of two, and what remains, are both exact.
        limb = np.trunc(np.ldexp(rest, -(unit + bits * place)))
        if limb.any():
            rest = rest - np.ldexp(limb, unit + bits * place)
            limbs.append((place, limb))
    return limbs


def _vector_limbs(ints: Integers, bits: int, count: int) -> Floats:
    """The integers' limbs with their sign, (n, count), least significant first."""
    limbs = np.zeros((len(ints), count))
    sign = np.where(ints < 0, -1.0, 1.0)
    rest, mask = np.abs(ints), (1 << bits) - 1
    for k in range(count):
        limbs[:, k] = (rest & mask).astype(np.float64) * sign
        rest = rest >> bits
    return limbs


def _convolution(conv: Conv2d) -> Product:
    """Convolution of each column of (n_in, L) with a weight of the map's shape: -> (n_out, L)."""
    channels, height, width = conv.in_shape
    out_channels, out_height, out_width = conv.out_shape
    _, _, span_h, span_w = conv.weight.shape
    rows = (np.arange(out_height) * conv.stride[0] - conv.padding[0])[None, :] + (
        np.arange(span_h) * conv.dilation[0]
    )[:, None]
    cols = (np.arange(out_width) * conv.stride[1] - conv.padding[1])[None, :] + (
        np.arange(span_w) * conv.dilation[1]
    )[:, None]
    row, col = rows[:, None, :, None], cols[None, :, None, :]
    spot = np.where((row >= 0) & (row < height) & (col >= 0) & (col < width), row * width + col, -1)
    channel = np.arange(channels).reshape(channels, 1, 1, 1, 1)
    # Positions in the padding read the zero that is put behind the last input.
    index = np.where(spot >= 0, channel * (height * width) + spot, channels * height * width)
    index = index.reshape(conv.groups, -1, out_height * out_width)

    def product(weight: Floats, columns: Floats) -> Floats:
        kernel = weight.reshape(conv.groups, out_channels // conv.groups, -1)
        padded = np.vstack([columns, np.zeros((1, columns.shape[1]))])
        products = [(kernel @ padded[:, k][index]).ravel() for k in range(columns.shape[1])]
        return np.stack(products, axis=1) if products else np.zeros((conv.out_size, 0))

    return product
