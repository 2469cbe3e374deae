"""The file container of certificates, witnesses and lowered networks. Standard library only.

Layout: 8 bytes ``LPVERIFY``, the header's length as 8 bytes little-endian, the header (UTF-8 JSON, an
object), then the raw little-endian arrays one after the other. ``header["arrays"]`` lists each array's
``dtype`` (one of DTYPES) and ``shape``; the rest of the header refers to array i as ``{"array": i}``.
No pickle, no compression: what a reader allocates is bounded by the file's size.
"""

from __future__ import annotations

import array
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpverify.errors import CertificateError

MAGIC = b"LPVERIFY"
DTYPES = {"<f4": "f", "<f8": "d", "|u1": "B", "<u2": "H", "<i4": "i", "<i8": "q"}
ITEMSIZE = {code: int(code[2]) for code in DTYPES}


@dataclass(frozen=True)
class RawArray:
    """One array as bytes: ``dtype`` is a key of DTYPES, ``data`` has exactly the bytes of ``shape``."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def values(self) -> array.array[Any]:
        """The entries in row-major order as a flat standard-library array."""
        require_subnormals()
        flat: array.array[Any] = array.array(DTYPES[self.dtype])
        flat.frombytes(self.data)
        if sys.byteorder == "big":
            flat.byteswap()
        return flat


def require_subnormals() -> None:
    """Refuse to read numbers where this thread takes subnormal ones for zero: neither checker would be sound.

    Raises:
        CertificateError: if so, as after ``torch.set_flush_denormal(True)``.
    """
    if not sys.float_info.min / 2 > 0:
        raise CertificateError("subnormal numbers count as zero here: torch.set_flush_denormal(False) before checking")


@dataclass(frozen=True)
class Packed:
    """A container's parsed content: the header object and its arrays."""

    header: dict[str, Any]
    arrays: tuple[RawArray, ...]
    name: str = "<bytes>"

    def array(self, reference: Any, *, ndim: int | None = None) -> RawArray:
        """The array that ``{"array": i}`` refers to.

        Raises:
            CertificateError: if the reference is not one, or the array has another number of axes.
        """
        index = reference.get("array") if isinstance(reference, dict) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(self.arrays):
            raise CertificateError(f"{self.name}: {reference!r} refers to no array of this file")
        found = self.arrays[index]
        if ndim is not None and len(found.shape) != ndim:
            raise CertificateError(f"{self.name}: array {index} has shape {found.shape}, expected {ndim} axes")
        return found


def pack(header: dict[str, Any], arrays: Sequence[RawArray]) -> bytes:
    """The container's bytes; the same header and arrays always give the same bytes."""
    listed = [{"dtype": a.dtype, "shape": list(a.shape)} for a in arrays]
    text = json.dumps({**header, "arrays": listed}, separators=(",", ":"), sort_keys=True, allow_nan=False)
    head = text.encode()
    return b"".join([MAGIC, len(head).to_bytes(8, "little"), head, *(a.data for a in arrays)])


def unpack(data: bytes, name: str = "<bytes>") -> Packed:
    """Parse a container.

    Raises:
        CertificateError: if the bytes are not exactly one well-formed container.
    """
    if data[:8] != MAGIC or len(data) < 16:
        raise CertificateError(f"{name}: not an lpverify file (it does not begin with {MAGIC.decode()})")
    start = 16 + int.from_bytes(data[8:16], "little")
    if start > len(data):
        raise CertificateError(f"{name}: truncated: the header ends at byte {start}, the file at {len(data)}")
    try:
        header = json.loads(data[16:start].decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{name}: the header is not JSON ({type(error).__name__})") from None
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise CertificateError(f"{name}: the header is not an object with a list of arrays")
    arrays, view = [], memoryview(data)
    for index, entry in enumerate(header["arrays"]):
        dtype, shape = _dtype_and_shape(entry, index, name)
        end = start + math.prod(shape) * ITEMSIZE[dtype]
        if end > len(data):
            raise CertificateError(f"{name}: truncated: array {index} ends at byte {end}, the file at {len(data)}")
        arrays.append(RawArray(dtype, shape, view[start:end]))
        start = end
    if start != len(data):
        raise CertificateError(f"{name}: {len(data) - start} bytes too many after the last array")
    return Packed(header, tuple(arrays), name)


def read(path: Path) -> Packed:
    """Parse the container in the file ``path``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror})") from None
    return unpack(data, str(path))


def _refuse_constant(text: str) -> float:
    raise ValueError(text)


def _dtype_and_shape(entry: Any, index: int, name: str) -> tuple[str, tuple[int, ...]]:
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    shape = entry.get("shape") if isinstance(entry, dict) else None
    whole = isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**40 for n in shape) and len(shape) <= 8
    if not isinstance(dtype, str) or dtype not in DTYPES or not whole or not isinstance(shape, list):
        raise CertificateError(f"{name}: array {index} is declared as {entry!r}, which is not a dtype and a shape")
    return dtype, tuple(shape)
