"""The file container: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpverify.certificate.container import DTYPES, ITEMSIZE, MAGIC, RawArray, pack, read, unpack
from lpverify.errors import CertificateError

EXAMPLE = pack(
    {"format": "x", "first": {"array": 0}},
    [RawArray("<f4", (2,), b"\0\0\x80?\0\0\0@"), RawArray("<u2", (2, 1), b"\1\0\2\1"), RawArray("<i8", (0,), b"")],
)


def with_header(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + body


@st.composite
def raw_arrays(draw: st.DrawFn) -> RawArray:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = ITEMSIZE[dtype]
    for n in shape:
        size *= n
    return RawArray(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


HEADERS = st.dictionaries(st.text().filter(lambda key: key != "arrays"), st.integers() | st.text())


@given(HEADERS, st.lists(raw_arrays(), max_size=4))
def test_round_trip(header: dict[str, object], arrays: list[RawArray]) -> None:
    data = pack(header, arrays)
    packed = unpack(data)
    assert {key: value for key, value in packed.header.items() if key != "arrays"} == header
    assert [(a.dtype, a.shape, bytes(a.data)) for a in packed.arrays] == [(a.dtype, a.shape, a.data) for a in arrays]
    assert pack(packed.header, packed.arrays) == data


def test_values_are_read_little_endian() -> None:
    packed = unpack(EXAMPLE)
    assert list(packed.array({"array": 0}, ndim=1).values()) == [1.0, 2.0]
    assert list(packed.array({"array": 1}, ndim=2).values()) == [1, 258]
    assert list(packed.array({"array": 2}).values()) == []


@pytest.mark.parametrize("reference", [None, 0, {}, {"array": 3}, {"array": -1}, {"array": True}, {"array": "0"}, [0]])
def test_a_reference_to_nothing_is_refused(reference: object) -> None:
    with pytest.raises(CertificateError, match="refers to no array"):
        unpack(EXAMPLE).array(reference)


def test_another_number_of_axes_is_refused() -> None:
    with pytest.raises(CertificateError, match=r"array 1 has shape \(2, 1\), expected 1 axes"):
        unpack(EXAMPLE, "f").array({"array": 1}, ndim=1)


def test_every_truncation_and_extension_is_refused() -> None:
    for end in range(len(EXAMPLE)):
        with pytest.raises(CertificateError):
            unpack(EXAMPLE[:end])
    with pytest.raises(CertificateError, match="1 bytes too many"):
        unpack(EXAMPLE + b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an lpverify file"),
        (b"PK\3\4" + bytes(60), "not an lpverify file"),
        (MAGIC + b"\xff" * 8, "truncated: the header ends"),
        (with_header(b"\xff\xfe{}"), "not JSON"),
        (with_header(b"{"), "not JSON"),
        (with_header(b'{"arrays": [], "x": NaN}'), "not JSON"),
        (with_header(b'{"arrays": [], "x": -Infinity}'), "not JSON"),
        (with_header(b"[" * 200_000), "not JSON"),
        (with_header(b"9" * 10_000), "not JSON"),
        (with_header([]), "not an object with a list of arrays"),
        (with_header({}), "not an object with a list of arrays"),
        (with_header({"arrays": {}}), "not an object with a list of arrays"),
        *((with_header({"arrays": [entry]}), "array 0 is declared as") for entry in (
            None, [], {"dtype": "<f4"}, {"shape": [1]}, {"dtype": "O", "shape": [1]}, {"dtype": ["<f4"], "shape": [1]},
            {"dtype": "<f4", "shape": 1}, {"dtype": "<f4", "shape": [-1]}, {"dtype": "<f4", "shape": [1.0]},
            {"dtype": "<f4", "shape": [True]}, {"dtype": "<f4", "shape": [2**40]}, {"dtype": "<f4", "shape": [0] * 9},
        )),
        (with_header({"arrays": [{"dtype": "<f8", "shape": [2**39] * 8}]}), "truncated: array 0"),
        (with_header({"arrays": [{"dtype": "<f8", "shape": [1]}]}, bytes(7)), "truncated: array 0 ends"),
        (with_header({"arrays": [{"dtype": "<f8", "shape": [1]}]}, bytes(9)), "1 bytes too many"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_at_once(data: bytes, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(CertificateError, match=message) as caught:
        unpack(data, "some file")
    assert time.perf_counter() - start < 1
    assert str(caught.value).startswith("some file: ") and "\n" not in str(caught.value)


def test_random_bytes_are_refused() -> None:
    draw = random.Random(0)
    for _ in range(300):
        with pytest.raises(CertificateError):
            unpack(draw.randbytes(draw.randrange(200)))
        with pytest.raises(CertificateError):
            unpack(MAGIC + draw.randbytes(draw.randrange(200)))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CertificateError, match=f"{path}: cannot be read"):
            read(path)
