"""Training on an attacked point and interval bounds at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from lpverify.bounds import CrownBound, IntervalBound
from lpverify.training.initial import initialise
from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.points import attacked_point, losses_at
from lpverify.training.regularisers import regulariser
from lpverify.training.robust_loss import mixed


@dataclass(frozen=True)
class MTLIBPTraining(AbstractTrainingMethod):
    """(1 - s) L(attacked point) + s L(interval bounds): at one end adversarial training, at the other ``ibp``.

    With a small s interval bounds prove next to nothing of the network, so held-out examples are judged by CROWN's.

    Source: De Palma et al. 2024 (arXiv 2305.13991), section 4, "MTL-IBP"; s is their alpha.

    Attributes:
        attack_radius: of the attack's ball, in radii of the bounds' ball: robustness at the tested radius often gains
            from attacks beyond it.
        attack_steps: gradient steps of the attack, from a random start.
        attack_restarts: such starts, of whose ends the worst counts.
        attack_step: length of each, in the attack's radii.
        amp: attack in half precision.
        share: s, at every radius.
        init, regularise: as for ``ibp``.
    """

    name: ClassVar[str] = "mtl-ibp"
    bounds: ClassVar[bool] = True
    attack_radius: float = 1.0
    attack_steps: int = 1
    attack_step: float = 1.25
    attack_restarts: int = 1
    amp: bool = False
    share: float = 0.01
    init: str = "ibp"
    regularise: float = 0.5

    def prepare(self, module: nn.Module, generator: torch.Generator) -> None:
        initialise(module, self.init, generator)

    def losses(self, batch: Batch) -> Losses:
        wide = replace(batch, eps=self.attack_radius * batch.eps)
        point = attacked_point(
            wide, steps=self.attack_steps, step_size=self.attack_step, restarts=self.attack_restarts, amp=self.amp
        )
        attacked = losses_at(batch, point)
        bound = IntervalBound().bound(batch.network, batch.region, batch.spec)
        bounded = mixed(batch, bound.margins, 1.0)
        loss = (1 - self.share) * attacked.loss + self.share * bounded.loss
        extra = regulariser(self.regularise, batch.progress, bound.layers, batch.region)
        return replace(bounded, loss=loss if extra is None else loss + extra)

    def measure(self, batch: Batch) -> Losses:
        return mixed(batch, CrownBound().bound(batch.network, batch.region, batch.spec).margins, 1.0)
