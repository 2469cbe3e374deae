"""The network in exact integer arithmetic: linear maps, bias, forward evaluation. Standard library only.

Parameters are floats, hence dyadic rationals: every array becomes integers times one power of two.

A matrix row is a few runs of integers, each placed from an offset on; rows of a convolution share the runs
of their kernel. W x is then a few inner products of runs with slices of x. W^T v is the sum of v_i times
row i; for it every run is also packed into one long integer of fields of equal width, so that one product
of integers multiplies a whole run by v_i. Fields are wide enough for the final sums, so none overflows. Where it is
enough to know W^T v rounded down, only the upper 64 bits of each field are read; the fields are filled so far that
these hold integers of 60 bits, which Python multiplies faster than longer ones.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache, reduce
from operator import mul, or_

from lpverify.certificate.graph import PlainMap, PlainNetwork
from lpverify.errors import CertificateError

MOST_PACKED = 2**14  # entries of a matrix whose columns are packed as well
Scaled = tuple[list[int], int]  # integers, and the exponent of the power of two that multiplies them


def scaled(integer: int, exponent: int) -> Fraction:
    """integer * 2**exponent."""
    return Fraction(integer << exponent) if exponent >= 0 else Fraction(integer, 1 << -exponent)


def integers(values: Iterable[float]) -> Scaled:
    """Finite floats as integers times their greatest common power of two."""
    ratios = [value.as_integer_ratio() for value in values]
    shift = max((d for _, d in ratios), default=1).bit_length()
    whole = [n << (shift - d.bit_length()) for n, d in ratios]
    common = reduce(or_, whole, 0)
    spare = (common & -common).bit_length() - 1 if common else 0
    return [n >> spare for n in whole], spare - (shift - 1)


def total(terms: Sequence[Scaled]) -> Scaled:
    """The entrywise sum of vectors of equal length, at the finest of their exponents."""
    unit = min(exponent for _, exponent in terms)
    shifted = ([n << (exponent - unit) for n in whole] for whole, exponent in terms)
    return [sum(column) for column in zip(*shifted, strict=True)], unit


@dataclass(frozen=True, eq=False)
class Matrix:
    """A linear map W, in integers times 2**exponent.

    Attributes:
        runs: lists of consecutive entries, shared between rows.
        rows: for each output unit the (offset, run) pairs whose sum is its row of W.
        units: the input unit at each place that offsets count, -1 for padding, which reads zero.
    """

    exponent: int
    runs: list[list[int]]
    rows: list[list[tuple[int, int]]]
    units: Sequence[int]
    _packed: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @cached_property
    def dense(self) -> bool:
        """Whether row i is run i from the first unit on."""
        places = self.units == range(len(self.units))
        return places and all(row == [(0, unit)] for unit, row in enumerate(self.rows))

    @cached_property
    def terms(self) -> int:
        """The greatest number of nonzero products in one entry of W x."""
        counts = [sum(map(bool, run)) for run in self.runs]
        return max((sum(counts[r] for _, r in row) for row in self.rows), default=0)

    @cached_property
    def largest(self) -> int:
        """The greatest integer in |W|."""
        return max((abs(n) for run in self.runs for n in run), default=0)

    @cached_property
    def _magnitudes(self) -> list[list[int]]:
        return [list(map(abs, run)) for run in self.runs]

    @cached_property
    def _columns(self) -> tuple[Matrix, Matrix]:
        """The transposes of W and of |W|, for a dense W."""
        columns = [list(map(list, zip(*runs, strict=True))) for runs in (self.runs, self._magnitudes)]
        rows, units = [[(0, unit)] for unit in self.units], range(len(self.rows))
        first, second = (Matrix(self.exponent, runs, rows, units) for runs in columns)
        return first, second

    def apply_often(self, x: list[int], *, magnitude: bool = False) -> list[int]:
        """W x (or |W| x): quicker once columns are packed, where integers are of few sizes and matrices small."""
        if not self.dense or len(self.rows) * len(self.units) > MOST_PACKED:
            return self.apply(x, magnitude=magnitude)
        found = self._columns[magnitude].transpose(dict(enumerate(x)))
        return [found.get(unit, 0) for unit in range(len(self.rows))]

    def apply(self, x: list[int], *, magnitude: bool = False) -> list[int]:
        """W x (or |W| x) for integers x (n_in,)."""
        runs = self._magnitudes if magnitude else self.runs
        placed = [x[unit] if unit >= 0 else 0 for unit in self.units]
        return [sum([sum(map(mul, runs[r], placed[at : at + len(runs[r])])) for at, r in row]) for row in self.rows]

    def transpose(self, v: dict[int, int]) -> dict[int, int]:
        """W^T v for {output unit: integer}, as {input unit: integer} without zeros."""
        bits = self._bits(v)
        if not bits:
            return {}
        at, row, width = self._product(v, bits)
        return {u: n for u, n in zip(self.units[at:], _unpack(row, width), strict=False) if n and u >= 0}

    def transpose_down(self, v: dict[int, int]) -> tuple[dict[int, int], int]:
        """W^T v rounded down: integers, and the exponent of the power of two that multiplies them."""
        bits = self._bits(v)
        if not bits:
            return {}, 0
        at, row, width = self._product(v, bits)
        spare = max(8 * width - 4 - bits, 0)
        fields = _upper(row << spare, width)
        if self.dense:
            return dict(enumerate(fields)), 8 * width - 64 - spare
        found = {u: n for u, n in zip(self.units[at:], fields, strict=False) if n and u >= 0}
        return found, 8 * width - 64 - spare

    def _bits(self, v: dict[int, int]) -> int:
        """The bits of the largest entry that W^T v may have: |W^T v| <= largest * sum |v|."""
        return (self.largest * sum(map(abs, v.values()))).bit_length()

    def _product(self, v: dict[int, int], bits: int) -> tuple[int, int, int]:
        """W^T v, of entries of ``bits``, from some place on: that place, the packed fields and their width."""
        width = 8 * (bits // 64 + 1)
        packed = self._packed.get(width) or self._pack(width)
        if self.dense:
            return 0, sum(map(mul, v.values(), map(packed.__getitem__, v))), width
        sums: dict[int, int] = {}
        for unit, factor in v.items():
            for at, run in self.rows[unit]:
                sums[at] = sums.get(at, 0) + factor * packed[run]
        if not sums:  # every row of W that v uses is empty
            return 0, 0, width
        parts = sorted(sums.items())
        while len(parts) > 1:  # neighbours first: each addition then costs no more than its result is long
            pairs = zip(parts[::2], parts[1::2], strict=False)
            odd = parts[-1:] if len(parts) % 2 else []
            parts = [(at, low + (high << 8 * width * (above - at))) for (at, low), (above, high) in pairs] + odd
        return *parts[0], width

    def _pack(self, width: int) -> list[int]:
        """The runs as long integers with fields of ``width`` bytes, the first field lowest."""
        half = 1 << (8 * width - 1)
        fields = (b"".join([(n + half).to_bytes(width, "little") for n in run]) for run in self.runs)
        packed = [int.from_bytes(f, "little") - _halves(width, len(f) // width) for f in fields]
        self._packed[width] = packed
        return packed


@lru_cache(maxsize=256)
def _halves(width: int, count: int) -> int:
    """The packed integer with half of the field's range in every field: it makes signed fields unsigned."""
    return int.from_bytes((bytes(width - 1) + b"\x80") * count, "little")


def _unpack(row: int, width: int) -> list[int]:
    """The signed fields of a packed integer, the lowest first."""
    count = row.bit_length() // (8 * width) + 1
    data = (row + _halves(width, count)).to_bytes(count * width, "little")
    half = 1 << (8 * width - 1)
    if width == 16 and sys.byteorder == "little":  # the usual case, and quicker so
        words = memoryview(data).cast("Q").tolist()
        return [low + (high << 64) - half for low, high in zip(words[::2], words[1::2], strict=True)]
    return [int.from_bytes(data[at : at + width], "little") - half for at in range(0, len(data), width)]


def _upper(row: int, width: int) -> list[int]:
    """The upper 64 bits of each of the signed fields, rounded down: the lowest field first."""
    count = row.bit_length() // (8 * width) + 1
    halves = _halves(width, count)
    words = array("q", ((row + halves) ^ halves).to_bytes(count * width, "little"))  # each field in two's complement
    if sys.byteorder == "big":
        words.byteswap()
    return words[width // 8 - 1 :: width // 8].tolist()


@dataclass(frozen=True, eq=False)
class ExactNode:
    """One node: ``kind`` is input, affine or relu; an affine node's bias is ``bias`` times 2**exponent."""

    kind: str
    inputs: tuple[int, ...]
    size: int
    maps: tuple[Matrix, ...] = ()
    bias: list[int] = field(default_factory=list)
    exponent: int = 0


@dataclass(frozen=True, eq=False)
class ExactNetwork:
    """A network with integer parameters; ``single`` says that every parameter is a float32."""

    nodes: tuple[ExactNode, ...]
    sha256: str
    single: bool


def convert(network: PlainNetwork) -> ExactNetwork:
    """The integers of a parsed network, to be made once for all its certificates."""
    nodes, single = [], True
    for node in network.nodes:
        bias, exponent = integers(node.bias.values()) if node.bias is not None else ([], 0)
        maps = tuple(map(_matrix, node.maps))
        nodes.append(ExactNode(node.kind, node.inputs, node.size, maps, bias, exponent))
        parameters = [node.bias, *(array for plain in node.maps for array in plain.arrays.values())]
        single = single and not any(array is not None and array.dtype == "<f8" for array in parameters)
    return ExactNetwork(tuple(nodes), network.sha256, single)


def _matrix(plain: PlainMap) -> Matrix:
    entries, exponent = integers(plain.arrays["values" if plain.kind == "sparse" else "weight"].values())
    places = range(math.prod(plain.in_shape))
    if plain.kind == "dense":
        wide, outputs = len(places), range(math.prod(plain.out_shape))
        runs = [entries[i * wide : (i + 1) * wide] for i in outputs]
        return Matrix(exponent, runs, [[(0, i)] for i in outputs], places)
    if plain.kind == "diagonal":
        return Matrix(exponent, [[n] for n in entries], [[(i, i)] for i in places], places)
    if plain.kind == "conv2d":
        return _convolution(plain, entries, exponent)
    number = {n: i for i, n in enumerate(dict.fromkeys(entries))}
    rows: list[list[tuple[int, int]]] = [[] for _ in range(math.prod(plain.out_shape))]
    for row, col, entry in zip(plain.arrays["rows"].values(), plain.arrays["cols"].values(), entries, strict=True):
        rows[row].append((col, number[entry]))
    return Matrix(exponent, [[n] for n in number], rows, places)


def _convolution(plain: PlainMap, entries: list[int], exponent: int) -> Matrix:
    """A run for every output channel and kernel line; places are (y, x, channel) of the padded image."""
    out_channels, depth, height, width = plain.arrays["weight"].shape
    channels, in_height, in_width = plain.in_shape
    (step_y, step_x), (gap_y, gap_x), (groups,) = (plain.ints[k] for k in ("stride", "dilation", "groups"))
    top, left, bottom, right = plain.ints["padding"]
    line = (left + in_width + right) * channels
    units = [
        (c * in_height + y) * in_width + x if 0 <= y < in_height and 0 <= x < in_width else -1
        for y in range(-top, in_height + bottom)
        for x in range(-left, in_width + right)
        for c in range(channels)
    ]
    runs = []
    for kernel_line in range(out_channels * height):
        channel, y = divmod(kernel_line, height)
        run = [0] * ((width - 1) * gap_x * channels + depth)
        for c in range(depth):
            at = ((channel * depth + c) * height + y) * width
            run[c :: gap_x * channels] = entries[at : at + width]
        runs.append(run)
    rows = []
    for channel in range(out_channels):
        first = channel // (out_channels // groups) * depth
        for y in range(plain.out_shape[1]):
            for x in range(plain.out_shape[2]):
                at = y * step_y * line + x * step_x * channels + first
                rows.append([(at + k * gap_y * line, channel * height + k) for k in range(height)])
    return Matrix(exponent, runs, rows, units)


def evaluate(network: PlainNetwork | ExactNetwork, x: Sequence[Fraction]) -> list[Fraction]:
    """f(x) without any rounding, for one input x (n_0,) of rationals: (n_K,).

    Raises:
        CertificateError: if x has another size than the network's input.
    """
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    if len(x) != exact.nodes[0].size:
        raise CertificateError(f"the point has {len(x)} inputs, the network {exact.nodes[0].size}")
    scale = math.lcm(*(value.denominator for value in x))
    values: list[Scaled] = []  # every node's value times ``scale``
    for node in exact.nodes:
        if node.kind == "input":
            values.append(([int(value * scale) for value in x], 0))
        elif node.kind == "relu":
            whole, exponent = values[node.inputs[0]]
            values.append(([max(n, 0) for n in whole], exponent))
        else:
            terms = [([n * scale for n in node.bias], node.exponent)]
            for source, matrix in zip(node.inputs, node.maps, strict=True):
                terms.append((matrix.apply(values[source][0]), values[source][1] + matrix.exponent))
            values.append(total(terms))
    whole, exponent = values[-1]
    return [scaled(n, exponent) / scale for n in whole]
