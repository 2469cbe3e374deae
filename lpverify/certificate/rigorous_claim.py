"""Claims and certificates as the rigorous checker takes them: rows in float64, and what it refuses. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lpverify.certificate.claim import Claim, ClauseRows, Inequality, LabelRows
from lpverify.certificate.container import require_subnormals
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous_bounds import Network
from lpverify.certificate.rigorous_linear import Array, to_float, to_index
from lpverify.certificate.rigorous_region import TINY, UNIT, down, regions
from lpverify.errors import CertificateError


def claim_rows(claim: Claim) -> tuple[Array, Array]:
    """C (m, n_K) and d (m,) such that row r of the claim holds where C[r] f(x) + d[r] > 0.

    A row in rationals is multiplied by its coefficients' common denominator and its constant is then rounded down.

    Raises:
        CertificateError: if float64 cannot hold the coefficients exactly.
    """
    if isinstance(claim.rows, LabelRows):
        unit = np.eye(claim.rows.classes)
        return unit[claim.rows.label] - np.delete(unit, claim.rows.label, axis=0), np.zeros(claim.rows.classes - 1)
    if not isinstance(claim.rows, ClauseRows):
        return to_float(claim.rows.C), to_float(claim.rows.d)
    C, d = np.zeros((claim.num_rows, claim.outputs)), np.zeros(claim.num_rows)
    for index, row in enumerate(row for clause in claim.rows.clauses for row in clause):
        C[index, list(row.units)], d[index] = _scaled(row, index)
    return C, d


def _scaled(row: Inequality, index: int) -> tuple[list[float], float]:
    scale = math.lcm(*(c.denominator for c in row.coefficients))
    whole = [c * scale for c in row.coefficients]
    near = [down(value) for value in whole]
    if not all(math.isfinite(a) and Fraction(a) == b for a, b in zip(near, whole, strict=True)):
        raise CertificateError(f"row {index} of the claim has coefficients that float64 cannot hold exactly")
    return near, down(row.constant * scale)


def combined(weights: Array, C: Array, d: Array, reach: Array) -> tuple[Array, Array]:
    """Rows that are positive only where the weighted sum of rows is: weights (Q, m) -> (Q, n_K), (Q,).

    ``reach`` (n_K,) bounds the outputs' magnitudes, for the charge of what the sums are rounded by: at most
    gamma_N |weights| (|C| reach + |d|), and as much for the charge itself.
    """
    size = np.abs(weights) @ np.abs(C)
    terms = C.shape[0] + C.shape[1] + 64
    gamma = terms * UNIT / (1 - terms * UNIT)
    charge = 4 * gamma * (size @ reach + np.abs(weights) @ np.abs(d)) + TINY * (1 + reach.sum())
    return weights @ C, weights @ d - charge


def misfit(network: Network, certificate: Certificate) -> str:
    """Why a certificate does not belong to this network; empty if it does."""
    require_subnormals()
    claim, first, last = certificate.claim, network.nodes[0], network.nodes[-1]
    if certificate.network != network.sha256:
        return f"names another network ({certificate.network[:12]}..., not {network.sha256[:12]}...)"
    if (claim.inputs, claim.outputs) != (first.size, last.size):
        return f"has {claim.inputs} inputs, {claim.outputs} outputs; the network has {first.size}, {last.size}"
    if certificate.semantics == "float32" and not network.is_float32:
        return "claims float32 semantics, but the network has parameters that are no float32 numbers"
    tables = [(x.node, to_index(x.neurons)) for x in (*certificate.tables(), *certificate.lemmas)]
    tables += [(node, to_index(neurons)) for tree in certificate.trees for node, neurons in tree.columns]
    for node, neurons in tables:
        if not 0 <= node < len(network.nodes) or network.nodes[node].kind != "relu":
            return f"node {node} is not a ReLU"
        strangers = neurons[(neurons < 0) | (neurons >= network.nodes[node].size)]
        if len(strangers):
            return f"node {node} has no neuron {strangers[0]}"
    for table in certificate.tables():  # a file is refused for this, but an object may not be from a file
        if (np.diff(to_index(table.neurons)) <= 0).any():
            return f"a table of node {table.node} lists a neuron twice or out of order"
    if any(network.nodes[network.nodes[x.node].inputs[0]].kind != "affine" for x in certificate.lemmas):
        return "a lemma is about a ReLU of the input"
    return _bad_claim(claim)


def _bad_claim(claim: Claim) -> str:
    if isinstance(claim.rows, ClauseRows):
        for row in (row for clause in claim.rows.clauses for row in clause):
            if not _rises(row.units, claim.outputs) or len(row.units) != len(row.coefficients):
                return f"a row of the claim has outputs {row.units[:5]}... that do not rise below {claim.outputs}"
        try:
            claim_rows(claim)
        except CertificateError as error:
            return str(error)
    region = regions([claim])
    if not bool((region.lower <= region.upper).all()):
        return "the region is empty"
    return "" if np.isfinite([region.lower, region.upper]).all() else "the region's box is not finite"


def _rises(units: Sequence[int], limit: int) -> bool:
    return all(a < b for a, b in zip([-1, *units], [*units, limit], strict=True))
