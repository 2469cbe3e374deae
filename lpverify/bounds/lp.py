"""The LP relaxation, solved for each row of the claim."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from lpverify.backends.base import AbstractBackend
from lpverify.backends.highs import HighsBackend
from lpverify.bounds.alpha import AlphaBound
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, LemmaRows, Multipliers, count_unstable
from lpverify.bounds.crown import CrownBound
from lpverify.bounds.root import Root, root_bounds
from lpverify.bounds.solving import Account, bound_rows_by_lp, one_by_one, require_backend
from lpverify.encode import Encoder, encode
from lpverify.network import Network, as_numpy
from lpverify.problem import Region, Specification


@dataclass(frozen=True)
class LPBound(AbstractBoundMethod):
    """The minimum of every row over the triangle relaxation, an LP, with its row duals as multipliers.

    Requires: any graph of Affine and ReLU nodes; an l-infinity or l1 region; l2 with a backend that knows cones.
    Method: pre-activation bounds by CROWN or by optimised duals; one program an example, encoded once, solved for
        each row from the basis of the row before.
    Property: the best bound that any multipliers can prove with these pre-activation bounds.
    Source: Wong & Kolter 2018, eq. 4; Wong 2020, eq. 3.4-3.6; Salman et al. 2019 ("LP-LAST").

    Attributes:
        backend: the solver.
        intermediate: where pre-activation bounds come from, "crown" or "alpha".
        time_limit: seconds for one LP.
        seconds: seconds for an example; rows that are not reached keep CROWN's bounds.
        stop_at_zero: solve only for the rows that CROWN leaves open (for verdicts; not for tight values).
    """

    name: ClassVar[str] = "lp"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False
    isolated: ClassVar[bool] = True
    backend: AbstractBackend = field(default_factory=HighsBackend)
    intermediate: str = "crown"
    time_limit: float = math.inf
    seconds: float = math.inf
    stop_at_zero: bool = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        return one_by_one(self._one, network, region, spec)

    def require(self, network: Network, norm: str) -> None:
        require_backend(self.backend, norm, milp=False)

    def _one(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        account = Account(self.time_limit, time.perf_counter() + self.seconds)
        lemmas: Sequence[LemmaRows] = ()
        if self.intermediate == "alpha":
            root, lemmas = AlphaBound().tightened_root(network, region, account.deadline)
        else:
            root = root_bounds(network, region, "crown")
        return lp_claim(network, region, spec, root, lemmas, self.backend, account, stop_at_zero=self.stop_at_zero)


def lp_claim(
    network: Network,
    region: Region,
    spec: Specification,
    root: Root,
    lemmas: Sequence[LemmaRows],
    backend: AbstractBackend,
    account: Account,
    *,
    stop_at_zero: bool,
    encoder: Encoder | None = None,
) -> BoundResult:
    """The rows of one example's claim by LP, over pre-activation bounds that are already there.

    Args:
        root: bounds of every ReLU, with ``lemmas`` their proofs where CROWN's rule does not give them.
        stop_at_zero: leave rows out that CROWN proves positive.
        encoder: the relaxation, if it was built before.
    """
    crown = CrownBound.claim(network, region, spec, root)
    assert crown.candidates is not None
    margins, points = crown.margins.clone(), crown.candidates.clone()
    own = ~(margins > 0) if stop_at_zero else torch.ones_like(margins, dtype=torch.bool)
    duals = {k: margins.new_zeros(*margins.shape, layer.lower.shape[1]) for k, layer in root.layers.items()}
    open_ = as_numpy(own[0]).nonzero()[0]
    if len(open_):
        encoder = encode(network, region, root.layers) if encoder is None else encoder
        objectives, offsets = encoder.rows(len(network.nodes) - 1, as_numpy(spec.C[0])[open_])
        session = backend.open(encoder.program())
        rows = bound_rows_by_lp(encoder, session, objectives, offsets + as_numpy(spec.d[0])[open_], account)
        solved = open_[rows.solved]
        margins[0, solved] = torch.as_tensor(rows.bounds[rows.solved])
        for k, values in rows.duals.items():
            duals[k][0, solved] = torch.as_tensor(values[rows.solved])
        found = ~np.isnan(rows.points).any(axis=1)
        points[0, open_[found]] = torch.as_tensor(rows.points[found])
        own = torch.zeros_like(own)
        own[0, solved] = True
    multipliers = Multipliers("crown", lemmas=tuple(lemmas), duals=duals, own=own)
    stats = {**count_unstable(root.layers), **account.stats()}
    return BoundResult(margins, root.layers, multipliers, points, stats)
