"""The robust loss: the cross-entropy of the worst logits that lower bounds of the margins allow."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lpverify.training.methods.base import Batch, Losses


def worst_logits(margins: Tensor, y: Tensor) -> Tensor:
    """Logits relative to the label's: 0 for the label, minus the margin's lower bound for every other class.

    Args:
        margins: (B, n - 1) lower bounds of f_y - f_j for j other than y, in increasing order.
        y: (B,) int64.

    Returns:
        (B, n): -J(x, g(e_y 1^T - I)) of Wong & Kolter 2018, theorem 2.
    """
    others = F.one_hot(y, margins.shape[1] + 1) == 0
    return margins.new_zeros(others.shape).masked_scatter(others, -margins)


def robust_loss(margins: Tensor, y: Tensor) -> Tensor:
    """An upper bound of the mean cross-entropy over the set for which ``margins`` hold: a scalar.

    Source: Wong & Kolter 2018 (arXiv 1711.00851), eq. 14. Cross-entropy does not change when one number is added to all
    logits, and grows with every logit other than the label's.
    """
    return F.cross_entropy(worst_logits(margins, y), y)


def mixed(batch: Batch, margins: Tensor, share: float, extra: Tensor | None = None) -> Losses:
    """The losses of a bound: ``share`` of the robust loss, the rest the cross-entropy at x, and ``extra`` on top.

    Args:
        margins: (B, n - 1) lower bounds over the batch's balls.
        share: in [0, 1]; with 1 the cross-entropy at x is measured without gradients.
        extra: scalar.
    """
    logits = batch.network.forward(batch.x) if share < 1 else batch.network.detach().forward(batch.x)
    nominal, robust = F.cross_entropy(logits, batch.y), robust_loss(margins, batch.y)
    # A robust loss that overflowed must not reach a loss in which it has no share.
    loss = nominal if share == 0 else robust if share == 1 else (1 - share) * nominal + share * robust
    return Losses(
        loss=loss if extra is None else loss + extra,
        nominal=nominal.detach(),
        robust=robust.detach(),
        wrong=logits.detach().argmax(1) != batch.y,
        broken=~(margins.detach() > 0).all(1),
    )
