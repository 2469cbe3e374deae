"""Free adversarial training: each minibatch is replayed, and one backward pass moves weights and perturbation both.

Source: Shafahi et al. 2019, algorithm 1. The perturbation is carried from one minibatch to the next. An epoch takes
``replays`` times the steps of an ordinary one, so ``epochs`` is divided by as much for equal cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lpverify.attack.steepest import descent_step, project
from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.points import attacked_losses, losses_at

CARRIED = "perturbation"


@dataclass(frozen=True)
class FreeTraining(AbstractTrainingMethod):
    """Descent on the loss at a perturbation that ascends at the same time.

    Attributes:
        replays: steps on one minibatch.
        attack_step: length of the perturbation's step, in radii.
        eval_steps: PGD steps on held-out examples.
    """

    name: ClassVar[str] = "free"
    bounds: ClassVar[bool] = False
    replays: int = 8
    attack_step: float = 1.0
    eval_steps: int = 10

    @property
    def steps(self) -> int:
        """One for each replay."""
        return self.replays

    def losses(self, batch: Batch) -> Losses:
        x = batch.x.flatten(1)
        kept = batch.memory.get(CARRIED, torch.zeros_like(x))
        point = project(x + kept[: len(x)], batch.region).requires_grad_()

        def ascend(slope: Tensor) -> None:
            start = point.detach()
            moved = project(start + descent_step(-slope, start, batch.region, self.attack_step), batch.region)
            batch.memory[CARRIED] = torch.cat([moved - x, kept[len(x) :]])

        # Runs when the loss is differentiated for the weights: the same pass gives the slope at the point.
        point.register_hook(ascend)  # type: ignore[no-untyped-call]
        return losses_at(batch, point)

    def measure(self, batch: Batch) -> Losses:
        return attacked_losses(batch, self.eval_steps)
