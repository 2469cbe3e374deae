"""``lpverify detect``: its run folder, its numbers, and what ``lpverify check`` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lpverify.cli import main
from lpverify.data import load_data

DIGITS = str(Path(__file__).resolve().parent.parent / "lpverify/assets/digits-demo.safetensors")
ASK = ["--eps", "0.1", "--clip", "0", "1", "--method", "crown"]

Captured = pytest.CaptureFixture[str]


def lines_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def test_a_run_is_written_reported_and_checked(tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    assert main(["detect", DIGITS, "--data", "digits", "--index", "65:95", *ASK, "--out", str(run), "--json"]) == 0
    text = capsys.readouterr().out
    summary, lines = json.loads((run / "summary.json").read_text()), lines_of(run)
    assert json.loads(text.splitlines()[-1]) == summary
    found = summary["detection"]
    assert found["flagged"] == sum(line["flagged"] is True for line in lines) == 30 - summary["verified"] > 0
    right = [line for line in lines if line["label"] == line["true_label"]]
    assert found["right"] == len(right) < 30 and found["false_positives"] == sum(bool(r["flagged"]) for r in right)
    assert summary["clean_error"] is None and summary["misclassified"] is None
    for extra in ([], ["--data", "digits"], ["--exact"]):
        assert main(["check", str(run), *extra]) == 0
        assert f"flagged: {found['flagged']} of 30; the claims are about the predicted" in capsys.readouterr().out


def test_no_labels_are_needed_and_no_folder(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, x=load_data("digits").x[:5])
    run = tmp_path / "run"
    assert main(["detect", DIGITS, "--data", str(file), *ASK, "--json"]) == 0
    text = capsys.readouterr().out
    assert "false positives" not in text and "evidence was not kept: no --out" in text
    assert "right" not in json.loads(text.splitlines()[-1])["detection"]
    assert main(["detect", DIGITS, "--data", str(file), *ASK, "--out", str(run)]) == 0
    assert main(["check", str(run), "--data", str(file)]) == 0
    assert all(line["true_label"] is None for line in lines_of(run))
    assert main(["verify", DIGITS, "--data", str(file), *ASK, "--out", str(tmp_path / "v")]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flagged": True}, "flagged is True"),
        ({"flagged": 0}, "flagged is 0"),
        ({"true_label": 99}, "label 99 is not that of digits"),
        ({"true_label": None}, "label None is not that of digits"),
        ({"label": 99}, "its evidence is about label"),
    ],
)
def test_check_refuses_a_line_that_was_changed(
    tmp_path: Path, capsys: Captured, change: dict[str, object], message: str
) -> None:
    run = tmp_path / "run"
    assert main(["detect", DIGITS, "--data", "digits", "--index", "0:2", *ASK, "--out", str(run)]) == 0
    lines = lines_of(run)
    assert lines[0]["verdict"] == "verified"
    lines[0].update(change)
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["check", str(run), "--data", "digits"]) == 7
    assert message in capsys.readouterr().err


def test_a_labelled_run_may_not_hide_its_labels(tmp_path: Path, capsys: Captured) -> None:
    """A line of ``verify`` that only claims to be detection is still compared with the data set's label."""
    run = tmp_path / "run"
    assert main(["verify", DIGITS, "--data", "digits", "--index", "0:2", *ASK, "--out", str(run)]) == 0
    lines = lines_of(run)
    lines[0]["flagged"] = False
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["check", str(run), "--data", "digits"]) == 7
    assert "flagged is None" in capsys.readouterr().err
