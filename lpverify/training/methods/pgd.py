"""Adversarial training: the cross-entropy at the end of projected gradient descent from a random start.

Source: Madry et al. 2018, section 2.1 and equation 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.points import attacked_losses, attacked_point, losses_at


@dataclass(frozen=True)
class PGDTraining(AbstractTrainingMethod):
    """Descent on the loss at an attacked point.

    Attributes:
        attack_steps: gradient steps of the attack.
        attack_step: length of each, in radii.
        attack_restarts: random starts, of whose ends the worst counts.
        amp: attack in half precision.
        eval_steps: PGD steps on held-out examples.
    """

    name: ClassVar[str] = "pgd"
    bounds: ClassVar[bool] = False
    attack_steps: int = 10
    attack_step: float = 0.25
    attack_restarts: int = 1
    amp: bool = False
    eval_steps: int = 10

    def losses(self, batch: Batch) -> Losses:
        point = attacked_point(
            batch, steps=self.attack_steps, step_size=self.attack_step, restarts=self.attack_restarts, amp=self.amp
        )
        return losses_at(batch, point)

    def measure(self, batch: Batch) -> Losses:
        return attacked_losses(batch, self.eval_steps)
