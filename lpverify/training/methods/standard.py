"""Standard training: the cross-entropy at the data. Held-out examples are also attacked, where a radius is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses


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
        raise NotImplementedError
