"""The exact least output of a dense network over an interval or a rectangle, by cutting it along activation patterns.

A piece is a convex polygon, given by its corners in order with the values of the layer there. On it all neurons so far
are linear, so a neuron's values at the corners say where its sign changes, and points on edges between two corners have
values in proportion: nothing is rounded. An interval is a polygon of two corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from soundness.layers import Layers

Vector = list[Fraction]
# Corners, each the point and the values of the current layer.
Piece = list[tuple[Vector, Vector]]


def least(layers: Layers, lower: Sequence[Fraction], upper: Sequence[Fraction]) -> tuple[Fraction, Vector, int]:
    """The least of all outputs over the box, a point that attains it, and the number of pieces."""
    pieces: list[Piece] = [[(point, point) for point in _corners(lower, upper)]]
    for number, (weight, bias) in enumerate(layers):
        rows = [[Fraction(w) for w in row] for row in weight.tolist()]
        shift = [Fraction(b) for b in bias.tolist()]
        pieces = [[(x, _affine(rows, shift, h)) for x, h in piece] for piece in pieces]
        if number < len(layers) - 1:
            for neuron in range(len(shift)):
                pieces = [part for piece in pieces for part in _relu(piece, neuron)]
    value, point = min((min(h), x) for piece in pieces for x, h in piece)
    return value, point, len(pieces)


def _corners(lower: Sequence[Fraction], upper: Sequence[Fraction]) -> list[Vector]:
    if len(lower) == 1:
        return [[lower[0]], [upper[0]]]
    if len(lower) != 2:
        raise ValueError(f"{len(lower)} inputs, expected 1 or 2")
    (left, bottom), (right, top) = lower, upper
    return [[left, bottom], [right, bottom], [right, top], [left, top]]


def _affine(rows: list[Vector], shift: Vector, h: Vector) -> Vector:
    return [b + sum((w * v for w, v in zip(row, h, strict=True) if w and v), Fraction(0))
            for row, b in zip(rows, shift, strict=True)]  # fmt: skip


def _relu(piece: Piece, neuron: int) -> list[Piece]:
    """The parts of a piece where one neuron keeps its sign, with its ReLU applied."""
    values = [h[neuron] for _, h in piece]
    if min(values) >= 0:
        return [piece]
    if max(values) <= 0:
        return [_zeroed(piece, neuron)]
    above, below = _half(piece, neuron, 1), _half(piece, neuron, -1)
    return [above, _zeroed(below, neuron)]


def _zeroed(piece: Piece, neuron: int) -> Piece:
    return [(x, [*h[:neuron], Fraction(0), *h[neuron + 1 :]]) for x, h in piece]


def _half(piece: Piece, neuron: int, sign: int) -> Piece:
    """The corners where sign z >= 0 and the points of edges where z = 0."""
    kept: Piece = []
    for (x, h), (y, g) in zip(piece, [*piece[1:], piece[0]], strict=True):
        a, b = sign * h[neuron], sign * g[neuron]
        if a >= 0:
            kept.append((x, h))
        if (a > 0 > b) or (a < 0 < b):
            share = a / (a - b)
            kept.append((_between(x, y, share), _between(h, g, share)))
    return kept


def _between(a: Vector, b: Vector, share: Fraction) -> Vector:
    return [u + share * (v - u) for u, v in zip(a, b, strict=True)]
