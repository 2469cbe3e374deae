"""Certificates whose multipliers are the duals of the triangle relaxation, and what both checkers make of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from checking import checker_of, label_claims, region_of
from networks import CLASSES, NETWORKS, Array, Clip
from small_certificates import (
    duals,
    leaf,
    lemma,
    plain,
)
from triangle import Bounds, relaxation

from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.proof import Certificate, Leaf, decode
from lpverify.certificate.rigorous_bounds import Checker
from lpverify.certificate.rigorous_region import regions
from lpverify.network import Affine, Network, ReLU


def case(name: str, seed: int = 0, eps: float = 0.2, norm: str = "inf", clip: Clip = None) -> tuple[Network, Claim]:
    network = NETWORKS[name](seed).to(torch.float64)
    x = torch.rand(1, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    return network, label_claims(x, network.forward(x).argmax(1), CLASSES, eps, norm, clip)[0]


def proof_of(network: Network, claim: Claim, own: Leaf, rule: str = "crown", semantics: str = "real") -> Certificate:
    return Certificate(checker_of(network).sha256, semantics, rule, claim, own)


def margins(network: Network, proof: Certificate) -> tuple[Array, list[Fraction]]:
    """What the rigorous and the exact checker prove, after a round trip through the file."""
    again, parsed = decode(proof.encode()), plain(network)
    found = exact.check(parsed, again).margins
    return rigorous.check(rigorous.Network(parsed), [again])[0].margins, list(found)


def checked_bounds(network: Network, proof: Certificate) -> Bounds:
    """The rigorous checker's bounds of every ReLU's z, lemmas included."""
    checker = Checker(checker_of(network), regions([proof.claim]), proof.rule, proof.semantics)
    with np.errstate(all="ignore"):
        checker.run([proof])
    sources = {k: node.input for k, node in enumerate(network.nodes) if isinstance(node, ReLU)}
    return {k: (checker.range[s][0][0].copy(), checker.range[s][1][0].copy()) for k, s in sources.items()}


def ends(claim: Claim) -> tuple[Array, Array]:
    region = region_of(claim)
    return region.lower[0].numpy(), region.upper[0].numpy()


def lp_leaf(network: Network, claim: Claim, bounds: Bounds, dtype: Any, cuts: bool = False) -> tuple[Leaf, Array]:
    """The duals of the relaxation of every row at every neuron, and the optima."""
    C, d = rigorous.claim_rows(claim)
    solved = [relaxation(network, ends(claim), bounds, c, cuts=cuts) for c in C]
    tables = [duals(k, range(network.sizes[k]), [s.duals[k] for s in solved], dtype) for k in bounds]
    return leaf(range(len(C)), *tables), np.array([s.optimum for s in solved]) + d


def lp_lemmas(network: Network, claim: Claim) -> tuple[Certificate, dict[int, tuple[Array, Array]]]:
    """A certificate whose lemmas bound every unstable neuron by the relaxation's duals, and the optima by node."""
    proof, optima = proof_of(network, claim, leaf([])), {}
    for node in network.relus:
        relu = network.nodes[node]
        assert isinstance(relu, ReLU)
        bounds = checked_bounds(network, proof)
        low, high = bounds[node]
        neurons = np.flatnonzero((low < 0) & (high > 0))
        below = [k for k in bounds if k < relu.input]
        if not isinstance(network.nodes[relu.input], Affine) or not len(neurons) or not below:
            continue
        units = np.concatenate([np.eye(len(low))[neurons], -np.eye(len(low))[neurons]])
        solved = [relaxation(network, ends(claim), bounds, unit, relu.input) for unit in units]
        tables = [duals(k, range(network.sizes[k]), [s.duals[k] for s in solved]) for k in solved[0].duals]
        sides = np.repeat([0, 1], len(neurons))
        proof = replace(proof, lemmas=(*proof.lemmas, lemma(node, [*neurons, *neurons], sides, tables)))
        values = np.array([s.optimum for s in solved])
        low[neurons] = np.maximum(low[neurons], values[: len(neurons)])
        high[neurons] = np.minimum(high[neurons], -values[len(neurons) :])
        optima[node] = low, high
    return proof, optima
