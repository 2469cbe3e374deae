"""Split trees: their content, their fields in a certificate's header, and the walk from leaf to leaf. Standard
library only; nothing here recurses.

A tree proves its clauses on the whole region: every leaf proves them on its own part. In a header:

    {"clauses": array, "bounds": "root" or "leaf", "kinds": array, "places": array, "points": array,
     "counts": array, "rows": array, "combos": array, "columns": [{"node": k, "neurons": array}, ...],
     "slopes": array, "slope_of": array, "duals": array, "dual_of": array, "phases": array}

with the arrays of ``Tree``. A split on a ReLU's phase has the parts z <= 0 (left) and z >= 0 (right) of the
pre-activation z, a split of an input the parts x <= t (left) and x >= t (right). Nodes are in preorder: a split,
all of its left part, all of its right part. No path splits a neuron twice; it may split an input often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from lpverify.certificate.claim import Claim
from lpverify.certificate.container import Packed, RawArray
from lpverify.certificate.fields import are_slopes, finite, rises, whole
from lpverify.errors import CertificateError

BOUNDS = ("root", "leaf")
LEAF, PHASE, INPUT = 0, 1, 2
NOTHING = -1
ARRAYS = {
    "clauses": (("<i4",), 1), "kinds": (("|u1",), 1), "places": (("<i4",), 2), "points": (("<f8",), 1),
    "counts": (("<i4",), 1), "rows": (("<i4",), 1), "combos": (("<f8",), 2), "slopes": (("<u2",), 2),
    "slope_of": (("<i4",), 1), "duals": (("<f4", "<f8"), 2), "dual_of": (("<i4",), 1), "phases": (("<f4", "<f8"), 1),
}  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """A tree of N nodes, S of them splits and L leaves, whose leaves have R rows in all.

    Attributes:
        clauses: (c,) int32 rising, the clauses that the tree proves on the whole region.
        bounds: where the leaves' pre-activation bounds come from: "root" or "leaf".
        kinds: (N,) uint8, nodes in preorder: 0 leaf, 1 split on a ReLU's phase, 2 split of an input.
        places: (S, 2) int32, for each split (ReLU node, neuron) or (0, input).
        points: (S,) float64, the threshold of an input split; 0 at a phase split.
        counts: (L,) int32, the number of rows of each leaf, at least 1.
        rows: (R,) int32, what each row bounds: r >= 0 row r of the claim, -1 nothing (above 0 where the leaf is
            empty), -2 - q combination q.
        combos: (Q, m) float64, weights of the claim's rows, >= 0, not all 0, of rows of one clause.
            Rows of clauses are first multiplied by the least common multiple of their coefficients' denominators,
            wherever multipliers are meant for them too.
        columns: (ReLU node, neurons (k,) int32 rising) that ``slopes`` and ``duals`` are for, K in all, in this order.
        slopes: (P, K) uint16, lower slopes in units of 1 / UNIT_SLOPE.
        slope_of: (R,) int32, which of ``slopes`` a row uses, or -1: those of the rule.
        duals: (D, K) float32 or float64, explicit multipliers.
        dual_of: (R,) int32, which of ``duals`` a row uses, or -1: none. They override slopes.
        phases: (T,) float32 or float64, for every row in order, for every phase split on its leaf's path from the
            root down: the explicit multiplier of that neuron. They override all else.
    """

    clauses: RawArray
    bounds: str
    kinds: RawArray
    places: RawArray
    points: RawArray
    counts: RawArray
    rows: RawArray
    combos: RawArray
    columns: tuple[tuple[int, RawArray], ...]
    slopes: RawArray
    slope_of: RawArray
    duals: RawArray
    dual_of: RawArray
    phases: RawArray

    @property
    def num_leaves(self) -> int:
        """Number of leaves L."""
        return self.counts.shape[0]


class Place(NamedTuple):
    """Where a leaf is: its number ``node`` in preorder, and its ``path``, (split, side) from the root down.

    ``split`` counts the splits in preorder; side 0 is the left part. The first ``kept`` steps of the path are those of
    the leaf before. The list is that of the walk, changed when it goes on.
    """

    node: int
    path: list[tuple[int, int]]
    kept: int


def walk(kinds: bytes) -> Iterator[Place]:
    """The leaves of a well-formed tree, in preorder."""
    path: list[tuple[int, int]] = []
    kept = splits = 0
    for node, kind in enumerate(kinds):
        if kind != LEAF:
            path.append((splits, 0))
            splits += 1
            continue
        yield Place(node, path, kept)
        while path and path[-1][1]:
            path.pop()
        kept = max(len(path) - 1, 0)
        if path:
            path[-1] = path[-1][0], 1


def encode_tree(tree: Tree, arrays: list[RawArray]) -> dict[str, Any]:
    """The tree's entry in a header; appends its arrays to ``arrays``."""

    def store(raw: RawArray) -> dict[str, int]:
        arrays.append(raw)
        return {"array": len(arrays) - 1}

    columns = [{"node": node, "neurons": store(neurons)} for node, neurons in tree.columns]
    fields = {name: store(getattr(tree, name)) for name in ARRAYS}
    return {"bounds": tree.bounds, "columns": columns, **fields}


def decode_tree(packed: Packed, entry: Any, claim: Claim) -> Tree:
    """Read a tree from a container's header; raises CertificateError if it is not well-formed for ``claim``."""
    if not isinstance(entry, dict) or set(entry) != {"bounds", "columns", *ARRAYS}:
        raise CertificateError(f"{packed.name}: a tree has unknown or missing fields")
    if not isinstance(entry["columns"], list):
        raise CertificateError(f"{packed.name}: the columns of a tree are not a list")
    columns = []
    for column in entry["columns"]:
        if not isinstance(column, dict) or set(column) != {"node", "neurons"}:
            raise CertificateError(f"{packed.name}: a column of a tree has unknown or missing fields")
        columns.append((whole(packed, column["node"]), packed.array(column["neurons"], ndim=1)))
    arrays = {name: packed.array(entry[name], ndim=axes) for name, (_, axes) in ARRAYS.items()}
    tree = Tree(bounds=entry["bounds"], columns=tuple(columns), **arrays)
    require_well_formed(tree, claim, packed.name)
    return tree


def require_well_formed(tree: Tree, claim: Claim, name: str = "certificate") -> None:
    """Raise CertificateError if the tree's fields contradict each other or the claim.

    What remains for a checker, which knows the network and the region: that every node named is a ReLU with that
    neuron, every input one of the network's, and every threshold inside its leaf's box.
    """
    for field, (dtypes, axes) in ARRAYS.items():
        raw = getattr(tree, field)
        if raw.dtype not in dtypes or len(raw.shape) != axes:
            raise CertificateError(f"{name}: {field} of a tree are {raw.dtype} {raw.shape}")
    if tree.bounds not in BOUNDS:
        raise CertificateError(f"{name}: a tree has bounds {tree.bounds!r}, not one of {', '.join(BOUNDS)}")
    clauses = tree.clauses.values()
    if not len(clauses) or not rises(tree.clauses) or clauses[0] < 0 or clauses[-1] >= len(claim.clauses):
        raise CertificateError(f"{name}: a tree's clauses do not rise within 0..{len(claim.clauses) - 1}")
    _require_splits(tree, name)
    _require_rows(tree, claim, name)
    _require_multipliers(tree, name)
    _require_paths(tree, name)


def _require_splits(tree: Tree, name: str) -> None:
    kinds, points = bytes(tree.kinds.data), tree.points.values()
    waiting = 1  # parts of the region whose node has not come yet
    for node, kind in enumerate(kinds):
        if kind > INPUT or not waiting:
            raise CertificateError(f"{name}: node {node} of a tree is of kind {kind} or comes after its end")
        waiting += 1 if kind else -1
    if waiting:
        raise CertificateError(f"{name}: a tree of {len(kinds)} nodes lacks {waiting} of its leaves")
    splits = [kind for kind in kinds if kind]
    if tree.places.shape != (len(splits), 2) or tree.points.shape != (len(splits),):
        raise CertificateError(
            f"{name}: a tree has {len(splits)} splits but places {tree.places.shape} and points {tree.points.shape}"
        )
    places = tree.places.values()
    if not finite(tree.points) or any(place < 0 for place in places):
        raise CertificateError(f"{name}: a split has a negative place or a point that is not finite")
    for split, (kind, point) in enumerate(zip(splits, points, strict=True)):
        if (kind == PHASE and point != 0) or (kind == INPUT and places[2 * split] != 0):
            raise CertificateError(f"{name}: split {split} is of kind {kind} but has {places[2 * split]}, {point!r}")


def _require_rows(tree: Tree, claim: Claim, name: str) -> None:
    leaves = tree.kinds.shape[0] - tree.points.shape[0]
    counts, rows = tree.counts.values(), tree.rows.values()
    if len(counts) != leaves or any(count < 1 for count in counts) or sum(counts) != len(rows):
        raise CertificateError(f"{name}: a tree of {leaves} leaves and {len(rows)} rows has other counts of rows")
    combos, num_combos, width = tree.combos.values(), tree.combos.shape[0], claim.num_rows
    if (num_combos and tree.combos.shape[1] != width) or any(not -2 - num_combos < row < width for row in rows):
        raise CertificateError(f"{name}: a tree's rows or combos are not of the claim's {width} rows")
    if not finite(tree.combos) or any(weight < 0 for weight in combos):
        raise CertificateError(f"{name}: a combo has a weight that is negative or not finite")
    clause_of = [clause for clause, own in enumerate(claim.clauses) for _ in own]
    for combo in range(num_combos):
        weights = combos[combo * width : (combo + 1) * width]
        if len({clause for clause, weight in zip(clause_of, weights, strict=True) if weight}) != 1:
            raise CertificateError(f"{name}: combo {combo} does not combine rows of one clause")


def _require_multipliers(tree: Tree, name: str) -> None:
    nodes = [node for node, _ in tree.columns]
    if len(set(nodes)) != len(nodes):
        raise CertificateError(f"{name}: a tree has two columns of the same node")
    for node, neurons in tree.columns:
        if neurons.dtype != "<i4" or len(neurons.shape) != 1 or not rises(neurons):
            raise CertificateError(f"{name}: the neurons of a tree's columns do not rise")
        if node < 0 or any(neuron < 0 for neuron in neurons.values()[:1]):
            raise CertificateError(f"{name}: a column of a tree is of node {node} or of a negative neuron")
    width = sum(neurons.shape[0] for _, neurons in tree.columns)
    for kind, tables, used in (("slopes", tree.slopes, tree.slope_of), ("duals", tree.duals, tree.dual_of)):
        if (tables.shape[0] and tables.shape[1] != width) or used.shape != tree.rows.shape:
            raise CertificateError(f"{name}: {kind} {tables.shape} of a tree do not fit its {width} columns or rows")
        if any(not -1 <= table < tables.shape[0] for table in used.values()):
            raise CertificateError(f"{name}: a row uses {kind} that the tree does not have")
    if not are_slopes(tree.slopes):
        raise CertificateError(f"{name}: a slope of a tree is above 1")
    if not finite(tree.duals) or not finite(tree.phases):
        raise CertificateError(f"{name}: a multiplier of a tree is not finite")


def _require_paths(tree: Tree, name: str) -> None:
    """No path splits a neuron twice, and there is a multiplier for each row and phase split on its path."""
    kinds = bytes(tree.kinds.data)
    places, phase = tree.places.values(), [kind == PHASE for kind in kinds if kind]
    steps: list[tuple[int, int] | None] = []  # what the path splits: a neuron, or None for an input
    split_so_far, wanted = set[tuple[int, int]](), 0
    for leaf, count in zip(walk(kinds), tree.counts.values(), strict=True):
        while len(steps) > leaf.kept:
            split_so_far.discard(steps.pop() or (-1, -1))
        for split, _ in leaf.path[leaf.kept :]:
            neuron = (places[2 * split], places[2 * split + 1]) if phase[split] else None
            if neuron in split_so_far:
                raise CertificateError(f"{name}: a path to node {leaf.node} of a tree splits {neuron} twice")
            if neuron is not None:
                split_so_far.add(neuron)
            steps.append(neuron)
        wanted += count * len(split_so_far)
    if wanted != tree.phases.shape[0]:
        raise CertificateError(f"{name}: a tree has {tree.phases.shape[0]} phase multipliers instead of {wanted}")
