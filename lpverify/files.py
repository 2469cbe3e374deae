"""Files that are written whole or not at all, and what is said when the disk refuses."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.errors import ResourceError

TEMPORARY = ".tmp"


def write_atomic(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file under a temporary name beside it, then rename it; a failure leaves the old file, if any.

    Args:
        sync: wait for the disk, so that after a power cut too the old or the new file is there, whole.

    Raises:
        ResourceError: if the disk refuses.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with disk(path):
        try:
            temporary.write_bytes(data)
            if sync:
                sync_path(temporary)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write a CSV file at once; its folder is made if need be."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomic(path, text.getvalue().encode())


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]], *, sync: bool = False) -> None:
    """Write a compressed npz file at once, equal bytes for equal arrays; its folder is made if need be."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **arrays)
    write_atomic(path, data.getvalue(), sync=sync)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn an OSError into a ResourceError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"{path}: cannot be written ({reason}); what was written before is kept") from error
