"""Claims, the checker made ready, and points of a claim's region evaluated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from networks import Clip, samples
from numpy.typing import NDArray

from lpverify.attack.exact import exact_margins, into_exact_box
from lpverify.bounds import BoundResult
from lpverify.certificate import rigorous
from lpverify.certificate.claim import BallRegion, Claim, LabelRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import Certificate
from lpverify.evidence import ball_claim, certificate
from lpverify.network import Network
from lpverify.problem import Box, Region, ball
from lpverify.serialize import network_bytes


def checker_of(network: Network) -> rigorous.Network:
    return rigorous.Network(parse_network(network_bytes(network)))


def to_float(raw: RawArray) -> NDArray[np.float64]:
    return np.asarray(raw.values(), dtype=np.float64).reshape(raw.shape)


def clip_text(clip: Clip) -> tuple[str, str] | None:
    return None if clip is None else (repr(clip[0]), repr(clip[1]))


def label_claims(x: torch.Tensor, y: torch.Tensor, classes: int, eps: float, norm: str, clip: Clip) -> list[Claim]:
    return [ball_claim(row.numpy(), repr(eps), norm, clip_text(clip), LabelRows(int(label), classes))
            for row, label in zip(x, y, strict=True)]  # fmt: skip


def propose(
    checker: rigorous.Network, claims: Sequence[Claim], result: BoundResult, semantics: str = "real"
) -> list[Certificate]:
    """The certificates that a method's result proposes for the examples of its batch."""
    return [certificate(checker.sha256, semantics, claim, result, i, range(claim.num_rows))
            for i, claim in enumerate(claims)]  # fmt: skip


def region_of(claim: Claim) -> Region:
    """The claim's region for the engines, a batch of one."""
    where = claim.region
    if not isinstance(where, BallRegion):
        return Box(*(torch.from_numpy(to_float(raw))[None] for raw in (where.lower, where.upper)))
    clip = None if where.clip is None else (float(where.clip[0]), float(where.clip[1]))
    return ball(torch.from_numpy(to_float(where.center))[None], float(where.eps), where.norm, clip)


def points_of(claim: Claim, count: int, seed: int) -> torch.Tensor:
    """Points near the claim's region, (count, n_0); ``exactly_inside`` moves one into it."""
    return samples(region_of(claim), count, seed)[:, 0]


def exactly_inside(point: NDArray[Any], claim: Claim) -> NDArray[np.float64] | None:
    where = claim.region
    if not isinstance(where, BallRegion):
        return np.clip(point, to_float(where.lower), to_float(where.upper))
    return into_exact_box(point, to_float(where.center), where.eps, where.norm, where.clip)


def sampled_least(network: Network, claim: Claim, count: int = 300, seed: int = 0) -> list[Fraction]:
    """For each row of the claim its exact value at the lowest of ``count`` sampled points of the exact region."""
    C, d = rigorous.claim_rows(claim)
    points = points_of(claim, count, seed).double()
    values = network.forward(points).numpy() @ C.T + d
    least = []
    for row in range(len(d)):
        inside = exactly_inside(points[int(np.argmin(values[:, row]))].numpy(), claim)
        assert inside is not None
        least.append(exact_margins(network, inside, C[row : row + 1], d[row : row + 1])[0])
    return least


def assert_below(margins: NDArray[np.float64], values: Sequence[Fraction], message: object = "") -> None:
    """Every margin is at most its value, exactly; NaN and minus infinity claim nothing."""
    for row, (margin, value) in enumerate(zip(margins.tolist(), values, strict=True)):
        if margin == margin and margin != -np.inf:
            assert margin != np.inf and Fraction(margin) <= value, (message, row, margin, float(value))
