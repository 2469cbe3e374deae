"""Which neuron to split: the one whose upper line costs the bound most, near the root the best of a few by trying.

Source: Bunel et al. 2020 (the score, BaBSR); De Palma et al. 2021, arXiv 2104.06718, section 5 (a few candidates by a
score, then strong branching).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lpverify.search.ascent import Lines, Nodes, Pass, Relaxed, Schedule

# Adam's steps for a child that is only tried.
TRIAL = Schedule(2, 0.3, 0.9)
LEAST_GAIN = 1e-9


def scores(found: Pass, lines: Lines) -> Tensor:
    """What each free column's upper intercept costs the bound, (B, K); -1 at fixed columns."""
    return (-lines.intercept * found.w.clamp(max=0)).abs().masked_fill(~lines.free, -1.0)


def choose(relaxed: Relaxed, nodes: Nodes, found: Pass, candidates: int) -> Tensor:
    """The column (B,) to split each node on; every node must have a free one.

    Args:
        found: a pass of these nodes.
        candidates: how many of the best-scored columns are tried by bounding both children; 1 trusts the score.
    """
    score = scores(found, relaxed.lines(nodes))
    each = min(candidates, score.shape[1])
    if each <= 1:
        return score.argmax(1)
    best = score.topk(each, 1)
    tried = torch.where(best.values >= 0, best.indices, best.indices[:, :1])
    column, owner = tried.flatten(), torch.arange(len(nodes), device=tried.device).repeat_interleave(each)
    parents = replace(found, bound=found.bound[owner], w=found.w[owner], v=found.v[owner])
    children = relaxed.children(nodes.select(owner), parents, column)
    _, reached = relaxed.ascend(children, TRIAL)
    # What a child gains beyond 0 is of no use; and both should gain.
    gain = (reached.bound.clamp(max=0) - found.bound[owner].repeat(2)).clamp(min=0)
    low, high = gain.view(2, len(nodes), each) + LEAST_GAIN * found.bound.abs().unsqueeze(1)
    return tried.gather(1, (low * high).argmax(1, keepdim=True)).squeeze(1)
