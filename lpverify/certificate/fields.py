"""Helpers to read the fields of a header. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from lpverify.certificate.container import Packed, RawArray
from lpverify.errors import CertificateError

UNIT_SLOPE = 32768


def whole(packed: Packed, value: Any) -> int:
    """A node's number; raises CertificateError for anything but a whole number below 2**31."""
    if type(value) is not int or not 0 <= value < 2**31:
        raise CertificateError(f"{packed.name}: {value!r} is not a node")
    return value


def integers(packed: Packed, reference: Any, dtype: str, limit: int) -> RawArray:
    """A vector of ``dtype`` with entries in 0..limit - 1; raises CertificateError."""
    found = packed.array(reference, ndim=1)
    if found.dtype != dtype or any(not 0 <= v < limit for v in found.values()):
        raise CertificateError(f"{packed.name}: an index array is {found.dtype} or leaves 0..{limit - 1}")
    return found


def rises(raw: RawArray) -> bool:
    """Whether every entry is above the one before."""
    return all(a < b for a, b in pairwise(raw.values()))


def finite(raw: RawArray) -> bool:
    """Whether no entry of an array of floats is NaN or infinite."""
    # An exponent of ones, and only that, carries into the place of the sign when a one is added at its end.
    size, fraction = (4, 23) if raw.dtype == "<f4" else (8, 52)
    sign, one = 1 << 8 * size - 1, 1 << fraction
    return not any((n & ones * (sign - one)) + ones * one & ones * sign for n, ones in _pieces(raw.data, size))


def are_slopes(raw: RawArray) -> bool:
    """Whether no entry of an array of uint16 is above UNIT_SLOPE, which is 2**15."""
    # Where the upper bit is set, the lower ones, which carry into its place unless all of them are 0, must be.
    low = UNIT_SLOPE - 1
    return not any(n & (n & ones * low) + ones * low & ones * UNIT_SLOPE for n, ones in _pieces(raw.data, 2))


def _pieces(data: bytes | memoryview, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of an array with entries of ``size`` bytes, each as one integer, and the integer with ones as entries."""
    step, view, ones = 2**14, memoryview(data), 0
    for start in range(0, len(view), step):
        piece = view[start : start + step]
        if not start or len(piece) < step:
            ones = int.from_bytes((b"\x01" + bytes(size - 1)) * (len(piece) // size), "little")
        yield int.from_bytes(piece, "little"), ones
