"""What every training method takes and returns."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lpverify.network import Network
from lpverify.problem import Region, Specification


@dataclass(frozen=True, eq=False)
class Batch:
    """What a method sees of one step: B examples of n classes.

    Attributes:
        model: in train mode; it takes raw inputs (normalisation is a layer of ``network`` and of ``model`` alike).
        network: the module lowered with its live weights; gradients flow.
        x: (B, *input shape), raw units.
        y: (B,) int64.
        region: the balls of the radius of this step, in the network's dtype and on its device.
        spec: (B, n - 1) rows e_y - e_j, j other than y, in increasing order.
        eps: the radius of this step, raw units.
        progress: the share of the run's steps that are done, in [0, 1].
        generator: all randomness comes from here (a CPU generator; draws are moved to the device).
    """

    model: nn.Module
    network: Network
    x: Tensor
    y: Tensor
    region: Region
    spec: Specification
    eps: float
    progress: float
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Losses:
    """What a method makes of a batch.

    Attributes:
        loss: scalar, the mean over the batch that is differentiated.
        nominal: scalar, detached: the cross-entropy at x.
        robust: scalar, detached: the method's own robust loss; equal to ``nominal`` where it has none.
        wrong: (B,) bool: x is not classified as y.
        broken: (B,) bool: the example is not robust by the method's own measure (an attack that succeeds, a bound that
            does not exclude one).
    """

    loss: Tensor
    nominal: Tensor
    robust: Tensor
    wrong: Tensor
    broken: Tensor


@dataclass(frozen=True)
class AbstractTrainingMethod(abc.ABC):
    """A training method: final subclasses carry their options as fields.

    Attributes:
        replays: how often the optimiser steps on one minibatch.
        bounds: whether the robust loss is an upper bound of the loss over the ball (else it is a point's).
    """

    name: ClassVar[str]
    bounds: ClassVar[bool]
    replays: int = 1

    @abc.abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The losses of one batch; ``loss`` carries gradients to the model's parameters."""
