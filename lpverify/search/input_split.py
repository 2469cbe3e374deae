"""Complete search by splitting boxes of inputs, for networks of few inputs.

Batches of boxes are bounded by CROWN. Of a box that is not proved, linear bounds cut off what cannot hold a
counterexample (``clip``), and what is left is split. All of this is input splits of one tree, whose leaves the
checker accepts in batches; a refused leaf is split on. Boxes are float64 and their ends thresholds of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.bounds.backward import bound_claim_and_rows
from lpverify.bounds.root import Root, root_bounds
from lpverify.certificate.rigorous_region import regions
from lpverify.certificate.rigorous_tree import Leaves
from lpverify.problem import Box
from lpverify.search.clip import Array, Index, Planes, clip
from lpverify.search.input_branching import influence
from lpverify.search.task import Outcome, Task
from lpverify.search.tree import LeafProof, TreeBuilder


@dataclass(frozen=True)
class InputSplits:
    """How the search goes.

    Attributes:
        batch: boxes bounded at once; None: by the network's size.
        most_open: with more open boxes than this the search goes on depth first.
        least_cut: the share of a box's side that clipping must remove to be a split of its own.
    """

    batch: int | None = None
    most_open: int = 2**17
    least_cut: float = 0.2
    combine: bool = True


@dataclass(eq=False)
class Boxes:
    """Rows of a table: boxes with their node in the tree, what is known of them, and the rows that may prove them."""

    lower: Array
    upper: Array
    node: Index
    bound: Array
    refused: NDArray[np.bool_]
    weights: Array

    def take(self, at: Any) -> Boxes:
        """Some of the rows."""
        return Boxes(*(getattr(self, f)[at] for f in FIELDS))

    def __len__(self) -> int:
        return len(self.node)


FIELDS = ("lower", "upper", "node", "bound", "refused", "weights")


def join(parts: Sequence[Boxes]) -> Boxes:
    """Tables one below the other."""
    return Boxes(*(np.concatenate([getattr(p, f) for p in parts]) for f in FIELDS))


def split_inputs(task: Task, clauses: Sequence[int], options: InputSplits = InputSplits()) -> Outcome:
    """Prove the given clauses on the whole region by splitting boxes, or find a counterexample.

    Returns:
        An outcome with one tree for all clauses, if every leaf was accepted.
    """
    return _Search(task, tuple(clauses), options).run()


@dataclass(eq=False)
class _Search:
    task: Task
    clauses: tuple[int, ...]
    options: InputSplits
    builder: TreeBuilder = field(default_factory=TreeBuilder)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.wanted = tuple(self.task.clauses[k] for k in self.clauses)
        longest = max(map(len, self.wanted))
        self.rows = np.array([[*k, *[-1] * (longest - len(k))] for k in self.wanted])
        C, d = self.task.root.rows(self.rows.ravel())
        net = self.task.network
        self.C, self.d = (torch.from_numpy(x).to(net.device, net.dtype) for x in (C, d))
        self.batch = self.options.batch or batch_size(self.task)
        region = regions([self.task.root.certificate.claim])
        self.open = Boxes(
            region.lower, region.upper, np.zeros(1, np.int64), np.full((1, len(self.wanted)), -np.inf),
            np.zeros(1, bool), np.zeros((1, *self.rows.shape)))
        self.waiting: list[Boxes] = []
        self.stuck: list[Boxes] = []

    def run(self) -> Outcome:
        while len(self.open) or self.waiting:
            if self.task.is_late():
                return self.ended("time is up")
            if not len(self.open) or sum(map(len, self.waiting)) >= 4 * self.batch:
                self.check()
                continue
            boxes = self.next_boxes()
            planes, root = self.bound(boxes)
            boxes.bound, _, boxes.weights = planes.chosen(planes.bound.argmax(2))
            closed = (boxes.bound > 0).all(1) & ~boxes.refused
            if closed.any():
                self.waiting.append(boxes.take(closed))
            if closed.all():
                continue
            if closed.any():
                boxes, planes, root = boxes.take(~closed), planes.select(~closed), root.select(torch.from_numpy(~closed))
            if self.task.try_points(self.points(planes)):
                return Outcome(falsified=True, nodes=self.nodes)
            self.split(boxes, planes, self.influence(planes, root))
        if self.stuck:
            return self.ended("a box without inner floats is neither proved nor a counterexample")
        return Outcome((self.builder.encode(self.clauses, "leaf"),), proved=True, nodes=self.nodes)

    def ended(self, reason: str) -> Outcome:
        left = join([self.open, *self.waiting, *self.stuck])
        return Outcome(reason=reason, nodes=self.nodes, bound=left.bound.min(0))

    def next_boxes(self) -> Boxes:
        count = len(self.open)
        size = min(self.batch, count)
        chosen = np.zeros(count, bool)
        if count <= self.options.most_open and count > size:
            value = self.open.bound.min(1)
            chosen[np.argpartition(value, size // 2)[: size // 2]] = True
        last = np.flatnonzero(~chosen)[-(size - int(chosen.sum())) :]
        chosen[last] = True
        boxes, self.open = self.open.take(chosen), self.open.take(~chosen)
        return boxes

    def bound(self, boxes: Boxes) -> tuple[Planes, Root]:
        self.nodes += len(boxes)
        net = self.task.network
        lower, upper = (torch.from_numpy(x).to(net.device, net.dtype) for x in (boxes.lower, boxes.upper))
        with torch.no_grad():
            region = Box(lower, upper)
            root = root_bounds(net, region, "crown")
            C, d = self.C.expand(len(boxes), -1, -1), self.d.expand(len(boxes), -1)
            bound, slopes = (t.double().cpu().numpy() for t in bound_claim_and_rows(net, root.relaxations, region, C, d))
        clauses, longest = self.rows.shape
        bound = np.where(self.rows < 0, -np.inf, bound.reshape(-1, clauses, longest))
        unit = np.broadcast_to(np.eye(longest), (len(boxes), clauses, longest, longest))
        planes = Planes(boxes.lower, boxes.upper, bound, slopes.reshape(*bound.shape, -1), unit)
        return (planes.with_combinations() if longest > 1 and self.options.combine else planes), root

    def points(self, planes: Planes) -> Tensor:
        net = self.task.network
        points = np.concatenate([planes.corners().reshape(-1, planes.lower.shape[1]), (planes.lower + planes.upper) / 2])
        return torch.from_numpy(points).to(net.device, net.dtype)

    def split(self, boxes: Boxes, planes: Planes, score: Array) -> None:
        kept = clip(planes)
        cut_off: list[Boxes] = []
        lower, upper, node = boxes.lower.copy(), boxes.upper.copy(), boxes.node.copy()
        width = boxes.upper - boxes.lower
        high, low = threshold(kept.upper), threshold(kept.lower)
        plain = ~boxes.refused
        for j in range(width.shape[1]):
            for ends, rows, is_high in ((high, kept.above, True), (low, kept.below, False)):
                share = (boxes.upper[:, j] - ends[:, j] if is_high else ends[:, j] - boxes.lower[:, j])
                with np.errstate(invalid="ignore"):
                    cut = (share >= self.options.least_cut * width[:, j]) & (width[:, j] > 0) & plain
                    cut &= (ends[:, j] > lower[:, j]) & (ends[:, j] < upper[:, j])
                at = np.flatnonzero(cut)
                if not len(at):
                    continue
                pairs = np.array([self.builder.split_input(int(n), j, float(t)) for n, t in zip(node[at], ends[at, j])])
                far_low, far_high = lower[at].copy(), upper[at].copy()
                (far_low if is_high else far_high)[:, j] = ends[at, j]
                (upper if is_high else lower)[at, j] = ends[at, j]
                near, far = (0, 1) if is_high else (1, 0)
                node[at] = pairs[:, near]
                cut_off.append(Boxes(far_low, far_high, pairs[:, far], boxes.bound[at], boxes.refused[at], rows[at, j]))
        self.waiting += cut_off
        score = score * (upper - lower)
        children: list[Boxes] = []
        middle = threshold(lower + (upper - lower) / 2, lower, upper)
        can = (middle > lower) & (middle < upper)
        score = np.where(can, score, -1.0)
        best = score.argmax(1)
        at = np.flatnonzero(can.any(1))
        stuck = ~can.any(1)
        if stuck.any():
            self.stuck.append(boxes.take(stuck))
        j, t = best[at], middle[at, best[at]]
        pairs = np.array([self.builder.split_input(int(n), int(i), float(p)) for n, i, p in zip(node[at], j, t)]).reshape(-1, 2)
        left_high, right_low = upper[at].copy(), lower[at].copy()
        left_high[np.arange(len(at)), j] = t
        right_low[np.arange(len(at)), j] = t
        for lo, hi, side in ((lower[at], left_high, 0), (right_low, upper[at], 1)):
            children.append(Boxes(lo, hi, pairs[:, side], boxes.bound[at], np.zeros(len(at), bool), boxes.weights[at]))
        self.open = join([self.open, *children])

    def influence(self, planes: Planes, root: Root) -> Array:
        """What each input's width costs the clause that is furthest from its proof: (B, n_0)."""
        clause, weights, slopes = planes.worst()
        C = self.C.view(*self.rows.shape, -1)[torch.from_numpy(clause)]
        combined = torch.einsum("bq,bqk->bk", self.tensor(weights), C)
        region = Box(self.tensor(planes.lower), self.tensor(planes.upper))
        found = influence(self.task.network, root, region, combined, self.tensor(slopes))
        return found.double().cpu().numpy()

    def tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.task.network.device, self.task.network.dtype)

    def check(self) -> None:
        boxes = join(self.waiting)
        self.waiting = []
        root = self.task.root
        step = self.batch
        for start in range(0, len(boxes), step):
            part = boxes.take(slice(start, start + step))
            if self.task.is_late():
                self.waiting.append(part)
                continue
            single = (part.weights.max(-1) == 1)
            rows = self.rows[np.arange(len(self.rows)), part.weights.argmax(-1)]
            weights = np.zeros((*single.shape, len(self.task.d)))
            for k, clause in enumerate(self.wanted):
                weights[:, k, clause] = part.weights[:, k, :len(clause)]
            C, d = root.rows(rows)
            if not single.all():
                mixed = root.combinations(weights.reshape(-1, weights.shape[-1]))
                C, d = np.where(single[..., None], C, mixed[0].reshape(C.shape)), np.where(single, d, mixed[1].reshape(d.shape))
            bound = root.bounds(Leaves(part.lower, part.upper, C, d), bounds="leaf")
            proved = (bound > 0).all(1)
            for at in np.flatnonzero(proved).tolist():
                own = None if single[at].all() else weights[at]
                self.builder.close(int(part.node[at]), LeafProof(tuple(rows[at].tolist()), own))
            if not proved.all():
                part = part.take(~proved)
                part.refused[:] = True
                self.open = join([self.open, part])
                self.refusals = getattr(self, "refusals", 0) + len(part)


def threshold(values: Array, lower: Array | None = None, upper: Array | None = None) -> Array:
    """Numbers of few digits near the given ones: float32, where that lies strictly inside, else float64."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32).astype(np.float64)
    if lower is None or upper is None:
        return short
    return np.where((short > lower) & (short < upper), short, values)


def batch_size(task: Task) -> int:
    """Boxes bounded at once."""
    work = sum(task.network.sizes[r] for r in task.network.relus) * max(task.network.sizes)
    return int(np.clip(2**24 // max(1, work), 16, 1024))
