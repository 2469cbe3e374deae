"""``lpverify figure`` on runs of the shipped networks: what is written is what the runs found."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lpverify.cli import main
from lpverify.comparison.rows import read_rows
from lpverify.lowering import load_model

ASSETS = Path(__file__).resolve().parents[2] / "lpverify" / "assets"
DIGITS = [str(ASSETS / "digits-standard.safetensors"), "--data", "digits", "--clip", "0", "1"]


def columns(path: Path) -> dict[str, list[float]]:
    """A CSV's columns as numbers."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [float(line[name]) for line in lines] for name in lines[0]}


def test_gallery(tmp_path: Path) -> None:
    run, stem = str(tmp_path / "run"), tmp_path / "made" / "gallery"
    assert main(["attack", *DIGITS, "--index", "0:4", "--eps", "0.2", "--out", run]) == 0
    assert main(["figure", "gallery", run, "--count", "2", "--out", str(stem)]) == 0
    network = load_model(ASSETS / "digits-standard.safetensors")
    with np.load(stem.with_suffix(".npz")) as arrays:
        x, found, answers = arrays["x"], arrays["found"], arrays["answer"]
        assert len(x) == 2 and (answers != arrays["label"]).all()
    assert 0 < np.abs(found - x).max() <= 0.2 + 1e-7
    outputs = network.forward(torch.as_tensor(found).flatten(1).to(network.dtype))
    assert outputs.argmax(1).tolist() == answers.tolist()
    assert stem.with_suffix(".pdf").is_file() and stem.with_suffix(".png").is_file()


def test_gallery_of_a_run_without_counterexamples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["attack", *DIGITS, "--index", "0:1", "--eps", "0", "--out", run]) == 0
    assert main(["figure", "gallery", run, "--out", str(tmp_path / "g")]) == 4
    assert "no counterexample" in capsys.readouterr().err


def test_radius(tmp_path: Path) -> None:
    runs = [str(tmp_path / method) for method in ("crown", "dual")]
    for run in runs:
        method = Path(run).name
        assert main(["radius", *DIGITS, "--index", "0:3", "--max-eps", "0.2", "--method", method, "--out", run]) == 0
    assert main(["figure", "radius", *runs, "--out", str(tmp_path / "radius.png")]) == 0
    found = columns(tmp_path / "radius.csv")
    lines = [json.loads(line) for line in (tmp_path / "dual" / "radii.jsonl").read_text().splitlines()]
    assert found["dual"] == [line["certified"] for line in lines]
    assert all(a > c for a, c in zip(found["attacked"], found["crown"], strict=True))


def test_robust_error_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for eps in ("0.02", "0.06"):
        runs.append(str(tmp_path / eps))
        given = ["--index", "0:6", "--eps", eps, "--method", "crown", "--out", runs[-1]]
        assert main(["verify", *DIGITS, *given]) == 0
    stem = tmp_path / "error"
    assert main(["figure", "robust-error", *runs, "--out", str(stem)]) == 0
    found = columns(stem.with_suffix(".csv"))
    summaries = [json.loads((Path(run) / "summary.json").read_text()) for run in runs]
    assert found["eps"] == [0.02, 0.06]
    assert found["crown"] == pytest.approx([s["robust_error_upper"] for s in summaries])
    assert found["attack"] == pytest.approx([s["robust_error_lower"] for s in summaries])
    other = str(tmp_path / "other")
    assert main(["verify", *DIGITS, "--index", "0:5", "--eps", "0.02", "--method", "crown", "--out", other]) == 0
    assert main(["figure", "robust-error", *runs, other, "--out", str(stem)]) == 4
    assert "its data is not that of" in capsys.readouterr().err


def test_tightness_of_a_model_and_of_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = tmp_path / "tight"
    given = ["--index", "0:2", "--eps", "0.05", "--method", "interval,dual,crown", "--out", str(stem)]
    assert main(["figure", "tightness", *DIGITS, *given]) == 0
    rows = read_rows(stem.with_suffix(".csv"))
    assert {row.method for row in rows} == {"attack", "interval", "dual", "crown"}
    assert len(rows) == 4 * 2 * 9
    again = tmp_path / "again"
    assert main(["figure", "tightness", str(stem.with_suffix(".csv")), "--out", str(again)]) == 0
    assert again.with_suffix(".pdf").read_bytes() == stem.with_suffix(".pdf").read_bytes()
    assert main(["figure", "robust-error", str(stem.with_suffix(".csv")), "--out", str(again)]) == 0
    assert columns(again.with_suffix(".csv"))["eps"] == [0.05]
    assert main(["figure", "tightness", str(stem.with_suffix(".csv")), "--problem", "x", "--out", str(again)]) == 4
    assert main(["figure", "tightness", *DIGITS, "--out", str(again)]) == 2
    assert "Missing option '--eps'" in capsys.readouterr().err
