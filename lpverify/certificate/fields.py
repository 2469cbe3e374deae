"""Helpers to read the fields of a header. Standard library only."""

from __future__ import annotations

import math
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
    """Whether no entry is NaN or infinite."""
    return all(map(math.isfinite, raw.values()))
