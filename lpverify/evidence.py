"""From what the engines propose to what the checkers read: exact claims and certificates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpverify.bounds.base import BoundResult, LemmaRows
from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, LabelRows, LinearRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Leaf, Lemma, Slopes
from lpverify.network import as_numpy
from lpverify.serialize import raw_array

NO_ROWS = RawArray("<i4", (0,), b"")


def ball_claim(
    x: NDArray[Any], eps: str, norm: str, clip: tuple[str, str] | None, rows: LabelRows | LinearRows
) -> Claim:
    """The claim on the ball of decimal radius eps about x (n_0,), which is stored in the dtype it has."""
    return Claim(BallRegion(raw_array(np.ravel(x)), eps, norm, clip), rows)


def box_claim(lower: NDArray[Any], upper: NDArray[Any], rows: LabelRows | LinearRows) -> Claim:
    """The claim on the box [lower, upper], each (n_0,)."""
    return Claim(BoxRegion(raw_array(np.ravel(lower)), raw_array(np.ravel(upper))), rows)


def certificate(
    network: str, semantics: str, claim: Claim, bound: BoundResult, example: int, rows: Sequence[int]
) -> Certificate:
    """The certificate that a method's result proposes for one example of its batch.

    Args:
        network: SHA-256 of the network file.
        bound: the method's result; row i of its slopes belongs to row rows[i] of the claim.
        example: index into the batch of ``bound``.
        rows: the claim's rows that use ``bound``'s slopes; the others follow its rule.
    """
    multipliers = bound.multipliers
    lemmas = tuple(
        lemma for stored in multipliers.lemmas for lemma in _lemma(stored, example, bound) if lemma is not None
    )
    if not multipliers.slopes or not len(rows):
        return Certificate(network, semantics, multipliers.rule, claim, Leaf(NO_ROWS, ()), lemmas)
    own = {k: s[example, : len(rows)] for k, s in multipliers.slopes.items()}
    leaf = Leaf(_indices(rows), _slopes(own, bound, example))
    return Certificate(network, semantics, multipliers.rule, claim, leaf, lemmas)


def _lemma(stored: LemmaRows, example: int, bound: BoundResult) -> list[Lemma]:
    """The stored rows that belong to one example (none or one lemma)."""
    place = (stored.examples == example).nonzero().flatten().tolist()
    found = []
    for at in place:
        neurons, sides, keep = (as_numpy(t[at]) for t in (stored.neurons, stored.sides, stored.needed))
        own = {k: s[at][keep] for k, s in stored.slopes.items()}
        slopes = _slopes(own, bound, example)
        found.append(Lemma(stored.node, _indices(neurons[keep]), _bytes(sides[keep]), slopes))
    return found


def _slopes(own: dict[int, Tensor], bound: BoundResult, example: int) -> tuple[Slopes, ...]:
    """Slope tables (r, k) of 16 bits at the neurons that the engine found unstable."""
    tables = []
    for node, values in own.items():
        neurons = np.flatnonzero(as_numpy(bound.layers[node].unstable[example]))
        if not len(neurons):
            continue
        chosen = np.rint(as_numpy(values)[:, neurons].astype(np.float64) * UNIT_SLOPE)
        packed = np.clip(np.nan_to_num(chosen), 0, UNIT_SLOPE).astype("<u2")
        tables.append(Slopes(node, _indices(neurons), RawArray("<u2", packed.shape, packed.tobytes())))
    return tuple(tables)


def _indices(values: Any) -> RawArray:
    array = np.asarray(values, dtype="<i4")
    return RawArray("<i4", array.shape, array.tobytes())


def _bytes(values: Any) -> RawArray:
    array = np.asarray(values, dtype="|u1")
    return RawArray("|u1", array.shape, array.tobytes())
