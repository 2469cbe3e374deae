"""Damage to files, drawn from a seeded generator: bytes, words of text, and members of archives resealed afterwards."""

from __future__ import annotations

import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable

Mutate = Callable[[bytes, random.Random], bytes]

# Numbers at which lengths, shapes and offsets go wrong.
INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    "0", "-1", "1e-400", "1e400", "-0.0", "nan", "inf", "99999999999999999999", "1e-9", "2147483648", "()", "(", ")",
    '"', "[", "]", "{}", "=", ",", "true", "null", "\x00", "é", "\r\n", "''", "or", "and", "<=", ">", "X_0", "Y_9",
)  # fmt: skip
WORD = re.compile(rb"[A-Za-z_]\w*|[-+.\w]+|\S")


def bytewise(data: bytes, draw: random.Random) -> bytes:
    """One to four edits: bits turned, bytes replaced, cut out, put in, repeated; integers; an end cut off."""
    edited = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, length = draw.randrange(len(edited) + 1), draw.choice((1, 1, 2, 4, 8, 64))
        edit = draw.randrange(8)
        if edit == 0 and at < len(edited):
            edited[at] ^= 1 << draw.randrange(8)
        elif edit == 1:
            edited[at : at + length] = draw.randbytes(length)
        elif edit == 2:
            del edited[at : at + length]
        elif edit == 3:
            edited[at:at] = draw.randbytes(length)
        elif edit == 4:
            edited[at:at] = edited[at : at + length] * draw.choice((1, 2, 50))
        elif edit == 5:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(INTEGERS) % 256**size
            edited[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
        elif edit == 6:
            other = draw.randrange(len(edited) + 1)
            edited[at : at + length] = edited[other : other + length]
        elif draw.random() < 0.3:
            del edited[at:]
    return bytes(edited)


def wordwise(data: bytes, draw: random.Random) -> bytes:
    """One to three words of a text replaced, left out, repeated or exchanged; or else bytes, one time in four."""
    if draw.random() < 0.25:
        return bytewise(data, draw)
    text = data
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = [found.span() for found in WORD.finditer(text)]
        if not places:
            return text
        start, end = draw.choice(places)
        other = draw.choice(places)
        new = draw.choice((
            draw.choice(WORDS).encode(), b"", text[start:end] * 2, text[other[0] : other[1]],
            b" ".join([text[start:end]] * draw.choice((2, 2000))),
        ))  # fmt: skip
        text = text[:start] + new + text[end:]
    return text


def in_archive(data: bytes, draw: random.Random) -> bytes:
    """A member of a zip archive damaged and the archive sealed again, so that its checksums are right; or bytes."""
    if draw.random() < 0.3:
        return bytewise(data, draw)
    sealed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sealed, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of members of one name
        members = old.infolist()
        chosen = draw.choice(members)
        for info in members:
            body = old.read(info)
            if info is chosen:
                body = wordwise(body, draw) if draw.random() < 0.3 else bytewise(body, draw)
            new.writestr(info, body)
    return sealed.getvalue()
