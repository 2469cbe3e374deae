"""Several runs: where verdicts differ, and where two cannot both be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_kinds import line, read, write_run

from lpverify.report.comparison import compare, contradictions, letter
from lpverify.report.run import RunReport


def made(
    runs: dict[str, Path], folder: Path, verdict: str, data: str = "d" * 64, label: int = 3, **changes: Any
) -> RunReport:
    """A report of one example by one run, whose options are those of the run "verify" but for ``changes``."""
    options = json.loads((runs["verify"] / "summary.json").read_text())["options"] | changes
    about = {"source": "digits", "sha256": data}
    run = write_run(folder, runs["verify"], [line(3, verdict=verdict, label=label)], options=options, data=about)
    return read(run, check=False, images=0)


def test_two_runs_that_cannot_both_be_right(runs: dict[str, Path], tmp_path: Path) -> None:
    proved, refuted = (made(runs, tmp_path / verdict, verdict) for verdict in ("verified", "falsified"))
    (found,) = compare([proved, refuted]).contradictions
    assert (found.index, found.verified_by, found.falsified_by, found.verified_eps) == (3, 0, 1, "0.05")
    # A counterexample in a smaller ball lies in the larger one as well; and the order does not matter.
    nearer = made(runs, tmp_path / "nearer", "falsified", eps="0.01")
    (found,) = compare([nearer, proved]).contradictions
    assert (found.verified_by, found.falsified_by, found.falsified_eps) == (1, 0, "0.01")


@pytest.mark.parametrize(
    "changes",
    [{"eps": "0.06"}, {"norm": "2"}, {"clip": None}, {"clip": ["0", "0.5"]}, {"semantics": "float32"},
     {"data": "e" * 64}, {"label": 4}, {"eps": "none"}, {"data": ""}],
    ids=str,
)  # fmt: skip
def test_runs_about_different_questions_do_not_contradict(
    runs: dict[str, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    proved = made(runs, tmp_path / "proved", "verified")
    refuted = made(runs, tmp_path / "refuted", "falsified", **changes)
    assert compare([proved, refuted]).contradictions == ()


def test_decimals_of_equal_value_are_the_same_question(runs: dict[str, Path], tmp_path: Path) -> None:
    proved = made(runs, tmp_path / "proved", "verified")
    refuted = made(runs, tmp_path / "refuted", "falsified", eps="5e-2", clip=["0.0", "1"])
    assert len(compare([proved, refuted]).contradictions) == 1


def test_radii_count_as_what_they_prove(runs: dict[str, Path], tmp_path: Path) -> None:
    radius = read(runs["radius"], check=False, images=0)
    label = int(radius.values("label")[0] or 0)
    sha256, certified = radius.question.data, radius.values("certified")[0]

    def other(name: str, verdict: str, eps: str) -> RunReport:
        options = json.loads((runs["radius"] / "summary.json").read_text())["options"] | {"eps": eps}
        run = write_run(tmp_path / name, runs["radius"], [line(10, verdict=verdict, label=label)], options=options)
        assert read(run, check=False).question.data == sha256
        return read(run, check=False)

    assert list(contradictions([radius, other("far", "falsified", "0.9")])) == []
    (found,) = contradictions([radius, other("near", "falsified", "0.001")])
    assert found.verified_eps == repr(certified)
    (found,) = contradictions([radius, other("proved", "verified", "0.9")])
    assert (found.verified_by, found.falsified_by) == (1, 0)


def test_examples_on_which_verdicts_differ(runs: dict[str, Path]) -> None:
    small, large, radius = (read(runs[name]) for name in ("verify", "larger", "radius"))
    together = compare([small, radius, large])
    assert together.contradictions == () and together.compared == 6
    assert [column.title for column in together.columns] == ["example", "run A", "run C"]
    pairs = zip(small.values("index"), small.texts("verdict"), large.texts("verdict"), strict=True)
    assert list(together.rows) == [row for row in pairs if row[1] != row[2]] != []


def test_two_data_sets_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    made_runs = [
        made(runs, tmp_path / f"{verdict}{data}", verdict, data=data * 64) for data in "ab"
        for verdict in ("verified", "unknown")
    ]  # fmt: skip
    rows = compare(made_runs).rows
    assert rows == ((3, "a" * 12, "verified", "unknown", None, None), (3, "b" * 12, None, None, "verified", "unknown"))


def test_letters() -> None:
    expected = ["A", "B", "Z", "AA", "AB", "BA", "ZZ", "AAA"]
    assert [letter(place) for place in (0, 1, 25, 26, 27, 52, 701, 702)] == expected
