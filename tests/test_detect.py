"""Detection: what is flagged, what passes, and that no perturbed input passes with another class than its original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import dense, samples

from lpverify.attack import attack
from lpverify.attack.exact import exact_margins, inside, into_exact_box
from lpverify.data import load_data
from lpverify.detect import Detection, detect_stream, is_flagged, predictions
from lpverify.lowering import load_model
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification, ball
from lpverify.result import Verdict
from lpverify.settings import Settings

DIGITS = Path(__file__).resolve().parent.parent / "lpverify/assets/digits-demo.safetensors"


def is_exactly(network: Network, x: np.ndarray, label: int) -> bool:
    """Whether the output of this class is strictly the greatest at x, by rational arithmetic."""
    spec = Specification.label(torch.tensor([label]), network.output_size)
    return min(exact_margins(network, x, as_numpy(spec.C[0]), as_numpy(spec.d[0]))) > 0


def test_predictions_are_the_exact_classes() -> None:
    network = dense(3, 2, 8, 3).to(torch.float64)
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double().numpy() * 2 - 1
    assert all(is_exactly(network, row, label) for row, label in zip(x, predictions(network, x), strict=True))


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.5)])
def test_what_passes_has_the_class_of_every_original(norm: str, clip: tuple[float, float] | None) -> None:
    """Around inputs that pass, every sampled original within eps has the class that passed, exactly."""
    network = dense(1, 2, 10, 3).to(torch.float64)
    x = (torch.rand(60, 2, generator=torch.Generator().manual_seed(1)).double() - 0.5).numpy()
    settings = Settings("0.1", norm, None if clip is None else ("-0.5", "0.5"), method="crown")
    results = list(detect_stream(network, x, settings))
    passed = [i for i, result in enumerate(results) if not is_flagged(result)]
    assert 5 < len(passed) < 55
    for i in passed:
        for point in samples(ball(torch.as_tensor(x[i : i + 1]), 0.1, norm, clip), 10, i)[:, 0].numpy():
            original = into_exact_box(point, x[i], "0.1", norm, settings.clip)
            assert original is not None and is_exactly(network, original, results[i].label)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("method", ["auto", "dual"])
def test_no_adversarial_example_passes(norm: str, method: str) -> None:
    """Attacked digits: every point of the exact ball with another class than its original is flagged."""
    network, examples = load_model(DIGITS), load_data("digits")
    eps = {"inf": "0.15", "2": "1"}[norm]
    x, y = examples.x[:60].reshape(60, -1), examples.y
    assert y is not None
    settings = Settings(eps, norm, ("0", "1"), method=method, timeout=0.5)
    region = settings.region(torch.as_tensor(x).double())
    classes = predictions(network, x)
    spec = Specification.label(torch.as_tensor(classes), 10)
    found = attack(network, region, spec, steps=20, restarts=1, start=torch.as_tensor(x).double())
    adversarial = []
    for i in found.falsified.nonzero().flatten().tolist():
        point = into_exact_box(found.points[i].numpy(), x[i], eps, norm, ("0", "1"))
        if point is not None and not is_exactly(network, point, int(classes[i])):
            assert inside(point, x[i], eps, norm, ("0", "1"))
            adversarial.append(point)
    assert len(adversarial) > 10
    assert all(map(is_flagged, detect_stream(network, np.array(adversarial), settings)))


def test_the_clean_rates_are_those_of_the_labels() -> None:
    """Counts against a count by hand, with wrong labels put in."""
    network, examples = load_model(DIGITS), load_data("digits")
    assert examples.y is not None
    labels = examples.y[:40].copy()
    labels[:5] = (labels[:5] + 1) % 10
    settings = Settings("0.1", clip=("0", "1"), method="crown")
    found, counts = [], Detection(labels)
    for result in detect_stream(network, examples.x[:40], settings):
        found.append(result)
        said = counts.add(result)
        assert said == {"flagged": result.verdict is not Verdict.VERIFIED, "true_label": int(labels[len(found) - 1])}
    flagged = np.array([result.verdict is not Verdict.VERIFIED for result in found])
    right = np.array([result.label for result in found]) == labels
    assert 0 < flagged.sum() < 40 and (~right).sum() >= 5
    parts = counts.parts()["detection"]
    assert parts == {
        "flagged": int(flagged.sum()), "flagged_rate": flagged.mean(), "right": int(right.sum()),
        "false_positives": int((flagged & right).sum()), "false_positive_rate": (flagged & right).sum() / right.sum(),
        "wrong_flagged": int((flagged & ~right).sum()), "wrong_passed": int((~flagged & ~right).sum()),
    }  # fmt: skip


def test_without_labels_only_flags_are_counted() -> None:
    network = dense(1, 2, 10, 3).to(torch.float64)
    counts = Detection()
    for result in detect_stream(network, np.zeros((3, 2)), Settings("0")):
        assert counts.add(result) == {"flagged": False, "true_label": None}
    assert counts.parts()["detection"] == {"flagged": 0, "flagged_rate": 0.0}
    assert Detection().parts()["detection"] == {"flagged": 0, "flagged_rate": None}
