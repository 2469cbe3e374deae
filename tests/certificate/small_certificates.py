"""Certificates for tests, built by hand, and sampled values that no sound bound may exceed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from small_networks import dense_network

from lpverify.attack.exact import exact_margins
from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, LabelRows, LinearRows
from lpverify.certificate.exact_region import region_ends
from lpverify.certificate.graph import PlainNetwork, parse_network
from lpverify.certificate.proof import Certificate, Duals, Leaf, Lemma, Slopes
from lpverify.linear import Conv2d, Dense, Diagonal, Sparse
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.serialize import network_bytes, raw_array

NO_ROWS = Leaf(raw_array(np.zeros(0, np.int32)), ())


def plain(network: Network) -> PlainNetwork:
    return parse_network(network_bytes(network))


def affine_net(*layers: tuple[Sequence[Sequence[float]], Sequence[float]]) -> Network:
    """Dense layers with ReLUs between them, in float64, from nested lists."""
    exact = {"dtype": torch.float64}
    return dense_network(*((torch.tensor(W, **exact), torch.tensor(b, **exact)) for W, b in layers))


def box(lower: Sequence[float], upper: Sequence[float]) -> BoxRegion:
    return BoxRegion(raw_array(np.array(lower, np.float64)), raw_array(np.array(upper, np.float64)))


def ball(center: Sequence[float], eps: str, norm: str = "inf", clip: tuple[str, str] | None = None) -> BallRegion:
    return BallRegion(raw_array(np.array(center, np.float64)), eps, norm, clip)


def rows(C: Any, d: Any) -> LinearRows:
    return LinearRows(raw_array(np.array(C, np.float64)), raw_array(np.array(d, np.float64)))


def certificate(
    network: PlainNetwork,
    region: BallRegion | BoxRegion,
    claim_rows: LabelRows | LinearRows,
    rule: str = "crown",
    semantics: str = "real",
    leaf: Leaf = NO_ROWS,
    lemmas: tuple[Lemma, ...] = (),
) -> Certificate:
    return Certificate(network.sha256, semantics, rule, Claim(region, claim_rows), leaf, lemmas)


def positive(network: Network) -> LinearRows:
    """The claim that every output is above zero."""
    return rows(np.eye(network.output_size), np.zeros(network.output_size))


def slopes(node: int, neurons: Sequence[int], values: Any) -> Slopes:
    """Stored slopes in [0, 1] of the given neurons: ``values`` (r, k)."""
    stored = np.round(np.array(values, np.float64).reshape(-1, len(neurons)) * 32768).astype(np.uint16)
    return Slopes(node, raw_array(np.array(neurons, np.int32)), raw_array(stored))


def duals(node: int, neurons: Sequence[int] | np.ndarray, values: Any, dtype: Any = np.float32) -> Duals:
    """Stored multipliers of the given neurons: ``values`` (r, k)."""
    stored = np.array(values, np.float64).astype(dtype)
    return Duals(node, raw_array(np.array(neurons, np.int32)), raw_array(stored))


def table_values(table: Slopes | Duals) -> np.ndarray:
    """The values (r, k) of a stored table."""
    return np.array(table.values.values(), np.float64).reshape(table.values.shape)


def lemma(node: int, neurons: Sequence[int], sides: Sequence[int], own: Sequence[Slopes | Duals] = ()) -> Lemma:
    return Lemma(node, raw_array(np.array(neurons, np.int32)), raw_array(np.array(sides, np.uint8)), *_by_kind(own))


def leaf(claim_rows: Sequence[int], *own: Slopes | Duals) -> Leaf:
    return Leaf(raw_array(np.array(claim_rows, np.int32)), *_by_kind(own))


def _by_kind(own: Sequence[Slopes | Duals]) -> tuple[tuple[Slopes, ...], tuple[Duals, ...]]:
    return tuple(t for t in own if isinstance(t, Slopes)), tuple(t for t in own if isinstance(t, Duals))


def claim_matrix(claim: Claim) -> tuple[np.ndarray, np.ndarray]:
    """C and d of a claim, float64."""
    if isinstance(claim.rows, LinearRows):
        C = np.array(claim.rows.C.values(), np.float64).reshape(claim.rows.C.shape)
        return C, np.array(claim.rows.d.values(), np.float64)
    unit = np.eye(claim.rows.classes)
    others = [j for j in range(claim.rows.classes) if j != claim.rows.label]
    return unit[claim.rows.label] - unit[others], np.zeros(len(others))


def sampled_points(claim: Claim, count: int, seed: int) -> Iterator[np.ndarray]:
    """Floats inside the exact region: its middle, corners of its box, points between; none if it is empty."""
    ends, draw = region_ends(claim.region), random.Random(seed)
    for index in range(count):
        kinds = (lambda: Fraction(1, 2), lambda: Fraction(draw.randint(0, 1)), lambda: Fraction(draw.random()))
        share = [kinds[min(index, 1 + index % 2)]() for _ in ends]
        exact = [low + part * (high - low) for part, (low, high) in zip(share, ends, strict=True)]
        point = np.array([float(v) for v in exact])
        for i, (low, high) in enumerate(ends):
            for target in (np.inf, -np.inf):
                if not low <= Fraction(point[i]) <= high:
                    point[i] = np.nextafter(float(exact[i]), target)
        inside = all(low <= Fraction(v) <= high for v, (low, high) in zip(point, ends, strict=True))
        if inside and _in_ball(claim, point):
            yield point


def _in_ball(claim: Claim, point: np.ndarray) -> bool:
    region = claim.region
    if isinstance(region, BoxRegion) or region.norm == "inf":
        return True
    offsets = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point, region.center.values(), strict=True)]
    eps = Fraction(region.eps)
    return sum(offsets) <= eps if region.norm == "1" else sum(o * o for o in offsets) <= eps * eps


def least_sampled(network: Network, claim: Claim, count: int = 20, seed: int = 0) -> list[Fraction] | None:
    """The least exact value of each row over sampled points of the region; None if no point was found."""
    C, d = claim_matrix(claim)
    found = [exact_margins(network, x, C, d) for x in sampled_points(claim, count, seed)]
    return [min(column) for column in zip(*found, strict=True)] if found else None


def mixed_network(seed: int = 0) -> Network:
    """A small image network with every kind of map, a residual sum, a chain of affine nodes, and two readers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).div(2).double()

    first = Conv2d(draw(4, 1, 3, 2), (2, 6, 5), (2, 1), (1, 0, 2, 1), (1, 2), 2)
    second = Conv2d(draw(4, 4, 3, 3), first.out_shape, (1, 1), (1, 1, 1, 1))
    n = first.out_size
    pick = Sparse(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([3, n - 1, 5, 0, 7]), draw(5), first.out_shape, (3,))
    return Network((
        Input((2, 6, 5)),
        Affine((0,), (first,), draw(n), first.out_shape), ReLU(1),
        Affine((2, 1), (second, Diagonal(draw(n), first.out_shape)), draw(n), first.out_shape), ReLU(3),
        Affine((4,), (pick,), draw(3), (3,)),
        Affine((5, 2), (Dense(draw(4, 3)), Dense(draw(4, n))), draw(4), (4,)), ReLU(6),
        Affine((7,), (Dense(draw(3, 4)),), draw(3), (3,)),
    ))  # fmt: skip
