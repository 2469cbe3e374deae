"""Training methods: one file each; METHODS lists them by the name that configs use."""

from __future__ import annotations

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.fgsm import FGSMTraining
from lpverify.training.methods.free import FreeTraining
from lpverify.training.methods.pgd import PGDTraining
from lpverify.training.methods.standard import StandardTraining

_ALL: tuple[type[AbstractTrainingMethod], ...] = (StandardTraining, PGDTraining, FGSMTraining, FreeTraining)
METHODS = {method.name: method for method in _ALL}

__all__ = ["METHODS", "AbstractTrainingMethod", "Batch", "Losses"]
