"""What a growing proof stores row by row: equal rows once, in memory while they are few, else in a file."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.container import RawArray
from lpverify.errors import ResourceError, ShapeError

# Rows wait in memory for so many bytes, then go to the file together.
PIECE = 2**22
# Bytes of a proof: whoever checks it reads it all, and holds it about twice.
LIMIT = 2**32


@dataclass
class Room:
    """How many bytes the trees of a search may have together, and how many they have."""

    limit: int = LIMIT
    used: int = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes more; raises ResourceError when there is no room for them."""
        self.used += size
        if self.used > self.limit:
            raise ResourceError(f"the proof has become larger than {self.limit >> 20} MiB")


class RowStore:
    """Rows of ``width`` entries each, known once the first has come; numbered in the order of their coming.

    The file has no name and lies where ``tempfile`` puts it (TMPDIR). It is read by mapping it, so that the operating
    system may take its memory back whenever it needs to. Of each row a digest stays in memory, about 150 bytes.
    """

    def __init__(self, dtype: str, room: Room) -> None:
        self.dtype, self._room = dtype, room
        self._size = 0
        self._numbers: dict[bytes, int] = {}
        self._width: int | None = None
        self._waiting = bytearray()
        self._file: IO[bytes] | None = None

    def add(self, row: NDArray[Any]) -> int:
        """The number of a row (width,), which is written if it is the first of its kind.

        Raises:
            ResourceError: if there is no room, or the file cannot be written.
        """
        if self._width is None:
            self._width = len(row)
        if row.shape != (self._width,):
            raise ShapeError(f"row {row.shape} of a proof: the rows before have {self._width} entries")
        data = np.asarray(row, dtype=self.dtype).tobytes()
        number = self._numbers.setdefault(hashlib.blake2b(data, digest_size=16).digest(), len(self._numbers))
        if (number + 1) * len(data) > self._size:
            self._room.take(len(data))
            self._waiting += data
            self._size += len(data)
            if len(self._waiting) >= PIECE:
                self._spill()
        return number

    def array(self, width: int | None = None) -> RawArray:
        """All rows, (count, width); later rows do not change it.

        Raises:
            ShapeError: if the rows have another width.
            ResourceError: if the file cannot be written or mapped.
        """
        if width is not None and self._width not in (None, width):
            raise ShapeError(f"rows of {self._width} entries for {width} columns of a proof")
        shape = (len(self._numbers), self._width or width or 0)
        if self._file is None:
            return RawArray(self.dtype, shape, bytes(self._waiting))
        self._spill()
        try:
            mapped = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ResourceError(f"the proof's temporary file cannot be read back ({error.strerror})") from None
        return RawArray(self.dtype, shape, memoryview(mapped))

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the rows do)
            self._file.write(self._waiting)
            self._file.flush()
        except OSError as error:
            raise ResourceError(
                f"the proof's temporary file cannot take {self._size >> 20} MiB ({error.strerror}): set TMPDIR"
            ) from None
        self._waiting.clear()
