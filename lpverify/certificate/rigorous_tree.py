"""Batches of leaves of a split tree in rigorous float64: for the search, and for the final check of its proof.

A leaf is the part of the root's region inside a box and with some neurons' phases. Everything said about rounding in
``rigorous_bounds`` holds for it, since that asks of a range only that it holds for every x considered:

    "root"  The root's tables and errors E hold on every part of its region. At a neuron with given multipliers the
            range is cut to the leaf's phase, and there phi and its charges are formed from the cut range
            (``rigorous_relu``): the values |z| and max(z, 0) that an error is multiplied by are bounded by the cut
            range, whether E came from a larger one or not.
    "leaf"  Every leaf is an example of its own, whose ranges are cut before any later node or table reads them, so
            that H, E, slopes and gains all belong to the leaf.

Where a cut leaves no value (l > u) the leaf has no point, every bound holds, and infinity is returned; nothing of it
enters another leaf's bound, since a product's row depends on that row alone. Given multipliers count at the union of
the leaves' neurons, and where they are another leaf's they add an exact zero. A row of zeros gains only its leaf's
multipliers: if it is bounded above zero, the leaf has no point. numpy only; nothing is taken from the engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.container import require_subnormals
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous_bounds import Checker, Network, clamped, crossed
from lpverify.certificate.rigorous_claim import claim_rows, combined, misfit
from lpverify.certificate.rigorous_linear import Array, Flags, to_index
from lpverify.certificate.rigorous_prune import picked, twins, without_dead
from lpverify.certificate.rigorous_region import Region, regions
from lpverify.certificate.rigorous_relu import Explicit, Tables
from lpverify.errors import CertificateError, ShapeError, UsageError

Phases = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Leaves:
    """b leaves with m rows each, of a network with n_0 inputs and n_K outputs; n is the size of a ReLU node.

    Attributes:
        lower, upper: (b, n_0), the leaves' boxes; None for the root's region.
        C: (b, m, n_K), the rows. A row of zeros is positive only if the leaf is empty.
        d: (b, m).
        phases: by ReLU node (b, n): -1 where z <= 0, 1 where z >= 0, 0 where not split.
        values: by ReLU node (b, m, n), multipliers; read where ``explicit`` says so.
        explicit: by ReLU node (b, n) or (b, m, n), where ``values`` counts. By "root" bounds a phase counts only here.
        slopes: by ReLU node (b, m, n), lower slopes in [0, 1] for unstable neurons; NaN, or no entry: by the rule.
    """

    lower: Array | None
    upper: Array | None
    C: Array
    d: Array
    phases: Mapping[int, Phases] = field(default_factory=dict)
    values: Mapping[int, Array] = field(default_factory=dict)
    explicit: Mapping[int, Flags] = field(default_factory=dict)
    slopes: Mapping[int, Array] = field(default_factory=dict)


class Root:
    """The root of a certificate: its ranges, and bounds of leaves below it. The certificate's trees are not read.

    Attributes:
        margins: (m,) proved lower bounds of the claim's rows on the whole region.
        ranges: by ReLU node, the bounds (n,), (n,) of its pre-activations.

    Raises:
        CertificateError: if the certificate does not belong to the network.
    """

    def __init__(self, network: Network, certificate: Certificate) -> None:
        problem = misfit(network, certificate)
        if problem:
            raise CertificateError(f"certificate {problem}")
        self.network, self.certificate = network, certificate
        self._region = regions([certificate.claim])
        self._checker = Checker(network, self._region, certificate.rule, certificate.semantics)
        self._claim = claim_rows(certificate.claim)
        with np.errstate(all="ignore"):
            self._checker.run([certificate])
            self.margins = root_margins(self._checker, [certificate])[0]
        self._live = without_dead(network, self._checker.before)
        self.ranges = {i: (low[0].copy(), high[0].copy()) for i, (low, high) in self._checker.before.items()}

    @property
    def is_box(self) -> bool:
        """Whether the region is a box, so that leaves may have boxes of their own."""
        return self._region.norm == "inf"

    @property
    def box(self) -> tuple[Array, Array]:
        """The ends (n_0,), (n_0,) of the region's box, rounded outward."""
        return self._region.lower[0].copy(), self._region.upper[0].copy()

    def rows(self, listed: NDArray[np.int64]) -> tuple[Array, Array]:
        """C and d of rows of the claim, and zeros for -1: listed (...,) -> (..., n_K), (...,)."""
        C, d = (np.concatenate([part, np.zeros((1, *part.shape[1:]))]) for part in self._claim)
        return C[listed], d[listed]

    def combinations(self, weights: Array) -> tuple[Array, Array]:
        """C and d of non-negative combinations of the claim's rows, rounding charged to d: (Q, m) -> (Q, n_K), (Q,).

        Positive only where one of the rows with a weight is.
        """
        lower, upper = self._checker.range[len(self.network.nodes) - 1]
        with np.errstate(all="ignore"):
            return combined(weights, *self._claim, np.maximum(np.abs(lower[0]), np.abs(upper[0])))

    def bounds(self, leaves: Leaves, bounds: str = "root") -> Array:
        """Proved lower bounds (b, m) of the leaves' rows; infinity where a leaf is found empty, never NaN.

        Args:
            leaves: if they have boxes, the bounds hold on the part that lies in the root's region.
            bounds: whether pre-activation bounds are the "root"'s or recomputed for each "leaf".
        """
        require_subnormals()
        outputs = self.network.nodes[-1].size
        if leaves.C.shape != (*leaves.d.shape, outputs) or leaves.d.ndim != 2:
            raise ShapeError(f"leaves: C {leaves.C.shape} and d {leaves.d.shape} are not (b, m, {outputs}) and (b, m)")
        with np.errstate(all="ignore"):
            region = self._cut(leaves)
            if bounds == "leaf":
                checker, leaves = self._pass(leaves, region)
                examples, empty = np.arange(len(leaves.d)), checker.empty
            else:
                checker, examples = self._checker, np.zeros(1, dtype=np.int64)
                empty = np.broadcast_to((region.lower > region.upper).any(axis=1), len(leaves.d)).copy()
                for node, phases in leaves.phases.items():
                    empty |= crossed(*clamped(*checker.before[node], phases))
            tables = {node: self._table(checker, node, leaves) for node in checker.tables}
            found = checker.rows(examples, leaves.C, leaves.d, tables, region)
        return np.where(empty[:, None], np.inf, found)

    def _cut(self, leaves: Leaves) -> Region:
        """The leaves' boxes inside the root's, or the root's region."""
        if leaves.lower is None or leaves.upper is None:
            return self._region
        if not self.is_box:
            raise UsageError(f"leaves: boxes inside an l{self._region.norm} ball; only boxes can be split at inputs")
        lower, upper = np.fmax(leaves.lower, self._region.lower), np.fmin(leaves.upper, self._region.upper)
        return Region(lower, upper, "inf", lower, np.zeros(len(lower)))

    def _pass(self, leaves: Leaves, region: Region) -> tuple[Checker, Leaves]:
        """The leaves' own ranges, node by node, and the leaves, both without the neurons that are dead at the root."""
        network, kept = self._live
        if any(np.delete(x[k], kept[k], -1).any() for x in (leaves.phases, leaves.explicit) for k in kept if k in x):
            network, kept = self.network, {}  # of dead neurons something is given
        leaves = replace(
            leaves, phases=picked(leaves.phases, kept), values=picked(leaves.values, kept),
            explicit=picked(leaves.explicit, kept), slopes=picked(leaves.slopes, kept),
        )  # fmt: skip
        same = {}
        if len(region.lower) == 1:
            region = region.select(np.zeros(len(leaves.d), dtype=np.int64))
            same = twins(leaves.phases, len(leaves.d), len(network.nodes))
        affine = [i for i, node in enumerate(network.nodes) if node.kind == "affine"]
        lower, upper = (picked({i: self._checker.range[i][side] for i in affine}, kept) for side in (0, 1))
        known, own = {i: (lower[i], upper[i]) for i in affine}, self.certificate
        checker = Checker(network, region, own.rule, own.semantics, known, leaves.phases, same)
        checker.run([])
        return checker, leaves

    def _table(self, checker: Checker, node: int, leaves: Leaves) -> Tables:
        """A ReLU's tables with what the leaves give for it."""
        table = checker.tables[node]
        slopes, given = leaves.slopes.get(node), leaves.explicit.get(node)
        if slopes is not None:
            slopes = np.where(np.isnan(slopes), table.lower_slope[:, None], np.clip(slopes, 0.0, 1.0))
            table = checker.table(node, slopes, np.arange(len(table.lower_slope)))
        if given is None:
            return table
        neurons = np.flatnonzero(given.any(axis=tuple(range(given.ndim - 1))))
        given = given[:, None] if given.ndim == 2 else given
        source = self.network.nodes[node].inputs[0]
        known = [np.take(x, neurons, axis=1)[:, None] for x in (*checker.before[node], *checker.folded(source))]
        if node in leaves.phases:
            phases = np.take(leaves.phases[node], neurons, axis=1)[:, None]
            known[:2] = clamped(known[0], known[1], phases)
        values, given = np.take(leaves.values[node], neurons, axis=2), np.take(given, neurons, axis=2)
        return replace(table, explicit=Explicit(neurons, values, given, *known))


def root_margins(checker: Checker, certificates: Sequence[Certificate]) -> Array:
    """The margins (B, m) of certificates of equally many rows by their root leaves."""
    rows = [claim_rows(c.claim) for c in certificates]
    C, d = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    margins = checker.claim(np.arange(len(certificates)), C, d)
    for example, certificate in enumerate(certificates):
        if certificate.leaf.rows.shape[0]:
            listed, one = to_index(certificate.leaf.rows), np.array([example])
            margins[example, listed] = checker.claim(one, C[one][:, listed], d[one][:, listed], certificate.leaf)[0]
    return margins
