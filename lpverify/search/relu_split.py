"""Branch and bound over the phases of unstable neurons, on optimised dual bounds of many nodes at once.

Every clause has a tree of its own; all trees share the batches. A node inherits its parent's multipliers and never
loses its parent's bound. A leaf counts once the rigorous checker accepted it with the multipliers found; what it
refuses is split on. Where every neuron of a node is fixed, or its bound has stalled, a linear program decides. A small
share of the time goes to descents from the points where open nodes are bounded.

Source: Bunel et al. 2020 (branch and bound over phases); Wang et al. 2021 (split multipliers in the dual).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.errors import ResourceError
from lpverify.network import as_numpy
from lpverify.problem import LayerBounds
from lpverify.search.ascent import Nodes, Pass, Relaxed, Schedule
from lpverify.search.attack import attack_claim
from lpverify.search.branching import choose, ranks
from lpverify.search.lp_leaf import programs
from lpverify.search.phase_proofs import PhaseProofs
from lpverify.search.pool import Pool
from lpverify.search.prune import prune
from lpverify.search.route import has_stacked_relus
from lpverify.search.task import Outcome, Task
from lpverify.search.tighten import Tightener
from lpverify.workers import Failure

# Numbers in one batch of rows: fits a CPU's caches, fills a GPU.
BATCH_ENTRIES = {"cpu": 2**20, "cuda": 2**27}
# Nodes that the checker is asked about at once; seconds for one batch of programs.
PROOFS, PROGRAM_SECONDS = 64, 30.0
# The share of the time that descents may take, the seconds that the first one is thought to take; its steps and starts.
DESCENT_SHARE, DESCENT_SECONDS, DESCENT_STEPS, DESCENT_STARTS = 0.05, 0.1, 20, 8

ROOT, CHILD, MORE = Schedule(60, 0.25, 0.95), Schedule(4, 0.4, 0.95), Schedule(30, 0.05, 0.97)


@dataclass(frozen=True)
class PhaseOptions:
    """How the search over phases works.

    Attributes:
        root: Adam's steps at the root; ``child``: at every child.
        more: for a child that gained less than the share ``stall`` of its parent's bound.
        programs: linear programs for the stalled nodes of a batch, at most.
        candidates: columns that branching tries by bounding their children, while a batch has no more than ``few``
            nodes of the clause: near the root, where a choice matters most.
        batch: nodes split at once at most.
        retighten: bound every node's pre-activations anew, by CROWN under its phases; leaves are checked so too.
        memory: bytes for the open nodes.
        nodes: how many nodes may be bounded.
    """

    root: Schedule = ROOT
    child: Schedule = CHILD
    more: Schedule = MORE
    stall: float = 0.02
    programs: int = 32
    candidates: int = 8
    few: int = 16
    batch: int = 512
    retighten: bool = False
    memory: int = 2**30
    nodes: float = math.inf


def split_phases(task: Task, clauses: Sequence[int], options: PhaseOptions | None = None) -> Outcome:
    """Prove clauses of a task by splitting phases, or find a counterexample.

    Args:
        clauses: which of the task's clauses; each gets a tree.
    """
    with torch.no_grad():
        search = _Search(task, clauses, options or PhaseOptions())
        try:
            return search.run()
        except ResourceError as error:  # no room for the proof
            return Outcome(reason=str(error), nodes=search.nodes)


class _Search:
    def __init__(self, task: Task, clauses: Sequence[int], options: PhaseOptions) -> None:
        self.task, self.options = task, options
        rows = [list(task.clauses[k]) for k in clauses]
        most = max(len(r) for r in rows)
        self.rows = np.array([r + [r[0]] * (most - len(r)) for r in rows])
        index = torch.as_tensor(self.rows, device=task.C.device)
        layers = {k: self._layer(k) for k in task.network.relus}
        network, kept = prune(task.network, layers)
        layers = {k: LayerBounds(b.lower[:, kept[k]], b.upper[:, kept[k]]) for k, b in layers.items()}
        self.relaxed = Relaxed(network, task.region, layers, task.C[index], task.d[index])
        self.columns = {k: as_numpy(kept[k][at]) for k, at in self.relaxed.columns.items()}
        self.tight = Tightener(self.relaxed, layers)
        self.pool = Pool(self.relaxed.width, most, self.relaxed.width if options.retighten else 0, options.memory)
        widest = max(network.sizes)
        entries = BATCH_ENTRIES.get(task.network.device.type, 2**20)
        self.batch = max(4, min(options.batch, entries // max(widest, self.relaxed.width)))
        self.proofs = PhaseProofs(task, clauses, self.rows, self.columns, "leaf" if options.retighten else "root")
        self.is_ranked = not has_stacked_relus(network)
        self.ranks: dict[int, Tensor] = {}
        self.nodes = self.undecided = 0
        self.began, self.descended, self.descent = time.perf_counter(), 0.0, DESCENT_SECONDS

    def _layer(self, relu: int) -> LayerBounds:
        """The bounds of a ReLU's pre-activations that the checker proved, in the engine's dtype."""
        lower, upper = (torch.as_tensor(side).to(self.task.C) for side in self.task.root.ranges[relu])
        return LayerBounds(lower.unsqueeze(0), upper.unsqueeze(0))

    def run(self) -> Outcome:
        """Split until nothing is open, the task is late or a counterexample is found."""
        if self._start():
            return self._outcome(falsified=True)
        while len(self.pool):
            # The whole proof is checked once more at the end.
            if self.task.is_late(self.proofs.check_seconds):
                return self._outcome(f"timeout with {len(self.pool)} nodes open after {self.nodes}")
            if self.nodes >= self.options.nodes:
                return self._outcome(f"{len(self.pool)} nodes open after {self.nodes}")
            if self._step():
                return self._outcome(falsified=True)
        return self._outcome()

    def _start(self) -> bool:
        """The root of every clause; returns whether a counterexample was found."""
        count, K, like = len(self.rows), self.relaxed.width, self.task.C
        slope = (self.relaxed.upper >= -self.relaxed.lower).to(like)
        weights = torch.full((count, self.rows.shape[1]), 1 / self.rows.shape[1], dtype=like.dtype, device=like.device)
        every = torch.arange(count, device=like.device)
        signs = torch.zeros(count, K, dtype=torch.int8, device=like.device)
        bounds = (side.expand(count, -1) for side in (self.relaxed.lower, self.relaxed.upper))
        nodes = Nodes(signs, slope.expand(count, -1).clone(), torch.zeros(count, K).to(like), weights, every, *bounds)
        nodes, found = self.relaxed.ascend(nodes, self.options.root)
        if self.task.try_points(found.x):
            return True
        return self._settle(nodes, found, np.full(count, -np.inf), np.zeros(count, dtype=np.int64))

    def _step(self) -> bool:
        """Split one batch of nodes; returns whether a counterexample was found."""
        task, relaxed = self.task, self.relaxed
        nodes, bound, numbers = self.pool.take(self.batch)
        nodes = self._at_work(nodes)
        found = relaxed.run(nodes)
        if task.try_points(found.x) or self._descend(found.x):
            return True
        column = self._choose(nodes, found)
        children = relaxed.children(nodes, found, column)
        numbers = self.proofs.split(nodes.clause, numbers, column)
        if self.options.retighten:
            children = self.tight(children, column.repeat(2))
        children, best = relaxed.ascend(children, self.options.child)
        children, best = self._persist(children, best, found.bound.repeat(2))
        self.nodes += len(children)
        return self._settle(children, best, np.tile(bound, 2), numbers)

    def _descend(self, points: Tensor) -> bool:
        """Descents from the best of a batch's points (B, n_0), unless they have had their share of the time.

        Returns whether a counterexample was found.
        """
        now = time.perf_counter()
        if self.descended + self.descent > DESCENT_SHARE * (now - self.began):
            return False
        best = self.task.margin(self.task.values(points)).argsort()[:DESCENT_STARTS]
        steps, restarts = DESCENT_STEPS, 2 * DESCENT_STARTS
        found = attack_claim(self.task, steps=steps, restarts=restarts, seed=self.nodes, start=points[best])
        self.descent = time.perf_counter() - now
        self.descended += self.descent
        return found

    def _choose(self, nodes: Nodes, found: Pass) -> Tensor:
        """The column that each node is split on: tried where its clause has few nodes, else by the score.

        Where no ReLU lies below another, columns matter in much the same order at all nodes: the clause's.
        """
        if self.is_ranked:
            return self._by_rank(nodes, found)
        options, column = self.options, choose(self.relaxed, nodes, found, 1)
        few = (nodes.clause.bincount()[nodes.clause] <= options.few).nonzero().flatten()
        if len(few) and options.candidates > 1:
            tight = self.tight if options.retighten else None
            column[few] = choose(self.relaxed, nodes.select(few), found.select(few), options.candidates, tight)
        return column

    def _by_rank(self, nodes: Nodes, found: Pass) -> Tensor:
        """The free column (B,) that gained most at the root of the node's clause: made when the root is split."""
        for at, k in enumerate(nodes.clause.tolist()):
            if k not in self.ranks:
                index = nodes.clause.new_tensor([at])
                self.ranks[k] = ranks(self.relaxed, nodes.select(index), found.select(index), self.batch)
        rank = torch.stack([self.ranks[k] for k in nodes.clause.tolist()])
        return rank.masked_fill(~nodes.free, -1.0).argmax(1)

    def _persist(self, nodes: Nodes, found: Pass, parents: Tensor) -> tuple[Nodes, Pass]:
        """More steps for nodes that gained little on their parents: many fixed phases, many multipliers to learn."""
        options = self.options
        stalled = (found.bound <= 0) & (found.bound - parents <= options.stall * parents.abs())
        index = stalled.nonzero().flatten()
        if not len(index):
            return nodes, found
        some, again = self.relaxed.ascend(nodes.select(index), options.more)
        nodes = Nodes(*(t.index_copy(0, index, u) for t, u in zip(nodes.parts, some.parts, strict=True)))
        parts = {name: getattr(found, name).index_copy(0, index, getattr(again, name)) for name in ("bound", "w", "v")}
        return nodes, replace(found, **parts)

    def _settle(
        self, nodes: Nodes, found: Pass, parents: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> bool:
        """Close nodes that are proved, keep the others; returns whether a counterexample was found."""
        bound = np.fmax(as_numpy(found.bound).astype(np.float64), parents)
        empty = (nodes.lower > nodes.upper).any(1)
        accepted = np.zeros(len(bound), dtype=bool)
        hopeful = (empty | (found.bound > 0)).nonzero().flatten()
        for start in range(0, len(hopeful), PROOFS):
            part = hopeful[start : start + PROOFS]
            at, v = as_numpy(part), as_numpy(found.v[part]).astype(np.float32)
            accepted[at] = self.proofs.prove(nodes.select(part), v, numbers[at])
        is_free = as_numpy(nodes.free.any(1))
        with np.errstate(invalid="ignore"):
            stalled = ~accepted & is_free & (bound - parents <= self.options.stall * np.abs(parents))
        nearest = np.argsort(np.where(stalled, -bound, np.inf), kind="stable")[: stalled.sum()]
        # All that nothing is left to split of, and the stalled nodes nearest to their proof.
        chosen = np.concatenate([np.flatnonzero(~accepted & ~is_free), nearest[: self.options.programs]])
        if len(chosen):
            falsified, proved = self._programs(self._some(nodes, chosen), as_numpy(found.w)[chosen], numbers[chosen])
            if falsified:
                return True
            accepted[chosen] = proved
        keep = np.flatnonzero(~accepted & is_free)
        self.undecided += int((~accepted & ~is_free).sum())
        if len(keep):
            self.pool.put(self._some(nodes, keep), bound[keep], numbers[keep])
        return False

    def _programs(
        self, nodes: Nodes, w: NDArray[np.float32], numbers: NDArray[np.int64]
    ) -> tuple[bool, NDArray[np.bool_]]:
        """Decide nodes by linear programs: whether a counterexample was found, and which nodes are proved."""
        # Else it depended on the machine's other work which way a search goes.
        self.task = replace(self.task, deadline=min(self.task.latest, self.task.deadline + self.task.ready()))
        task, seconds = self.task, min(self.task.deadline - time.perf_counter(), PROGRAM_SECONDS)
        sizes = np.abs(w) + as_numpy(nodes.splits)
        job = programs(task, nodes, sizes, self.columns, self.rows, seconds)
        (answers,) = task.isolated([job], seconds)
        proved, is_free = np.zeros(len(nodes), dtype=bool), as_numpy(nodes.free.any(1))
        for i, answer in enumerate([] if isinstance(answers, Failure) else answers):
            if answer is not None and answer.bound > 0:
                v = np.concatenate([answer.duals[k][at] for k, at in self.columns.items()]).astype(np.float32)
                weights = torch.as_tensor(answer.weights).to(nodes.weights).unsqueeze(0)
                one = replace(self._some(nodes, np.array([i])), weights=weights)
                proved[i] = self.proofs.prove(one, v[None], numbers[i : i + 1], whole=True)[0]
            elif answer is not None:
                point = torch.as_tensor(answer.x).to(task.C)
                if task.try_points(point.unsqueeze(0)) or (not is_free[i] and task.witness(answer.x)):
                    return True, proved
        return False, proved

    @staticmethod
    def _some(nodes: Nodes, index: NDArray[np.int64]) -> Nodes:
        return nodes.select(torch.as_tensor(index, device=nodes.clause.device))

    def _at_work(self, nodes: Nodes) -> Nodes:
        """Nodes from the pool in the engine's dtype, on its device."""
        C = self.task.C
        slopes, splits, weights = (t.to(C) for t in (nodes.slopes, nodes.splits, nodes.weights))
        bounds = [side.to(C) for side in (nodes.lower, nodes.upper)]
        if not self.options.retighten:
            bounds = [side.expand(len(nodes), -1) for side in (self.relaxed.lower, self.relaxed.upper)]
        return Nodes(nodes.signs.to(C.device), slopes, splits, weights, nodes.clause.to(C.device), *bounds)

    def _outcome(self, reason: str = "", *, falsified: bool = False) -> Outcome:
        if falsified:
            return Outcome(falsified=True, nodes=self.nodes)
        if self.undecided and not reason:
            reason = f"{self.undecided} nodes with all phases fixed are within rounding of the threshold"
        return Outcome(self.proofs.encode(), not reason, False, reason, self.nodes)
