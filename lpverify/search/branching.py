"""Which neuron to split: the one whose upper line costs the bound most, near the root the best of a few by trying.

Where bounds are made anew under the phases, the best of every layer are tried: what splitting a neuron does to the
bounds of later layers shows in no score of a row, least of all where few neurons of one layer carry everything.

Source: Bunel et al. 2020 (the score, BaBSR); De Palma et al. 2021, arXiv 2104.06718, section 5 (a few candidates by a
score, then strong branching).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lpverify.search.ascent import Lines, Nodes, Pass, Relaxed, Schedule

# Adam's steps for a child that is only tried.
TRIAL = Schedule(2, 0.3, 0.9)
LEAST_GAIN = 1e-9
# Adam's steps for the children whose gains rank the columns.
RANKING = Schedule(15, 0.25, 0.95)
# Candidates of each layer, where bounds are made anew.
EACH_LAYER = 2


def scores(found: Pass, lines: Lines) -> Tensor:
    """What each free column's upper intercept costs the bound, (B, K), at least 0; -1 at fixed columns."""
    return _at_free(-lines.intercept * found.w.clamp(max=0), lines)


def gaps(nodes: Nodes, found: Pass, lines: Lines) -> Tensor:
    """What each free column's line adds to the bound at the primal point, (B, K), at least 0; -1 at fixed columns."""
    lower, upper = nodes.slopes * found.z, lines.slope * found.z + lines.intercept
    gap = found.z.clamp(min=0) - torch.where(found.w > 0, lower, upper)
    return _at_free(found.w * gap, lines)


def _at_free(values: Tensor, lines: Lines) -> Tensor:
    """Magnitudes at free columns, -1 at fixed ones; what overflowed to NaN is no reason to split."""
    return values.abs().nan_to_num(nan=0.0).masked_fill(~lines.free, -1.0)


def choose(
    relaxed: Relaxed,
    nodes: Nodes,
    found: Pass,
    candidates: int,
    tight: Callable[[Nodes, Tensor], Nodes] | None = None,
) -> Tensor:
    """The column (B,) to split each node on; every node must have a free one.

    Args:
        found: a pass of these nodes, with its gradient.
        candidates: how many of the best-scored columns are tried by bounding both children; 1 trusts the score.
        tight: bounds the pre-activations of children that were split on these columns anew, before they are bounded.
    """
    lines = relaxed.lines(nodes)
    score = scores(found, lines)
    if candidates <= 1:
        return score.argmax(1)
    tried = _best(score, slice(0, score.shape[1]), candidates)
    if tight is not None:
        both = score + gaps(nodes, found, lines)
        tried = torch.cat([tried, *(_best(both, span, EACH_LAYER) for span in relaxed.spans.values())], 1)
    tried, each = torch.where(tried >= 0, tried, tried[:, :1]), tried.shape[1]
    column, owner = tried.flatten(), torch.arange(len(nodes), device=tried.device).repeat_interleave(each)
    gain = _gains(relaxed, nodes.select(owner), found.select(owner), column, TRIAL, tight).view(len(nodes), each)
    return tried.gather(1, gain.argmax(1, keepdim=True)).squeeze(1)


def ranks(relaxed: Relaxed, root: Nodes, found: Pass, batch: int) -> Tensor:
    """What splitting each column (K,) gains at a clause's root; where no ReLU lies below another it stays so below.

    Args:
        root: one node without phases, with its pass ``found``.
        batch: how many columns are tried at once.
    """
    columns = torch.arange(relaxed.width, device=found.bound.device)
    parts = []
    for start in range(0, relaxed.width, batch):
        some = columns[start : start + batch]
        owner = torch.zeros_like(some)
        parts.append(_gains(relaxed, root.select(owner), found.select(owner), some, RANKING))
    return torch.cat(parts)


def _gains(
    relaxed: Relaxed,
    nodes: Nodes,
    found: Pass,
    column: Tensor,
    schedule: Schedule,
    tight: Callable[[Nodes, Tensor], Nodes] | None = None,
) -> Tensor:
    """The product (B,) of what both children of each node gain on it, split on column (B,)."""
    children = relaxed.children(nodes, found, column)
    children = children if tight is None else tight(children, column.repeat(2))
    _, reached = relaxed.ascend(children, schedule)
    # What a child gains beyond 0 is of no use, an empty child gains that much; and both should gain.
    empty = (children.lower > children.upper).any(1)
    gain = (reached.bound.masked_fill(empty, 0.0).clamp(max=0) - found.bound.repeat(2)).clamp(min=0)
    gain = gain.view(2, -1) + LEAST_GAIN * found.bound.abs()
    return gain[0] * gain[1]


def _best(score: Tensor, span: slice, count: int) -> Tensor:
    """The ``count`` columns of a span that score best (B, up to ``count``); -1 in place of fixed ones."""
    best = score[:, span].topk(min(count, span.stop - span.start), 1)
    return torch.where(best.values >= 0, best.indices + span.start, -1)
