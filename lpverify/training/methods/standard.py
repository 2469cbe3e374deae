"""Standard training: the cross-entropy at the data. Held-out examples are also attacked, where a radius is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.points import attacked_losses, losses_at_data


@dataclass(frozen=True)
class StandardTraining(AbstractTrainingMethod):
    """Empirical risk minimisation.

    Attributes:
        eval_steps: PGD steps on held-out examples.
    """

    name: ClassVar[str] = "standard"
    bounds: ClassVar[bool] = False
    eval_steps: int = 10

    def losses(self, batch: Batch) -> Losses:
        return losses_at_data(batch)

    def measure(self, batch: Batch) -> Losses:
        return attacked_losses(batch, self.eval_steps)
