"""The comparison's table of problems, its script and its committed file."""

from __future__ import annotations

import math
from pathlib import Path

import benchmark_path  # noqa: F401
import compare
import compare_summary
import numpy as np
import problems
import pytest

from lpverify.bounds import METHODS
from lpverify.comparison.orderings import SLACK, STORED
from lpverify.comparison.rows import Row, read_rows
from lpverify.serialize import network_bytes

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "compare.csv"


def test_problems_that_need_nothing_else_can_be_made() -> None:
    for name, problem in problems.PROBLEMS.items():
        if not problem.shared:
            case = problem.case(name, Path("nowhere"), quick=True)
            assert len(case.x) == 2 and case.radii == (problem.radii[1],)
            assert {limit.examples for limit in case.costly.values()} == {1}


def test_random_networks_are_the_same_every_time() -> None:
    load = problems.random_net(3, 2, 4, 3)
    (network, x, y), (again, x2, y2) = load(Path()), load(Path())
    assert network_bytes(network) == network_bytes(again)
    assert np.array_equal(x, x2) and np.array_equal(y, y2)
    assert network_bytes(problems.random_net(4, 2, 4, 3)(Path())[0]) != network_bytes(network)


def test_every_method_is_somewhere_in_the_table() -> None:
    assert {m for problem in problems.PROBLEMS.values() for m in problem.costly} == {
        name for name, method in METHODS.items() if method.isolated
    }


def test_a_quick_run_and_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quick.csv"
    arguments = ["compare.py", "--quick", "--problems", "random-1x50", "--out", str(out), "--data", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    assert compare.main() == 0
    rows = read_rows(out)
    assert {row.problem for row in rows} == {"random-1x50"} and {row.eps for row in rows} == {"0.25"}
    assert {row.method for row in rows} == {"attack", *METHODS}
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["compare_summary.py", "--out", str(out)])
    assert compare_summary.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("| random-1x50 | 0.25 |")]) == 2


def test_problems_without_their_data_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none.csv"
    monkeypatch.setattr(
        "sys.argv", ["compare.py", "--problems", "mnist-wk17a", "--out", str(out), "--data", str(tmp_path)]
    )
    assert compare.main() == 0
    assert "mnist-wk17a: left out" in capsys.readouterr().out and read_rows(out) == []


@pytest.fixture(scope="module")
def committed() -> list[Row]:
    return read_rows(RESULTS)


def test_the_committed_file_is_of_this_table(committed: list[Row]) -> None:
    for row in committed:
        problem = problems.PROBLEMS[row.problem]
        assert row.eps in problem.radii and row.clip == " ".join(problem.clip or ())
        assert row.method in ("attack", *METHODS)
    assert RESULTS.stat().st_size < 2e6


def test_the_committed_numbers_are_in_order(committed: list[Row]) -> None:
    """Again from the file, whose numbers have eight digits."""
    digits = 1e-7
    lp = {(row.group, row.target): row.margin for row in committed if row.method == "lp"}
    for row in committed:
        size = 1 + abs(row.bracket_upper)
        assert row.bracket_lower <= row.bracket_upper + SLACK[row.dtype] * size
        if row.method == "attack":
            assert row.margin >= row.bracket_upper - digits * size
            continue
        slack = SLACK[row.dtype] * (size + abs(row.margin))
        assert math.isnan(row.margin) or row.margin <= row.bracket_upper + slack
        assert not row.certified_margin > row.bracket_upper + digits * size
        assert not row.certified_margin > row.margin + STORED * (size + abs(row.margin))
        assert row.certified == (row.certified_margin > 0)
        if row.method in ("interval", "crown", "alpha") and (row.group, row.target) in lp:
            assert not row.margin > lp[row.group, row.target] + slack
