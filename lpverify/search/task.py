"""What every search takes and returns.

Shapes: ``n_0`` inputs, ``n_K`` outputs, ``m`` rows of the claim. The claim holds at x when in every clause some row of
C f(x) + d is > 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.certificate import rigorous_tree
from lpverify.certificate.tree import Tree
from lpverify.network import Network
from lpverify.problem import Region

Clauses = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Goal:
    """One claim about one input set, as an attack needs it.

    Attributes:
        network: in the engine's dtype, on its device.
        region: of a single example, in the engine's dtype.
        C, d: (m, n_K) and (m,), the claim's rows in the engine's dtype.
        clauses: the rows of each clause.
        witness: whether a point (n_0,) float64, moved into the exact input set, is a counterexample exactly.
        isolated: runs solver tasks in processes of their own, as ``Session.run``.
        deadline: when to stop (``time.perf_counter``).
        ready: makes a solver's process ready, and says how many seconds that took; as ``Session.start_solver``.
    """

    network: Network
    region: Region
    C: Tensor
    d: Tensor
    clauses: Clauses
    witness: Callable[[NDArray[np.float64]], bool]
    isolated: Callable[[Sequence[Any], float], Iterator[Any]]
    deadline: float
    ready: Callable[[], float] = field(default=float, kw_only=True)

    def is_late(self, reserve: float = 0.0) -> bool:
        """Whether no more than ``reserve`` seconds are left."""
        return time.perf_counter() + reserve > self.deadline

    def values(self, points: Tensor) -> Tensor:
        """The rows' values C f(x) + d by the engine's forward pass: (p, n_0) -> (p, m)."""
        with torch.no_grad():
            return self.network.forward(points) @ self.C.T + self.d

    def margin(self, values: Tensor) -> Tensor:
        """The least over clauses of the greatest of their rows: (..., m) -> (...); <= 0 where the claim fails."""
        best = [
            values[..., list(rows)].amax(-1) if rows else values.new_full(values.shape[:-1], -torch.inf)
            for rows in self.clauses
        ]
        return torch.stack(best, -1).amin(-1)

    def try_points(self, points: Tensor, most: int = 3) -> bool:
        """Evaluate points (p, n_0); the worst few that seem to fail are tried as witnesses."""
        margins = self.margin(self.values(points))
        for at in margins.argsort()[:most].tolist():
            if not bool(margins[at] <= 0):
                return False
            if self.witness(points[at].detach().cpu().double().numpy()):
                return True
        return False


@dataclass(frozen=True, eq=False)
class Task(Goal):
    """A goal with the checker's state at the root, which proves leaves.

    Attributes:
        latest: what the search waits for a solver's start puts its deadline off, but not beyond this.
    """

    root: rigorous_tree.Root
    latest: float = field(default=math.inf, kw_only=True)


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        trees: proofs, accepted leaf by leaf, of the clauses that they list; all that were asked, if ``proved``.
        proved: every clause asked is proved.
        falsified: ``Task.witness`` accepted a point.
        reason: why neither, in one line; empty if decided.
        nodes: how many were bounded.
        bound: (m,) the least bound that an open node has of each row; NaN where unknown.
    """

    trees: tuple[Tree, ...] = ()
    proved: bool = False
    falsified: bool = False
    reason: str = ""
    nodes: int = 0
    bound: Any = None
