"""Reading arrays from files that may lie: npz, idx and mat, with every size checked before memory is taken.

A refused file raises DataError with one line; nothing here unpickles anything.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lpverify.errors import DataError

CAP = 2 * 2**30
# Deflate cannot expand by more than 1032 to 1; a larger claim is a lie about the size.
DEFLATE_RATIO = 1032
HEADER_SLACK = 2**16
# What numpy raises, besides ValueError, where an array's header is no Python expression.
NOT_A_HEADER = (SyntaxError, OverflowError, tokenize.TokenError)
# Bytes of a number in MATLAB's arrays that are read.
MATLAB_BYTES = {"double": 8, "single": 4, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4}


def require_file(path: Path) -> int:
    """The size in bytes of a regular, non-empty file; pipes and devices are refused before they are opened."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file; give a file on disk")
    if not status.st_size:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    return status.st_size


def read_npz(path: Path, names: tuple[str, ...], *, cap: int = CAP) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file that are called ``names``; those that it lacks are left out.

    Raises:
        DataError: for no regular file, no zip, object arrays, a size beyond ``cap`` bytes, or sizes in the
            zip directory, the npy header and the data that contradict each other.
    """
    size = require_file(path)
    with _readable(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        wanted = [(name, info) for name in names for info in members if info.filename == f"{name}.npy"]
        if len({name for name, _ in wanted}) < len(wanted):
            raise DataError(f"{path}: an array occurs twice in the archive; save it again with numpy.savez")
        total = sum(info.file_size for _, info in wanted)
        if total > cap:
            raise DataError(f"{path}: arrays of {total} bytes unpacked, more than the limit of {cap}; split the file")
        return {name: _read_member(archive, info, path, size) for name, info in wanted}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, size: int) -> NDArray[Any]:
    where = f"{path}: {info.filename}"
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else DEFLATE_RATIO
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise DataError(f"{where}: encrypted or packed in an unusual way; save it again with numpy.savez")
    if info.compress_size > size or info.file_size > ratio * info.compress_size + HEADER_SLACK:
        raise DataError(f"{where}: the zip directory claims {info.file_size} bytes, more than the file can hold")
    with archive.open(info) as stream:
        shape, fortran, dtype = _npy_header(stream, where)
        count = math.prod(shape)
        body = info.file_size - stream.tell()
        if count * dtype.itemsize != body:
            raise DataError(f"{where}: the header says {shape} of {dtype}, which does not make the {body} bytes it has")
        data = stream.read()
    if len(data) != body:
        raise DataError(f"{where}: truncated, {len(data)} of {body} bytes")
    flat = np.frombuffer(data, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def _npy_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; only plain numbers pass."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{where}: npy version {version} is not read; save it again with numpy.savez")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        # It has something to say of headers that Python 2 wrote.
        warnings.simplefilter("ignore")
        shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(f"{where}: an object array, which only unpickling could read; save plain numbers")
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise DataError(f"{where}: dtype {dtype} is not read; save float32, float64 or integers")
    if any(n < 0 for n in shape):
        raise DataError(f"{where}: the header says shape {shape}")
    return shape, fortran, dtype


def read_idx(path: Path, ndim: int, *, cap: int = CAP) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes with ``ndim`` axes (the MNIST format), gzip-compressed if it starts so.

    Raises:
        DataError: if the file is no such thing, is longer or shorter than it says, or needs more than ``cap``.
    """
    size = require_file(path)
    with _readable(path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        head = stream.read(4 + 4 * ndim)
        if len(head) < 4 + 4 * ndim or head[:4] != bytes([0, 0, 8, ndim]):
            raise DataError(f"{path}: not an idx file of bytes with {ndim} axes (starts with {head[:4].hex()})")
        shape = struct.unpack(f">{ndim}I", head[4:])
        count = math.prod(shape)
        if count > min(cap, size * (DEFLATE_RATIO if packed else 1)):
            raise DataError(f"{path}: the header claims shape {shape}, more than the file can hold")
        data = stream.read(count)
        if len(data) != count or stream.read(1):
            raise DataError(f"{path}: the header says {count} bytes of data; the file has fewer or more")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def read_mat(path: Path, names: tuple[str, ...], *, cap: int = CAP) -> dict[str, NDArray[Any]]:
    """The number arrays of a MATLAB file (version 4 to 7.2, by scipy) that are called ``names``.

    Raises:
        DataError: if the file is no such thing, lacks one of them, or needs more than ``cap`` bytes.
    """
    from scipy import io

    require_file(path)
    try:
        found = {name: (shape, kind) for name, shape, kind in io.whosmat(str(path))}
        for name in names:
            shape, kind = found.get(name, ((), "missing"))
            if kind not in MATLAB_BYTES:
                raise DataError(f"{path}: its {name} is {kind}; expected an array of numbers")
            if math.prod(shape) * MATLAB_BYTES[kind] > cap:
                raise DataError(f"{path}: {name} claims shape {shape}, more than the limit of {cap} bytes")
        arrays = io.loadmat(str(path), variable_names=names)
        return {name: np.asarray(arrays[name]) for name in names}
    except DataError:
        raise
    except Exception as error:  # on damaged bytes scipy raises what it comes upon: index, type, zlib errors, its own
        raise DataError(f"{path}: damaged or not a MATLAB file of version 4 to 7.2 ({_one_line(error)})") from None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the decoders raise on damaged bytes into one DataError."""
    try:
        yield
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: damaged or not of the expected format ({_one_line(error)})") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, MemoryError, *NOT_A_HEADER) as error:
        raise DataError(f"{path}: damaged or not of the expected format ({_one_line(error)})") from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
