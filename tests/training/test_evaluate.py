"""The errors of a model and its card: their order, exact counts, and commands that make them again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import dense
from numpy.typing import NDArray

from lpverify.cli import main
from lpverify.data import load_data, make_examples
from lpverify.errors import DataError
from lpverify.lowering import load_model
from lpverify.training.card import header
from lpverify.training.evaluate import Evaluation, Protocol, evaluate

DIGITS = Path(__file__).resolve().parents[2] / "lpverify/assets/digits-demo.safetensors"
NAMES = ["clean", "fgsm", "pgd", "dual", "certified"]


def ordered(found: Evaluation) -> bool:
    """The certified error lies between those of the best attack and of the bound."""
    clean, fgsm, pgd, dual, certified = (found[name].count for name in NAMES)
    return clean <= fgsm <= pgd <= certified <= dual


@pytest.mark.parametrize(("norm", "eps"), [("inf", "0.1"), ("2", "0.25")])
def test_the_errors_of_digits_rise_in_order(norm: str, eps: str) -> None:
    network, examples = load_model(DIGITS), load_data("digits")
    protocol = Protocol(eps, norm, ("0", "1"), "digits", index="66:86", steps=10, restarts=2, timeout=1)
    found = evaluate(network, examples, protocol, model="m")
    assert [m.name for m in found.measures] == NAMES and {m.total for m in found.measures} == {20}
    assert ordered(found)
    # Example 71 is the misclassified one there.
    assert found["clean"].count == 1 < found["pgd"].count <= found["dual"].count < 20
    assert found["clean"].error == 1 / 20


def test_a_radius_of_zero_leaves_the_clean_error_alone() -> None:
    network, examples = load_model(DIGITS), load_data("digits")
    protocol = Protocol("0", data="digits", index="60:100", steps=2, restarts=1)
    assert [m.count for m in evaluate(network, examples, protocol, model="m").measures] == [3] * 5


def test_counts_on_two_inputs_are_those_of_a_grid() -> None:
    """On a net with two inputs, a grid of each ball tells the robust error, which auto decides in full."""
    network = dense(5, 2, 8, 3).to(torch.float64)
    x = np.random.default_rng(0).uniform(-1, 1, (40, 2))

    def classes(points: NDArray[np.float64]) -> NDArray[np.int64]:
        return network.forward(torch.as_tensor(points)).argmax(1).numpy()

    y = classes(x)
    y[:3] = (y[:3] + 1) % 3
    grid = np.stack(np.meshgrid(*[np.linspace(-0.15, 0.15, 61)] * 2), -1).reshape(-1, 2)
    broken = [bool((classes(row + grid) != label).any()) for row, label in zip(x, y, strict=True)]
    protocol = Protocol("0.15", data="data", steps=20, restarts=3)
    found = evaluate(network, make_examples(x, y), protocol, model="m")
    assert found["clean"].count == 3 < sum(broken) < 40
    assert found["certified"].count == sum(broken) >= found["pgd"].count
    assert ordered(found)


def test_examples_without_labels_are_refused() -> None:
    network = dense(5, 2, 8, 3).to(torch.float64)
    with pytest.raises(DataError, match="no labels"):
        evaluate(network, make_examples(np.zeros((2, 2)), None), Protocol("0.1"), model="m")


def test_the_command_writes_a_card_whose_commands_give_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ["--data", "digits", "--index", "68:80", "--eps", "0.1", "--clip", "0", "1", "--steps", "5"]
    more = ["--restarts", "1", "--certify", "70:76", "--timeout", "5", "--mean", "0", "--std", "1"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text('method = "pgd"\n')
    assert main(["evaluate", str(DIGITS), *ask, *more, "--out", str(run)]) == 0
    assert "model card" in capsys.readouterr().out
    card = json.loads((run / "card.json").read_text())
    assert card["config"] == {"method": "pgd"} and card["header"] == header(DIGITS)
    assert card["network"]["sha256"] and card["data"]["source"] == "digits" and card["versions"]["torch"]
    text = (run / "card.md").read_text()
    assert 'method = "pgd"' in text and all(error["command"] in text for error in card["errors"].values())
    assert main(["check", str(run / "certified"), "--data", "digits"]) == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    keys = {"clean": "misclassified", "fgsm": "falsified", "pgd": "falsified", "certified": "verified"}
    for name, key in keys.items():
        lpverify, *words = shlex.split(card["errors"][name]["command"])
        assert lpverify == "lpverify" and main([*words, "--overwrite"]) == 0
        summary = json.loads((tmp_path / words[words.index("--out") + 1] / "summary.json").read_text())
        error = card["errors"][name]
        assert summary["examples"] == error["total"]
        again = error["total"] - summary[key] if name == "certified" else summary[key]
        assert error["count"] == again and error["error"] == again / error["total"]
    capsys.readouterr()
    assert main(shlex.split(card["errors"]["dual"]["command"])[1:]) == 0
    dual = card["errors"]["dual"]
    assert f"{dual['total'] - dual['count']}/{dual['total']}" in capsys.readouterr().out
    # A second evaluation replaces the first; files of others in the folder stay.
    assert main(["evaluate", str(DIGITS), *ask, *more, "--out", str(run)]) == 0
    assert (run / "config.toml").read_text() == 'method = "pgd"\n'
