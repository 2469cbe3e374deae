"""A VNN-LIB file: its text, the tokens of it, and messages that name a line of it.

Tokens are found one after the other by one regular expression that never goes back, so reading takes time linear
in the length of the text. Comments run from a semicolon to the end of the line.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from lpverify.errors import DataError

CAP = 1 << 29
GZIP = b"\x1f\x8b"
SHOWN = 80

# Parentheses; an index or shape like [0, 3]; a comment; a string; a name, number or operator; anything else.
TOKEN = re.compile(r'[()]|\[[^\]]*\]|;[^\n]*|"[^"]*"|[^\s()\[\]";]+|\S')


@dataclass(frozen=True, eq=False)
class Source:
    """One file.

    Attributes:
        path: where it was read from.
        text: its decompressed text.
        sha256: of the decompressed bytes, in hexadecimal.
    """

    path: Path
    text: str
    sha256: str

    def error(self, position: int, message: str) -> DataError:
        """The refusal of what stands at ``position`` (characters from the start of the text)."""
        return DataError(f"{self.path}, line {self.text.count(chr(10), 0, position) + 1}: {message}")

    def shown(self, start: int, end: int) -> str:
        """The text from ``start`` up to ``end`` on one line, shortened."""
        text = " ".join(self.text[start : min(end, start + 4 * SHOWN)].split())
        return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")


def read_source(path: Path, cap: int = CAP) -> Source:
    """Read a file, through gzip if its first bytes say so.

    Raises:
        DataError: if it cannot be read, is damaged, is not text, or is longer than ``cap`` bytes decompressed.
    """
    too_long = f"{path}: longer than the limit of {cap} bytes; split its disjunction into several files"
    try:
        with path.open("rb") as stream:
            data = stream.read(cap + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if data.startswith(GZIP):
        data = _unpacked(path, data, cap + 1)
    if len(data) > cap:
        raise DataError(too_long)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a VNN-LIB file: byte {error.start} is not UTF-8 text") from None
    return Source(path, text, hashlib.sha256(data).hexdigest())


def _unpacked(path: Path, data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes of a gzip file, which may have several members."""
    pieces, length = [], 0
    while data and length < limit:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            piece = unpacker.decompress(data, limit - length)
        except zlib.error as error:
            raise DataError(f"{path}: damaged gzip file ({error})") from None
        pieces.append(piece)
        length += len(piece)
        if not unpacker.eof and length < limit:
            raise DataError(f"{path}: truncated gzip file")
        data = unpacker.unused_data
    return b"".join(pieces)
