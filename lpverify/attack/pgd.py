"""Projected gradient descent: steepest-descent steps in the region's norm, from several starts.

Source: Madry et al. 2018, section 2.1; every iterate is a candidate, not only the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpverify.attack.base import AttackOptions, AttackResult
from lpverify.attack.fgsm import as_result, fgsm, gradient
from lpverify.attack.steepest import descent_step, project, random_point
from lpverify.network import Network
from lpverify.problem import Region, Specification


def pgd(
    network: Network, region: Region, spec: Specification, start: Tensor, options: AttackOptions
) -> AttackResult:
    """The best point of FGSM and of all restarts; never worse than ``fgsm`` with the same options."""
    best = fgsm(network, region, spec, start, options)
    generator = torch.Generator().manual_seed(options.seed)
    rows = options.targets(spec)
    for restart in range(options.restarts):
        noise = torch.rand(rows, start.shape[1], generator=generator, dtype=torch.float64).to(start)
        open_ = best.margins > 0 if options.early_stop else torch.ones_like(best.margins, dtype=torch.bool)
        index = open_.nonzero().squeeze(1)
        if not len(index) or options.is_late:
            break
        # Run r is for example index[r // rows] and clause r % rows.
        owner = index.repeat_interleave(rows)
        targets = torch.arange(rows, device=start.device).repeat(len(index))
        runs = region.select(owner)
        x = start[owner] if restart == 0 else random_point(runs, noise.repeat(len(index), 1))
        found = descend(network, runs, spec.select(owner), x, targets, options, owner)
        best = best.better(_scatter(_best_of_rows(found, rows), index, best))
    return best


def descend(
    network: Network,
    region: Region,
    spec: Specification,
    x: Tensor,
    targets: Tensor,
    options: AttackOptions,
    owner: Tensor,
) -> AttackResult:
    """The best iterate of each run (R of them). With early stop, all runs of an example end once one of them succeeds.

    Args:
        region, spec: of each run.
        x: (R, n_0) where the runs begin.
        targets: (R,) the clause that a run with the loss "targeted" is after.
        owner: (R,) the example that a run is for.
    """
    runs = torch.arange(len(x), device=x.device)
    found = AttackResult(x, x.new_full((len(x),), torch.inf), torch.zeros_like(runs))
    done = torch.zeros(int(owner.max()) + 1, dtype=torch.bool, device=x.device)
    for step in range(options.steps + 1):
        slope, margins = gradient(network, spec, x, targets, options)
        here = as_result(x, margins)
        found = found.better(_scatter(here, runs, found))
        if step == options.steps or options.is_late:
            break
        x = project(x + descent_step(slope, x, region, options.rate(step)), region)
        done[owner[runs[here.falsified]]] = True
        if options.early_stop and bool(done[owner[runs]].any()):
            keep = (~done[owner[runs]]).nonzero().squeeze(1)
            if not len(keep):
                break
            runs, x, targets = runs[keep], x[keep], targets[keep]
            region, spec = region.select(keep), spec.select(keep)
    return found


def _scatter(part: AttackResult, index: Tensor, like: AttackResult) -> AttackResult:
    """``part`` at the positions ``index`` of a result as long as ``like``; elsewhere margins are infinite."""
    margins = torch.full_like(like.margins, torch.inf)
    points, rows = like.points.clone(), like.rows.clone()
    points[index], margins[index], rows[index] = part.points, part.margins, part.rows
    return AttackResult(points, margins, rows)


def _best_of_rows(found: AttackResult, rows: int) -> AttackResult:
    """The best of each example's ``rows`` consecutive runs."""
    winner = found.margins.reshape(-1, rows).argmin(1)
    winner = winner + rows * torch.arange(len(winner), device=winner.device)
    return AttackResult(found.points[winner], found.margins[winner], found.rows[winner])
