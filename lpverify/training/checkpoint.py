"""Checkpoints that describe themselves: safetensors whose header names architecture, normalisation and origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lpverify.files import write_atomic
from lpverify.training.config import TrainConfig

BEST, LAST = "best.safetensors", "last.safetensors"


def header(config: TrainConfig, input_shape: tuple[int, ...], epoch: int, command: str, **more: Any) -> dict[str, str]:
    """The metadata of a checkpoint: what ``lowering.checkpoint`` reads, then where the weights come from."""
    network = {"arch": config.arch, "input_shape": json.dumps(list(input_shape))}
    for name, value in (("mean", config.mean), ("std", config.std)):
        if value is not None:
            network[name] = json.dumps(value)
    origin = {
        "data": config.data,
        "method": config.method,
        "norm": config.norm,
        "eps": repr(config.eps),
        "clip": json.dumps(config.clip),
        "epoch": str(epoch),
        "seed": str(config.seed),
        "torch": torch.__version__,
        "command": command,
    }
    return network | origin | {name: json.dumps(value) for name, value in more.items()}


def write_checkpoint(path: Path, module: nn.Module, metadata: dict[str, str]) -> None:
    """Write the module's tensors with the given header."""
    write_tensors(path, module.state_dict(), metadata)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that after a crash, whenever it comes, the old or the new one is there, whole.

    Raises:
        ResourceError: if the disk refuses.
    """
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
    write_atomic(path, _ordered(data), sync=True)


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its header in order, which the library leaves to chance: equal runs' are equal."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]
