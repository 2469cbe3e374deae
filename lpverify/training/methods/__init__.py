"""Training methods: one file each; METHODS lists them by the name that configs use."""

from __future__ import annotations

from lpverify.training.methods.base import AbstractTrainingMethod, Batch, Losses
from lpverify.training.methods.crown_ibp import CrownIBPTraining
from lpverify.training.methods.dual import DualTraining
from lpverify.training.methods.fgsm import FGSMTraining
from lpverify.training.methods.free import FreeTraining
from lpverify.training.methods.ibp import IBPTraining
from lpverify.training.methods.mtl_ibp import MTLIBPTraining
from lpverify.training.methods.pgd import PGDTraining
from lpverify.training.methods.standard import StandardTraining

_ALL: tuple[type[AbstractTrainingMethod], ...] = (
    StandardTraining,
    PGDTraining,
    FGSMTraining,
    FreeTraining,
    DualTraining,
    IBPTraining,
    CrownIBPTraining,
    MTLIBPTraining,
)
METHODS = {method.name: method for method in _ALL}

__all__ = ["METHODS", "AbstractTrainingMethod", "Batch", "Losses"]
