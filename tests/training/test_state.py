"""Resume: whatever ends a run, going on gives the bits of a run that was never ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import tiny_config, tiny_part, tiny_splits

from lpverify.errors import DataError, UsageError
from lpverify.training import TrainConfig, train
from lpverify.training import loop as loop_module
from lpverify.training.metrics import Means, read_metrics
from lpverify.training.splits import Splits

CHANGING = ("seconds", "eval_seconds", "memory_peak_bytes")


class Killed(BaseException):
    """Stands for the end of the process."""


def outcome(run: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What must be the same: the metrics but for times and memory, the checkpoints and the state to the byte."""
    lines = [{k: v for k, v in line.items() if k not in CHANGING} for line in read_metrics(run / "metrics.jsonl")]
    return lines, [(run / f"{name}.safetensors").read_bytes() for name in ("last", "best")]


def killing(epoch: int, step: int) -> Callable[[int, int, int, Means], None]:
    def report(at: int, done: int, steps: int, means: Means) -> None:
        if (at, done) == (epoch, step):
            raise Killed

    return report


OPTIONS: dict[str, dict[str, Any]] = {
    "pgd": {"validation": 0.2, "early_stopping": "robust", "lr_schedule": "cyclic"},
    "free": {"replays": 3, "optimizer": "sgd"},
    "fgsm": {"norm": "2", "eps_schedule": "smooth", "eps_ramp": 3.0},
    "standard": {"weight_decay": 1e-3, "optimizer": "sgd", "momentum": 0.0},
}


@pytest.mark.parametrize("method", OPTIONS)
def test_a_run_that_was_ended_twice_has_the_bits_of_one_that_was_not(tmp_path: Path, method: str) -> None:
    config = tiny_config(method=method, epochs=4, **OPTIONS[method])
    train(config, tmp_path / "whole", splits=tiny_splits())
    for epoch, step in ((1, 2), (3, 4)):
        with pytest.raises(Killed):
            train(config, tmp_path / "parts", splits=tiny_splits(), report=killing(epoch, step))
    assert len(read_metrics(tmp_path / "parts" / "metrics.jsonl")) == 2
    train(config, tmp_path / "parts", splits=tiny_splits())
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("place", ["write_checkpoint", "save_state"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_end_between_the_files_of_an_epoch_costs_nothing(
    tmp_path: Path, place: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of metrics or a checkpoint may be ahead of the state; the epoch is then run again."""
    config = tiny_config(epochs=3, validation=0.2, early_stopping="clean")
    train(config, tmp_path / "whole", splits=tiny_splits())
    calls = 0
    plain = getattr(loop_module, place)

    def ends(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Killed
        plain(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop_module, place, ends)
        train(config, tmp_path / "parts", splits=tiny_splits())
    train(config, tmp_path / "parts", splits=tiny_splits())
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_killed_process_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = "\n".join([
        'data = "digits"', 'method = "fgsm"', 'arch = "fc-64-16-10"', "eps = 0.05", "epochs = 20", "train_limit = 256",
        "threads = 1", 'device = "cpu"', "eval_every = 10", "eval_limit = 50",
    ])  # fmt: skip
    (tmp_path / "c.toml").write_text(config)

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lpverify", "train", "c.toml", "--no-card", "--out", out]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"})  # fmt: skip

    first = start("parts")
    deadline = time.monotonic() + 120
    metrics = tmp_path / "parts" / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    done = len(read_metrics(metrics)) if metrics.read_bytes().endswith(b"\n") else 0
    assert done < 20
    for out in ("parts", "whole"):
        process = start(out)
        assert process.wait() == 0, process.stderr and process.stderr.read()
    mine, theirs = (load_file(str(tmp_path / out / "last.safetensors")) for out in ("parts", "whole"))
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert outcome(tmp_path / "parts")[0] == outcome(tmp_path / "whole")[0]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = tiny_config()
    summary = train(config, tmp_path, splits=tiny_splits())
    before = outcome(tmp_path)

    def fails(*args: Any) -> None:
        raise AssertionError("no step is left")

    assert train(config, tmp_path, splits=tiny_splits(), report=fails) == summary
    assert outcome(tmp_path) == before
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_other_configs_other_data_and_other_folders_are_refused(tmp_path: Path) -> None:
    config = tiny_config()
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(config, run, splits=tiny_splits(), report=killing(2, 1))
    with pytest.raises(UsageError, match=r"holds a run with lr = 0\.01, not 0\.5"):
        train(replace(config, lr=0.5), run, splits=tiny_splits())
    other = Splits(tiny_part(70, 8), None, None, "other")
    with pytest.raises(UsageError, match="trained on other data"):
        train(config, run, splits=other)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "n.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no training run"):
        train(config, tmp_path / "notes", splits=tiny_splits())
    with pytest.raises(UsageError, match="is a file"):
        train(config, tmp_path / "notes" / "n.txt", splits=tiny_splits())
    assert (tmp_path / "notes" / "n.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"{}" * 100, lambda b: b[:-4]])
def test_damaged_states_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    config = tiny_config()
    with pytest.raises(Killed):
        train(config, tmp_path, splits=tiny_splits(), report=killing(2, 1))
    state = tmp_path / "state.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(DataError, match=r"state\.safetensors: not the state of this run") as caught:
        train(config, tmp_path, splits=tiny_splits())
    assert "\n" not in str(caught.value)


def test_runs_of_other_seeds_differ(tmp_path: Path) -> None:
    def weights(config: TrainConfig, name: str) -> bytes:
        train(config, tmp_path / name, splits=tiny_splits())
        return (tmp_path / name / "last.safetensors").read_bytes()

    config = tiny_config(epochs=1)
    one, again = weights(config, "a"), weights(config, "b")
    assert one == again != weights(replace(config, seed=1), "c")
