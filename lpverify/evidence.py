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
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Duals, Leaf, Lemma, Slopes
from lpverify.network import as_numpy
from lpverify.serialize import raw_array
from lpverify.settings import Settings

NO_ROWS = RawArray("<i4", (0,), b"")
# Multipliers outside these magnitudes are stored in float64.
FLOAT32_SAFE = (1e-30, 1e30)


def ball_claim(
    x: NDArray[Any], eps: str, norm: str, clip: tuple[str, str] | None, rows: LabelRows | LinearRows
) -> Claim:
    """The claim on the ball of decimal radius eps about x (n_0,), which is stored in the dtype it has."""
    return Claim(BallRegion(raw_array(np.ravel(x)), eps, norm, clip), rows)


def claim_of(settings: Settings, x: NDArray[Any], label: int, classes: int) -> Claim:
    """The exact label claim about one input x, as it stands in certificates and witnesses."""
    return ball_claim(x, settings.eps, settings.norm, settings.clip, LabelRows(label, classes))


def box_claim(lower: NDArray[Any], upper: NDArray[Any], rows: LabelRows | LinearRows) -> Claim:
    """The claim on the box [lower, upper], each (n_0,)."""
    return Claim(BoxRegion(raw_array(np.ravel(lower)), raw_array(np.ravel(upper))), rows)


def certificate(
    network: str, semantics: str, claim: Claim, bound: BoundResult, example: int, rows: Sequence[int]
) -> Certificate:
    """The certificate that a method's result proposes for one example of its batch.

    Args:
        network: SHA-256 of the network file.
        bound: the method's result; row i of its slopes and duals belongs to row rows[i] of the claim.
        example: index into the batch of ``bound``.
        rows: the claim's rows that ``bound`` is about; those that it has no multipliers for follow its rule.
    """
    multipliers = bound.multipliers
    lemmas = tuple(lemma for stored in multipliers.lemmas for lemma in _lemma(stored, example, bound))
    if not (multipliers.slopes or multipliers.duals) or not len(rows):
        return Certificate(network, semantics, multipliers.rule, claim, Leaf(NO_ROWS, ()), lemmas)
    own = list(range(len(rows)))
    if multipliers.own is not None:
        own = [at for at in own if bool(multipliers.own[example, at])]
    slopes = {k: s[example, own] for k, s in multipliers.slopes.items()}
    duals = {k: v[example, own] for k, v in multipliers.duals.items()}
    leaf = Leaf(_indices([rows[at] for at in own]), *_tables(slopes, duals, bound, example))
    return Certificate(network, semantics, multipliers.rule, claim, leaf, lemmas)


def _lemma(stored: LemmaRows, example: int, bound: BoundResult) -> list[Lemma]:
    """The stored rows that belong to one example (none or one lemma)."""
    place = (stored.examples == example).nonzero().flatten().tolist()
    found = []
    for at in place:
        neurons, sides, keep = (as_numpy(t[at]) for t in (stored.neurons, stored.sides, stored.needed))
        slopes = {k: s[at][keep] for k, s in stored.slopes.items()}
        duals = {k: v[at][keep] for k, v in stored.duals.items()}
        tables = _tables(slopes, duals, bound, example)
        found.append(Lemma(stored.node, _indices(neurons[keep]), _bytes(sides[keep]), *tables))
    return found


def _tables(
    slopes: dict[int, Tensor], duals: dict[int, Tensor], bound: BoundResult, example: int
) -> tuple[tuple[Slopes, ...], tuple[Duals, ...]]:
    """Tables (r, k) at the neurons that the engine found unstable: slopes only where there are no multipliers."""
    places = {k: np.flatnonzero(as_numpy(bound.layers[k].unstable[example])) for k in {*slopes, *duals}}
    packed_slopes, packed_duals = [], []
    for node, values in slopes.items():
        if node in duals or not len(places[node]):
            continue
        chosen = np.rint(as_numpy(values)[:, places[node]].astype(np.float64) * UNIT_SLOPE)
        packed = np.clip(np.nan_to_num(chosen), 0, UNIT_SLOPE).astype("<u2")
        raw = RawArray("<u2", packed.shape, packed.tobytes())
        packed_slopes.append(Slopes(node, _indices(places[node]), raw))
    for node, values in duals.items():
        if len(places[node]):
            raw = _multipliers(as_numpy(values)[:, places[node]])
            packed_duals.append(Duals(node, _indices(places[node]), raw))
    return tuple(packed_slopes), tuple(packed_duals)


def _multipliers(values: NDArray[Any]) -> RawArray:
    """Multipliers (r, k) in float32 where its range allows; those that are not finite become 0."""
    finite = np.nan_to_num(values.astype("<f8"), posinf=0.0, neginf=0.0)
    largest = np.abs(finite).max(initial=0.0)
    small = largest == 0 or FLOAT32_SAFE[0] <= largest <= FLOAT32_SAFE[1]
    packed = finite.astype("<f4") if small else finite
    return RawArray("<f4" if small else "<f8", packed.shape, packed.tobytes())


def _indices(values: Any) -> RawArray:
    array = np.asarray(values, dtype="<i4")
    return RawArray("<i4", array.shape, array.tobytes())


def _bytes(values: Any) -> RawArray:
    array = np.asarray(values, dtype="|u1")
    return RawArray("|u1", array.shape, array.tobytes())
