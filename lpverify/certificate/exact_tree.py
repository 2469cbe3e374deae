"""Split trees in exact arithmetic: one walk over the leaves, one state for all. Standard library only.

Every input of the region takes one side of every split, so what all leaves prove holds on the whole region. A split
z >= 0 sets l := max(l, 0), z <= 0 sets u := min(u, 0) at that neuron's ReLU; a split of an input cuts the box at the
threshold, rounded outward. Where that leaves l > u no input takes the path, and its leaf is proved.

With bounds "root" all other bounds are the root's. With bounds "leaf" they are computed anew over the leaf's own box,
node by node as at the root; each node's are met with the root's, and cut at split neurons, before the next node reads
them. The backward pass is taken from the neurons that are unstable after meeting the root's.

Less than that is enough for most leaves, and is tried first. What is computed for a larger part, of some leaves
together, holds for every one of them and is met as well, which leaves fewer neurons unstable; of those whose sign is
fixed by one bound the other is not refined; and a third of the leaves needs no backward pass in the later half of the
network.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import replace
from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple

from lpverify.certificate.claim import BallRegion, Claim
from lpverify.certificate.exact_bounds import (
    Own,
    State,
    gains_by_refining,
    interval,
    lower_bound,
    refined,
    set_neurons,
    unstable,
)
from lpverify.certificate.exact_claim import NO_FORM, Form, claim_forms, combined
from lpverify.certificate.exact_linear import ExactNetwork, scaled
from lpverify.certificate.exact_region import Range
from lpverify.certificate.tree import INPUT, NOTHING, PHASE, Place, Tree, walk
from lpverify.errors import CertificateError

SHARED_BY = 3  # bounds of a part are computed for so many leaves at least, and for parts so many times as small


class Effort(Enum):
    """How a part's own bounds are computed: by backward passes in the former half of the network and shared bounds of
    larger parts; by passes everywhere; and alone, without what is shared, which leaves a few leaves worse off, since
    tighter bounds change the slopes that the rule chooses.
    """

    HALF = 0
    WHOLE = 1
    ALONE = 2


class Failure(NamedTuple):
    """A leaf that does not prove ``clause``: its place among the leaves and nodes in preorder, and its bound."""

    leaf: int
    node: int
    clause: int
    bound: Fraction | float


class _EmptyError(Exception):
    """No input takes the path to this leaf."""


def require_fit(network: ExactNetwork, claim: Claim, tree: Tree) -> None:
    """Raise CertificateError if a split or a column is not of this network, or an input is split without a box."""
    sizes = [node.size if node.kind == "relu" else -1 for node in network.nodes]
    for node, neurons in tree.columns:
        if node >= len(sizes) or any(not 0 <= neuron < sizes[node] for neuron in [0, *neurons.values()]):
            raise CertificateError(f"certificate: a tree has columns of node {node} that are no neurons of a ReLU")
    boxed = not isinstance(claim.region, BallRegion) or claim.region.norm == "inf"
    kinds, places = [kind for kind in bytes(tree.kinds.data) if kind], tree.places.values()
    for split, kind in enumerate(kinds):
        node, unit = places[2 * split], places[2 * split + 1]
        if kind == PHASE and (node >= len(sizes) or unit >= sizes[node]):
            raise CertificateError(f"certificate: split {split} of a tree: neuron {unit} of node {node} is not a ReLU")
        if kind == INPUT and (not boxed or unit >= claim.inputs):
            raise CertificateError(f"certificate: split {split} of a tree: input {unit} is none of a box")


def first_failure(root: State, claim: Claim, tree: Tree, proved: Container[int]) -> Failure | None:
    """The first leaf that does not prove one of the tree's clauses which are not ``proved`` already; None if all do.

    The tree must be well-formed and fit. Raises CertificateError where a threshold lies outside its leaf's box.
    """
    wanted = [clause for clause in tree.clauses.values() if clause not in proved]
    if not wanted:
        return None
    part, stored, rows = _Part(root, tree), _Stored(tree), _Rows(claim, tree)
    last, start = len(root.network.nodes) - 1, 0
    for leaf, (place, count) in enumerate(zip(walk(bytes(tree.kinds.data)), tree.counts.values(), strict=True)):
        part.move(place)
        own = {index: stored.phases(part.neurons) for index in range(start, start + count)}
        start += count
        for effort in part.efforts():
            best: dict[int, Fraction | float] = dict.fromkeys(wanted, -math.inf if part.settle(effort) else math.inf)
            for index, phases in own.items():
                clause = rows.clause(index)
                shown = wanted if clause == NOTHING else [clause]
                open_clauses = [each for each in shown if each in best and not best[each] > 0]
                if open_clauses:
                    form = rows.form(index)
                    bound = form.constant + lower_bound(part.state, last, form.row, stored.own(index, phases))
                    for each in open_clauses:
                        best[each] = max(best[each], bound / form.multiple)
            failed = [each for each, proved_bound in best.items() if not proved_bound > 0]
            if not failed:
                break
        else:
            return Failure(leaf, place.node, failed[0], best[failed[0]])
    return None


class _Rows:
    """What a tree's rows bound."""

    def __init__(self, claim: Claim, tree: Tree) -> None:
        self._forms, self._rows, self._combos = list(claim_forms(claim)), tree.rows.values(), tree.combos.values()
        self._clause_of = [clause for clause, own in enumerate(claim.clauses) for _ in own]

    def clause(self, index: int) -> int:
        """The clause of row ``index``; NOTHING if it bounds nothing and so proves any."""
        row = self._rows[index]
        if row < NOTHING:
            row = next(r for r, weight in enumerate(self._weights(row)) if weight)
        return self._clause_of[row] if row >= 0 else NOTHING

    def form(self, index: int) -> Form:
        """What row ``index`` bounds."""
        row = self._rows[index]
        if row == NOTHING:
            return NO_FORM
        return self._forms[row] if row >= 0 else combined(self._forms, self._weights(row))

    def _weights(self, row: int) -> Sequence[float]:
        at = (-2 - row) * len(self._forms)
        return self._combos[at : at + len(self._forms)]


class _Stored:
    """A tree's slopes and multipliers, row by row."""

    def __init__(self, tree: Tree) -> None:
        self._columns = [(node, neurons.values()) for node, neurons in tree.columns]
        self._slopes, self._slope_of = tree.slopes.values(), tree.slope_of.values()
        self._duals, self._dual_of = tree.duals.values(), tree.dual_of.values()
        self._phases, self._at = tree.phases.values(), 0

    def phases(self, neurons: Sequence[tuple[int, int]]) -> dict[int, dict[int, float]]:
        """The next row's multipliers of the ``neurons`` that its path splits."""
        found: dict[int, dict[int, float]] = {}
        for (node, neuron), v in zip(neurons, self._phases[self._at : self._at + len(neurons)], strict=True):
            found.setdefault(node, {})[neuron] = v
        self._at += len(neurons)
        return found

    def own(self, index: int, phases: dict[int, dict[int, float]]) -> Own:
        """All that is stored for row ``index``, whose phase multipliers are ``phases``."""
        duals = self._row(self._duals, self._dual_of[index])
        for node, given in phases.items():
            duals[node] = duals.get(node, {}) | given
        return Own(self._row(self._slopes, self._slope_of[index]), duals)

    def _row(self, values: Sequence[Any], index: int) -> dict[int, dict[int, Any]]:
        found: dict[int, dict[int, Any]] = {}
        at = index * sum(len(neurons) for _, neurons in self._columns)
        for node, neurons in self._columns if index >= 0 else []:
            found[node] = dict(zip(neurons, values[at : at + len(neurons)], strict=True))
            at += len(neurons)
        return found


class _Part:
    """The part of the region at the end of a path; ``move`` goes on to the next, ``settle`` updates its bounds.

    Attributes:
        state: the bounds there.
        neurons: (ReLU node, neuron) of the path's phase splits, from the root down.
    """

    def __init__(self, root: State, tree: Tree) -> None:
        box = root.region.box
        self._root, self._fresh = root, tree.bounds == "leaf"
        self._box = Range(list(box.lower), list(box.upper), box.exponent)
        region = replace(root.region, box=self._box)
        if self._fresh:
            self.state = State(root.network, root.rule, root.float32, region)
        else:
            layers = {node: (list(neurons), exponent) for node, (neurons, exponent) in root.layers.items()}
            self.state = replace(root, region=region, layers=layers)
        self.neurons: list[tuple[int, int]] = []
        self._sides: dict[int, dict[int, int]] = {node: {} for node in root.layers}
        self._steps: list[tuple[int, Any]] = []  # what each step changed: the input, or -1, and what was there
        self._splits, self._sizes = _splits(tree), _sizes(bytes(tree.kinds.data))
        # Parts that this one lies in, from the root down: their number of steps and of leaves, and their bounds.
        self._bases = [(0, tree.num_leaves, root.ranges)]
        self._effort, self._half = Effort.WHOLE, len(root.network.nodes) // 2
        self._crossed = 0  # split neurons with l > u
        self._known = 0  # nodes whose bounds are up to date
        self._readers: dict[int, list[int]] = {}
        self._limits: dict[int, Range] = {}  # the root's bounds where lemmas tightened them
        for node, (neurons, exponent) in root.layers.items():
            source = root.network.nodes[node].inputs[0]
            self._readers.setdefault(source, []).append(node)
            limit = Range([n.lower for n in neurons], [n.upper for n in neurons], exponent)
            if (limit.lower, limit.upper) != (root.ranges[source].lower, root.ranges[source].upper):
                self._limits[node] = limit

    def move(self, place: Place) -> None:
        """Go from the leaf before to the one at ``place``; raises CertificateError."""
        while len(self._steps) > place.kept:
            self._back()
        while self._bases[-1][0] > place.kept:
            self._bases.pop()
        for split, side in place.path[place.kept :]:
            if self._fresh and SHARED_BY <= self._sizes[split] <= self._bases[-1][1] // SHARED_BY and self.settle():
                self._bases.append((len(self._steps), self._sizes[split], list(self.state.ranges)))
            kind, node, unit, point = self._splits[split]
            if kind == INPUT:
                self._cut_input(split, unit, point, side)
            else:
                self._cut_neuron(node, unit, side)

    def _cut_input(self, split: int, unit: int, point: float, side: int) -> None:
        low, high = self._box.lower[unit], self._box.upper[unit]
        threshold = Fraction(point) / scaled(1, self._box.exponent)
        if not low <= threshold <= high:
            raise CertificateError(f"certificate: split {split} of a tree: input {unit} has no {point!r} in this part")
        self._steps.append((unit, (low, high)))
        if side:
            self._box.lower[unit] = math.floor(threshold)
        else:
            self._box.upper[unit] = math.ceil(threshold)
        self._known = 0

    def _cut_neuron(self, node: int, unit: int, side: int) -> None:
        self.neurons.append((node, unit))
        self._sides[node][unit] = side
        self._known = min(self._known, node)
        if self._fresh:
            self._steps.append((-1, None))
            return
        neurons, _ = self.state.layers[node]
        old = neurons[unit]
        new = old._replace(lower=max(old.lower, 0)) if side else old._replace(upper=min(old.upper, 0))
        neurons[unit] = new
        self._crossed += new.lower > new.upper
        self._steps.append((-1, old))

    def _back(self) -> None:
        unit, old = self._steps.pop()
        if unit >= 0:
            self._box.lower[unit], self._box.upper[unit] = old
            self._known = 0
            return
        node, neuron = self.neurons.pop()
        del self._sides[node][neuron]
        self._known = min(self._known, node)
        if not self._fresh:
            neurons, _ = self.state.layers[node]
            self._crossed -= neurons[neuron].lower > neurons[neuron].upper
            neurons[neuron] = old

    def efforts(self) -> tuple[Effort, ...]:
        """What is to be tried at a leaf, the cheapest first; where bounds of some nodes are known, all is cheap."""
        if not self._fresh:
            return (Effort.WHOLE,)
        return (Effort.WHOLE, Effort.ALONE) if self._known else (Effort.HALF, Effort.WHOLE, Effort.ALONE)

    def settle(self, effort: Effort = Effort.WHOLE) -> bool:
        """Bring all bounds up to date; returns whether an input may take the path. Raises NoBoundError."""
        if not self._fresh:
            return not self._crossed
        if Effort.ALONE in (effort, self._effort):
            self._known = 0
        if self._effort is Effort.HALF:
            self._known = min(self._known, self._half)
        self._effort = effort
        del self.state.ranges[self._known :]
        try:
            for index in range(self._known, len(self.state.network.nodes)):
                self._advance(index)
                self._known = index + 1
        except _EmptyError:
            return False
        return True

    def _advance(self, index: int) -> None:
        state, node = self.state, self.state.network.nodes[index]
        if node.kind == "input":
            state.ranges.append(self._box)
        elif node.kind == "relu":
            set_neurons(state, index, self._cut(self._limited(state.ranges[node.inputs[0]], index), index))
        else:
            alone, skipped = self._effort is Effort.ALONE, self._effort is Effort.HALF and index >= self._half
            known = _met(interval(state, index, node), self._bases[0 if alone else -1][2][index])
            if index in self._readers and gains_by_refining(state, node) and not skipped:
                units = {unit for relu in self._readers[index] for unit in unstable(self._limited(known, relu))}
                known = _met(refined(state, index, known, sorted(units), both=alone), known)
            state.ranges.append(known)

    def _limited(self, known: Range, relu: int) -> Range:
        """``known`` met with the root's bounds of the pre-activations that node ``relu`` reads, lemmas among them."""
        return _met(known, self._limits[relu]) if relu in self._limits else known

    def _cut(self, known: Range, relu: int) -> Range:
        """``known`` cut at the split neurons of node ``relu``."""
        lower, upper = list(known.lower), list(known.upper)
        for unit, side in self._sides[relu].items():
            if side:
                lower[unit] = max(lower[unit], 0)
            else:
                upper[unit] = min(upper[unit], 0)
            if lower[unit] > upper[unit]:
                raise _EmptyError
        return Range(lower, upper, known.exponent)


def _splits(tree: Tree) -> list[tuple[int, int, int, float]]:
    """Kind, node, unit and threshold of each split."""
    kinds, places = (kind for kind in bytes(tree.kinds.data) if kind), tree.places.values()
    return list(zip(kinds, places[::2], places[1::2], tree.points.values(), strict=True))


def _sizes(kinds: bytes) -> list[int]:
    """The number of leaves below each split."""
    waiting, found = list[int](), list[int]()
    for kind in reversed(kinds):
        if kind:
            waiting.append(waiting.pop() + waiting.pop())
            found.append(waiting[-1])
        else:
            waiting.append(1)
    return found[::-1]


def _met(known: Range, other: Range) -> Range:
    """The bounds that both give, in the unit of ``known``, rounded outward; raises _EmptyError if there are none."""
    shift = other.exponent - known.exponent
    if shift >= 0:
        lower, upper = [low << shift for low in other.lower], [high << shift for high in other.upper]
    else:
        lower, upper = [low >> -shift for low in other.lower], [-(-high >> -shift) for high in other.upper]
    found = Range(list(map(max, known.lower, lower)), list(map(min, known.upper, upper)), known.exponent)
    if any(low > high for low, high in zip(found.lower, found.upper, strict=True)):
        raise _EmptyError
    return found
