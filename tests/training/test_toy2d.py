"""The 2-D problem of Wong & Kolter 2018, appendix B.1: detection by its shipped networks, and a cascade of two stages.

As in the figures of the papers, of which these tests state the numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lpverify
from lpverify.cascade import Cascade, CascadeResult, read_cascade
from lpverify.data import load_data
from lpverify.detect import detect_stream, is_flagged, predictions
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.result import Verdict
from lpverify.settings import Settings
from lpverify.training import TrainConfig
from lpverify.training.cascade import train_cascade

EPS, WIDE = "0.08", "0.11"
# No network is right on all balls of the wide radius: some of those of different classes meet.
CASCADE = TrainConfig(
    data="toy2d", method="dual", arch="fc-2-50-50-2", eps=float(WIDE), eps_schedule="linear", eps_ramp=75,
    epochs=150, batch=12, lr=6e-3, eval_every=150, seed=1, threads=1, device="cpu", stages=2,
)  # fmt: skip


def shipped(name: str) -> Network:
    return load_model(Path(lpverify.__file__).parent / "assets" / f"{name}.safetensors")


def points() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = load_data("toy2d")
    assert data.y is not None
    return data.x, data.y


def flags(network: Network, x: NDArray[np.generic], method: str = "auto") -> NDArray[np.bool_]:
    return np.array([is_flagged(result) for result in detect_stream(network, x, Settings(EPS, method=method))])


def around(x: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """A square of points of each example's ball, its corners just inside: (12, side**2, 2)."""
    steps = np.linspace(-0.0799, 0.0799, side)
    return x.astype(np.float64)[:, None] + np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def test_training_by_the_dual_bound_leaves_no_false_positive_where_standard_training_does() -> None:
    x, y = points()
    standard, dual = shipped("toy2d-standard"), shipped("toy2d-dual")
    assert (predictions(standard, x) == y).all() and (predictions(dual, x) == y).all()
    assert not flags(dual, x, "dual").any()
    # Every flag is deserved: around the flagged points, and no others, the standard network's answer changes.
    near = around(x, 41)
    broken = np.array([(predictions(standard, ball) != label).any() for ball, label in zip(near, y, strict=True)])
    assert flags(standard, x).tolist() == broken.tolist() and broken.sum() == 4


def test_no_moved_point_passes_with_another_class_than_its_original() -> None:
    x, y = points()
    moved, labels = around(x, 41).reshape(-1, 2), np.repeat(y, 41**2)
    assert (predictions(shipped("toy2d-dual"), moved) == labels).all()
    standard = shipped("toy2d-standard")
    turned = moved[predictions(standard, moved) != labels]
    assert len(turned) > 50
    assert flags(standard, turned).all()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, ...]:
    out = tmp_path_factory.mktemp("toy2d") / "run"
    train_cascade(CASCADE, out)
    return read_cascade(out / "cascade.toml", load_model)


def answers(stages: tuple[Network, ...]) -> list[CascadeResult]:
    x, y = points()
    with Cascade(stages, Settings(WIDE, method="dual")) as cascade:
        return list(cascade.verify(x, y))


def test_a_second_stage_certifies_points_that_no_single_network_can(stages: tuple[Network, ...]) -> None:
    x, y = points()
    apart = np.abs(x[:, None] - x[None]).max(-1)
    assert (apart[y[:, None] != y[None]] < 2 * float(WIDE)).any()
    single, both = answers(stages[:1]), answers(stages)
    right = [[found.answer.label == found.label for found in results] for results in (single, both)]
    second = [found for found in both if found.answer.stage == 2]
    assert len(second) > 0 and all(found.answer.label == found.label for found in second)
    assert sum(right[1]) == sum(right[0]) + len(second)
    # Stage 1 answers in the cascade as it does alone, and at every point there is now an answer.
    assert [f.answer.label for f in both if f.answer.stage == 1] == [f.answer.label for f in single if f.answer.stage]
    assert all(found.answer.stage is not None for found in both)
    # What the stages do not agree about is not verified: in some of these balls both classes are certified somewhere.
    assert sum(found.verdict is Verdict.VERIFIED for found in both) < sum(right[1])


def test_two_stages_certify_more_of_the_square(stages: tuple[Network, ...]) -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 13)] * 2), -1).reshape(-1, 2)
    shares = []
    for used in (stages[:1], stages[1:], stages):
        with Cascade(used, Settings(WIDE, method="dual")) as cascade:
            shares.append([answer.label for answer in cascade.predict(grid)])
    first, second, both = shares
    assert both == [one if one is not None else two for one, two in zip(first, second, strict=True)]
    certified = [sum(label is not None for label in labels) for labels in (first, both)]
    assert certified[0] > 20 and certified[1] > certified[0] + 10
    assert {label for label in first if label is not None} == {0, 1}
