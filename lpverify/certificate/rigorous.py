"""The rigorous checker: does a certificate prove its claim? numpy only; nothing is taken from the engines.

Certificates of one network that share rule, semantics and kind of region are checked in one batch. The bounds
themselves, and the argument why they hold, are in ``rigorous_bounds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.certificate.claim import BallRegion, Claim, LabelRows
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous_bounds import Checker, Network
from lpverify.certificate.rigorous_linear import Array, to_float, to_index
from lpverify.certificate.rigorous_region import regions

__all__ = ["Network", "Outcome", "check"]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one certificate: ``margins`` (m,) are proved lower bounds of the claim's rows."""

    accepted: bool
    margins: Array
    message: str


def claim_rows(claim: Claim) -> tuple[Array, Array]:
    """C (m, n_K) and d (m,) of a claim."""
    if isinstance(claim.rows, LabelRows):
        unit = np.eye(claim.rows.classes)
        return unit[claim.rows.label] - np.delete(unit, claim.rows.label, axis=0), np.zeros(claim.rows.classes - 1)
    return to_float(claim.rows.C), to_float(claim.rows.d)


def check(network: Network, certificates: Sequence[Certificate]) -> list[Outcome]:
    """Check certificates; those with the same rule, semantics and kind of region share their products."""
    groups: dict[object, list[int]] = {}
    outcomes: list[Outcome | None] = [None] * len(certificates)
    for position, certificate in enumerate(certificates):
        problem = _misfit(network, certificate)
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


def _misfit(network: Network, certificate: Certificate) -> str:
    """Why a certificate does not belong to this network; empty if it does."""
    claim, first, last = certificate.claim, network.nodes[0], network.nodes[-1]
    if certificate.network != network.sha256:
        return f"names another network ({certificate.network[:12]}..., not {network.sha256[:12]}...)"
    if (claim.inputs, claim.outputs) != (first.size, last.size):
        return f"has {claim.inputs} inputs, {claim.outputs} outputs; the network has {first.size}, {last.size}"
    if certificate.semantics == "float32" and not network.is_float32:
        return "claims float32 semantics, but the network has parameters that are no float32 numbers"
    for node, neurons in [(x.node, x.neurons) for x in (*certificate.tables(), *certificate.lemmas)]:
        if node >= len(network.nodes) or network.nodes[node].kind != "relu":
            return f"node {node} is not a ReLU"
        strangers = [n for n in neurons.values() if not 0 <= n < network.nodes[node].size]
        if strangers:
            return f"node {node} has no neuron {strangers[0]}"
    for table in certificate.tables():  # a file is refused for this, but an object may not be from a file
        if (np.diff(to_index(table.neurons)) <= 0).any():
            return f"a table of node {table.node} lists a neuron twice or out of order"
    if any(network.nodes[network.nodes[x.node].inputs[0]].kind != "affine" for x in certificate.lemmas):
        return "a lemma is about a ReLU of the input"
    region = regions([claim])
    return "" if bool((region.lower <= region.upper).all()) else "the region is empty"


def _check_group(network: Network, certificates: Sequence[Certificate]) -> Array:
    first = certificates[0]
    checker = Checker(network, regions([c.claim for c in certificates]), first.rule, first.semantics)
    checker.run(certificates)
    rows = [claim_rows(c.claim) for c in certificates]
    C, d = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    margins = checker.claim(np.arange(len(certificates)), C, d)
    for example, certificate in enumerate(certificates):
        if certificate.leaf.rows.shape[0]:
            listed, one = to_index(certificate.leaf.rows), np.array([example])
            margins[example, listed] = checker.claim(one, C[one][:, listed], d[one][:, listed], certificate.leaf)[0]
    return margins
