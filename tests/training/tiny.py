"""A training run of seconds: two classes of points in the plane, a network of a few units."""

from __future__ import annotations

from typing import Any

import torch

from lpverify.training.config import TrainConfig
from lpverify.training.splits import Part, Splits


def tiny_config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": "digits", "method": "pgd", "epochs": 3, "eps": 0.05, "arch": "fc-2-8-2", "batch": 16, "threads": 1,
        "device": "cpu", "lr": 0.01, "attack_steps": 2 if changes.get("method", "pgd") == "pgd" else None,
    }  # fmt: skip
    return TrainConfig(**{**values, **changes})


def tiny_part(size: int, seed: int) -> Part:
    """Points of [0, 1]^2, of class 1 right of a slanted line."""
    x = torch.rand(size, 2, generator=torch.Generator().manual_seed(seed))
    return Part(x, (x[:, 0] + 0.3 * x[:, 1] > 0.6).long())


def tiny_splits(size: int = 70) -> Splits:
    return Splits(tiny_part(size, 1), tiny_part(30, 2), tiny_part(40, 3), "tiny")
