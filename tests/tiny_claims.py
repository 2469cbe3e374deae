"""Random tiny networks with claims whose least margin is known: placed above or below 0 by a chosen distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from enumeration import least
from networks import Random, chain

from lpverify.certificate.claim import (
    BallRegion,
    BoxRegion,
    Claim,
    ClauseRows,
    Inequality,
    LabelRows,
    LinearRows,
    RationalBox,
    Region,
    Rows,
)
from lpverify.linear import Diagonal
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.serialize import raw_array

KINDS = ("label", "linear", "clauses")


@dataclass(frozen=True, eq=False)
class Tiny:
    """A claim about a float64 network: its least margin is ``least``, to about 1e-12."""

    network: Network
    claim: Claim
    least: float
    name: str


def line(seed: int) -> Network:
    r = Random(seed)
    return chain(r, (1,), r.dense(1, 6), r.dense(6, 5), r.dense(5, 3))


def plane(seed: int) -> Network:
    r, wide = Random(seed), 3 + seed % 3
    return chain(r, (2,), r.dense(2, wide), r.dense(wide, 4), r.dense(4, 3))


def deep(seed: int) -> Network:
    r = Random(seed)
    return chain(r, (2,), *(r.dense(2 if k == 0 else 3, 3) for k in range(5)))


def residual(seed: int) -> Network:
    """A block beside the identity, on two or three inputs."""
    r, inputs = Random(seed), 2 + seed % 2
    same = Diagonal(torch.ones(4), (4,))
    return Network((
        Input((inputs,)), r.affine((0,), r.dense(inputs, 4)), ReLU(1), r.affine((2,), r.dense(4, 3)), ReLU(3),
        r.affine((4, 2), r.dense(3, 4), same), ReLU(5), r.affine((6,), r.dense(4, 3)),
    ))  # fmt: skip


def space(seed: int) -> Network:
    r, inputs = Random(seed), 3 + seed % 2
    return chain(r, (inputs,), r.dense(inputs, 4), r.dense(4, 3), r.dense(3, 3))


def conv(seed: int) -> Network:
    """Up to six inputs in one to three channels."""
    r = Random(seed)
    shape = ((1, 2, 2), (2, 1, 2), (1, 2, 3), (3, 1, 2))[seed % 4]
    first = r.conv(shape, 2, (1, 2), padding=(0, 0, 0, 1)) if seed % 3 else r.conv(shape, 3, (shape[1], 2))
    return chain(r, shape, first, r.dense(first.out_size, 3), r.dense(3, 3))


SHAPES: dict[str, Callable[[int], Network]] = {
    "line": line, "plane": plane, "deep": deep, "residual": residual, "space": space, "conv": conv,
}  # fmt: skip
REGIONS = ("rational box", "box", "inf", "1", "2")


def tiny(shape: str, kind: str, region: str, seed: int, distance: float) -> Tiny:
    """A random claim whose least margin is ``distance`` times the spread of its margins.

    Args:
        shape: one of SHAPES. kind: one of KINDS. region: one of REGIONS ("2" needs two inputs, "1" few).
    """
    network = SHAPES[shape](seed).detach().to(torch.float64)
    rng = np.random.default_rng(seed)
    where = random_region(region, network.input_size, rng)
    claim = Claim(where, random_rows(kind, network.output_size, rng))
    network, claim = settled(network, claim, distance)
    return Tiny(network, claim, least(network, claim).value, f"{shape} {kind} {region} {seed} {distance}")


def settled(network: Network, claim: Claim, distance: float) -> tuple[Network, Claim]:
    """Network and claim, all margins shifted by one constant so that the least is ``distance`` times their spread."""
    found = least(network, claim)
    shift = distance * max(found.spread, 1e-3) - found.value
    return shifted(network, claim, shift)


def shifted(network: Network, claim: Claim, shift: float) -> tuple[Network, Claim]:
    """All margins changed by ``shift``: by the rows' constants, for a label by that output's bias."""
    rows = claim.rows
    if isinstance(rows, LabelRows):
        last = network.nodes[-1]
        assert isinstance(last, Affine)
        bias = last.bias.clone()
        bias[rows.label] += shift
        return Network((*network.nodes[:-1], replace(last, bias=bias))), claim
    if isinstance(rows, LinearRows):
        moved: Rows = LinearRows(rows.C, raw_array(np.array(rows.d.values()) + shift))
    else:
        assert isinstance(rows, ClauseRows)
        by = Fraction(shift)
        moved = ClauseRows(
            rows.outputs,
            tuple(tuple(replace(row, constant=row.constant + by) for row in clause) for clause in rows.clauses),
        )
    return network, Claim(claim.region, moved)


def random_region(kind: str, inputs: int, rng: np.random.Generator) -> Region:
    center = rng.normal(size=inputs).round(3)
    radius = (0.3 + rng.random(inputs)).round(2)
    if kind == "rational box":
        middle, half = ([Fraction(v).limit_denominator(1000) for v in values] for values in (center, radius))
        pairs = list(zip(middle, half, strict=True))
        return RationalBox(tuple(m - h for m, h in pairs), tuple(m + h for m, h in pairs))
    if kind == "box":
        return BoxRegion(raw_array(center - radius), raw_array(center + radius))
    clip = None if rng.random() < 0.5 else ("-0.6", "0.7")
    point = center if clip is None else center.clip(-0.6, 0.7)
    return BallRegion(raw_array(point), str(radius[0]), kind, clip)


def random_rows(kind: str, outputs: int, rng: np.random.Generator) -> Rows:
    if kind == "label":
        return LabelRows(int(rng.integers(outputs)), outputs)
    if kind == "linear":
        count = int(rng.integers(1, 4))
        return LinearRows(raw_array(rng.normal(size=(count, outputs))), raw_array(rng.normal(size=count)))
    clauses = tuple(
        tuple(
            Inequality(
                tuple(range(outputs)),
                tuple(Fraction(int(v), 8) for v in rng.integers(-12, 13, outputs)),
                Fraction(int(rng.integers(-8, 9)), 10),
                bool(rng.random() < 0.5),
            )
            for _ in range(rng.integers(1, 4))
        )
        for _ in range(rng.integers(1, 3))
    )
    return ClauseRows(outputs, clauses)
