"""Comparisons as they run: numbers that can be checked otherwise, files that are continued, methods that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import dense, enumerate_minimum

from lpverify.bounds import METHODS, AlphaBound, CrownBound
from lpverify.bounds.base import BoundResult
from lpverify.certificate.graph import parse_network
from lpverify.comparison.case import Case, Limit
from lpverify.comparison.layers import layers_path, read_layers
from lpverify.comparison.rows import Row, RowFile, read_rows
from lpverify.comparison.run import Options, compare
from lpverify.errors import SoundnessError, UsageError
from lpverify.network import Network, as_numpy
from lpverify.problem import Region, Specification
from lpverify.session import Session
from lpverify.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "lpverify/assets/toy2d-standard.safetensors"
CLOCKS = {"seconds": 0.0, "cpu_seconds": 0.0}
SOLVERS = {name: Limit(2, 30.0) for name in ("lp", "lp-tight", "milp", "sdp")}


def tiny(radii: tuple[str, ...] = ("0.3",), **changes: object) -> Case:
    """Two inputs, five hidden neurons, three classes; two points."""
    network = dense(4, 2, 5, 3)
    x = np.array([[0.1, 0.2], [-0.4, 0.3]], dtype=np.float32)
    y = as_numpy(network.forward(torch.as_tensor(x)).argmax(1))
    case = Case("tiny", network, x, y, np.array([7, 9]), radii, costly=SOLVERS)
    return replace(case, **changes)  # type: ignore[arg-type]


def run(case: Case, path: Path, **options: object) -> list[Row]:
    file = RowFile(path)
    for _ in compare(case, file, Options(**options)):  # type: ignore[arg-type]
        pass
    return file.rows


def test_every_method_brackets_the_exact_minimum(tmp_path: Path) -> None:
    case = tiny(("0.3", "0.6"))
    rows = run(case, tmp_path / "rows.csv")
    methods = ("attack", "interval", "dual", "crown", "alpha", *SOLVERS)
    assert set(methods) == {"attack", *METHODS}
    # Two radii, two examples, nine methods, two rows.
    assert len(rows) == 2 * 2 * 9 * 2
    exact = case.network.detach().to(torch.float64)
    for row in rows:
        at = [7, 9].index(row.example)
        region = Settings(row.eps).region(torch.as_tensor(case.x[[at]]).double()).box
        c = np.zeros(3)
        c[row.label], c[row.target] = 1.0, -1.0
        least, _ = enumerate_minimum(exact, as_numpy(region.lower[0]), as_numpy(region.upper[0]), c, 0.0)
        assert row.bracket_lower - 1e-6 <= least <= row.bracket_upper + 1e-9
        assert row.gap == abs(row.bracket_upper - row.margin)
        if row.method == "attack":
            assert row.margin >= row.bracket_upper and np.isnan(row.certified_margin) and not row.unstable
        else:
            assert row.certified_margin <= least + 1e-12 and row.certified == (row.certified_margin > 0)
            assert len(row.unstable.split("/")) == 1
        if row.method == "milp":
            assert abs(row.margin - least) < 1e-5 and row.gap < 1e-5
    firsts = {(row.eps, row.example, row.method): row.verdict for row in rows}
    for (eps, example, method), verdict in firsts.items():
        proved = [r.certified for r in rows if (r.eps, r.example, r.method) == (eps, example, method)]
        assert (verdict == "verified") == all(proved)


def test_a_run_is_continued_and_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny(costly={})
    rows = run(case, tmp_path / "rows.csv")
    data = (tmp_path / "rows.csv").read_bytes()
    monkeypatch.setattr(CrownBound, "bound", None)
    assert repr(run(case, tmp_path / "rows.csv")) == repr(read_rows(tmp_path / "rows.csv"))
    assert (tmp_path / "rows.csv").read_bytes() == data and len(rows) == 2 * 5 * 2


def test_costly_methods_stay_within_their_examples(tmp_path: Path) -> None:
    rows = run(tiny(costly={"lp": Limit(1, 30.0)}), tmp_path / "rows.csv")
    assert {row.example for row in rows if row.method == "lp"} == {7}
    assert {row.example for row in rows if row.method == "crown"} == {7, 9}


@dataclass(frozen=True)
class Liar(CrownBound):
    """CROWN with margins that are too high."""

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        found = super().bound(network, region, spec)
        return replace(found, margins=found.margins + 10.0)


@dataclass(frozen=True)
class Overshoot(AlphaBound):
    """Optimised slopes above their own relaxation, but below what the network can do."""

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        found = super().bound(network, region, spec)
        return replace(found, margins=found.margins + 0.01)


def test_a_method_that_lies_stops_the_run_and_leaves_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "crown", Liar)
    case, out = tiny(costly={}), tmp_path / "rows.csv"
    with pytest.raises(SoundnessError) as caught:
        run(case, out)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("tiny, eps 0.3, example 7, row 0: crown ")
    assert read_rows(out) == []
    folder = tmp_path / "violations" / "tiny-0.3-7"
    assert str(folder) in message
    saved = json.loads((folder / "case.json").read_text())
    lied = [row["margin"] for row in saved["rows"] if row["method"] == "crown"]
    with Session(case.network, Settings("0.3", dtype="float64")) as session:
        assert parse_network((folder / "network.lpnet").read_bytes()).sha256 == session.plain.sha256
        region = Settings("0.3").region(torch.as_tensor(np.load(folder / "x.npy"))[None].double())
        spec = Specification.label(torch.tensor([saved["label"]]), 3)
        assert lied == session.bound(Liar(), region, spec).margins[0].tolist()
    assert len(saved["violations"]) == len(lied)


def test_a_method_above_the_lp_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found without any point: the minimum itself is further up."""
    case = tiny(("0.6",), costly={"lp": Limit(2, 30.0)})
    run(case, tmp_path / "honest.csv")
    monkeypatch.setitem(METHODS, "alpha", Overshoot)
    tight = [row for row in read_rows(tmp_path / "honest.csv") if row.method == "lp" and row.gap > 0.02]
    assert tight
    with pytest.raises(SoundnessError, match=r"alpha .* is above lp "):
        run(case, tmp_path / "rows.csv")


def test_pre_activation_bounds_are_the_methods_own(tmp_path: Path) -> None:
    case = tiny(costly={"lp-tight": Limit(1, 30.0)})
    run(case, tmp_path / "rows.csv", layers=tmp_path / "layers")
    kept = read_layers(layers_path(tmp_path / "layers", "tiny", "0.3", 7))
    assert set(kept) == {"interval", "dual", "crown", "alpha", "lp-tight"}
    other = read_layers(layers_path(tmp_path / "layers", "tiny", "0.3", 9))
    assert set(other) == {"interval", "dual", "crown", "alpha"}
    with Session(case.network, Settings("0.3", dtype="float64")) as session:
        region = Settings("0.3").region(torch.as_tensor(case.x[:1]).double())
        spec = Specification.label(torch.as_tensor(case.y[:1]), 3)
        for name in other:
            expected = session.bound(session.method(name), region, spec).layers
            assert list(kept[name]) == list(expected)
            for node, (lower, upper) in kept[name].items():
                assert np.array_equal(lower, as_numpy(expected[node].lower[0]))
                assert np.array_equal(upper, as_numpy(expected[node].upper[0]))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiny: method 'best' is not one of attack, interval"):
        tiny(methods=("best",))
    with pytest.raises(UsageError, match="no examples"):
        tiny(x=np.zeros((0, 2)), y=np.zeros(0, dtype=np.int64))
    deep = dense(1, 2, 4, 4, 3)
    with pytest.raises(UsageError, match="sdp: the network has nodes"):
        run(tiny(network=deep, costly={"sdp": Limit(2, 1.0)}), tmp_path / "rows.csv")


def test_a_run_that_was_killed_is_continued(tmp_path: Path) -> None:
    out, whole = tmp_path / "rows.csv", tmp_path / "whole.csv"
    line = [sys.executable, "-m", "lpverify", "compare", str(TOY), "--data", "toy2d", "--eps", "0.05,0.1,0.2,0.3",
            "--method", "attack,interval,dual,crown,alpha", "--name", "toy", "--threads", "1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "stdout": subprocess.DEVNULL}
    started = subprocess.Popen([*line, "--out", str(out)], **options)  # type: ignore[call-overload]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not out.is_file() or len(out.read_bytes().splitlines()) < 12):
        time.sleep(0.01)
    started.kill()
    started.wait()
    before = read_rows(out)
    assert len(before) > 0
    for path in (out, whole):
        subprocess.run([*line, "--out", str(path)], check=True, **options)  # type: ignore[call-overload]
    rows = read_rows(out)
    assert repr(rows[: len(before)]) == repr(before)
    assert len(rows) > len(before)
    assert [repr(replace(row, **CLOCKS)) for row in rows] == [
        repr(replace(row, **CLOCKS)) for row in read_rows(whole)
    ]  # type: ignore[arg-type]
