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

from lpverify.backends.highs import HighsBackend
from lpverify.encode import encode
from lpverify.network import Network, as_numpy
from lpverify.problem import LayerBounds, Region
from lpverify.search.ascent import Nodes
from lpverify.search.task import Task

Array = NDArray[np.float64]
# The first penalty as a multiple of the largest multiplier known, and how often it is raised by this factor.
PENALTY, RAISES = 8.0, 2
LEAST_SCALE = 1e-6


@dataclass(frozen=True, eq=False)
class LeafSolution:
    """What a program says of a node: ``bound`` of the row, multipliers v (n_k,) by ReLU, and its point (n_0,)."""

    bound: float
    duals: dict[int, Array]
    x: Array


@dataclass(frozen=True, eq=False)
class LeafPrograms:
    """A task for a solver's process: the programs of B nodes of one tree.

    Attributes:
        region: of one example, in float64.
        layers: the root's bounds (n_k,) of every ReLU's pre-activations.
        signs: by ReLU node, (B, n_k) int8.
        scales: by ReLU node, (B, n_k), sizes of the multipliers that the search knows.
        C, d: (B, n_K) and (B,) the row of each node.
        seconds: for all of them; the last ones may be left out.
    """

    region: Region
    layers: Mapping[int, tuple[Array, Array]]
    signs: Mapping[int, NDArray[np.int8]]
    scales: Mapping[int, Array]
    C: Array
    d: Array
    seconds: float

    def __call__(self, network: Network) -> list[LeafSolution | None]:
        """Solve them one by one, hot-started; None where there is no bound."""
        deadline = time.perf_counter() + self.seconds
        layers = {
            k: LayerBounds(torch.as_tensor(lower)[None], torch.as_tensor(upper)[None])
            for k, (lower, upper) in self.layers.items()
        }
        encoder = encode(network, self.region, layers)
        session = HighsBackend().open(encoder.program())
        found: list[LeafSolution | None] = []
        for i in range(len(self.d)):
            row, offset = encoder.rows(len(network.nodes) - 1, self.C[i : i + 1])
            solution, penalty = None, PENALTY
            for _ in range(RAISES + 1):
                left = deadline - time.perf_counter()
                if not left > 0:
                    break
                costs, banned = row[0].copy(), np.zeros(row.shape[1], dtype=bool)
                for k, neurons in encoder.neurons.items():
                    sign = self.signs[k][i, neurons.units]
                    size = penalty * self.scales[k][i, neurons.units]
                    h = neurons.first_column + np.arange(len(sign))
                    for at, fixed in ((h[sign < 0], sign < 0), (h[sign > 0] + len(sign), sign > 0)):
                        costs[at] += size[fixed]
                        banned[at] = True
                answer = session.minimise(costs, float(offset[0] + self.d[i]), time_limit=left)
                if answer.row_duals is None or answer.x is None:
                    break
                x = np.asarray(encoder.expressions[0].at(answer.x))
                solution = LeafSolution(answer.bound, encoder.multipliers(answer.row_duals), x)
                if answer.bound > 0 or not (answer.x[banned] > 1e-9).any():
                    break
                penalty *= 16.0
            found.append(solution)
        return found


def programs(
    task: Task,
    nodes: Nodes,
    sizes: NDArray[Any],
    columns: Mapping[int, NDArray[np.int64]],
    rows: tuple[Array, Array],
    seconds: float,
) -> LeafPrograms:
    """The programs of nodes of a search.

    Args:
        sizes: (B, K) sizes of the multipliers that the search knows.
        columns: by ReLU node, the neurons of the nodes' columns.
        rows: C (B, 1, n_K) and d (B, 1).
    """
    layers, every = {k: task.root.ranges[k] for k in task.network.relus}, as_numpy(nodes.signs)
    signs, scales, start = {}, {}, 0
    for k, at in columns.items():
        span, start = slice(start, start + len(at)), start + len(at)
        shape = len(nodes), len(layers[k][0])
        signs[k], scales[k] = np.zeros(shape, np.int8), np.ones(shape)
        signs[k][:, at] = every[:, span]
        scales[k][:, at] = sizes[:, span] + sizes[:, span].mean(axis=1, keepdims=True) + LEAST_SCALE
    return LeafPrograms(
        task.region.to(torch.float64, "cpu"), layers, signs, scales, rows[0][:, 0], rows[1][:, 0], seconds
    )
