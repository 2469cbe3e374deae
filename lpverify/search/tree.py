"""The proof tree while it grows: nodes in the order in which they are made, written as a certificate's tree.

What takes room is written as leaves are closed (``row_store``): slopes and multipliers of a leaf go to a file, which
the finished tree maps. In memory stay 26 bytes a node, and of a leaf its phase multipliers, 12 bytes a row and a
digest. Tables stand in the order in which leaves were closed; all else is in preorder.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.container import RawArray
from lpverify.certificate.tree import INPUT, LEAF, PHASE, Tree
from lpverify.search.row_store import Room, RowStore

# Bytes of a node, and of a row, besides what is stored for it.
NODE, ROW = 26, 12


@dataclass(frozen=True)
class LeafProof:
    """What proves a leaf: r rows.

    Attributes:
        rows: (r,) rows of the claim; -1 for none (the leaf is empty).
        weights: (r, m) combinations of the claim's rows, used instead of ``rows``; None for single rows.
        slopes: (r, K) uint16 lower slopes at the tree's columns, or None for the rule's.
        duals: (r, K) multipliers at the tree's columns, or None.
        phases: (r, t) multipliers at the path's t split neurons, from the root down; None for a path without any.
    """

    rows: tuple[int, ...]
    weights: NDArray[np.float64] | None = None
    slopes: NDArray[np.uint16] | None = None
    duals: NDArray[np.float32] | None = None
    phases: NDArray[np.float32] | None = None


class TreeBuilder:
    """A growing tree; node 0 is the root, children are made in pairs: left z <= 0 (x <= t), right z >= 0 (x >= t).

    Args:
        room: what the tree counts its bytes by, with others perhaps.
    """

    def __init__(self, room: Room | None = None) -> None:
        self._room = room = room or Room()
        self.kinds, self.parents = array("B", [LEAF]), array("i", [-1])
        self._places, self._points = array("i", [0, 0]), array("d", [0.0])
        # A split's left child; a closed leaf's number among those closed; -1 of an open one.
        self._below = array("i", [-1])
        # By closed leaf, where its rows and its phase multipliers begin.
        self._first_rows, self._first_phases = array("q", [0]), array("q", [0])
        self._rows, self._slope_of, self._dual_of, self._phases = array("i"), array("i"), array("i"), array("f")
        self._slopes, self._duals, self._combos = RowStore("<u2", room), RowStore("<f4", room), RowStore("<f8", room)

    def split_phase(self, node: int, relu: int, neuron: int) -> tuple[int, int]:
        """Split a node on a neuron's phase; returns its children."""
        return self._split(node, PHASE, (relu, neuron), 0.0)

    def split_input(self, node: int, index: int, point: float) -> tuple[int, int]:
        """Split a node's box at an input's value; returns its children."""
        return self._split(node, INPUT, (0, index), point)

    def close(self, node: int, proof: LeafProof) -> None:
        """Record what proves a leaf; what proved it before counts no more.

        Raises:
            ResourceError: if there is no room for it, or the disk is full.
        """
        count = len(proof.rows)
        self._room.take(count * ROW + (0 if proof.phases is None else 4 * proof.phases.size))
        if proof.weights is None:
            self._rows.extend(proof.rows)
        else:
            self._rows.extend(-2 - self._combos.add(weights) for weights in proof.weights)
        tables = (self._slopes, proof.slopes, self._slope_of), (self._duals, proof.duals, self._dual_of)
        for store, table, used in tables:
            used.extend([-1] * count if table is None else map(store.add, table))
        if proof.phases is not None:
            self._phases.frombytes(np.ascontiguousarray(proof.phases, dtype=np.float32).tobytes())
        self._below[node] = self.leaves
        self._first_rows.append(len(self._rows))
        self._first_phases.append(len(self._phases))

    def path(self, node: int) -> list[tuple[int, int]]:
        """The phase splits above a node, from the root down: (ReLU node, neuron)."""
        found = []
        while (node := self.parents[node]) >= 0:
            if self.kinds[node] == PHASE:
                found.append((self._places[2 * node], self._places[2 * node + 1]))
        return found[::-1]

    @property
    def leaves(self) -> int:
        """Leaves proved so far."""
        return len(self._first_rows) - 1

    def _split(self, node: int, kind: int, place: tuple[int, int], point: float) -> tuple[int, int]:
        self._room.take(2 * NODE)
        first = len(self.kinds)
        self.kinds[node], self._points[node], self._below[node] = kind, point, first
        self._places[2 * node], self._places[2 * node + 1] = place
        self.kinds.extend((LEAF, LEAF))
        self._places.extend((0, 0, 0, 0))
        self._points.extend((0.0, 0.0))
        self.parents.extend((node, node))
        self._below.extend((-1, -1))
        return first, first + 1

    def preorder(self) -> Iterator[int]:
        """Nodes, each before its left and then its right part."""
        waiting = [0]
        while waiting:
            node = waiting.pop()
            yield node
            if self.kinds[node] != LEAF:
                waiting += [self._below[node] + 1, self._below[node]]

    def encode(
        self, clauses: Sequence[int], bounds: str, columns: Sequence[tuple[int, NDArray[np.int64]]] = ()
    ) -> Tree:
        """The certificate's tree. Its tables are the files' own content, which stays as long as the tree does.

        Args:
            clauses: the clauses that every leaf proves.
            bounds: "root" or "leaf", see ``certificate.tree``.
            columns: ReLU nodes and their neurons (k,) that slopes and duals are for, K in all.

        Raises:
            KeyError: if a leaf has no proof.
            ResourceError: if the disk is full.
        """
        order = np.fromiter(self.preorder(), np.int64, len(self.kinds))
        kinds, below = np.array(self.kinds), np.array(self._below)
        is_leaf = kinds[order] == LEAF
        splits, closed = order[~is_leaf], below[order[is_leaf]]
        if (closed < 0).any():
            raise KeyError(int(order[is_leaf][closed < 0][0]))
        ends = np.array(self._first_rows)
        width = sum(len(neurons) for _, neurons in columns)
        return Tree(
            clauses=_raw(clauses, "<i4"),
            bounds=bounds,
            kinds=_raw(kinds[order], "|u1"),
            places=_raw(np.array(self._places).reshape(-1, 2)[splits], "<i4"),
            points=_raw(np.array(self._points)[splits], "<f8"),
            counts=_raw((ends[1:] - ends[:-1])[closed], "<i4"),
            rows=_raw(_pieces(self._rows, self._first_rows, closed), "<i4"),
            combos=self._combos.array(),
            columns=tuple((node, _raw(neurons, "<i4")) for node, neurons in columns),
            slopes=self._slopes.array(width),
            slope_of=_raw(_pieces(self._slope_of, self._first_rows, closed), "<i4"),
            duals=self._duals.array(width),
            dual_of=_raw(_pieces(self._dual_of, self._first_rows, closed), "<i4"),
            phases=_raw(_pieces(self._phases, self._first_phases, closed), "<f4"),
        )


def _pieces(values: array[Any], starts: array[int], order: NDArray[np.int64]) -> array[Any]:
    """The pieces of ``values``, of which piece i begins at starts[i], one after the other in another order."""
    found = array(values.typecode)
    for at in order.tolist():
        found += values[starts[at] : starts[at + 1]]
    return found


def _raw(values: object, dtype: str) -> RawArray:
    array = np.ascontiguousarray(np.asarray(values, dtype=dtype))
    return RawArray(dtype, array.shape, array.tobytes())
