"""Training cascades: which examples each stage sees, resuming, the files that are left, and cards of single models."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lpverify.bounds import DualBound
from lpverify.cascade import Cascade, read_cascade
from lpverify.cli import main
from lpverify.data import load_data
from lpverify.errors import UsageError
from lpverify.lowering import load_model
from lpverify.problem import Specification
from lpverify.settings import Settings
from lpverify.training import TrainConfig
from lpverify.training import card as card_module
from lpverify.training.cascade import train_cascade
from lpverify.training.cascade_card import has_cascade_card
from lpverify.training.splits import load_splits

CONFIG = TrainConfig(
    data="digits", method="ibp", arch="fc-64-16-10", eps=0.04, clip=(0.0, 1.0), epochs=2, lr=0.01, batch=32,
    device="cpu", stages=3, train_limit=400, validation=0.2, early_stopping="robust", eval_limit=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cascade of digits that was trained without interruption."""
    out = tmp_path_factory.mktemp("cascade") / "run"
    return out, train_cascade(CONFIG, out)


def is_certified(checkpoint: Path, x: torch.Tensor) -> list[bool]:
    """Whether the dual bound of the config's ball is > 0 for the predicted class of each x, in float32."""
    network = load_model(checkpoint).to(torch.float32)
    spec = Specification.label(network.forward(x).argmax(1), 10).to(torch.float32)
    region = Settings("0.04", clip=("0", "1")).region(x.flatten(1).double()).to(torch.float32)
    return (DualBound().bound(network, region, spec).margins > 0).all(1).tolist()


def test_each_stage_sees_what_the_stages_before_do_not_certify(trained: tuple[Path, dict[str, Any]]) -> None:
    out, summary = trained
    splits = load_splits(CONFIG, (64,), 10)
    assert splits.validation is not None and splits.test is not None
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    left = {name: np.arange(len(part)) for name, part in parts.items()}
    for k, stage in enumerate(summary["stages"], start=1):
        assert stage["stage"] == k and stage["examples"] == {name: len(i) for name, i in left.items()}
        for name, part in parts.items():
            certified = is_certified(out / f"stage-{k}" / "best.safetensors", part.x[torch.as_tensor(left[name])])
            left[name] = left[name][~np.array(certified, dtype=bool)]
        with np.load(out / f"stage-{k}-left.npz") as kept:
            assert all(kept[name].tolist() == indices.tolist() for name, indices in left.items())
        assert stage["left"] == {name: len(i) for name, i in left.items()}
    sizes = [stage["examples"]["train"] for stage in summary["stages"]]
    assert sizes[0] == 320 and len(sizes) > 1
    assert all(a > b > 0 for a, b in itertools.pairwise(sizes))


def test_a_trained_cascade_answers_as_its_file_says(trained: tuple[Path, dict[str, Any]]) -> None:
    out, summary = trained
    stages = read_cascade(out / "cascade.toml", load_model)
    assert len(stages) == len(summary["stages"])
    x = load_data("digits").x[:40]
    with Cascade(stages, Settings("0.04", clip=("0", "1"), method="dual")) as cascade:
        answers = list(cascade.predict(x))
    certified = np.array([
        is_certified(out / f"stage-{k}" / "best.safetensors", torch.as_tensor(x).flatten(1))
        for k in range(1, len(stages) + 1)
    ])  # fmt: skip
    wanted = [next((k + 1 for k in range(len(stages)) if certified[k, i]), None) for i in range(40)]
    assert [answer.stage for answer in answers] == wanted and {1, 2} <= set(wanted)


def test_a_killed_cascade_ends_with_the_same_bits(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, summary = trained
    begun: list[tuple[int, int]] = []

    def stop(epoch: int, step: int, steps: int, means: Any) -> None:
        if begun[-1][0] == 2 and epoch == 2:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_cascade(CONFIG, run, report=stop, begin=lambda *told: begun.append(told))
    assert begun == [(k, summary["stages"][k - 1]["examples"]["train"]) for k in (1, 2)]
    assert not (run / "cascade.toml").exists()
    # What stage 1 leaves is read from its file, or found again.
    (run / "stage-1-left.npz").write_bytes(b"damaged")
    train_cascade(CONFIG, run)
    for k in range(1, len(summary["stages"]) + 1):
        for name in ("best", "last"):
            file = f"stage-{k}/{name}.safetensors"
            one, two = load_file(run / file), load_file(out / file)
            assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert (run / "cascade.toml").read_bytes() == (out / "cascade.toml").read_bytes()


def test_a_finished_cascade_trains_no_more(trained: tuple[Path, dict[str, Any]]) -> None:
    out, summary = trained

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    assert train_cascade(CONFIG, out, report=refuse) == summary
    with pytest.raises(UsageError, match="stages = 3, not 2"):
        train_cascade(replace(CONFIG, stages=2), out)


def test_a_cascade_ends_where_nothing_is_left(tmp_path: Path) -> None:
    config = replace(CONFIG, eps=1e-9, epochs=1)
    summary = train_cascade(config, tmp_path / "run")
    assert [stage["left"]["train"] for stage in summary["stages"]] == [0]
    assert len(read_cascade(tmp_path / "run" / "cascade.toml", load_model)) == 1


@pytest.mark.parametrize(
    ("change", "message"), [({"stages": 1}, "is no cascade"), ({"arch": "module:function"}, "code of your own")]
)
def test_what_is_no_cascade_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_cascade(replace(CONFIG, **change), tmp_path / "run")


TOML = """
data = "digits"
method = "ibp"
arch = "fc-64-16-10"
eps = 0.04
clip = [0, 1]
epochs = 1
lr = 0.01
device = "cpu"
train_limit = 300
eval_limit = 50
"""


def test_the_command_trains_a_cascade_that_verify_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(TOML + "stages = 2\n")
    run = tmp_path / "run"
    ask = ["train", str(tmp_path / "config.toml"), "--out", str(run)]
    assert main([*ask, "--no-card"]) == 0 and not (run / "card.json").exists()
    assert "cascade.toml, for lpverify verify" in capsys.readouterr().out
    monkeypatch.setattr(card_module, "CERTIFY", 25)
    assert main(ask) == 0
    assert "model card" in capsys.readouterr().out
    card = json.loads((run / "card.json").read_text())
    errors = card["errors"]
    assert list(errors) == ["clean", "no certificate", "wrong", "error", "certified"]
    assert {error["total"] for error in errors.values()} == {25} and len(card["stages"]) == 2
    # The command of the card gives its numbers, and both runs' evidence holds.
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(errors["certified"]["command"])[1:]) == 0
    for folder in (tmp_path / "RUN" / "certified", run / "certified"):
        assert main(["check", str(folder), "--data", "digits"]) == 0
        summary = json.loads((folder / "summary.json").read_text())
        assert errors["no certificate"]["count"] == summary["no_certificate"] > 0
        assert errors["wrong"]["count"] == summary["certified_wrong"]
        assert errors["error"]["error"] == summary["error"]
        assert errors["certified"]["error"] == summary["robust_error_upper"] >= summary["error"]
        assert [stage["answers"] for stage in card["stages"]] == summary["answers_by_stage"]
    lines = [json.loads(line) for line in (run / "certified" / "results.jsonl").read_text().splitlines()]
    answers = [line["predicted"][-1] if line["answer"] is None else line["answer"] for line in lines]
    wrong = [answer != line["label"] for answer, line in zip(answers, lines, strict=True)]
    assert errors["clean"]["count"] == sum(wrong) <= errors["error"]["count"]
    for k, stage in enumerate(card["stages"]):
        assert stage["file"] == f"stage-{k + 1}/best.safetensors"
        assert stage["clean_errors"] == sum(line["predicted"][k] != line["label"] for line in lines)
    text = (run / "card.md").read_text()
    assert errors["certified"]["command"] in text and "stages = 2" in text
    assert card["command"].startswith("lpverify train") and card["command"] in text
    assert f"| no certificate | {100 * errors['no certificate']['error']:.2f} % |" in text
    # A card that is there is kept, and one of other stages is not.
    written = (run / "card.json").stat().st_mtime_ns
    assert main(ask) == 0 and (run / "card.json").stat().st_mtime_ns == written
    (run / "card.json").write_text(json.dumps({**card, "checkpoint_sha256": "0"}))
    assert not has_cascade_card(run)


def test_the_command_writes_a_card_of_a_single_model_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text(TOML)
    run = tmp_path / "run"
    ask = ["train", str(tmp_path / "config.toml"), "--out", str(run)]
    assert main([*ask, "--no-card"]) == 0 and not (run / "card.json").exists()
    assert main(ask) == 0
    card = json.loads((run / "card.json").read_text())
    assert [error["total"] for error in card["errors"].values()] == [400, 400, 400, 400, 100]
    assert card["config"]["method"] == "ibp" and card["header"]["command"].startswith("lpverify train")
    assert card["protocol"]["eps"] == "0.04" and card["protocol"]["clip"] == ["0.0", "1.0"]
    assert main(["check", str(run / "certified"), "--data", "digits"]) == 0
    written = (run / "card.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(ask) == 0 and (run / "card.json").stat().st_mtime_ns == written
