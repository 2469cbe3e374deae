"""Training on the dual network of Wong & Kolter, exact or by random projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.bounds import DualBound
from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.projection import estimated_layers, projected_margins
from lpverify.training.robust_loss import mixed


@dataclass(frozen=True)
class DualTraining(AbstractTrainingMethod):
    """The robust loss of the dual network's margins.

    Source: Wong & Kolter 2018 (arXiv 1711.00851), eq. 14; projections: Wong et al. 2018 (arXiv 1805.12514).

    Attributes:
        projections: k of the estimated pre-activation bounds under the loss; 0: exact bounds. Held-out examples have
            exact ones either way.
        projection_estimator: see ``estimators.ESTIMATORS``.
    """

    name: ClassVar[str] = "dual"
    bounds: ClassVar[bool] = True
    projections: int = 0
    projection_estimator: str = "median"

    def losses(self, batch: Batch) -> Losses:
        network, region, spec = batch.network, batch.region, batch.spec
        if not self.projections:
            return self.measure(batch)
        layers = estimated_layers(network, region, self.projections, batch.generator, self.projection_estimator)
        return mixed(batch, projected_margins(network, region, spec, layers), 1.0)

    def measure(self, batch: Batch) -> Losses:
        return mixed(batch, DualBound().bound(batch.network, batch.region, batch.spec).margins, 1.0)
