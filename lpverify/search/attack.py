"""The search for a counterexample of one claim: corners and random points, then descents from the best of them.

It proposes points in the engine's arithmetic; ``Goal.witness`` decides by exact evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lpverify.attack.base import AttackOptions, AttackResult
from lpverify.attack.pgd import descend
from lpverify.attack.steepest import project, random_point, start_point
from lpverify.problem import Box, Region, Specification

if TYPE_CHECKING:
    from lpverify.search.task import Goal

# How many activations the first points, and the runs of one descent, may need: large networks get fewer of them.
POINT_FLOATS, RUN_FLOATS = 2**20, 2**20
FEWEST_RUNS, LEAST_POINTS, MOST_POINTS = 4, 4, 256
# With at most so many inputs that are free, every corner of the box is among the first points.
CORNER_INPUTS = 6
# The first steps of the last descents, in float64 from the best points. They are for claims that nearly fail: where the
# least margin found is at most such a share of the first points' greatest.
FINE_STEPS = (0.05, 0.002)
FINE_RUNS, FINE_SHARE = 4, 0.25


def attack_claim(
    goal: Goal, *, steps: int = 60, restarts: int = 100, seed: int = 0, start: Tensor | None = None
) -> bool:
    """Search the goal's region for a point where its claim fails; whether ``goal.witness`` accepted one.

    Args:
        steps: of each descent.
        restarts: how many descents go after the least clause, fewer for large networks; then as many, but at least one
            a clause, go after each clause by itself. Half of them begin at the best of the first points, the others at
            random ones.
        seed: of the random points.
        start: (p, n_0) further points to begin from.
    """
    generator = torch.Generator().manual_seed(seed)
    points = first_points(goal.region, sum(goal.network.sizes), generator)
    if start is not None:
        points = torch.cat([project(start.to(points), _repeated(goal.region, len(start))), points])
    if not all(goal.clauses):
        # Where a clause has no rows, every point fails.
        return goal.witness(points[0].detach().cpu().double().numpy())
    if goal.try_points(points):
        return True
    margins = goal.margin(goal.values(points)).nan_to_num(nan=torch.inf)
    best = margins.argsort()[: max(1, restarts // 2)]
    near, points = FINE_SHARE * float(margins.max()), points[best]
    found = _Found(points, margins[best])
    for loss in ("margin", "targeted") if len(goal.clauses) > 1 else ("margin",):
        options = AttackOptions(steps=steps, loss=loss, clauses=goal.clauses, deadline=goal.deadline)
        for runs in _chunks(goal, options, points, restarts, generator):
            found = found.join(_descend(goal, options, runs), most=FINE_RUNS)
            if goal.try_points(found.points):
                return True
            if goal.is_late():
                return False
    if not float(found.margins.min()) <= near:
        return False
    double = replace(goal, network=goal.network.to(torch.float64), region=goal.region.to(torch.float64),
                     C=goal.C.double(), d=goal.d.double())  # fmt: skip
    for step in FINE_STEPS:
        options = AttackOptions(steps=steps, step_size=step, clauses=goal.clauses, deadline=goal.deadline)
        runs = _Runs(found.points.double(), torch.zeros(len(found.points), dtype=torch.int64, device=points.device))
        found = found.join(_descend(double, options, runs), most=FINE_RUNS)
        if double.try_points(found.points.double()):
            return True
    return False


@dataclass(frozen=True, eq=False)
class _Runs:
    """Where descents begin, (r, n_0), and the clause that each is after, (r,)."""

    points: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class _Found:
    """The best points so far (p, n_0), and the claim's margins there (p,)."""

    points: Tensor
    margins: Tensor

    def join(self, other: AttackResult, most: int) -> _Found:
        """The ``most`` best points of both, in the other's dtype."""
        points = torch.cat([other.points, self.points.to(other.points)])
        margins = torch.cat([other.margins, self.margins.to(other.margins)])
        best = margins.argsort(stable=True)[:most]
        return _Found(points[best], margins[best])


def _chunks(
    goal: Goal, options: AttackOptions, points: Tensor, restarts: int, generator: torch.Generator
) -> Iterator[_Runs]:
    """The descents of one loss, as many at once as memory allows."""
    spec = Specification(goal.C.unsqueeze(0), goal.d.unsqueeze(0))
    targets = options.targets(spec)
    most = max(FEWEST_RUNS, RUN_FLOATS // sum(goal.network.sizes))
    rounds = max(1, min(restarts, most) // targets)
    noise = torch.rand(rounds, points.shape[1], generator=generator, dtype=torch.float64).to(points)
    begin = random_point(_repeated(goal.region, rounds), noise)
    begin[: min(rounds, len(points))] = points[:rounds]
    chosen = torch.arange(targets, device=points.device).repeat(rounds)
    begin = begin.repeat_interleave(targets, 0)
    for part in torch.split(torch.arange(len(begin), device=points.device), most):
        yield _Runs(begin[part], chosen[part])


def _descend(goal: Goal, options: AttackOptions, runs: _Runs) -> AttackResult:
    """The best point of each run; all end when one seems to succeed."""
    one = torch.zeros(len(runs.points), dtype=torch.int64, device=runs.points.device)
    spec = Specification(goal.C.unsqueeze(0), goal.d.unsqueeze(0)).select(one)
    region = goal.region.select(one)
    return descend(goal.network, region, spec, runs.points, runs.targets, options, one)


def first_points(region: Region, size: int, generator: torch.Generator) -> Tensor:
    """The middle of one region, corners and random points of it: (p, n_0), for a network of ``size`` units."""
    count = max(LEAST_POINTS, min(MOST_POINTS, POINT_FLOATS // max(1, size)))
    middle, inputs = start_point(region), region.lower.shape[1]
    sides = torch.randint(0, 2, (count // 2, inputs), generator=generator, dtype=torch.float64)
    free = (region.lower < region.upper)[0].nonzero().flatten()
    if 0 < len(free) <= CORNER_INPUTS:
        every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * len(free)).reshape(-1, len(free))
        sides = torch.zeros(len(every), inputs, dtype=torch.float64)
        sides[:, free.cpu()] = every.double()
    noise = torch.rand(count // 2, inputs, generator=generator, dtype=torch.float64)
    corners = torch.where(sides.to(middle) > 0, region.upper, region.lower)
    if not isinstance(region, Box):
        corners = project(corners, _repeated(region, len(corners)))
    return torch.cat([middle, corners, random_point(_repeated(region, len(noise)), noise.to(middle))])


def _repeated(region: Region, count: int) -> Region:
    """One region, ``count`` times."""
    return region.select([0] * count)
