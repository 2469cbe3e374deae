"""TensorBoard's events: the numbers of metrics.jsonl, each epoch once however often a run was killed; its absence.

The package itself is large and optional: a writer of plain lines takes its place.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_config, tiny_splits

from lpverify.cli import main
from lpverify.errors import UsageError
from lpverify.training import train
from lpverify.training.metrics import Means, read_metrics

MODULE = "torch.utils.tensorboard"


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training find a writer that makes a file of the usual name, with a line of JSON for each number."""
    names = (f"events.out.tfevents.{k}" for k in itertools.count())

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            Path(folder).mkdir(exist_ok=True)
            self.file = (Path(folder) / next(names)).open("w")

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.file.write(json.dumps([tag, value, step]) + "\n")

        def flush(self) -> None:
            self.file.flush()

        def close(self) -> None:
            self.file.close()

    module = ModuleType(MODULE)
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)


def events(run: Path) -> list[list[Any]]:
    """What the run's only event file holds."""
    (file,) = (run / "tensorboard").glob("events*")
    return [json.loads(line) for line in file.read_text().splitlines()]


def wanted(run: Path) -> list[list[Any]]:
    """The numbers of metrics.jsonl, by tag and epoch."""
    return [
        [name.replace("_", "/", 1) if name.startswith(("test_", "validation_")) else f"train/{name}", value, epoch + 1]
        for epoch, line in enumerate(read_metrics(run / "metrics.jsonl"))
        for name, value in line.items()
        if name != "epoch" and value is not None
    ]


@pytest.mark.usefixtures("writer")
def test_a_killed_run_has_every_epoch_once(tmp_path: Path) -> None:
    config, run = tiny_config(epochs=3, validation=0.2), tmp_path / "run"

    def kill(epoch: int, step: int, steps: int, means: Means) -> None:
        if epoch == 3 and step == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, run, splits=tiny_splits(), report=kill, tensorboard=True)
    assert events(run) == wanted(run) and {step for _, _, step in events(run)} == {1, 2}
    train(config, run, splits=tiny_splits(), tensorboard=True)
    found = events(run)
    assert found == wanted(run) and {step for _, _, step in found} == {1, 2, 3}
    assert {"train/loss", "train/lr", "validation/robust_error", "test/error"} <= {tag for tag, *_ in found}
    assert len({(tag, step) for tag, _, step in found}) == len(found)


@pytest.mark.usefixtures("writer")
def test_a_finished_run_gets_its_events_and_others_files_stay(tmp_path: Path) -> None:
    config, run = tiny_config(epochs=2), tmp_path / "run"
    train(config, run, splits=tiny_splits())
    assert not (run / "tensorboard").exists()
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "notes.txt").write_text("mine")
    for _ in range(2):
        train(config, run, splits=tiny_splits(), tensorboard=True)
        assert events(run) == wanted(run)
    assert (run / "tensorboard" / "notes.txt").read_text() == "mine"


def test_without_the_package_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    run = tmp_path / "run"
    with pytest.raises(UsageError, match=r"lpverify\[tensorboard\]"):
        train(tiny_config(), run, splits=tiny_splits(), tensorboard=True)
    for stages in (1, 2):
        (tmp_path / "c.toml").write_text(f'data = "digits"\nmethod = "standard"\nepochs = 1\nstages = {stages}\n'
                                         'arch = "fc-64-10"\n')  # fmt: skip
        assert main(["train", str(tmp_path / "c.toml"), "--tensorboard", "--out", str(run)]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("lpverify: error: tensorboard: is not installed") and shown.count("\n") == 1
        assert not run.exists()
