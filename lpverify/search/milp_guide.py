"""Single rows given to a MILP solver while a search over phases is at a loss: where might the claim fail?

The solver's points are tried as witnesses, and descents begin from them. What it says of the optimum is not read: it
has tolerances, and proves nothing that a certificate could hold. A claim that holds is left to the tree.

Source: Tjeng et al. 2019, eq. 4-7 (the encoding).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.backends.highs import HighsBackend
from lpverify.encode import encode
from lpverify.network import Network
from lpverify.problem import Ball, LayerBounds, Region
from lpverify.search.attack import attack_claim
from lpverify.search.task import Task
from lpverify.workers import Failure

Array = NDArray[np.float64]
# Steps and restarts of the attack from a solver's point, which misses a counterexample by the solver's tolerances.
ATTACK = (40, 4)


@dataclass(frozen=True, eq=False)
class RowQuestion:
    """A task for a solver's process: a point (n_0,) where c.f(x) + d is as small as it finds, ended by one <= 0.

    Attributes:
        region: of one example, in float64: a box or an l1 ball.
        layers: bounds (n_k,) of every ReLU's pre-activations that the checker proved.
        c, d: (n_K,) and the constant.
        seconds: for the solve.
    """

    region: Region
    layers: Mapping[int, tuple[Array, Array]]
    c: Array
    d: float
    seconds: float

    def __call__(self, network: Network) -> Array | None:
        began = time.perf_counter()
        layers = {
            k: LayerBounds(torch.as_tensor(lower)[None], torch.as_tensor(upper)[None])
            for k, (lower, upper) in self.layers.items()
        }
        encoder = encode(network, self.region, layers, milp=True)
        (objective,), (offset,) = encoder.rows(len(network.nodes) - 1, self.c[None])
        left = max(0.0, self.seconds - (time.perf_counter() - began))
        session = HighsBackend().open(encoder.program())
        found = session.minimise(objective, float(offset + self.d), time_limit=left, stop_at=0.0)
        return None if found.x is None else np.asarray(encoder.expressions[0].at(found.x))


def fails_by_milp(task: Task, clauses: Sequence[int], seconds: float) -> bool:
    """Whether ``task.witness`` accepted a point that MILPs led to.

    Args:
        clauses: that are open; those of several rows are left out, and all of them on an l2 ball.
        seconds: for all of them, shared equally by those that are left.
    """
    region = task.region.to(torch.float64, "cpu")
    single = [k for k in clauses if len(task.clauses[k]) == 1]
    if isinstance(region, Ball) and region.norm == "2":
        return False
    layers, deadline = {k: task.root.ranges[k] for k in task.network.relus}, time.perf_counter() + seconds
    for place, clause in enumerate(single):
        each = (min(deadline, task.deadline) - time.perf_counter()) / (len(single) - place)
        if not each > 0:
            break
        C, d = task.root.rows(np.array(task.clauses[clause]))
        (x,) = task.isolated([RowQuestion(region, layers, C[0], float(d[0]), each)], each)
        if x is not None and not isinstance(x, Failure) and _fails_near(task, x):
            return True
    return False


def _fails_near(task: Task, x: Array) -> bool:
    """Whether a witness is found at a solver's point, or by descents that begin there."""
    if task.witness(x):
        return True
    steps, restarts = ATTACK
    return attack_claim(task, steps=steps, restarts=restarts, start=torch.as_tensor(x).to(task.C).unsqueeze(0))
