"""Training on CROWN's backward bound through interval bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from lpverify.bounds.backward import bound_claim
from lpverify.bounds.root import relaxations_of, root_bounds
from lpverify.training.initial import initialise
from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.regularisers import regulariser
from lpverify.training.robust_loss import mixed


@dataclass(frozen=True)
class CrownIBPTraining(AbstractTrainingMethod):
    """(1 - s) L(x) + s L(beta * CROWN-IBP + (1 - beta) * interval bounds), beta falling from 1 to 0 along the ramp.

    CROWN-IBP is one backward pass of the claim's rows by CROWN's relaxation of interval pre-activation bounds. Margins
    are mixed, not losses; a mixture of lower bounds is one.

    Source: Zhang et al. 2020 (arXiv 1906.06316), section 3.2, eq. 9; 1 - s is their kappa.

    Attributes:
        share: s after the ramp; before, s is this times the ramp's progress.
        init, regularise: as for ``ibp``.
    """

    name: ClassVar[str] = "crown-ibp"
    bounds: ClassVar[bool] = True
    share: float = 1.0
    init: str = "default"
    regularise: float = 0.0

    def prepare(self, module: nn.Module, generator: torch.Generator) -> None:
        initialise(module, self.init, generator)

    def losses(self, batch: Batch) -> Losses:
        network, region, spec, beta = batch.network, batch.region, batch.spec, 1 - batch.progress
        root = root_bounds(network, region, "interval")
        margins = bound_claim(network, root.relaxations, region.box, spec.C, spec.d)
        if beta > 0:
            relaxations = relaxations_of(network, root.layers, "crown")
            backward = bound_claim(network, relaxations, region, spec.C, spec.d)
            margins = beta * backward + (1 - beta) * margins
        extra = regulariser(self.regularise, batch.progress, root.layers, region)
        return mixed(batch, margins, self.share * batch.progress, extra)
