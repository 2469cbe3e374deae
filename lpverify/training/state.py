"""What a run needs to go on as if it had never stopped: RUN/state.safetensors, written once an epoch.

Tensors in full precision, the rest as JSON in the header; reading it runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lpverify.errors import DataError
from lpverify.training.checkpoint import write_tensors

STATE = "state.safetensors"


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        epoch: epochs done.
        step: optimiser steps done.
        metrics_bytes: the length of metrics.jsonl after them.
        config: the resolved config's text.
        data: the examples' SHA-256.
        stopped: early stopping has ended the run.
        best: the metrics line of the best epoch so far.
    """

    epoch: int = 0
    step: int = 0
    metrics_bytes: int = 0
    config: str = ""
    data: str = ""
    stopped: bool = False
    best: dict[str, Any] | None = None


@dataclass(eq=False)
class Live:
    """The parts of a running training that change from step to step."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    memory: dict[str, Tensor] = field(default_factory=dict)


def save_state(path: Path, position: Position, live: Live) -> None:
    """Write the state, whole or not at all.

    Raises:
        ResourceError: if the disk refuses.
    """
    tensors = {f"module.{name}": tensor for name, tensor in live.module.state_dict().items()}
    for index, entries in live.optimizer.state_dict()["state"].items():
        # Momentum is None before the first step.
        tensors |= {f"optimizer.{index}.{name}": t for name, t in entries.items() if isinstance(t, Tensor)}
    tensors |= {f"memory.{name}": tensor for name, tensor in live.memory.items()}
    write_tensors(path, tensors | {"generator": live.generator.get_state()}, {"position": json.dumps(asdict(position))})


def read_position(path: Path) -> Position:
    """Where the run of a state file stands.

    Raises:
        DataError: if the file is damaged.
    """
    return _read(path)[0]


def load_state(path: Path, live: Live) -> Position:
    """Put module, optimiser, generator and memory back as they were saved.

    Raises:
        DataError: if the file is damaged or of another network.
    """
    position, tensors = _read(path)
    parts: dict[str, dict[str, Tensor]] = {"module": {}, "memory": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if rest:
            parts[kind][rest] = tensor
    try:
        live.module.load_state_dict(parts["module"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        groups = live.optimizer.state_dict()["param_groups"]
        live.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        live.generator.set_state(tensors["generator"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    device = next(live.module.parameters()).device
    live.memory.update({name: tensor.to(device) for name, tensor in parts["memory"].items()})
    return position


def _read(path: Path) -> tuple[Position, dict[str, Tensor]]:
    try:
        with safe_open(str(path), "pt") as file:
            position = Position(**json.loads((file.metadata() or {})["position"]))
            return position, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:150]
    return DataError(f"{path}: not the state of this run ({reason}); begin again in another folder")
