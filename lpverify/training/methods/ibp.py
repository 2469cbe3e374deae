"""Training on interval bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from lpverify.bounds import IntervalBound
from lpverify.training.initial import initialise
from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.regularisers import regulariser
from lpverify.training.robust_loss import mixed


@dataclass(frozen=True)
class IBPTraining(AbstractTrainingMethod):
    """(1 - s) L(x) + s L(interval bounds) + regularise * (1 - progress) * regularisers.

    Source: Gowal et al. 2018 (arXiv 1810.12715), section 3: 1 - s is their kappa, which falls from 1 along the ramp.
        Initialisation and regularisers: Shi et al. 2021 (arXiv 2103.17268).

    Attributes:
        share: s after the ramp; before, s is this times the ramp's progress.
        init: "ibp" is ``initial.ibp_initialise``.
        regularise: factor of the regularisers at the ramp's beginning; their paper takes 0.5.
    """

    name: ClassVar[str] = "ibp"
    bounds: ClassVar[bool] = True
    share: float = 0.5
    init: str = "ibp"
    regularise: float = 0.5

    def prepare(self, module: nn.Module, generator: torch.Generator) -> None:
        initialise(module, self.init, generator)

    def losses(self, batch: Batch) -> Losses:
        bound = IntervalBound().bound(batch.network, batch.region, batch.spec)
        extra = regulariser(self.regularise, batch.progress, bound.layers, batch.region)
        return mixed(batch, bound.margins, self.share * batch.progress, extra)
