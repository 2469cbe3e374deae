"""What an attack decreases, as a function of the margins of the claim's clauses (its rows C f(x) + d, usually).

Every loss maps margins (R, k) and the run's target clause (R,) to (R,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def margin_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """The least margin of all clauses, whichever clause that is at the moment."""
    return margins.amin(1)


def targeted_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """The margin of the run's own clause: the claim is attacked clause by clause."""
    return margins.gather(1, targets.unsqueeze(1)).squeeze(1)


def cross_entropy_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """Minus log(1 + sum over clauses of exp(-margin)): for a label claim, minus the cross-entropy of the label."""
    zero = torch.zeros_like(margins[:, :1])
    return -torch.logsumexp(torch.cat([zero, -margins], 1), 1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin_loss,
    "targeted": targeted_loss,
    "cross-entropy": cross_entropy_loss,
}
