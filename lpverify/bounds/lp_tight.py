"""Progressive tightening: the pre-activation bounds of unstable neurons by LPs too, layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from lpverify.backends.base import AbstractBackend
from lpverify.backends.highs import HighsBackend
from lpverify.bounds.alpha import has_relus_below
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, LemmaRows
from lpverify.bounds.crown import CrownBound
from lpverify.bounds.lp import lp_claim
from lpverify.bounds.root import Root, root_bounds
from lpverify.bounds.solving import Account, one_by_one, require_backend
from lpverify.encode import Encoder
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import LayerBounds, Region, Specification
from lpverify.program import Array

# An LP's bound that is not better than CROWN's by this share of the neuron's range is not worth a lemma.
WORTH = 1e-6


@dataclass(frozen=True)
class LPTightBound(AbstractBoundMethod):
    """The LP relaxation over pre-activation bounds that are LPs themselves.

    Requires: any graph of Affine and ReLU nodes; an l-infinity or l1 region; l2 with a backend that knows cones.
    Method: layer by layer, intervals and CROWN over what is tightened so far; each neuron that they leave unstable
        is minimised and maximised over the relaxation of the layers before it, the side nearer to zero first; the
        other side is skipped where the first one makes the neuron stable. Every LP's row duals become a lemma.
    Property: never looser than ``lp`` by more than rounding; with ``skip`` off it is the layer-wise optimal relaxation.
    Source: Tjeng et al. 2019, section 4.3 (progressive tightening); Salman et al. 2019 ("LP-ALL").

    Attributes:
        backend: the solver.
        time_limit: seconds for one LP.
        seconds: seconds for an example; what is not reached keeps CROWN's bounds.
        skip: leave out the second side of a neuron that the first one made stable.
        stop_at_zero: end where CROWN over the bounds so far proves all rows (for verdicts; not for tight values).
    """

    name: ClassVar[str] = "lp-tight"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False
    isolated: ClassVar[bool] = True
    backend: AbstractBackend = field(default_factory=HighsBackend)
    time_limit: float = math.inf
    seconds: float = math.inf
    skip: bool = True
    stop_at_zero: bool = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        return one_by_one(self._one, network, region, spec)

    def require(self, network: Network, norm: str) -> None:
        require_backend(self.backend, norm, milp=False)

    def _one(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        account = Account(self.time_limit, time.perf_counter() + self.seconds)
        if self.stop_at_zero:
            root = root_bounds(network, region, "crown")
            if bool((CrownBound.claim(network, region, spec, root).margins > 0).all()):
                return lp_claim(network, region, spec, root, (), self.backend, account, stop_at_zero=True)
        root, lemmas, encoder = self.tightened_root(network, region, account)
        return lp_claim(
            network, region, spec, root, lemmas, self.backend, account, stop_at_zero=self.stop_at_zero, encoder=encoder
        )

    def tightened_root(
        self, network: Network, region: Region, account: Account
    ) -> tuple[Root, list[LemmaRows], Encoder]:
        """One example's bounds of every ReLU, the lemmas that prove them, and the relaxation built on them."""
        encoder, lemmas = Encoder(network, region), list[LemmaRows]()

        def tighten(index: int, layer: LayerBounds, done: Root) -> LayerBounds:
            (source,) = network.sources(index)
            lower, upper = as_numpy(layer.lower[0]).copy(), as_numpy(layer.upper[0]).copy()
            if isinstance(network.nodes[source], Affine) and has_relus_below(network, source):
                found = list(self._sides(encoder, source, lower, upper, account))
                if found:
                    lemmas.append(_lemma(index, found))
            encoder.relu(index, lower, upper)
            return LayerBounds(torch.as_tensor(lower)[None], torch.as_tensor(upper)[None])

        root = root_bounds(network, region, "crown", tighten)
        encoder.reach(len(network.nodes) - 1)
        return root, lemmas, encoder

    def _sides(
        self, encoder: Encoder, node: int, lower: Array, upper: Array, account: Account
    ) -> Iterator[tuple[int, int, dict[int, Array]]]:
        """Tighten ``lower`` and ``upper`` (n_k,) in place; yields unit, side and multipliers of what became better."""
        units = np.flatnonzero((lower < 0) & (upper > 0))
        if not len(units) or not account.left > 0:
            return
        session = self.backend.open(encoder.program())
        for unit in units.tolist():
            objective, offset = encoder.unit(node, unit)
            near = int(upper[unit] < -lower[unit])
            width = upper[unit] - lower[unit]
            for side in (near, 1 - near):
                sign = -1.0 if side else 1.0
                solution = account.minimise(session, sign * objective, sign * offset)
                known = -upper[unit] if side else lower[unit]
                if solution.row_duals is None or not solution.bound > known + WORTH * width:
                    continue
                if side:
                    upper[unit] = max(-solution.bound, lower[unit])
                else:
                    lower[unit] = min(solution.bound, upper[unit])
                yield unit, side, encoder.multipliers(solution.row_duals)
                if self.skip and not lower[unit] < 0 < upper[unit]:
                    break


def _lemma(index: int, found: list[tuple[int, int, dict[int, Array]]]) -> LemmaRows:
    """The proofs of one layer's bounds as the lemma of a batch of one example."""
    neurons = torch.tensor([[unit for unit, _, _ in found]])
    duals = {k: torch.as_tensor(np.stack([v[k] for _, _, v in found]))[None] for k in found[0][2]}
    return LemmaRows(
        index,
        torch.zeros(1, dtype=torch.int64),
        neurons,
        torch.tensor([[side for _, side, _ in found]]),
        torch.ones_like(neurons, dtype=torch.bool),
        {},
        duals,
    )
