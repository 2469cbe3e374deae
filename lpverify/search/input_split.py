"""Complete search by splitting boxes of inputs, for networks of few inputs.

Batches of boxes are bounded by CROWN. Of a box that is not proved, linear bounds cut off what cannot hold a
counterexample (``clip``), and what is left is split. All of this is input splits of one tree, whose leaves the
checker accepts in batches; a refused leaf is split on. Boxes are float64 and their ends thresholds of the tree.

Shapes: ``B`` boxes, ``n_0`` inputs, ``m`` rows of the claim, ``c`` clauses that are asked, ``q`` rows of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lpverify.bounds.backward import bound_claim_and_rows
from lpverify.bounds.root import Root, root_bounds
from lpverify.certificate.rigorous_region import regions
from lpverify.certificate.rigorous_tree import Leaves
from lpverify.errors import ResourceError
from lpverify.network import Network
from lpverify.problem import Box
from lpverify.search.boxes import Boxes, first, join
from lpverify.search.clip import Array, Flags, Index, Planes, clip
from lpverify.search.input_branching import influence
from lpverify.search.task import Outcome, Task
from lpverify.search.tree import LeafProof, TreeBuilder

# Entries (neurons of all ReLUs times the widest layer) of a batch of boxes; how many boxes that may be.
BATCH_ENTRIES, MOST_BOXES, FEWEST_BOXES = 2**24, 1024, 4
# So many batches of leaves wait for the checker while there are others to be bounded.
WAITING = 4


@dataclass(frozen=True)
class InputSplits:
    """How the search goes.

    Attributes:
        batch: boxes bounded at once; None: by the network's size.
        most_open: with more open boxes than this the search goes on depth first.
        least_cut: the share of a box's side that clipping must remove; what is left is then not halved as well.
    """

    batch: int | None = None
    most_open: int = 2**17
    least_cut: float = 0.4


def split_inputs(task: Task, clauses: Sequence[int], options: InputSplits | None = None) -> Outcome:
    """Prove the given clauses on the whole region, a box, by splitting it, or find a counterexample.

    Returns:
        An outcome with one tree for all clauses, if every leaf was accepted.
    """
    search = Search(task, clauses, options or InputSplits())
    try:
        return search.run()
    except ResourceError as error:  # no room for the proof
        return Outcome(reason=str(error), nodes=search.nodes)


class Search:
    """A search under way.

    Attributes:
        open: boxes to be bounded.
        waiting: boxes that the engine proved, for the checker.
        stuck: boxes without a float inside, which cannot be split.
        nodes: how many boxes were bounded.
        refusals: how many leaves the checker refused.
    """

    def __init__(self, task: Task, clauses: Sequence[int], options: InputSplits) -> None:
        self.task, self.clauses, self.options = task, tuple(clauses), options
        own = [task.clauses[k] for k in self.clauses]
        longest = max(1, *map(len, own))
        self.rows = np.array([[*rows, *[-1] * (longest - len(rows))] for rows in own])
        self.C, self.d = (self._tensor(x) for x in task.root.rows(self.rows))
        self.batch = options.batch or batch_size(task.network)
        self.builder = TreeBuilder()
        self.nodes = self.refusals = 0
        region = regions([task.root.certificate.claim])
        self.open = Boxes(
            region.lower, region.upper, np.zeros(1, np.int64), np.full((1, len(own)), -np.inf), np.zeros(1, bool),
            np.zeros((1, *self.rows.shape)),
        )  # fmt: skip
        self.waiting: list[Boxes] = []
        self.stuck: list[Boxes] = []

    def run(self) -> Outcome:
        """Bound, check and split until nothing is open."""
        while len(self.open) or self.waiting:
            if self.task.is_late():
                return self._ended("timeout")
            if not len(self.open) or sum(map(len, self.waiting)) >= WAITING * self.batch:
                self._check()
            elif self._bound_and_split():
                return Outcome(falsified=True, nodes=self.nodes)
        if self.stuck:
            return self._ended("a box between neighbouring floats is neither proved nor a counterexample")
        return Outcome((self.builder.encode(self.clauses, "leaf"),), proved=True, nodes=self.nodes)

    def _bound_and_split(self) -> bool:
        """One batch of open boxes; whether a counterexample was found."""
        boxes, self.open = first(self.open, self.batch, self.options.most_open)
        planes, root = self._bound(boxes)
        left, boxes = self._set_aside(boxes, planes)
        if not len(left):
            return False
        planes, root = planes.select(left), root.select(torch.from_numpy(left))
        if self.task.try_points(self._points(planes)):
            return True
        planes, score = self._influence(planes, root)
        left, boxes = self._set_aside(boxes, planes)
        cut, boxes = self._cut_off(boxes, planes.select(left))
        self.open = join([self.open, boxes.take(cut)])
        self._split(boxes.take(~cut), score[left][~cut] * (boxes.upper - boxes.lower)[~cut])
        return False

    def _bound(self, boxes: Boxes) -> tuple[Planes, Root]:
        """Linear bounds of all rows, and of combinations, and CROWN's root for the boxes."""
        self.nodes += len(boxes)
        network, region = self.task.network, self._region(boxes)
        with torch.no_grad():
            root = root_bounds(network, region, "crown")
            C, d = (t.flatten(0, 1).expand(len(boxes), *t.flatten(0, 1).shape) for t in (self.C, self.d))
            found = bound_claim_and_rows(network, root.relaxations, region, C, d)
        clauses, longest = self.rows.shape
        bound, slopes = (_array(t).reshape(-1, clauses, longest, *t.shape[2:]) for t in found)
        unit = np.broadcast_to(np.eye(longest), (len(boxes), clauses, longest, longest))
        planes = Planes(boxes.lower, boxes.upper, np.where(self.rows < 0, -np.inf, bound), slopes, unit)
        return planes.with_combinations() if longest > 1 else planes, root

    def _set_aside(self, boxes: Boxes, planes: Planes) -> tuple[Index, Boxes]:
        """Hand proved boxes to the checker; returns the places of the others, and them with their bounds."""
        bound, _, weights = planes.chosen(planes.bound.argmax(2))
        boxes = replace(boxes, bound=bound, weights=weights)
        closed = (bound > 0).all(1) & ~boxes.refused
        if closed.any():
            self.waiting.append(boxes.take(closed))
        return np.flatnonzero(~closed), boxes.take(~closed)

    def _points(self, planes: Planes) -> Tensor:
        """Candidates for counterexamples: where each linear bound is least, and the centers."""
        inputs = planes.lower.shape[1]
        return self._tensor(np.concatenate([planes.corners().reshape(-1, inputs), (planes.lower + planes.upper) / 2]))

    def _influence(self, planes: Planes, root: Root) -> tuple[Planes, Array]:
        """What each input's width costs the clause furthest from its proof, (B, n_0), and a new bound of that clause.

        The combined row is carried through the network as one row, which bounds it better than its parts' bounds do.
        """
        clause, weights = planes.worst()
        chosen, share = torch.from_numpy(clause).to(self.C.device), self._tensor(weights)
        C, d = (share.unsqueeze(-1) * self.C[chosen]).sum(1), (share * self.d[chosen]).sum(1)
        score, bound, slopes = influence(self.task.network, root, self._region(planes), C)
        if self.rows.shape[1] > 1:
            planes = planes.with_bound(clause, _array(bound + d), _array(slopes), weights)
        return planes, _array(score)

    def _cut_off(self, boxes: Boxes, planes: Planes) -> tuple[Flags, Boxes]:
        """Split off what the linear bounds prove, as leaves for the checker; returns which boxes lost a part (B,), and
        what is left of the boxes.
        """
        kept = clip(planes)
        lower, upper, node = boxes.lower.copy(), boxes.upper.copy(), boxes.node.copy()
        sides = ((kept.above, short(kept.upper), upper, 0), (kept.below, short(kept.lower), lower, 1))
        for index in range(lower.shape[1]):
            width = boxes.upper[:, index] - boxes.lower[:, index]
            for weights, ends, end, near in sides:
                cut = np.abs(end[:, index] - ends[:, index]) >= self.options.least_cut * width
                cut &= (lower[:, index] < ends[:, index]) & (ends[:, index] < upper[:, index]) & ~boxes.refused
                at = np.flatnonzero(cut)
                if not len(at):
                    continue
                pairs = self._children(node[at], np.full(len(at), index), ends[at, index])
                outer_lower, outer_upper = lower[at], upper[at]
                (outer_lower if near == 0 else outer_upper)[:, index] = ends[at, index]
                end[at, index] = ends[at, index]
                node[at] = pairs[:, near]
                outer = replace(
                    boxes.take(at), lower=outer_lower, upper=outer_upper, node=pairs[:, 1 - near],
                    weights=weights[at, index],
                )  # fmt: skip
                self.waiting.append(outer)
        return node != boxes.node, replace(boxes, lower=lower, upper=upper, node=node)

    def _split(self, boxes: Boxes, score: Array) -> None:
        """Halve each box at the input of the greatest score (B, n_0), the longest side among equals."""
        middle = halfway(boxes.lower, boxes.upper)
        divisible = (boxes.lower < middle) & (middle < boxes.upper)
        width = boxes.upper - boxes.lower
        score = np.where(divisible, score + np.finfo(np.float64).tiny * (1 + width), -1.0)
        index = score.argmax(1)
        stuck = ~divisible.any(1)
        if stuck.any():
            self.stuck.append(boxes.take(stuck))
            boxes, index, middle = boxes.take(~stuck), index[~stuck], middle[~stuck]
        at = np.arange(len(boxes))
        point = middle[at, index]
        pairs = self._children(boxes.node, index, point)
        lower, upper = boxes.lower.copy(), boxes.upper.copy()
        lower[at, index] = upper[at, index] = point
        again = np.zeros(len(boxes), bool)
        left = replace(boxes, upper=upper, node=pairs[:, 0], refused=again)
        right = replace(boxes, lower=lower, node=pairs[:, 1], refused=again)
        self.open = join([self.open, left, right])

    def _children(self, nodes: Index, inputs: Index, points: Array) -> Index:
        """The children (b, 2) that splits of nodes (b,) make in the tree."""
        pairs = [
            self.builder.split_input(*each)
            for each in zip(nodes.tolist(), inputs.tolist(), points.tolist(), strict=True)
        ]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def _check(self) -> None:
        """Give the checker all leaves that wait for it; those that it refuses are open again, to be split."""
        boxes, self.waiting = join(self.waiting), []
        for start in range(0, len(boxes), self.batch):
            part = boxes.take(slice(start, start + self.batch))
            if self.task.is_late():
                self.waiting.append(part)
                continue
            rows, weights, C, d = self._proposed(part)
            proved = (self.task.root.bounds(Leaves(part.lower, part.upper, C, d), bounds="leaf") > 0).all(1)
            for at in np.flatnonzero(proved).tolist():
                own = weights[at] if (rows[at] < 0).any() else None
                self.builder.close(int(part.node[at]), LeafProof(tuple(rows[at].tolist()), own))
            if not proved.all():
                refused = part.take(~proved)
                self.refusals += len(refused)
                self.open = join([self.open, replace(refused, refused=np.ones(len(refused), bool))])

    def _proposed(self, boxes: Boxes) -> tuple[Index, Array, Array, Array]:
        """What is to prove each clause: rows (B, c), -1 for combinations; weights (B, c, m); C and d of these."""
        root = self.task.root
        weights = np.zeros((*boxes.weights.shape[:2], len(self.task.d)))
        for place, rows in enumerate(self.rows):
            own = rows[rows >= 0]
            weights[:, place, own] = boxes.weights[:, place, : len(own)]
        single = boxes.weights.max(-1) == 1
        rows = np.where(single, weights.argmax(-1), -1)
        C, d = root.rows(rows)
        if not single.all():
            C[~single], d[~single] = root.combinations(weights[~single])
        return rows, weights, C, d

    def _ended(self, reason: str) -> Outcome:
        left = join([self.open, *self.waiting, *self.stuck]).bound.min(0)
        bound = np.full(len(self.task.d), np.nan)
        for rows, value in zip(self.rows, left, strict=True):
            if (rows >= 0).sum() == 1:
                bound[rows[0]] = value
        return Outcome(reason=reason, nodes=self.nodes, bound=bound)

    def _region(self, boxes: Boxes | Planes) -> Box:
        return Box(self._tensor(boxes.lower), self._tensor(boxes.upper))

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.task.network.device, self.task.network.dtype)


def batch_size(network: Network) -> int:
    """Boxes that are bounded at once, in about a quarter of a second on a CPU's core for small networks."""
    work = sum(network.sizes[relu] for relu in network.relus) * max(network.sizes)
    return int(np.clip(BATCH_ENTRIES // max(1, work), FEWEST_BOXES, MOST_BOXES))


def halfway(lower: Array, upper: Array) -> Array:
    """The middles of intervals, as float32 numbers where these lie inside: few digits for the exact checker."""
    middle = lower + (upper - lower) / 2
    rounded = short(middle)
    return np.where((lower < rounded) & (rounded < upper), rounded, middle)


def short(values: Array) -> Array:
    """The nearest float32 numbers."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _array(tensor: Tensor) -> Array:
    return tensor.double().cpu().numpy()
