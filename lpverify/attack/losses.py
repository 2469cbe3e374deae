"""What an attack decreases, as a function of the claim's row margins C f(x) + d.

Every loss maps margins (R, m) and the run's target row (R,) to (R,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def margin_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """The least margin of all rows, whichever row that is at the moment."""
    return margins.amin(1)


def targeted_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """The margin of the run's own row: the claim is attacked row by row."""
    return margins.gather(1, targets.unsqueeze(1)).squeeze(1)


def cross_entropy_loss(margins: Tensor, targets: Tensor) -> Tensor:
    """Minus log(1 + sum over rows of exp(-margin)): for a label claim, minus the cross-entropy of the label."""
    zero = torch.zeros_like(margins[:, :1])
    return -torch.logsumexp(torch.cat([zero, -margins], 1), 1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin_loss,
    "targeted": targeted_loss,
    "cross-entropy": cross_entropy_loss,
}
