"""Fast adversarial training: one long step from a point drawn uniformly from the ball.

Source: Wong, Rice & Kolter 2020, algorithm 3 (step 1.25 eps). Held-out examples are attacked by PGD, which shows
whether the network has come to resist that one step only ("catastrophic overfitting").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.points import attacked_losses, attacked_point, losses_at


@dataclass(frozen=True)
class FGSMTraining(AbstractTrainingMethod):
    """Descent on the loss after one step of the attack.

    Attributes:
        attack_step: its length, in radii.
        amp: attack in half precision.
        eval_steps: PGD steps on held-out examples.
    """

    name: ClassVar[str] = "fgsm"
    bounds: ClassVar[bool] = False
    attack_step: float = 1.25
    amp: bool = False
    eval_steps: int = 10

    def losses(self, batch: Batch) -> Losses:
        return losses_at(batch, attacked_point(batch, steps=1, step_size=self.attack_step, amp=self.amp))

    def measure(self, batch: Batch) -> Losses:
        return attacked_losses(batch, self.eval_steps)
