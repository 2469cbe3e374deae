"""What the makers of the data on scaling, projections and SDP training compute themselves."""

from __future__ import annotations

import sys

import benchmark_path  # noqa: F401
import cost
import lp_sdp
import numpy as np
import projections
import pytest
import scaling
import speed_table
import torch
from torch import nn

from lpverify.training.estimators import ESTIMATORS


def test_fit_of_a_power_law_is_exact() -> None:
    found = scaling.fit([1.0, 2.0, 4.0, 8.0], [3.0 * size**1.5 for size in (1, 2, 4, 8)])
    assert found["exponent"] == pytest.approx(1.5)
    assert found["factor"] == pytest.approx(3.0)
    assert found["largest_residual"] < 1e-12


def test_fits_take_the_largest_sizes_and_no_noise() -> None:
    lines = [
        {"axis": "width", "method": "dual", "size": str(size), "seconds": str(size**2), "peak_mib": str(size / 4)}
        for size in (1, 2, 4, 8, 16, 32)
    ]
    lines[0]["seconds"] = lines[1]["seconds"] = "100"
    seconds, memory = scaling.fits(lines)
    assert (seconds["quantity"], seconds["points"], seconds["smallest"]) == ("seconds", 4, 4.0)
    assert seconds["exponent"] == pytest.approx(2.0)
    # 0.25, 0.5 and 1 MiB are not above LEAST_MIB.
    assert (memory["quantity"], memory["points"]) == ("peak_mib", 3)


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
@pytest.mark.parametrize("k", [10, 51])
def test_expected_errors_are_those_of_cauchy_numbers(estimator: str, k: int) -> None:
    draws = torch.from_numpy(np.random.default_rng(0).standard_cauchy((1, k, 20000)))
    estimates = ESTIMATORS[estimator].estimate(draws).flatten()
    for ratio in (0.5, 0.8, 1.0, 1.3, 2.0):
        share = float((estimates <= ratio).double().mean())
        # Four deviations of a share of 20,000 draws.
        assert share == pytest.approx(projections.expected(estimator, k, ratio), abs=0.0142)


def test_median_is_unbiased_in_the_median() -> None:
    assert projections.expected("median", 10, 1.0) == pytest.approx(0.5)
    assert projections.expected("geometric", 10, 0.0) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_peak_is_what_a_call_takes_and_gives_back() -> None:
    size = 64 * cost.MIB
    # The kernel counts pages in batches.
    assert size <= cost.peak_bytes(lambda: np.ones(size, dtype=np.uint8).sum()) + cost.MIB
    assert cost.peak_bytes(lambda: None) < 2 * cost.MIB


def test_matrix_of_the_sdp_is_the_sum_over_signs() -> None:
    generator = torch.Generator().manual_seed(0)
    W, V = (torch.randn(shape, generator=generator).double() for shape in ((6, lp_sdp.INPUTS), (lp_sdp.CLASSES, 6)))
    s, t = (torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1 for n in (lp_sdp.INPUTS, 6))
    bound, y = lp_sdp.GlobalSDP(6), torch.cat([torch.ones(1).double(), s, t])
    v = V[bound.first] - V[bound.second]
    torch.testing.assert_close(y @ bound.matrices(W, V) @ y / 4, (v * (1 + t) / 2) @ (W @ s))


def test_sdp_of_training_bounds_every_margin() -> None:
    torch.manual_seed(0)
    W, V = nn.Linear(lp_sdp.INPUTS, 6).double(), nn.Linear(6, lp_sdp.CLASSES).double()
    eps, x = 0.3, torch.rand(1, lp_sdp.INPUTS, dtype=torch.float64)
    bound = lp_sdp.GlobalSDP(6)
    bound.c = torch.rand_like(bound.c, dtype=torch.float64)
    with torch.no_grad():
        falls = bound(W.weight, V.weight)
        signs = torch.randint(0, 2, (5000, lp_sdp.INPUTS)) * 2 - 1
        outputs, clean = (V(torch.relu(W(at))) for at in (x + eps * signs, x))
        margins, before = (o.unsqueeze(2) - o.unsqueeze(1) for o in (outputs, clean))
        assert bool((before - margins <= eps * falls + 1e-9).all())
    assert torch.equal(falls, falls.T)


def test_table_of_speed_has_ours_at_one() -> None:
    lines = [line for part in (speed_table.bounds, speed_table.programs, speed_table.searches) for line in part()]
    for line in lines:
        if str(line["contender"]) in ("lpverify", "lpverify lp", "lpverify auto"):
            assert float(str(line["times_slower"])) == 1.0
    assert any("neuron by neuron" in str(line["contender"]) for line in lines)
