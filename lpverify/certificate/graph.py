"""The lowered network as the checkers read it: a file of nodes and raw arrays. Standard library only.

The file is a container (see ``container``) whose SHA-256 names the network in certificates. Its header:

    {"format": "lpverify network", "version": 1, "nodes": [
        {"kind": "input", "shape": [1, 28, 28]},
        {"kind": "affine", "inputs": [0], "shape": [16, 14, 14], "bias": {"array": 0}, "maps": [
            {"kind": "conv2d", "weight": {"array": 1}, "in_shape": [1, 28, 28], "stride": [2, 2],
             "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}]},
        {"kind": "relu", "input": 1}, ...]}

Other maps: {"kind": "dense", "weight"}; {"kind": "diagonal", "weight", "shape"}; {"kind": "sparse", "rows",
"cols", "values", "in_shape", "out_shape"}. Padding is (top, left, bottom, right). Values are <f4 or <f8.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpverify.certificate.container import Packed, RawArray, unpack
from lpverify.errors import CertificateError

FORMAT = "lpverify network"
VERSION = 1
REAL = ("<f4", "<f8")
MAX_PADDED = 2**26
MAX_UNGROUPED = 2**28


@dataclass(frozen=True)
class PlainMap:
    """One linear map: ``kind`` is dense, conv2d, diagonal or sparse; ``arrays`` and ``ints`` hold its fields."""

    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    arrays: dict[str, RawArray]
    ints: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PlainNode:
    """One node: ``kind`` is input, affine or relu; only affine nodes have maps and a bias."""

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    maps: tuple[PlainMap, ...] = ()
    bias: RawArray | None = None

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class PlainNetwork:
    """The nodes in topological order; ``sha256`` is the hex digest of the file's bytes."""

    nodes: tuple[PlainNode, ...]
    sha256: str


def read_network(path: Path) -> PlainNetwork:
    """Parse the network file ``path``; raises CertificateError if it is not well-formed."""
    try:
        return parse_network(path.read_bytes(), str(path))
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror})") from None


def parse_network(data: bytes, name: str = "<bytes>") -> PlainNetwork:
    """Parse a network file's bytes, checking every shape; raises CertificateError."""
    packed = unpack(data, name)
    if packed.header.get("format") != FORMAT or packed.header.get("version") != VERSION:
        raise CertificateError(f"{name}: not a {FORMAT} file of version {VERSION}")
    listed = packed.header.get("nodes")
    if not isinstance(listed, list) or not listed:
        raise CertificateError(f"{name}: the network has no nodes")
    nodes: list[PlainNode] = []
    for index, entry in enumerate(listed):
        try:
            nodes.append(_node(packed, entry, nodes))
            if not nodes[-1].size:
                raise ValueError(f"shape {nodes[-1].shape} has no units")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CertificateError(f"{name}: node {index}: {error}") from None
    return PlainNetwork(tuple(nodes), hashlib.sha256(data).hexdigest())


def _node(packed: Packed, entry: dict[str, Any], before: list[PlainNode]) -> PlainNode:
    kind = entry["kind"]
    if (kind == "input") != (not before):
        raise ValueError("the first node and no other must be the input")
    if kind == "input":
        return PlainNode("input", (), _ints(entry["shape"], None))
    if kind == "relu":
        (source,) = _ints([entry["input"]], 1)
        return PlainNode("relu", (source,), before[_source(source, before)].shape)
    if kind != "affine":
        raise ValueError(f"unknown kind {kind!r}")
    inputs = _ints(entry["inputs"], None)
    shape = _ints(entry["shape"], None)
    bias = _real(packed, entry["bias"], (math.prod(shape),))
    maps = tuple(_map(packed, m) for m in entry["maps"])
    if len(maps) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs but {len(maps)} maps")
    for source, linear in zip(inputs, maps, strict=True):
        have = before[_source(source, before)].size
        if math.prod(linear.in_shape) != have or math.prod(linear.out_shape) != math.prod(shape):
            raise ValueError(f"a map from {linear.in_shape} to {linear.out_shape} does not fit {have} -> {shape}")
    return PlainNode("affine", inputs, shape, maps, bias)


def _map(packed: Packed, entry: dict[str, Any]) -> PlainMap:
    kind = entry["kind"]
    if kind == "dense":
        weight = _real(packed, entry["weight"], None, 2)
        return PlainMap(kind, weight.shape[1:], weight.shape[:1], {"weight": weight})
    if kind == "diagonal":
        shape = _ints(entry["shape"], None)
        return PlainMap(kind, shape, shape, {"weight": _real(packed, entry["weight"], (math.prod(shape),))})
    if kind == "conv2d":
        return _conv(packed, entry)
    if kind != "sparse":
        raise ValueError(f"unknown map {kind!r}")
    in_shape, out_shape = _ints(entry["in_shape"], None), _ints(entry["out_shape"], None)
    values = _real(packed, entry["values"], None, 1)
    arrays = {"values": values}
    for key, limit in (("rows", math.prod(out_shape)), ("cols", math.prod(in_shape))):
        arrays[key] = packed.array(entry[key], ndim=1)
        places = arrays[key].values()
        if arrays[key].dtype != "<i8" or arrays[key].shape != values.shape:
            raise ValueError(f"sparse {key} are not int64 of the values' shape")
        if len(places) and (min(places) < 0 or max(places) >= limit):
            raise ValueError(f"sparse {key} leave 0..{limit - 1}")
    pairs = set(zip(arrays["rows"].values(), arrays["cols"].values(), strict=True))
    if len(pairs) != values.shape[0]:
        raise ValueError("a sparse entry is given twice")
    return PlainMap(kind, in_shape, out_shape, arrays)


def _conv(packed: Packed, entry: dict[str, Any]) -> PlainMap:
    weight = _real(packed, entry["weight"], None, 4)
    in_shape = _ints(entry["in_shape"], 3)
    stride, dilation = _ints(entry["stride"], 2), _ints(entry["dilation"], 2)
    padding, (groups,) = _ints(entry["padding"], 4), _ints([entry["groups"]], 1)
    c_out, c_in, *kernel = weight.shape
    if min(*stride, *dilation, groups, c_out, c_in, *kernel) < 1 or c_in * groups != in_shape[0] or c_out % groups:
        raise ValueError(f"conv2d weight {weight.shape} does not fit input {in_shape} with {groups} groups")
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padded = [in_shape[1] + padding[0] + padding[2], in_shape[2] + padding[1] + padding[3]]
    if any(p < s for p, s in zip(padded, spans, strict=True)):
        raise ValueError(f"conv2d kernel {tuple(kernel)} is larger than its padded input {tuple(padded)}")
    # Neither is bounded by the file's size: the checkers lay out the padded image and the kernel without groups.
    if in_shape[0] * math.prod(padded) > min(MAX_PADDED, 2**20 + 100 * math.prod(in_shape)):
        raise ValueError(f"conv2d padding {padding} is far larger than its input {in_shape}, or both are too large")
    if groups > 1 and math.prod(weight.shape) * groups > MAX_UNGROUPED:
        raise ValueError(f"conv2d weight {weight.shape} in {groups} groups is too large")
    out = tuple((p - s) // step + 1 for p, s, step in zip(padded, spans, stride, strict=True))
    ints = {"stride": stride, "padding": padding, "dilation": dilation, "groups": (groups,)}
    return PlainMap("conv2d", in_shape, (c_out, *out), {"weight": weight}, ints)


def _ints(values: Any, length: int | None) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 2**40 for v in values):
        raise ValueError(f"{values!r} is not a list of whole numbers")
    if length is not None and len(values) != length:
        raise ValueError(f"{values!r} does not have {length} entries")
    return tuple(values)


def _source(source: int, before: list[PlainNode]) -> int:
    if source >= len(before):
        raise ValueError(f"reads node {source}, which does not precede it")
    return source


def _real(packed: Packed, reference: Any, shape: tuple[int, ...] | None, ndim: int | None = None) -> RawArray:
    found = packed.array(reference, ndim=ndim)
    if found.dtype not in REAL or (shape is not None and found.shape != shape):
        raise ValueError(f"an array is {found.dtype} {found.shape}, expected {' or '.join(REAL)} {shape or ''}")
    if not all(map(math.isfinite, found.values())):
        raise ValueError("a parameter is NaN or infinite")
    return found
