"""What a first look at a model of one's own meets: its activations, its architecture, its radius, its progress."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lpverify.runs.folder
import lpverify.table
from lpverify.cli import main
from lpverify.table import progress

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "data.npz", x=np.full((6, 4), 0.5, np.float32), y=np.zeros(6, int))
    return str(tmp_path / "data.npz")


def saved(path: Path, *hidden: nn.Module) -> str:
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(4, 5), *hidden, nn.Linear(5, 2)).state_dict(), path)
    return str(path)


def test_that_relus_were_assumed_is_said(tmp_path: Path, data: str, capsys: Captured) -> None:
    model = saved(tmp_path / "gelu.pth", nn.GELU())
    assert main(["verify", model, "--data", data, "--eps", "0.01", "--out", str(tmp_path / "run")]) == 0
    said = f"{model}: read as linear layers in the file's order with ReLUs between; for other activations give --arch"
    assert capsys.readouterr().err.startswith(said)
    assert main(["info", model]) == 0 and "ReLUs between" in capsys.readouterr().out


def test_an_architecture_beside_the_data_is_found(tmp_path: Path) -> None:
    """By the real command, which does not look into the folder it is called from by itself."""
    saved(tmp_path / "own.pth", nn.ReLU())
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))\n"
    )
    line = [str(Path(sys.executable).parent / "lpverify"), "info", "own.pth", "--arch", "mynet:build"]
    done = subprocess.run([*line, "--input-shape", "4"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_a_fraction_gets_its_decimal(data: str, tmp_path: Path, capsys: Captured) -> None:
    model = saved(tmp_path / "m.pth", nn.ReLU())
    assert main(["verify", model, "--data", data, "--eps", "8/255", "--out", str(tmp_path / "run")]) == 2
    assert "write it like 0.03137254901960784" in capsys.readouterr().err


def test_the_examples_are_named_and_radii_are_in_their_order(tmp_path: Path, data: str, capsys: Captured) -> None:
    model, run = saved(tmp_path / "m.pth", nn.ReLU()), tmp_path / "run"
    ask = ["radius", model, "--data", data, "--index", "1:6", "--workers", "2", "--batch-size", "1", "--out", str(run)]
    assert main(ask) == 0
    assert f"examples 1:6 of {data}" in capsys.readouterr().out.replace("\n", "")
    assert [json.loads(line)["index"] for line in (run / "radii.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert json.loads((run / "summary.json").read_text())["data"]["index"] == "1:6"


def test_where_there_is_no_terminal_lines_tell_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 8.0
        return now[0]

    monkeypatch.setattr(lpverify.table.time, "monotonic", clock)
    assert list(progress(range(10), 10, "verify")) == list(range(10))
    assert capsys.readouterr().err.splitlines() == ["verify: 4 of 10 after 32 s", "verify: 8 of 10 after 64 s"]
    monkeypatch.setattr(lpverify.table.time, "monotonic", time.monotonic)


def test_errors_of_a_stopped_run_are_those_of_all_its_examples(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run = saved(tmp_path / "m.pth", nn.ReLU()), tmp_path / "run"
    add, count = lpverify.runs.folder.RunFolder.add, [0]

    def stopping(self: object, *arguments: object, **options: object) -> object:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return add(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lpverify.runs.folder.RunFolder, "add", stopping)
    assert main(["verify", model, "--data", data, "--eps", "0.01", "--out", str(run)]) == 130
    said = json.loads((run / "summary.json").read_text())
    done = said["verified"] + said["falsified"]
    assert said["examples"] == done == 2 and said["clean_error"] is None
    assert said["robust_error_lower"] == said["falsified"] / 6
    assert said["robust_error_upper"] == (6 - said["verified"]) / 6
    monkeypatch.undo()
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    page = " ".join((tmp_path / "r.html").read_text().split())
    assert "every example is decided" not in page and "the 4 examples without a result included" in page
