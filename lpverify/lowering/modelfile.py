"""Opening a model file that may lie: what kind it is by its content, and its size before memory is taken."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from lpverify.arrayfile import CAP, require_file
from lpverify.errors import DataError, ModelError

ZIP, GZIP, PICKLE = b"PK\x03\x04", b"\x1f\x8b", b"\x80"
SAVE = "save its state_dict() with torch.save, or as .safetensors"


def kind_of(path: Path) -> str:
    """One of "onnx", "torch", "safetensors", "npz", "folder".

    Raises:
        ModelError: if the file does not exist, is no regular file, is empty, or is of no known kind.
    """
    name = path.name.lower()
    if path.is_dir():
        if (path / "W1.npy").exists():
            return "folder"
        raise ModelError(f"{path}: is a directory; give a model file (or a folder with W1.npy, B1.npy, ...)")
    try:
        require_file(path)
        with open(path, "rb") as file:
            head = file.read(9)
    except DataError as error:
        raise ModelError(str(error)) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if name.endswith(".pt2"):
        raise ModelError(f"{path}: loading an exported program (.pt2) can execute code hidden in it; {SAVE}")
    if name.endswith((".onnx", ".onnx.gz")):
        return "onnx"
    if head.startswith(ZIP):
        return _kind_of_zip(path)
    if name.endswith(".safetensors") or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < CAP):
        return "safetensors"
    if head.startswith(PICKLE):
        return "torch"
    raise ModelError(f"{path}: truncated, or neither a torch checkpoint, .safetensors, .npz nor .onnx file")


def _kind_of_zip(path: Path) -> str:
    """Which archive it is; its declared sizes are checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: truncated or damaged archive ({error})") from None
    total = sum(entry.file_size for entry in entries)
    if total > CAP:
        raise ModelError(f"{path}: would unpack to {total} bytes, more than the limit of {CAP}")
    names = [entry.filename for entry in entries]
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise ModelError(f"{path}: a TorchScript program, which holds code; {SAVE}")
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        raise ModelError(f"{path}: an archive without a torch checkpoint; {SAVE}")
    return "torch"


def read_onnx_bytes(path: Path) -> bytes:
    """The bytes of an ONNX file, decompressed if it is gzipped.

    Raises:
        ModelError: if it is larger than the limit, truncated or damaged.
    """
    try:
        if path.stat().st_size > CAP:
            raise ModelError(f"{path}: larger than the limit of {CAP} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.startswith(GZIP):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, CAP)
    except zlib.error as error:
        raise ModelError(f"{path}: damaged gzip file ({error})") from None
    if unpacker.unconsumed_tail:
        raise ModelError(f"{path}: would unpack to more than the limit of {CAP} bytes")
    if not unpacker.eof:
        raise ModelError(f"{path}: truncated gzip file")
    return unpacked
