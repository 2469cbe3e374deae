"""The final check of stored split trees in rigorous float64: leaf after leaf, in batches. numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lpverify.certificate.fields import UNIT_SLOPE
from lpverify.certificate.rigorous_linear import Array, Flags, Index, stored, to_float, to_index
from lpverify.certificate.rigorous_tree import Leaves, Phases, Root
from lpverify.certificate.tree import INPUT, NOTHING, PHASE, Tree, walk
from lpverify.errors import CertificateError

# The entries of (rows, units) that the leaves of one batch may have.
BATCH_ENTRIES = 2**21


class Failure(NamedTuple):
    """A leaf that does not prove ``clause``: its place among the leaves and nodes in preorder, and its bound."""

    leaf: int
    node: int
    clause: int
    bound: float


class _Piece(NamedTuple):
    """Some rows ``start`` to ``stop`` of a leaf: its splits and sides from the root down, and its box."""

    start: int
    stop: int
    splits: Index
    sides: Index
    box: tuple[Array, Array] | None


def judge(root: Root, tree: Tree, wanted: Sequence[int]) -> tuple[dict[int, float], Failure | None]:
    """The least bound that a leaf has of each wanted clause, and the first leaf that proves one of them not.

    The tree must be well-formed and fit. Infinity stands for leaves without any point.

    Raises:
        CertificateError: if a threshold lies outside its leaf's box.
    """
    stored = _Stored(root, tree)
    bounds = np.full(len(stored.rows), -np.inf)
    for pieces in _batches(stored):
        found = root.bounds(stored.leaves(pieces), tree.bounds)
        for piece, own in zip(pieces, found, strict=True):
            bounds[piece.start : piece.stop] = own[: piece.stop - piece.start]
    starts = np.cumsum(stored.counts) - stored.counts
    best = {}
    for clause in wanted:
        counts = (stored.clause == clause) | (stored.clause == NOTHING) | (bounds == np.inf)
        best[clause] = np.maximum.reduceat(np.where(counts, bounds, -np.inf), starts)
    failing = np.any([~(own > 0) for own in best.values()], axis=0)
    least = {clause: float(own.min()) for clause, own in best.items()}
    if not failing.any():
        return least, None
    leaf = int(failing.argmax())
    clause = next(c for c in wanted if not best[c][leaf] > 0)
    return least, Failure(leaf, int(np.flatnonzero(stored.kinds == 0)[leaf]), clause, float(best[clause][leaf]))


def require_fit(root: Root, tree: Tree) -> None:
    """Raise CertificateError if a split or a column is not of this network, or an input is split without a box."""
    nodes, kinds = root.network.nodes, to_index(tree.kinds)
    kinds = kinds[kinds > 0]
    sizes = np.array([node.size if node.kind == "relu" else 0 for node in nodes])
    for split, (kind, (node, unit)) in enumerate(zip(kinds, to_index(tree.places), strict=True)):
        if kind == PHASE and not (0 <= node < len(sizes) and 0 <= unit < sizes[node]):
            raise CertificateError(f"split {split} of a tree: neuron {unit} of node {node} is not a ReLU")
        if kind == INPUT and not (root.is_box and node == 0 and 0 <= unit < nodes[0].size):
            raise CertificateError(f"split {split} of a tree: input {unit} is none of a box")
    for node, raw in tree.columns:
        neurons = to_index(raw)
        if not 0 <= node < len(sizes) or ((neurons < 0) | (neurons >= sizes[node])).any():
            raise CertificateError(f"a tree has columns of node {node} that are no neurons of a ReLU")


class _Stored:
    """A tree's arrays, and leaves made from them."""

    def __init__(self, root: Root, tree: Tree) -> None:
        self.root, self.nodes = root, root.network.nodes
        self.kinds, self.places, self.points = to_index(tree.kinds), to_index(tree.places), to_float(tree.points)
        self.counts, self.rows = to_index(tree.counts), to_index(tree.rows)
        self.slopes, self.slope_of = stored(tree.slopes), to_index(tree.slope_of)
        self.duals, self.dual_of, self.phases = stored(tree.duals), to_index(tree.dual_of), stored(tree.phases)
        self.columns = [(node, to_index(neurons)) for node, neurons in tree.columns]
        self.at_phase = 0
        claim = root.certificate.claim
        weights = to_float(tree.combos).reshape(tree.combos.shape[0], claim.num_rows)
        known = [root.rows(np.arange(claim.num_rows)), root.combinations(weights), root.rows(np.array([NOTHING]))]
        self.C, self.d = (np.concatenate(parts) for parts in zip(*known, strict=True))
        # Rows of the claim first, then combinations, then nothing.
        place = np.where(self.rows == NOTHING, len(self.d) - 1, claim.num_rows - 2 - self.rows)
        self.form = np.where(self.rows >= 0, self.rows, place)
        clause = np.array([clause for clause, own in enumerate(claim.clauses) for _ in own], dtype=np.int64)
        clause = np.concatenate([clause, clause[(weights > 0).argmax(axis=1)] if len(weights) else clause[:0]])
        self.clause = np.concatenate([clause, [NOTHING]])[self.form]

    def pieces(self) -> Iterator[_Piece]:
        """The leaves in preorder, each in pieces of rows small enough for a batch."""
        most = max(1, BATCH_ENTRIES // self.width)
        kinds = self.kinds[self.kinds > 0]
        boxed = bool((kinds == INPUT).any())
        lower, upper = self.root.box
        steps: list[tuple[Array, int, float] | None] = []  # which end of the box a step moved, and from where
        start = 0
        for place, count in zip(walk(self.kinds.astype(np.uint8).tobytes()), self.counts.tolist(), strict=True):
            while len(steps) > place.kept:
                moved = steps.pop()
                if moved is not None:
                    moved[0][moved[1]] = moved[2]
            for split, side in place.path[place.kept :]:
                if kinds[split] == PHASE:
                    steps.append(None)
                    continue
                end, unit, point = lower if side else upper, int(self.places[split, 1]), float(self.points[split])
                if not lower[unit] <= point <= upper[unit]:
                    raise CertificateError(f"split {split}: input {unit} has no {point!r} in this part")
                steps.append((end, unit, float(end[unit])))
                end[unit] = point
            path = np.array(place.path, dtype=np.int64).reshape(-1, 2)
            path = path[kinds[path[:, 0]] == PHASE]
            box = (lower.copy(), upper.copy()) if boxed else None
            for first in range(start, start + count, most):
                yield _Piece(first, min(first + most, start + count), path[:, 0], path[:, 1], box)
            start += count

    @property
    def width(self) -> int:
        """The units whose entries a row of a batch has."""
        return sum(node.size for node in self.nodes)

    def leaves(self, pieces: Sequence[_Piece]) -> Leaves:
        """The leaves of the next batch, each with as many rows as the one that has most; the others' are zeros."""
        sizes = np.array([p.stop - p.start for p in pieces])
        shape = (len(pieces), int(sizes.max()))
        row = np.minimum(np.array([p.start for p in pieces])[:, None] + np.arange(shape[1]), len(self.rows) - 1)
        real = np.arange(shape[1]) < sizes[:, None]
        form = np.where(real, self.form[row], len(self.d) - 1)
        given = _Given(shape, [node.size for node in self.nodes])
        self._columns(given, np.where(real, self.slope_of[row], -1), np.where(real, self.dual_of[row], -1))
        self._phases(given, pieces, sizes)
        boxes = [p.box for p in pieces if p.box is not None]
        lower, upper = (np.stack(ends) for ends in zip(*boxes, strict=True)) if boxes else (None, None)
        return Leaves(
            lower, upper, self.C[form], self.d[form], given.phases, given.values, given.explicit, given.slopes
        )

    def _columns(self, given: _Given, slope_of: Index, dual_of: Index) -> None:
        """Slopes and multipliers that are stored for rows (b, m)."""
        at = 0
        for node, neurons in self.columns:
            columns = np.arange(at, at + len(neurons))
            at += len(neurons)
            for used, table, target in ((slope_of, self.slopes, given.slopes), (dual_of, self.duals, given.values)):
                leaf, row = np.nonzero(used >= 0)
                if len(leaf):
                    where = (leaf[:, None], row[:, None], neurons)
                    found = table[used[leaf, row][:, None], columns].astype(np.float64)
                    given.table(target, node)[where] = found / UNIT_SLOPE if target is given.slopes else found
                    if target is given.values:
                        given.flags(node)[where] = True

    def _phases(self, given: _Given, pieces: Sequence[_Piece], sizes: Index) -> None:
        """The splits on the leaves' paths and their multipliers, which come row by row."""
        depths = np.array([len(p.splits) for p in pieces])
        total = int(sizes @ depths)
        values, self.at_phase = self.phases[self.at_phase : self.at_phase + total], self.at_phase + total
        splits, sides = np.concatenate([p.splits for p in pieces]), np.concatenate([p.sides for p in pieces])
        leaf = np.repeat(np.arange(len(pieces)), depths)
        starts = np.cumsum(depths) - depths
        # For every value its leaf, its place within the leaf's values, its row and its split.
        owner = np.repeat(np.arange(len(pieces)), sizes * depths)
        within = np.arange(total) - np.repeat(np.cumsum(sizes * depths) - sizes * depths, sizes * depths)
        row, step = np.divmod(within, np.maximum(depths[owner], 1))
        split = splits[starts[owner] + step]
        for node in np.unique(self.places[splits, 0]).tolist():
            here = self.places[splits, 0] == node
            unit = self.places[splits[here], 1]
            given.sides(node)[leaf[here], unit] = 2 * sides[here] - 1
            given.flags(node)[leaf[here], :, unit] = True
            here = self.places[split, 0] == node
            given.table(given.values, node)[owner[here], row[here], self.places[split[here], 1]] = values[here]


@dataclass
class _Given:
    """What a batch's leaves are given, by ReLU node: made when first asked for."""

    shape: tuple[int, int]
    units: list[int]

    def __post_init__(self) -> None:
        self.phases: dict[int, Phases] = {}
        self.values: dict[int, Array] = {}
        self.slopes: dict[int, Array] = {}
        self.explicit: dict[int, Flags] = {}

    def table(self, kind: dict[int, Array], node: int) -> Array:
        """The values (0 at first) or slopes (NaN at first) of a node, (b, m, n)."""
        if node not in kind:
            kind[node] = np.full((*self.shape, self.units[node]), np.nan if kind is self.slopes else 0.0)
        return kind[node]

    def flags(self, node: int) -> Flags:
        """Where the values of a node count, (b, m, n)."""
        return self.explicit.setdefault(node, np.zeros((*self.shape, self.units[node]), dtype=bool))

    def sides(self, node: int) -> Phases:
        """The phases of a node, (b, n)."""
        return self.phases.setdefault(node, np.zeros((self.shape[0], self.units[node]), dtype=np.int8))


def _batches(stored: _Stored) -> Iterator[list[_Piece]]:
    """The pieces in order, as many together as a batch may hold."""
    batch: list[_Piece] = []
    most = 0
    for piece in stored.pieces():
        wider = max(most, piece.stop - piece.start)
        if batch and (len(batch) + 1) * wider * stored.width > BATCH_ENTRIES:
            yield batch
            batch, wider = [], piece.stop - piece.start
        batch.append(piece)
        most = wider
    yield batch
