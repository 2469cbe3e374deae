"""``lpverify verify --keep-going``: an example that cannot be used gets a line without a claim, the others answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpverify.cli import main
from lpverify.data import load_data

MODEL = str(Path(__file__).resolve().parents[1] / "lpverify" / "assets" / "digits-demo.safetensors")
ASK = ["--eps", "0.05", "--clip", "0", "1"]
COUNT = 30

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def good(tmp_path: Path) -> tuple[Any, Any]:
    digits = load_data("digits")
    assert digits.y is not None
    return digits.x[:COUNT].copy(), digits.y[:COUNT].copy()


def save(path: Path, x: Any, y: Any) -> list[str]:
    np.savez(path, x=x, y=y)
    return ["verify", MODEL, "--data", str(path), *ASK]


def lines(run: Path) -> dict[int, dict[str, Any]]:
    found = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    return {line["index"]: line for line in found}


def spoiled(x: Any, y: Any) -> tuple[Any, Any, dict[int, str]]:
    """A few examples of every kind that is refused by itself, and what is said of each."""
    x, y = x.copy(), y.astype(np.float64)
    x[1, 0, 2, 3], x[4, 0, 0, 0], x[5, 0, 0, 1], x[9, 0, 1, 0] = np.nan, np.inf, 1.25, 200.0
    y[7], y[11], y[12], y[13] = 12, -1, 2.5, np.nan
    return x, y, {
        1: "refused: input (0, 2, 3) is nan",
        4: "refused: input (0, 0, 0) is inf",
        5: "refused: input 1 is 1.25, further than eps 0.05 outside the clip 0 to 1",
        7: "refused: label 12 is not in 0..9",
        9: "refused: values up to 200, above the clip 0 to 1",
        11: "refused: label -1 is not in 0..9",
        12: "refused: label 2.5 is no class number",
        13: "refused: label nan is no class number",
    }  # fmt: skip


def test_refused_examples_get_a_line_and_the_others_their_answers(
    tmp_path: Path, good: tuple[Any, Any], capsys: Captured
) -> None:
    x, y, reasons = spoiled(*good)
    ask = save(tmp_path / "bad.npz", x, y)
    assert main([*ask, "--out", str(tmp_path / "run"), "--keep-going"]) == 0
    found = lines(tmp_path / "run")
    assert list(found) == list(range(COUNT))
    for index, reason in reasons.items():
        line = found.pop(index)
        assert (line["verdict"], line["reason"]) == ("unknown", reason)
        assert {line[name] for name in ("certificate", "counterexample", "margin_lower", "margin_claimed")} == {None}
    alone = save(tmp_path / "good.npz", x[list(found)], good[1][list(found)])
    assert main([*alone, "--out", str(tmp_path / "alone")]) == 0
    expected = lines(tmp_path / "alone").values()
    assert [line["verdict"] for line in found.values()] == [line["verdict"] for line in expected]
    assert {line["verdict"] for line in expected} == {"verified", "falsified"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["unknown_reasons"] == dict.fromkeys(reasons.values(), 1)
    assert (summary["examples"], summary["unknown"]) == (COUNT, len(reasons))
    for data in ([], ["--data", str(tmp_path / "bad.npz")]):
        capsys.readouterr()
        assert main(["check", str(tmp_path / "run"), *data]) == 0
        assert f"lines without a claim: {len(reasons)}" in capsys.readouterr().out
    # Another label than the file's is noticed, in spite of the bad ones beside it.
    save(tmp_path / "bad.npz", x, np.where(np.arange(COUNT) == 2, (y + 1) % 10, y))
    assert main(["check", str(tmp_path / "run"), "--data", str(tmp_path / "bad.npz")]) == 7


@pytest.mark.parametrize("index", [1, 4, 5, 7, 11, 12])
def test_without_it_one_bad_example_ends_the_run_and_the_option_is_named(
    tmp_path: Path, good: tuple[Any, Any], capsys: Captured, index: int
) -> None:
    x, y, _ = spoiled(*good)
    labels = np.where(np.arange(COUNT) == index, y, good[1])
    labels = labels if index == 12 else labels.astype(np.int64)
    pixels = good[0].copy()
    pixels[index] = x[index]
    assert main([*save(tmp_path / "bad.npz", pixels, labels), "--out", str(tmp_path / "run")]) == 4
    assert "--keep-going goes on with the other examples" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", ["scale", "no labels", "words"])
def test_what_is_wrong_with_the_whole_data_set_is_still_refused(
    tmp_path: Path, good: tuple[Any, Any], capsys: Captured, spoil: str
) -> None:
    x, y = good
    x[3, 0, 0, 0] = np.nan
    np.savez(
        tmp_path / "bad.npz",
        x=x * 255 if spoil == "scale" else x,
        **({} if spoil == "no labels" else {"y": y.astype(str) if spoil == "words" else y}),
    )
    ask = ["verify", MODEL, "--data", str(tmp_path / "bad.npz"), *ASK, "--keep-going", "--out", str(tmp_path / "run")]
    assert main(ask) == 4
    said = {"scale": "example 0 has values up to 255; pass --scale 255", "no labels": "no labels", "words": "integers"}
    assert said[spoil] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nothing_is_left_when_all_are_refused(tmp_path: Path, good: tuple[Any, Any]) -> None:
    ask = save(tmp_path / "bad.npz", good[0], good[1] + 10)
    assert main([*ask, "--out", str(tmp_path / "run"), "--keep-going"]) == 0
    assert {line["verdict"] for line in lines(tmp_path / "run").values()} == {"unknown"}
    assert main(["check", str(tmp_path / "run"), "--data", str(tmp_path / "bad.npz")]) == 0


def test_a_stopped_run_goes_on_under_the_same_option_only(
    tmp_path: Path, good: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    import lpverify.sweep.verifying as verifying

    x, y, reasons = spoiled(*good)
    ask = [*save(tmp_path / "bad.npz", x, y), "--batch-size", "4", "--keep-going"]
    assert main([*ask, "--out", str(tmp_path / "whole")]) == 0
    original, calls = verifying.run_batch, [0]

    def stopping(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(verifying, "run_batch", stopping)
    assert main([*ask, "--out", str(tmp_path / "run")]) == 130
    kept = lines(tmp_path / "run")
    assert set(reasons) <= set(kept) and len(kept) == len(reasons) + 8
    monkeypatch.undo()
    assert main([*ask[:-1], "--out", str(tmp_path / "run")]) == 4
    capsys.readouterr()
    assert main([*ask, "--out", str(tmp_path / "run")]) == 0
    assert f"going on after {len(kept)} of {COUNT} examples" in capsys.readouterr().err
    went_on, whole = lines(tmp_path / "run"), lines(tmp_path / "whole")
    for line in (*went_on.values(), *whole.values()):
        del line["seconds"]
    assert went_on == whole and list(went_on) == list(range(COUNT))
    # Good data know no difference: a run that was begun without the option may go on with it.
    clean = save(tmp_path / "good.npz", *good)
    assert main([*clean, "--out", str(tmp_path / "clean")]) == 0
    assert main([*clean, "--out", str(tmp_path / "clean"), "--keep-going"]) == 0


@pytest.mark.parametrize("more", [["--vnnlib", "x.vnnlib"], []])
def test_properties_and_cascades_have_no_use_for_it(tmp_path: Path, more: list[str], capsys: Captured) -> None:
    model = MODEL if more else str(tmp_path / "cascade.toml")
    ask = [] if more else ["--data", "digits", *ASK, "--out", str(tmp_path / "run")]
    assert main(["verify", model, *more, *ask, "--keep-going"]) == 2
    assert "--keep-going" in capsys.readouterr().err
