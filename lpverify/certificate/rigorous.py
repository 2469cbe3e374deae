"""The rigorous checker: does a certificate prove its claim? numpy only; nothing is taken from the engines.

Certificates of one network that share rule, semantics and kind of region are checked in one batch. The bounds
themselves, and the argument why they hold, are in ``rigorous_bounds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.certificate.claim import BallRegion
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous_bounds import Checker, Network
from lpverify.certificate.rigorous_claim import claim_rows, misfit
from lpverify.certificate.rigorous_linear import Array
from lpverify.certificate.rigorous_region import regions
from lpverify.certificate.rigorous_tree import root_margins

__all__ = ["Network", "Outcome", "check", "claim_rows"]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one certificate: ``margins`` (m,) are proved lower bounds of the claim's rows."""

    accepted: bool
    margins: Array
    message: str


def check(network: Network, certificates: Sequence[Certificate]) -> list[Outcome]:
    """Check certificates; those with the same rule, semantics and kind of region share their products."""
    groups: dict[object, list[int]] = {}
    outcomes: list[Outcome | None] = [None] * len(certificates)
    for position, certificate in enumerate(certificates):
        problem = misfit(network, certificate)
        if problem:
            outcomes[position] = Outcome(False, np.full(certificate.claim.num_rows, -np.inf), problem)
            continue
        region = certificate.claim.region
        kind = (region.norm, region.clip) if isinstance(region, BallRegion) else "box"
        key = (kind, certificate.rule, certificate.semantics, certificate.claim.num_rows)
        groups.setdefault(key, []).append(position)
    for members in groups.values():
        with np.errstate(all="ignore"):
            margins = _check_group(network, [certificates[i] for i in members])
        for position, row in zip(members, margins, strict=True):
            accepted = bool((row > 0).all() and np.isfinite(row).all())
            worst = "" if accepted else f"row {int(np.argmin(np.where(row > 0, np.inf, -1)))} is not proved"
            outcomes[position] = Outcome(accepted, row, worst)
    return [o for o in outcomes if o is not None]


def _check_group(network: Network, certificates: Sequence[Certificate]) -> Array:
    first = certificates[0]
    checker = Checker(network, regions([c.claim for c in certificates]), first.rule, first.semantics)
    checker.run(certificates)
    return root_margins(checker, certificates)
