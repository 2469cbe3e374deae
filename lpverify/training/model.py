"""The model under training: a module of an architecture, its trace, and the live network of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from lpverify.errors import UsageError
from lpverify.lowering.checkpoint import architecture
from lpverify.lowering.module import Trace, trace
from lpverify.network import Network
from lpverify.training.config import TrainConfig

# In train mode these compute something else than the network that is verified.
MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True, eq=False)
class Model:
    """A module whose parameters are trained through the network that it lowers to."""

    module: nn.Module
    trace: Trace
    config: TrainConfig
    input_shape: tuple[int, ...]
    num_classes: int
    device: torch.device

    def network(self) -> Network:
        """The network of the weights as they are now; gradients flow to them."""
        return self.trace.network(mean=self.config.mean, std=self.config.std)


def build_model(config: TrainConfig) -> Model:
    """The new model of a config, its weights drawn from the config's seed.

    Raises:
        UsageError: for an architecture or device that cannot be used.
        ModelError: if the architecture has no lowering.
    """
    device = choose_device(config.device)
    # Layers draw their weights from torch's global generator, which is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module, shape = architecture(config.arch, None)
    for name, layer in module.named_modules():
        if isinstance(layer, MODAL):
            raise UsageError(
                f"arch: layer {name} of {config.arch} ({type(layer).__name__}) differs between training and use, and "
                "training works on the network as it is verified; leave it out"
            )
    module = module.float().to(device)
    traced = trace(module, shape)
    network = traced.network(mean=config.mean, std=config.std)
    return Model(module, traced, config, shape, math.prod(network.shapes[-1]), device)


def choose_device(name: str) -> torch.device:
    """The device of a config's name; "auto" is the GPU where there is one.

    Raises:
        UsageError: if torch cannot use it.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError('device: torch cannot use "cuda" here; set device = "auto" or "cpu"')
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def make_optimizer(config: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a config; the loop sets the learning rate of every step."""
    parameters = list(module.parameters())
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
