"""Linear programs for nodes whose neurons are all fixed, or whose dual bound has stalled.

The root's relaxation is encoded once. A fixed phase is no change of bounds but a cost M on the part of the neuron that
must be 0 (p = relu(-z) where active, h = relu(z) where inactive): the exact penalty of the constraint. So one basis
serves node after node by changes of the objective alone, an infeasible node shows as a large positive optimum instead
of a ray, and the rows' duals are multipliers of the node as they stand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from lpverify.backends.base import AbstractSession
from lpverify.backends.highs import HighsBackend
from lpverify.encode import Encoder, encode
from lpverify.network import Network, as_numpy
from lpverify.problem import LayerBounds, Region
from lpverify.program import Program
from lpverify.search.ascent import Nodes
from lpverify.search.task import Task

Array = NDArray[np.float64]
# The first penalty as a multiple of the largest multiplier known, and how often it is raised by this factor.
PENALTY, RAISES = 8.0, 2
LEAST_SCALE = 1e-6


@dataclass(frozen=True, eq=False)
class LeafSolution:
    """What a program says of a node.

    ``bound`` of its clause, with the rows' ``weights`` (R,) and the multipliers v (n_k,) by ReLU; its point (n_0,).
    """

    bound: float
    weights: Array
    duals: dict[int, Array]
    x: Array


@dataclass(frozen=True, eq=False)
class LeafPrograms:
    """A task for a solver's process: the programs of B nodes of one search.

    A clause's value is the greatest of its R rows; its minimum is min t with t >= each row, whose duals weigh the rows.

    Attributes:
        region: of one example, in float64.
        layers: the root's bounds (n_k,) of every ReLU's pre-activations.
        signs: by ReLU node, (B, n_k) int8.
        scales: by ReLU node, (B, n_k), sizes of the multipliers that the search knows.
        C, d: (c, R, n_K) and (c, R) the rows of each clause; ``clause`` (B,) that of each node.
        seconds: for all of them; the last ones may be left out.
    """

    region: Region
    layers: Mapping[int, tuple[Array, Array]]
    signs: Mapping[int, NDArray[np.int8]]
    scales: Mapping[int, Array]
    C: Array
    d: Array
    clause: NDArray[np.int64]
    seconds: float

    def __call__(self, network: Network) -> list[LeafSolution | None]:
        """Solve them clause by clause, hot-started; None where there is no bound."""
        deadline = time.perf_counter() + self.seconds
        layers = {
            k: LayerBounds(torch.as_tensor(lower)[None], torch.as_tensor(upper)[None])
            for k, (lower, upper) in self.layers.items()
        }
        encoder = encode(network, self.region, layers)
        found: list[LeafSolution | None] = [None] * len(self.clause)
        for clause in np.unique(self.clause):
            goal = _goal(encoder, self.C[clause], self.d[clause])
            session = HighsBackend().open(goal.program)
            for i in np.flatnonzero(self.clause == clause).tolist():
                found[i] = self._solve(encoder, goal, session, i, deadline)
        return found

    def _solve(
        self, encoder: Encoder, goal: _Goal, session: AbstractSession, i: int, deadline: float
    ) -> LeafSolution | None:
        solution, penalty = None, PENALTY
        for _ in range(RAISES + 1):
            left = deadline - time.perf_counter()
            if not left > 0:
                break
            costs, banned = goal.objective.copy(), np.zeros(len(goal.objective), dtype=bool)
            for k, neurons in encoder.neurons.items():
                sign = self.signs[k][i, neurons.units]
                size = penalty * self.scales[k][i, neurons.units]
                h = neurons.first_column + np.arange(len(sign))
                for at, fixed in ((h[sign < 0], sign < 0), (h[sign > 0] + len(sign), sign > 0)):
                    costs[at] += size[fixed]
                    banned[at] = True
            answer = session.minimise(costs, goal.offset, time_limit=left)
            if answer.row_duals is None or answer.x is None:
                break
            x, duals = np.asarray(encoder.expressions[0].at(answer.x)), answer.row_duals
            solution = LeafSolution(answer.bound, goal.weights(duals), encoder.multipliers(duals), x)
            if answer.bound > 0 or not (answer.x[banned] > 1e-9).any():
                break
            penalty *= 16.0
        return solution


@dataclass(frozen=True, eq=False)
class _Goal:
    """A clause's program: its only row as the objective, or t above all of its ``rows``, the last ones."""

    program: Program
    objective: Array
    offset: float
    rows: int

    def weights(self, row_duals: Array) -> Array:
        """The weights of the rows, (R,)."""
        if self.rows == 1:
            return np.ones(1)
        found = row_duals[-self.rows :].clip(min=0)
        return np.asarray(found / found.sum() if found.sum() > 0 else np.full(self.rows, 1 / self.rows))


def _goal(encoder: Encoder, C: Array, d: Array) -> _Goal:
    """The program of the rows C (R, n_K), d (R,)."""
    rows, offsets = encoder.rows(len(encoder.network.nodes) - 1, C)
    program, constant = encoder.program(), offsets + d
    if len(C) == 1:
        return _Goal(program, rows[0], float(constant[0]), 1)
    ends = np.stack([rows * program.lower, rows * program.upper])
    least, most = ends.min(0).sum(1) + constant, ends.max(0).sum(1) + constant
    program = program.with_columns(np.array([least.min() - 1]), np.array([most.max() + 1]), ["t"])
    above = sparse.csr_array(np.hstack([-rows, np.ones((len(C), 1))]))
    names = [f"t_{r}" for r in range(len(C))]
    program = program.with_rows(above, constant, np.full(len(C), np.inf), names)
    return _Goal(program, np.append(np.zeros(rows.shape[1]), 1.0), 0.0, len(C))


def programs(
    task: Task,
    nodes: Nodes,
    sizes: NDArray[Any],
    columns: Mapping[int, NDArray[np.int64]],
    rows: NDArray[np.int64],
    seconds: float,
) -> LeafPrograms:
    """The programs of nodes of a search.

    Args:
        sizes: (B, K) sizes of the multipliers that the search knows.
        columns: by ReLU node, the neurons of the nodes' columns.
        rows: (c, R) the claim's rows of each clause.
    """
    layers, every = {k: task.root.ranges[k] for k in task.network.relus}, as_numpy(nodes.signs)
    signs, scales, start = {}, {}, 0
    # Of all columns: where no row arrives at a ReLU its own mean would be 0, and its phases would cost nothing.
    mean = sizes.mean(axis=1, keepdims=True) if sizes.shape[1] else np.zeros((len(nodes), 1))
    for k, at in columns.items():
        span, start = slice(start, start + len(at)), start + len(at)
        shape = len(nodes), len(layers[k][0])
        signs[k], scales[k] = np.zeros(shape, np.int8), np.ones(shape)
        signs[k][:, at] = every[:, span]
        scales[k][:, at] = sizes[:, span] + mean + LEAST_SCALE
    C, d = task.root.rows(rows)
    region, clause = task.region.to(torch.float64, "cpu"), as_numpy(nodes.clause)
    return LeafPrograms(region, layers, signs, scales, C, d, clause, seconds)
