"""``lpverify compare``: the same rows as from Python, refusals in one line, exit code 6 where methods contradict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lpverify.bounds import METHODS, DualBound
from lpverify.bounds.base import BoundResult
from lpverify.cli import main
from lpverify.comparison.rows import read_rows
from lpverify.network import Network
from lpverify.problem import Region, Specification
from lpverify.result import Verdict
from lpverify.verify import bounds, verify

ROOT = Path(__file__).resolve().parents[2]
TOY = str(ROOT / "lpverify/assets/toy2d-standard.safetensors")
ASK = ["--data", "toy2d", "--index", "2:5", "--threads", "1"]
CHEAP = ["--method", "attack,interval,dual,crown"]


def test_rows_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    assert main(["compare", TOY, *ASK, *CHEAP, "--eps", "0.05,0.2", "--out", str(out), "--dtype", "float64"]) == 0
    shown = capsys.readouterr().out
    assert "toy2d-standard" in shown and f"rows: {out}" in shown
    rows = read_rows(out)
    assert [(row.eps, row.example) for row in rows if row.method == "dual"] == [
        (eps, example) for eps in ("0.05", "0.2") for example in (2, 3, 4)
    ]
    from lpverify.data import load_data

    examples = load_data("toy2d")
    assert examples.y is not None
    x, y = examples.x[2:5], examples.y[2:5]
    for method in ("interval", "dual", "crown"):
        expected = bounds(TOY, x, y, "0.2", method, dtype="float64").margins[:, 0].tolist()
        found = [row.margin for row in rows if (row.method, row.eps) == (method, "0.2")]
        assert found == pytest.approx(expected, rel=1e-7)
    results = verify(TOY, x, y, "0.2")
    for row in rows:
        if row.eps == "0.2":
            contradicts = {"verified": Verdict.FALSIFIED, "falsified": Verdict.VERIFIED}.get(row.verdict)
            assert results[row.example - 2].verdict is not contradicts


def test_solvers_on_some_examples_and_bounds_of_neurons(tmp_path: Path) -> None:
    out, layers = tmp_path / "rows.csv", tmp_path / "layers"
    more = ["--method", "crown,lp", "--costly-examples", "1", "--layers", str(layers), "--name", "mine"]
    assert main(["compare", TOY, *ASK, *more, "--eps", "0.1", "--out", str(out)]) == 0
    assert [(row.method, row.example, row.problem) for row in read_rows(out)] == [
        ("crown", 2, "mine"), ("lp", 2, "mine"), ("crown", 3, "mine"), ("crown", 4, "mine")
    ]  # fmt: skip
    assert sorted(path.name for path in layers.iterdir()) == [f"mine-0.1-{i}.npz" for i in (2, 3, 4)]


@pytest.mark.parametrize(
    ("code", "more", "message"),
    [
        (2, ["--eps", "0.1,-0.2"], "'-0.2' is negative"),
        (2, ["--eps", "0.1,x"], "'x' is not a decimal number"),
        (2, ["--eps", "0.1", "--method", "crown,best"], "'best' is not one of attack, interval"),
        (2, ["--eps", "0.1", "--method", "sdp"], "sdp: the network has nodes"),
    ],
)
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, more: list[str], message: str) -> None:
    assert main(["compare", TOY, *ASK, *more, "--out", str(tmp_path / "rows.csv")]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_another_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("index,label\n")
    assert main(["compare", TOY, *ASK, *CHEAP, "--eps", "0.1", "--out", str(out)]) == 4
    assert "not a comparison's file" in capsys.readouterr().err and out.read_text() == "index,label\n"


@dataclass(frozen=True)
class Liar(DualBound):
    """The dual with margins that are too high."""

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        found = super().bound(network, region, spec)
        return replace(found, margins=found.margins + 100.0)


def test_a_contradiction_is_exit_code_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "dual", Liar)
    assert main(["compare", TOY, *ASK, *CHEAP, "--eps", "0.1", "--out", str(tmp_path / "rows.csv")]) == 6
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "toy2d-standard, eps 0.1, example 2, row 0: dual " in err and str(tmp_path / "violations") in err
    assert {path.name for path in (tmp_path / "violations" / "toy2d-standard-0.1-2").iterdir()} == {
        "network.lpnet", "x.npy", "case.json"
    }  # fmt: skip
