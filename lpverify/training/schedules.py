"""Radius and learning rate as functions of the time t: epochs done so far, fractions included."""

from __future__ import annotations

import math

from lpverify.training.config import TrainConfig

SMOOTH_POWER = 4
SMOOTH_SHARE = 0.25


def ramp(config: TrainConfig, t: float) -> float:
    """How far the radius has come from ``eps_start`` to ``eps``: in [0, 1], 1 after the ramp."""
    if config.eps_schedule == "constant":
        return 1.0
    share = min(max((t - config.eps_warmup) / config.eps_ramp, 0.0), 1.0)
    return share if config.eps_schedule == "linear" else _smooth(share)


def eps_at(config: TrainConfig, t: float) -> float:
    """The radius at time t; exactly ``eps_start`` before the ramp and ``eps`` after it."""
    share = ramp(config, t)
    return (1 - share) * config.eps_start + share * config.eps


def lr_at(config: TrainConfig, t: float) -> float:
    """The learning rate at time t."""
    share = min(t / config.epochs, 1.0)
    if config.lr_schedule == "step":
        factor = config.lr_gamma ** sum(t >= epoch for epoch in config.lr_steps)
    elif config.lr_schedule == "cosine":
        factor = (1 + math.cos(math.pi * share)) / 2
    elif config.lr_schedule == "cyclic":
        peak = config.lr_peak
        factor = share / peak if share < peak else (1 - share) / (1 - peak) if peak < 1 else 1.0
    else:
        factor = 1.0
    return config.lr * factor


def _smooth(share: float) -> float:
    """A fourth power for the first quarter, then the straight line that continues it to (1, 1).

    Source: the shape of the schedule of Xu et al. 2020, section 4.
    """
    middle, power = SMOOTH_SHARE, SMOOTH_POWER
    slope = power * middle ** (power - 1)
    scale = 1 / (middle**power + slope * (1 - middle))
    return scale * (share**power if share < middle else middle**power + slope * (share - middle))
