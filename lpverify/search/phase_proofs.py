"""The proof trees of a search over phases: one a clause, whose leaves the rigorous checker accepts as they come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpverify.certificate.fields import UNIT_SLOPE
from lpverify.certificate.rigorous_tree import Leaves
from lpverify.certificate.tree import Tree
from lpverify.network import as_numpy
from lpverify.search.ascent import Nodes
from lpverify.search.row_store import Room
from lpverify.search.task import Task
from lpverify.search.tree import LeafProof, TreeBuilder

Index = NDArray[np.int64]
# What a check of the whole proof may take: a share of the seconds that its leaves took one batch after another (it was
# 0.3 to 0.75 of them), and seconds for each leaf's place in the file (it was 0.00005).
CHECK_SHARE, LEAF_SECONDS = 0.6, 1e-4


class PhaseProofs:
    """The trees of some clauses of a task.

    Args:
        clauses: whose trees these are; nodes name them by their places in this list.
        rows: (c, R) the rows of each clause, filled up with copies of its first one.
        columns: by ReLU node, its unstable neurons at the root (k,), in the order of the nodes' columns.
        bounds: "root" or "leaf", where the leaves' pre-activation bounds come from (``certificate.tree``).

    Attributes:
        seconds: that the checker took so far.
    """

    def __init__(
        self, task: Task, clauses: Sequence[int], rows: Index, columns: Mapping[int, Index], bounds: str
    ) -> None:
        self.task, self.clauses, self.rows_of, self.columns, self.bounds = task, list(clauses), rows, columns, bounds
        self.seconds = 0.0
        room = Room()
        self._trees = [TreeBuilder(room) for _ in clauses]
        self._open = np.ones(len(rows), dtype=np.int64)
        self._places = [(k, int(n)) for k, at in columns.items() for n in at]
        self._column = {place: i for i, place in enumerate(self._places)}
        stops = np.cumsum([len(at) for at in columns.values()]).tolist()
        self._spans = {k: slice(stop - len(at), stop) for (k, at), stop in zip(columns.items(), stops, strict=True)}

    @property
    def check_seconds(self) -> float:
        """What a check of the whole proof may take."""
        return CHECK_SHARE * self.seconds + LEAF_SECONDS * sum(tree.leaves for tree in self._trees)

    def split(self, clause: Tensor, numbers: Index, column: Tensor) -> Index:
        """Split nodes in their trees; the numbers of the left and then of the right children."""
        pairs = []
        for which, number, at in zip(clause.tolist(), numbers.tolist(), column.tolist(), strict=True):
            pairs.append(self._trees[which].split_phase(number, *self._places[at]))
            self._open[which] += 1
        return np.array(pairs, dtype=np.int64).T.ravel()

    def prove(
        self, nodes: Nodes, v: NDArray[np.float32], numbers: Index, *, whole: bool = False
    ) -> NDArray[np.bool_]:
        """Have the checker bound nodes; those that it accepts become leaves of their trees.

        Args:
            v: (b, K) multipliers: of fixed neurons, the others go by the nodes' slopes; with ``whole`` of all columns.

        Returns:
            (b,) which were accepted.
        """
        slopes = np.rint(as_numpy(nodes.slopes).astype(np.float64) * UNIT_SLOPE).clip(0, UNIT_SLOPE)
        weights = self._weights(nodes)
        C, d = self.rows(nodes)
        leaves = Leaves(None, None, C, d, *self._tables(as_numpy(nodes.signs), v, slopes / UNIT_SLOPE, whole))
        began = time.perf_counter()
        accepted: NDArray[np.bool_] = self.task.root.bounds(leaves, bounds=self.bounds)[:, 0] > 0
        self.seconds += time.perf_counter() - began
        clause = as_numpy(nodes.clause)
        for i in np.flatnonzero(accepted):
            tree, rows = self._trees[clause[i]], self.task.clauses[self.clauses[clause[i]]]
            path = [self._column[place] for place in tree.path(int(numbers[i]))]
            leaf = LeafProof(
                (rows[0],),
                None if len(rows) == 1 else weights[i : i + 1],
                None if whole else slopes[i : i + 1].astype(np.uint16),
                v[i : i + 1] if whole else None,
                v[i : i + 1, path],
            )
            tree.close(int(numbers[i]), leaf)
            self._open[clause[i]] -= 1
        return accepted

    def _tables(
        self, signs: NDArray[np.int8], v: NDArray[np.float32], slopes: NDArray[np.float64], whole: bool
    ) -> tuple[dict[int, NDArray[np.int8]], dict[int, NDArray[np.float64]], dict[int, NDArray[np.bool_]],
               dict[int, NDArray[np.float64]]]:  # fmt: skip
        """Phases, multipliers, where these count, and slopes: what ``Leaves`` holds by ReLU node."""
        phases, values, explicit, lower = {}, {}, {}, {}
        for k, span in self._spans.items():
            at, shape = self.columns[k], (len(signs), self.task.network.sizes[k])
            if not len(at):
                continue
            lower[k] = np.zeros((shape[0], 1, shape[1]))
            lower[k][:, 0, at] = slopes[:, span]
            used = np.ones_like(signs[:, span], dtype=bool) if whole else signs[:, span] != 0
            if not used.any():
                continue
            phases[k], explicit[k] = np.zeros(shape, np.int8), np.zeros(shape, dtype=bool)
            phases[k][:, at], explicit[k][:, at] = signs[:, span], used
            values[k] = np.zeros((shape[0], 1, shape[1]))
            values[k][:, 0, at] = np.where(used, v[:, span], 0.0)
        return phases, values, explicit, lower

    def rows(self, nodes: Nodes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rows that nodes are about, from the checker's claim: C (b, 1, n_K) and d (b, 1)."""
        if self.rows_of.shape[1] == 1:
            C, d = self.task.root.rows(self.rows_of[as_numpy(nodes.clause), 0])
        else:
            C, d = self.task.root.combinations(self._weights(nodes))
        return C[:, None], d[:, None]

    def _weights(self, nodes: Nodes) -> NDArray[np.float64]:
        """The weights of the claim's rows (b, m)."""
        found = np.zeros((len(nodes), len(self.task.d)))
        places = np.arange(len(nodes))[:, None], self.rows_of[as_numpy(nodes.clause)]
        np.add.at(found, places, as_numpy(nodes.weights).astype(np.float32))
        return found

    def encode(self) -> tuple[Tree, ...]:
        """The trees that are complete."""
        columns = [(k, at) for k, at in self.columns.items() if len(at)]
        done = [i for i, count in enumerate(self._open) if not count]
        return tuple(self._trees[i].encode([self.clauses[i]], self.bounds, columns) for i in done)
