"""Schedules: their values at the ends, their shapes between."""

from __future__ import annotations

import itertools
import math

import pytest

from lpverify.training.config import TrainConfig
from lpverify.training.schedules import SMOOTH_SHARE, eps_at, lr_at, ramp


def config(**changes: object) -> TrainConfig:
    values: dict[str, object] = {"data": "digits", "method": "pgd", "epochs": 20, "eps": 0.1, "lr": 0.5}
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def test_a_constant_radius_is_there_from_the_start() -> None:
    assert [eps_at(config(), t) for t in (0, 3.5, 20)] == [0.1] * 3
    assert ramp(config(), 0) == 1


def test_the_papers_radius_goes_from_half_to_whole_in_half_of_the_epochs() -> None:
    c = config(eps_schedule="linear", eps_start=0.05, eps_ramp=10)
    assert eps_at(c, 0) == 0.05
    assert eps_at(c, 5) == pytest.approx(0.075, rel=1e-15)
    assert [eps_at(c, t) for t in (10, 15, 20)] == [0.1] * 3


@pytest.mark.parametrize("shape", ["linear", "smooth"])
def test_ramps_start_after_the_warm_up_and_rise_to_the_end(shape: str) -> None:
    c = config(eps_schedule=shape, eps_start=0.02, eps_warmup=4, eps_ramp=10)
    assert [eps_at(c, t) for t in (0, 4)] == [0.02] * 2
    assert [eps_at(c, t) for t in (14, 17.5)] == [0.1] * 2
    times = [4 + k / 100 for k in range(1001)]
    shares = [ramp(c, t) for t in times]
    assert all(a < b for a, b in itertools.pairwise(shares))


def test_the_smooth_ramp_is_a_fourth_power_that_goes_on_along_its_tangent() -> None:
    c = config(eps_schedule="smooth", eps_ramp=20)
    early = [ramp(c, 20 * s) for s in (0.1, 0.2)]
    assert early[1] == pytest.approx(16 * early[0], rel=1e-12)
    # value and slope agree from both sides at the middle
    h = 1e-6
    left, at, right = (ramp(c, 20 * (SMOOTH_SHARE + d)) for d in (-h, 0, h))
    assert right - at == pytest.approx(at - left, rel=1e-4)
    late = [ramp(c, 20 * s) for s in (0.4, 0.6, 0.8)]
    assert late[1] - late[0] == pytest.approx(late[2] - late[1], rel=1e-12)


def test_learning_rates_at_their_ends() -> None:
    assert [lr_at(config(), t) for t in (0, 20)] == [0.5, 0.5]
    steps = config(lr_schedule="step", lr_steps=(5, 10), lr_gamma=0.1)
    assert [lr_at(steps, t) for t in (0, 4.999)] == [0.5, 0.5]
    assert [lr_at(steps, t) for t in (5, 9.9, 10)] == pytest.approx([0.05, 0.05, 0.005], rel=1e-12)
    cosine = config(lr_schedule="cosine")
    assert [lr_at(cosine, t) for t in (0, 10, 20)] == pytest.approx([0.5, 0.25, 0], abs=1e-15)
    cyclic = config(lr_schedule="cyclic", lr_peak=0.4)
    assert [lr_at(cyclic, t) for t in (0, 4, 8, 14, 20)] == pytest.approx([0, 0.25, 0.5, 0.25, 0], abs=1e-15)


@pytest.mark.parametrize("peak", [0.0, 1.0])
def test_a_cyclic_rate_may_only_fall_or_only_rise(peak: float) -> None:
    rates = [lr_at(config(lr_schedule="cyclic", lr_peak=peak), t) for t in (0, 10, 20)]
    assert rates == ([0.5, 0.25, 0.0] if peak == 0 else [0.0, 0.25, 0.5])
    assert all(map(math.isfinite, rates))
