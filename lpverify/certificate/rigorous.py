"""The rigorous checker: does a certificate prove its claim? numpy only; nothing is taken from the engines.

Certificates of one network that share rule, semantics and kind of region are checked in one batch. The bounds
themselves, and the argument why they hold, are in ``rigorous_bounds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.certificate.claim import BallRegion, Claim, ClauseRows
from lpverify.certificate.proof import Certificate, require_trees
from lpverify.certificate.rigorous_bounds import Checker, Network
from lpverify.certificate.rigorous_claim import claim_rows, misfit
from lpverify.certificate.rigorous_linear import Array, to_index
from lpverify.certificate.rigorous_region import regions
from lpverify.certificate.rigorous_tree import Root, root_margins
from lpverify.certificate.rigorous_walk import judge, require_fit
from lpverify.errors import CertificateError

__all__ = ["Network", "Outcome", "check", "claim_rows"]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one certificate.

    Attributes:
        margins: (m,) proved lower bounds of the claim's rows (of ``claim_rows``). A row that is a clause of its own has
            the least bound among the leaves of the tree that proves it, if that is better than the root's.
        leaves: the number of leaves of an accepted certificate's trees; 1 without trees; 0 if not accepted.
    """

    accepted: bool
    margins: Array
    message: str
    leaves: int = 0


def check(network: Network, certificates: Sequence[Certificate]) -> list[Outcome]:
    """Check certificates; those without trees and with the same rule, semantics and kind of region share products."""
    groups: dict[object, list[int]] = {}
    outcomes: list[Outcome | None] = [None] * len(certificates)
    for position, certificate in enumerate(certificates):
        problem = misfit(network, certificate)
        if problem:
            outcomes[position] = Outcome(False, np.full(certificate.claim.num_rows, -np.inf), problem)
            continue
        if certificate.trees:
            outcomes[position] = _check_trees(network, certificate)
            continue
        region = certificate.claim.region
        kind = (region.norm, region.clip) if isinstance(region, BallRegion) else "box"
        key = (kind, certificate.rule, certificate.semantics, certificate.claim.num_rows)
        groups.setdefault(key, []).append(position)
    for members in groups.values():
        with np.errstate(all="ignore"):
            margins = _check_group(network, [certificates[i] for i in members])
        for position, row in zip(members, margins, strict=True):
            failed = _open_clauses(certificates[position].claim, row)
            noun = "clause" if isinstance(certificates[position].claim.rows, ClauseRows) else "row"
            worst = f"{noun} {failed[0]} is not proved" if failed else ""
            outcomes[position] = Outcome(not failed, row, worst, 0 if failed else 1)
    return [o for o in outcomes if o is not None]


def _check_group(network: Network, certificates: Sequence[Certificate]) -> Array:
    first = certificates[0]
    checker = Checker(network, regions([c.claim for c in certificates]), first.rule, first.semantics)
    checker.run(certificates)
    return root_margins(checker, certificates)


def _open_clauses(claim: Claim, margins: Array) -> list[int]:
    """The clauses without any row whose bound is above zero."""
    proved = (margins > 0) & np.isfinite(margins)
    return [clause for clause, own in enumerate(claim.clauses) if not proved[list(own)].any()]


def _check_trees(network: Network, certificate: Certificate) -> Outcome:
    """Check a certificate with trees: they must prove the clauses that the root leaves open."""
    claim, margins = certificate.claim, np.full(certificate.claim.num_rows, -np.inf)
    try:
        require_trees(certificate)
        root = Root(network, certificate)
        for tree in certificate.trees:
            require_fit(root, tree)
        margins = root.margins.copy()
        left = _open_clauses(claim, margins)
        listed = [to_index(tree.clauses).tolist() for tree in certificate.trees]
        unlisted = [clause for clause in left if not any(clause in clauses for clauses in listed)]
        if unlisted:
            return Outcome(False, margins, f"clause {unlisted[0]} is not proved, and no tree proves it")
        for number, (tree, clauses) in enumerate(zip(certificate.trees, listed, strict=True)):
            wanted = [clause for clause in clauses if clause in left]
            least, failure = judge(root, tree, wanted) if wanted else ({}, None)
            if failure is not None:
                where = f"tree {number}, leaf {failure.leaf} (node {failure.node}): clause {failure.clause}"
                return Outcome(False, margins, f"{where} is not proved (bound {failure.bound!r})")
            for clause, bound in least.items():
                own = list(claim.clauses[clause])
                # A combination's bound is that of a multiple of the row.
                if len(own) == 1 and bound < np.inf and not tree.combos.shape[0]:
                    margins[own] = np.fmax(margins[own], bound)
    except CertificateError as error:
        return Outcome(False, margins, str(error))
    leaves = sum(tree.num_leaves for tree in certificate.trees)
    return Outcome(True, margins, f"{leaves} leaves", leaves)
