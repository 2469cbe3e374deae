"""Probable certificates: what they count, how their command makes the count again, that they are never a verdict."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import dense, samples

from lpverify.bounds import DualBound
from lpverify.cli import main
from lpverify.data import load_data
from lpverify.errors import UsageError
from lpverify.lowering import load_model
from lpverify.problem import Specification
from lpverify.settings import Settings
from lpverify.training.evaluate import Protocol
from lpverify.training.probable import FACTOR, probable

DIGITS = Path(__file__).resolve().parents[2] / "lpverify/assets/digits-demo.safetensors"


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_margins_hold_at_sampled_points_and_come_close_to_the_dual_bounds(norm: str) -> None:
    """Not from below: the dual's relaxation changes its slopes with the bounds, and looser ones may suit a margin."""
    network = dense(3, 4, 12, 10, 3).to(torch.float64)
    x = np.random.default_rng(0).uniform(0, 1, (40, 4))
    y = network.forward(torch.as_tensor(x)).argmax(1).numpy()
    settings = Settings("0.1", norm, dtype="float64")
    region, spec = settings.region(torch.as_tensor(x)), Specification.label(torch.as_tensor(y), 3)
    exact = DualBound().bound(network, region, spec).margins.numpy()
    few, many = (probable(network, x, y, settings, 0.999, count) for count in (3, 20000))
    for points in samples(region, 50, 0):
        sampled = spec.margins(network.forward(points)).numpy()
        assert (many.margins <= sampled).all() and (few.margins <= sampled).all()
    assert np.abs(many.margins - exact).max() < 0.05 * np.abs(few.margins - exact).max()
    assert 0 < many.open.sum() < few.open.sum()
    assert 1 < many.factor < few.factor and (few.projections, many.projections) == (3, 20000)


def test_wrong_examples_stay_open_and_the_number_of_projections_is_the_least_for_its_factor() -> None:
    network, examples = load_model(DIGITS), load_data("digits")
    assert examples.y is not None
    # Example 71 is misclassified.
    found = probable(network, examples.x[70:74], examples.y[70:74], Settings("0", seed=3), 0.99)
    assert found.open.tolist() == [False, True, False, False]
    assert found.factor <= FACTOR
    one_less = probable(network, examples.x[70:71], examples.y[70:71], Settings("0"), 0.99, found.projections - 1)
    assert one_less.factor > FACTOR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 1.0}, "confidence: 1.0 must be between 0 and 1"),
        ({"confidence": 0.9, "norm": "1"}, "norm: '1' has no random projections"),
        ({"confidence": 0.9, "projections": 1}, "projections: 1 must be >= 2"),
        ({"projections": 30}, "projections: 30 has an effect only with confidence"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_measured(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Protocol("0.1", **change)


def test_the_card_tells_a_probable_share_from_the_certified_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ["evaluate", str(DIGITS), "--data", "digits", "--index", "60:90", "--eps", "0.07", "--clip", "0", "1"]
    more = ["--certify", "60:62", "--steps", "1", "--restarts", "1", "--confidence", "0.95"]
    assert main([*ask, *more, "--out", str(tmp_path / "run")]) == 0
    assert "with probability >= 0.95, and certify nothing" in capsys.readouterr().out
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    errors = card["errors"]
    assert list(errors) == ["clean", "fgsm", "pgd", "dual", "projected", "certified"]
    assert errors["pgd"]["count"] <= errors["projected"]["count"] < 30 == errors["projected"]["total"]
    assert f"| projected | {errors['projected']['error']:.2%}".replace("%", " %") in (
        tmp_path / "run" / "card.md").read_text()  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(errors["projected"]["command"])[1:]) == 0
    again = json.loads((tmp_path / "RUN" / "card.json").read_text())["errors"]["projected"]
    assert {**again, "seconds": 0} == {**errors["projected"], "seconds": 0}
    # Nothing of it is among the evidence: as many results as were to be certified.
    assert json.loads((tmp_path / "run" / "certified" / "summary.json").read_text())["examples"] == 2


def test_confidence_above_one_exits_with_2_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["evaluate", str(DIGITS), "--data", "digits", "--eps", "0.1", "--confidence", "99"]
    assert main([*ask, "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("lpverify: error: confidence: 99.0 must be between 0 and 1") and shown.count("\n") == 1
    assert not (tmp_path / "run").exists()
