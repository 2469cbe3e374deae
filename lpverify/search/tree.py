"""The proof tree while it grows: nodes in the order in which they are made, written as a certificate's tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.container import RawArray
from lpverify.certificate.tree import INPUT, LEAF, PHASE, Tree


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


@dataclass(eq=False)
class TreeBuilder:
    """A growing tree; node 0 is the root, children are made in pairs: left z <= 0 (x <= t), right z >= 0 (x >= t)."""

    kinds: list[int] = field(default_factory=lambda: [LEAF])
    places: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    points: list[float] = field(default_factory=lambda: [0.0])
    left: list[int] = field(default_factory=lambda: [-1])
    parents: list[int] = field(default_factory=lambda: [-1])
    proofs: dict[int, LeafProof] = field(default_factory=dict)

    def split_phase(self, node: int, relu: int, neuron: int) -> tuple[int, int]:
        """Split a node on a neuron's phase; returns its children."""
        return self._split(node, PHASE, (relu, neuron), 0.0)

    def split_input(self, node: int, index: int, point: float) -> tuple[int, int]:
        """Split a node's box at an input's value; returns its children."""
        return self._split(node, INPUT, (0, index), point)

    def close(self, node: int, proof: LeafProof) -> None:
        """Record what proves a leaf."""
        self.proofs[node] = proof

    def path(self, node: int) -> list[tuple[int, int]]:
        """The phase splits above a node, from the root down: (ReLU node, neuron)."""
        found = []
        while (node := self.parents[node]) >= 0:
            if self.kinds[node] == PHASE:
                found.append(self.places[node])
        return found[::-1]

    @property
    def leaves(self) -> int:
        """Leaves proved so far."""
        return len(self.proofs)

    def _split(self, node: int, kind: int, place: tuple[int, int], point: float) -> tuple[int, int]:
        first = len(self.kinds)
        self.kinds[node], self.places[node], self.points[node], self.left[node] = kind, place, point, first
        self.kinds += [LEAF, LEAF]
        self.places += [(0, 0), (0, 0)]
        self.points += [0.0, 0.0]
        self.left += [-1, -1]
        self.parents += [node, node]
        return first, first + 1

    def preorder(self) -> Iterator[int]:
        """Nodes, each before its left and then its right part."""
        waiting = [0]
        while waiting:
            node = waiting.pop()
            yield node
            if self.kinds[node] != LEAF:
                waiting += [self.left[node] + 1, self.left[node]]

    def encode(
        self, clauses: Sequence[int], bounds: str, columns: Sequence[tuple[int, NDArray[np.int64]]] = ()
    ) -> Tree:
        """The certificate's tree.

        Args:
            clauses: the clauses that every leaf proves.
            bounds: "root" or "leaf", see ``certificate.tree``.
            columns: ReLU nodes and their neurons (k,) that slopes and duals are for, K in all.

        Raises:
            KeyError: if a leaf has no proof.
        """
        order = list(self.preorder())
        splits = [n for n in order if self.kinds[n] != LEAF]
        proofs = [self.proofs[n] for n in order if self.kinds[n] == LEAF]
        rows: list[int] = []
        combos: list[NDArray[np.float64]] = []
        for proof in proofs:
            if proof.weights is None:
                rows += proof.rows
            else:
                rows += [-2 - len(combos) - i for i in range(len(proof.weights))]
                combos += list(proof.weights)
        slopes, slope_of = _shared([p.slopes for p in proofs], [len(p.rows) for p in proofs])
        duals, dual_of = _shared([p.duals for p in proofs], [len(p.rows) for p in proofs])
        width = sum(len(neurons) for _, neurons in columns)
        phases = [p.phases.ravel() for p in proofs if p.phases is not None]
        flat = np.concatenate(phases) if phases else np.zeros(0, np.float32)
        return Tree(
            clauses=_raw(clauses, "<i4"),
            bounds=bounds,
            kinds=_raw([self.kinds[n] for n in order], "|u1"),
            places=_raw(np.array([self.places[n] for n in splits]).reshape(-1, 2), "<i4"),
            points=_raw([self.points[n] for n in splits], "<f8"),
            counts=_raw([len(p.rows) for p in proofs], "<i4"),
            rows=_raw(rows, "<i4"),
            combos=_raw(np.stack(combos) if combos else np.zeros((0, 0)), "<f8"),
            columns=tuple((node, _raw(neurons, "<i4")) for node, neurons in columns),
            slopes=_raw(slopes.reshape(len(slopes), width), "<u2"),
            slope_of=_raw(slope_of, "<i4"),
            duals=_raw(duals.reshape(len(duals), width), "<f4"),
            dual_of=_raw(dual_of, "<i4"),
            phases=_raw(flat, "<f4"),
        )


def _shared(
    tables: Sequence[NDArray[np.uint16] | NDArray[np.float32] | None], counts: Sequence[int]
) -> tuple[NDArray[np.float64], list[int]]:
    """Tables of the leaves one below the other, equal rows once, and which of them each row uses (-1: none)."""
    found: dict[bytes, int] = {}
    kept: list[NDArray[np.float64]] = []
    used: list[int] = []
    for table, count in zip(tables, counts, strict=True):
        if table is None:
            used += [-1] * count
            continue
        for row in table:
            place = found.setdefault(row.tobytes(), len(kept))
            if place == len(kept):
                kept.append(row)
            used.append(place)
    return (np.stack(kept) if kept else np.zeros((0, 0))), used


def _raw(values: object, dtype: str) -> RawArray:
    array = np.ascontiguousarray(np.asarray(values, dtype=dtype))
    return RawArray(dtype, array.shape, array.tobytes())
