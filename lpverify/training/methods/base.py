"""What every training method takes and returns."""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lpverify.network import Network
from lpverify.problem import Clip, Region, Specification, ball


@dataclass(frozen=True, eq=False)
class Batch:
    """What a method sees of one step: B examples of n classes.

    Attributes:
        network: the module lowered with its live weights, normalisation included; gradients flow to the parameters.
        x: (B, *input shape), raw units.
        y: (B,) int64.
        spec: (B, n - 1) rows e_y - e_j, j other than y, in increasing order.
        eps: the radius of this step, raw units.
        progress: how far ``eps`` has come from ``eps_start`` to its final value, in [0, 1]; 1 after the ramp.
        generator: all randomness comes from here (a CPU generator; draws are moved to the device).
        memory: tensors that a method keeps from one step to the next; saved with the run's state.
        norm, clip: of the balls.
    """

    network: Network
    x: Tensor
    y: Tensor
    spec: Specification
    eps: float
    progress: float
    generator: torch.Generator
    memory: dict[str, Tensor]
    norm: str
    clip: Clip

    @cached_property
    def region(self) -> Region:
        """The balls, in the dtype and on the device of x."""
        return ball(self.x, self.eps, self.norm, self.clip)


@dataclass(frozen=True, eq=False)
class Losses:
    """What a method makes of a batch.

    Attributes:
        loss: scalar, the mean over the batch that is differentiated.
        nominal: scalar, detached: the cross-entropy at x; None where the method does not evaluate it.
        robust: scalar, detached: the method's own robust loss; equal to ``nominal`` where it has none.
        wrong: (B,) bool: x is not classified as y; None as ``nominal``.
        broken: (B,) bool: the example is not robust by the method's own measure (an attack that succeeds, a bound that
            does not exclude one).
    """

    loss: Tensor
    nominal: Tensor | None
    robust: Tensor
    wrong: Tensor | None
    broken: Tensor


@dataclass(frozen=True)
class AbstractTrainingMethod(abc.ABC):
    """A training method. The fields of a final subclass are the keys of TrainConfig that it uses, with its defaults.

    Attributes:
        bounds: whether the robust loss is an upper bound of the loss over the ball (else it is a point's).
    """

    name: ClassVar[str]
    bounds: ClassVar[bool]

    @property
    def steps(self) -> int:
        """How often the optimiser steps on one minibatch."""
        return 1

    @classmethod
    def from_config(cls, config: object) -> Self:
        """The method with its options taken from the attributes of a TrainConfig."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def prepare(self, module: nn.Module, generator: torch.Generator) -> None:
        """Change the new module's weights in place, before the first step; by default nothing."""
        return

    @abc.abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The losses of one batch; ``loss`` carries gradients to the parameters."""

    def measure(self, batch: Batch) -> Losses:
        """The losses by which held-out examples are judged, at the final radius and without gradients.

        Other than ``losses`` where training takes a random estimate or a weak attack.
        """
        return self.losses(batch)
