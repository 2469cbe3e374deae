"""The exact MILP encoding, asked for the sign of each row or for its exact minimum."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from lpverify.backends.base import AbstractBackend, Status
from lpverify.backends.highs import HighsBackend
from lpverify.bounds.base import AbstractBoundMethod, BoundResult
from lpverify.bounds.lp_tight import LPTightBound
from lpverify.bounds.solving import Account, one_by_one, require_backend
from lpverify.encode import encode
from lpverify.network import Network, as_numpy
from lpverify.problem import Region, Specification


@dataclass(frozen=True)
class MILPBound(AbstractBoundMethod):
    """The minimum of every row over the exact big-M encoding, after the LPs of ``lp-tight``.

    Requires: any graph of Affine and ReLU nodes; an l-infinity or l1 region; l2 with a backend that knows cones.
    Method: pre-activation bounds and the rows' relaxations by LP; rows that stay open become MILPs, binaries only
        for unstable neurons. Asked for the sign, a solve ends when a point or the bound shows it.
    Property: complete, but only a claim: a MILP's bound carries no multipliers. What the LPs alone prove is certified;
        the rest is ``uncertified``. Points it finds are candidates.
    Source: Tjeng et al. 2019, eq. 4-7 and section 4.

    Attributes:
        backend: the solver.
        value: solve every row to its optimum instead of asking for the sign.
        time_limit: seconds for one LP or MILP.
        seconds: seconds for an example.
        stop_at_zero: leave out what is proved already (for verdicts; not for tight values).
    """

    name: ClassVar[str] = "milp"
    complete: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False
    isolated: ClassVar[bool] = True
    backend: AbstractBackend = field(default_factory=HighsBackend)
    value: bool = False
    time_limit: float = math.inf
    seconds: float = math.inf
    stop_at_zero: bool = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        return one_by_one(self._one, network, region, spec)

    def require(self, network: Network, norm: str) -> None:
        require_backend(self.backend, norm, milp=True)

    def _one(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        deadline = time.perf_counter() + self.seconds
        tight = LPTightBound(self.backend, self.time_limit, self.seconds, stop_at_zero=self.stop_at_zero)
        relaxed = tight.bound(network, region, spec)
        assert relaxed.candidates is not None
        account = Account(self.time_limit, deadline)
        margins, points = relaxed.margins.clone(), relaxed.candidates.clone()
        open_ = range(margins.shape[1]) if self.value else (~(margins[0] > 0)).nonzero().flatten().tolist()
        if open_:
            exact = encode(network, region, relaxed.layers, milp=True)
            objectives, offsets = exact.rows(len(network.nodes) - 1, as_numpy(spec.C[0]))
            session = self.backend.open(exact.program())
            for row in open_:
                offset = float(offsets[row] + spec.d[0, row])
                found = account.minimise(session, objectives[row], offset, stop_at=None if self.value else 0.0)
                if found.status is not Status.FAILED:
                    margins[0, row] = max(float(margins[0, row]), found.bound)
                if found.x is not None:
                    points[0, row] = torch.as_tensor(exact.expressions[0].at(found.x))
                if self.stop_at_zero and found.objective <= 0:
                    break
        stats = {**relaxed.stats, **{f"milp_{name}": value for name, value in account.stats().items()}}
        return replace(relaxed, margins=margins, candidates=points, stats=stats)
