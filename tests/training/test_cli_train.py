"""``lpverify train``: what it prints and writes, its exit codes, and that other commands take its checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lpverify.cli import main
from lpverify.training import read_config
from lpverify.training.metrics import read_metrics

TINY = """
data = "digits"
method = "pgd"
arch = "fc-64-16-10"
eps = 0.02
clip = [0, 1]
epochs = 2
attack_steps = 1
train_limit = 300
eval_limit = 50
validation = 0.1
early_stopping = "robust"
threads = 1
device = "cpu"
"""

COLUMNS = ("error", "robust_error")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_trained_checkpoint_is_verified_without_naming_its_architecture(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(config), "--no-card", "--out", str(run)]) == 0
    shown = capsys.readouterr()
    assert "finished after 2 epochs" in shown.out and "robust overfitting" in shown.out and shown.err == ""
    assert read_config(run / "config.toml") == read_config(config)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["last"] == read_metrics(run / "metrics.jsonl")[-1]
    verify = ["verify", str(run / "best.safetensors"), "--data", "digits", "--index", "0:5", "--eps", "0.005"]
    assert main([*verify, "--out", str(tmp_path / "verified")]) == 0
    assert main(["check", str(tmp_path / "verified")]) == 0
    capsys.readouterr()
    # The card of such a run compares its best epoch with its last.
    ask = ["--data", "digits", "--index", "0:3", "--eps", "0.005", "--steps", "1", "--restarts", "1"]
    assert main(["evaluate", str(run / "best.safetensors"), *ask, "--out", str(run)]) == 0
    card = json.loads((run / "card.json").read_text())
    assert card["epochs"]["best"] == summary["best"] and card["epochs"]["last"] == summary["last"]
    text = (run / "card.md").read_text()
    assert "| epoch | validation: clean error | validation: robust error | test: clean error | test: robust" in text
    for name in ("best", "last"):
        line = summary[name]
        errors = [f"{100 * line[f'{part}_{c}']:.2f} %" for part in ("validation", "test") for c in COLUMNS]
        assert f"| {name}: {line['epoch']} | {' | '.join(errors)} |" in text
    assert f"is {100 * summary['robust_overfitting']:+.2f} points from the best one's." in text
    capsys.readouterr()
    # The same command again says what there is and trains nothing.
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["train", str(config), "--no-card", "--out", str(run)]) == 0
    assert "finished after 2 epochs" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr = -1", "lr: -1.0 must be > 0"),
        ("eposh = 1", "eposh: 1 is given to an unknown key"),
        ('data_dir = "/nowhere"\ntensorboard = true', "tensorboard: True is given to an unknown key"),
    ],
)
def test_bad_configs_exit_with_2_and_one_line(
    tmp_path: Path, config: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(TINY + line + "\n")
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"lpverify: error: {config}: {message}") and shown.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_missing_data_exit_with_4(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(TINY.replace("digits", "mnist").replace("fc-64", "fc-784"))
    assert main(["train", str(config), "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]) == 4
    assert "holds no train-images-idx3-ubyte" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_with_130_and_goes_on_later(tmp_path: Path, config: Path, number: int) -> None:
    config.write_text(TINY.replace("epochs = 2", "epochs = 1000"))
    run = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lpverify", "train", str(config), "--no-card", "--out", str(run)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (run / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.decode() == "lpverify: error: interrupted; what was written is kept\n"
    lines = read_metrics(run / "metrics.jsonl")
    assert 1 <= len(lines) < 1000
