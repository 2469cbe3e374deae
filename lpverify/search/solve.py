"""Everything for one claim: attack, root bounds, the searches that its shape asks for, and the proof.

The engines propose; ``verified`` is written where the rigorous checker accepted the whole certificate, ``falsified``
where a point of the exact input set was evaluated exactly.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.bounds import AlphaBound, BoundResult, CrownBound
from lpverify.bounds.root import Root, root_bounds
from lpverify.certificate import rigorous
from lpverify.certificate.claim import BallRegion, Claim
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous_claim import claim_rows
from lpverify.certificate.rigorous_region import Region as RigorousRegion
from lpverify.certificate.rigorous_region import regions
from lpverify.certificate.rigorous_tree import Root as ProvedRoot
from lpverify.certificate.tree import Tree
from lpverify.clause_witness import Judge
from lpverify.evidence import certificate
from lpverify.problem import Ball, Box, Region, Specification
from lpverify.result import Counterexample, Verdict
from lpverify.search.attack import attack_claim
from lpverify.search.input_split import split_inputs
from lpverify.search.milp_guide import fails_by_milp
from lpverify.search.relu_split import PhaseOptions, split_phases
from lpverify.search.route import MOST_BINARIES, has_stacked_relus, retightens, route
from lpverify.search.task import Goal, Outcome, Task
from lpverify.session import Session

Array = NDArray[np.float64]

# Shares of the time left: for the first of two searches; for optimising the root's bounds.
FIRST_SHARE, ROOT_SHARE = 0.3, 0.2
# What trees on the root's bounds get, before bounds are made anew at every node.
FAST_SHARE, FAST_SECONDS = 0.2, 10.0
# What a MILP gets between the two, where it is asked.
MILP_SHARE, MILP_SECONDS = 0.1, 20.0
# Steps and restarts of the first attack, and of the one after CROWN's bounds.
QUICK_ATTACK, THOROUGH_ATTACK = (20, 10), (60, 100)
# Optimised root bounds get no more than so many seconds, however much time there is.
ROOT_SECONDS = 60.0


@dataclass(frozen=True)
class Found:
    """What became of a claim.

    Attributes:
        margins: (m,) proved lower bounds of its rows; NaN or -inf where there are none.
        leaves: of the certificate; 0 without one.
        nodes: how many nodes the searches bounded.
    """

    verdict: Verdict
    reason: str
    method: str
    margins: Array
    certificate: bytes | None = None
    counterexample: Counterexample | None = None
    leaves: int = 0
    nodes: int = 0
    seconds: float = 0.0


def solve(session: Session, claim: Claim, *, deadline: float = math.inf, attack_first: bool = True) -> Found:
    """Decide one claim by the deadline (``time.perf_counter``), if it can be.

    Args:
        attack_first: begin with an attack; off where a caller has made one. A quick attack then goes on from the points
            of CROWN's bounds alone.
    """
    began = time.perf_counter()
    found = _Solver(session, claim, deadline).run(attack_first)
    return replace(found, seconds=time.perf_counter() - began)


class _Solver:
    def __init__(self, session: Session, claim: Claim, deadline: float) -> None:
        self.session, self.claim = session, claim
        self.judge = Judge(session.exact, session.single, claim)
        self.witness: Counterexample | None = None
        engine = session.engine
        C, d = (torch.as_tensor(t).to(engine.dtype).to(engine.device) for t in claim_rows(claim))
        region = _region(claim, regions([claim])).to(engine.dtype, engine.device)
        self.spec = Specification(C.unsqueeze(0), d.unsqueeze(0))
        self.goal = Goal(
            engine, region, C, d, claim.clauses, self._is_witness, session.run, deadline, ready=session.start_solver
        )
        self.margins = np.full(claim.num_rows, np.nan)
        self.certificate: Certificate | None = None
        self.nodes = 0

    def _is_witness(self, point: Array) -> bool:
        found = self.judge(point)
        if found is not None and (found.agrees or self.session.settings.semantics == "real"):
            self.witness = found
        return self.witness is not None

    def run(self, attack_first: bool) -> Found:
        """The stages, cheap ones first."""
        goal, seed = self.goal, self.session.settings.seed
        steps, restarts = QUICK_ATTACK
        if attack_first and attack_claim(goal, steps=steps, restarts=restarts, seed=seed):
            return self._falsified("pgd")
        with torch.no_grad():
            root = root_bounds(goal.network, goal.region, "crown")
            crown = CrownBound.claim(goal.network, goal.region, self.spec, root)
        points = None if crown.candidates is None else crown.candidates[0]
        if points is not None and goal.try_points(points):
            return self._falsified("candidate")
        proved = self._propose(crown)
        if not self._open():
            return self._verified("crown")
        steps, restarts = THOROUGH_ATTACK if attack_first else QUICK_ATTACK
        if attack_claim(goal, steps=steps, restarts=restarts, seed=seed + 1, start=points):
            return self._falsified("pgd")
        inputs = int((goal.region.upper > goal.region.lower).sum())
        unstable = sum(int(layer.unstable.sum()) for layer in root.layers.values())
        reason = "timeout"
        chosen = route(inputs, unstable, isinstance(goal.region, Box)).value
        for place, name in enumerate(chosen):
            if goal.is_late():
                break
            deadline = goal.deadline if place == len(chosen) - 1 else self._share(FIRST_SHARE)
            outcome, method = self._inputs(proved, deadline) if name == "inputs" else self._phases(root, deadline)
            self.nodes += outcome.nodes
            if outcome.falsified:
                return self._falsified(method)
            if outcome.proved:
                return self._verified(method, outcome.trees)
            reason = outcome.reason
        return Found(Verdict.UNKNOWN, reason, "search", self.margins, nodes=self.nodes)

    def _share(self, share: float) -> float:
        now = time.perf_counter()
        return now + share * (self.goal.deadline - now)

    def _inputs(self, proved: ProvedRoot, deadline: float) -> tuple[Outcome, str]:
        return split_inputs(self._task(proved, deadline), self._open()), "input splits"

    def _phases(self, root: Root, deadline: float) -> tuple[Outcome, str]:
        """Optimised bounds at the root, then a tree for each clause that these leave open.

        Trees on the root's bounds grow a hundred times faster; some that do not end end quickly on bounds made anew.
        Between the two, where few neurons are unstable, a MILP looks for a counterexample.
        """
        goal = self.goal
        proved = self._tightened(min(self._share(ROOT_SHARE), time.perf_counter() + ROOT_SECONDS))
        if not self._open():
            return Outcome(proved=True), "alpha"
        is_cheap = retightens(goal.network, {k: int(layer.unstable.sum()) for k, layer in root.layers.items()})
        retighten = is_cheap and has_stacked_relus(goal.network)
        first = min(self._share(FAST_SHARE), time.perf_counter() + FAST_SECONDS) if retighten else deadline
        options = PhaseOptions() if is_cheap else PhaseOptions(programs=0)
        found = split_phases(self._task(proved, min(first, deadline)), self._open(), options)
        if found.proved or found.falsified or not retighten or goal.is_late():
            return found, "phase splits"
        done = {k for tree in found.trees for k in tree.clauses.values()}
        left = [k for k in self._open() if k not in done]
        count = sum(int(((lower < 0) & (upper > 0)).sum()) for lower, upper in proved.ranges.values())
        seconds = min(MILP_SHARE * (deadline - time.perf_counter()), MILP_SECONDS)
        if count <= MOST_BINARIES and fails_by_milp(self._task(proved, deadline), left, seconds):
            return Outcome(falsified=True, nodes=found.nodes), "milp"
        more = split_phases(self._task(proved, deadline), left, PhaseOptions(retighten=True))
        return replace(more, trees=found.trees + more.trees, nodes=found.nodes + more.nodes), "phase splits"

    def _tightened(self, deadline: float) -> ProvedRoot:
        """CROWN's root with optimised bounds of unstable neurons."""
        goal = self.goal
        root, lemmas = AlphaBound().tightened_root(goal.network, goal.region, deadline)
        with torch.no_grad():
            bound = CrownBound.claim(goal.network, goal.region, self.spec, root)
        return self._propose(replace(bound, multipliers=replace(bound.multipliers, lemmas=tuple(lemmas))))

    def _propose(self, bound: BoundResult) -> ProvedRoot:
        """The checker's root state for what a method proposes; it replaces the certificate so far."""
        semantics, sha = self.session.settings.semantics, self.session.plain.sha256
        self.certificate = certificate(sha, semantics, self.claim, bound, 0, range(self.claim.num_rows))
        proved = ProvedRoot(self.session.checker, self.certificate)
        self.margins = proved.margins
        return proved

    def _open(self) -> list[int]:
        """The clauses of which no row is proved at the root."""
        return [k for k, rows in enumerate(self.claim.clauses) if not (self.margins[list(rows)] > 0).any()]

    def _task(self, proved: ProvedRoot, deadline: float) -> Task:
        parts = {name: getattr(self.goal, name) for name in self.goal.__dataclass_fields__}
        latest = self.goal.deadline
        return Task(**{**parts, "deadline": min(deadline, latest)}, root=proved, latest=latest)

    def _verified(self, method: str, trees: tuple[Tree, ...] = ()) -> Found:
        """Have the checker accept the whole certificate."""
        assert self.certificate is not None
        proof = replace(self.certificate, trees=trees)
        (outcome,) = rigorous.check(self.session.checker, [proof])
        if not outcome.accepted:
            reason = f"uncertified: {method} claims a proof, but the checker found {outcome.message}"
            return Found(Verdict.UNKNOWN, reason, method, outcome.margins, nodes=self.nodes)
        return Found(
            Verdict.VERIFIED, "", method, outcome.margins, proof.encode(), leaves=outcome.leaves,
            nodes=self.nodes,
        )  # fmt: skip

    def _falsified(self, method: str) -> Found:
        assert self.witness is not None
        return Found(Verdict.FALSIFIED, self.witness.note, method, self.margins, None, self.witness, nodes=self.nodes)


def _region(claim: Claim, rigorous_region: RigorousRegion) -> Region:
    """The engines' form of a claim's region, in float64, rounded outward."""
    box = Box(torch.from_numpy(rigorous_region.lower), torch.from_numpy(rigorous_region.upper))
    if not isinstance(claim.region, BallRegion) or claim.region.norm == "inf":
        return box
    point, eps = torch.from_numpy(rigorous_region.point), torch.from_numpy(rigorous_region.eps)
    return Ball(point, eps, claim.region.norm, box)
