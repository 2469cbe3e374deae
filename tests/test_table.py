"""Counts of a run and the closing table, as text at 80 columns."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from lpverify.result import Counterexample, Result, Verdict
from lpverify.runs.summary import Stopwatch, Tally, quartiles, summary
from lpverify.table import caption, percent, print_summary

OPTIONS = {
    "eps": "0.1", "norm": "inf", "clip": ["0", "1"], "mean": None, "std": None, "semantics": "real", "method": "auto",
}  # fmt: skip


def result(
    verdict: Verdict, method: str, reason: str = "", point: Counterexample | None = None, leaves: int | None = None
) -> Result:
    return Result(0, verdict, reason, method, "real", np.zeros(2), 0.25, 1, 1, point, leaves=leaves)


def tally() -> Tally:
    found = Tally()
    for _ in range(3):
        found.add(result(Verdict.VERIFIED, "crown"))
    clean = Counterexample(np.zeros(1), 0, -1.0, -1.0, misclassified=True)
    found.add(result(Verdict.FALSIFIED, "clean", "misclassified", clean))
    found.add(result(Verdict.FALSIFIED, "pgd", "", Counterexample(np.zeros(1), 0, -1e-9, 1e-9)))
    found.add(result(Verdict.UNKNOWN, "alpha", "bounds too loose"))
    found.add(result(Verdict.UNKNOWN, "milp", "uncertified: milp claims a proof, but the checker found row 2: -0.5"))
    found.add(result(Verdict.UNKNOWN, "milp", "uncertified: milp claims a proof, but the checker found row 0: -0.1"))
    return found


def test_summary_counts_and_shares() -> None:
    got = summary(tally(), options=OPTIONS)
    assert (got["examples"], got["verified"], got["falsified"], got["unknown"], got["uncertified"]) == (8, 3, 2, 3, 2)
    assert (got["misclassified"], got["float32_disagrees"]) == (1, 1)
    assert (got["clean_error"], got["robust_error_lower"], got["robust_error_upper"]) == (0.125, 0.25, 0.625)
    assert got["methods"]["milp"] == {"verified": 0, "falsified": 0, "unknown": 2, "seconds": 0.5}
    assert got["unknown_reasons"] == {"bounds too loose": 1, "uncertified": 2} and got["options"] is OPTIONS


def test_leaves_of_split_trees_are_counted() -> None:
    found = tally()
    assert "split trees" not in printed(found)
    for leaves in (1, 7, 4):
        found.add(result(Verdict.VERIFIED, "phase splits", leaves=leaves))
    got = summary(found, options=OPTIONS)
    assert (got["trees"], got["leaves"]) == (2, 11)
    assert "proofs by split trees: 2, with 11 leaves together" in printed(found)


def printed(found: Tally) -> str:
    print_summary(summary(found, options=OPTIONS, seconds={"total": 0.0}), stream := io.StringIO())
    return stream.getvalue()


def test_only_an_unknown_result_counts_as_uncertified() -> None:
    found = Tally()
    for verdict in Verdict:
        found.add(result(verdict, "milp", "uncertified"))
    found.add(result(Verdict.UNKNOWN, "milp", "timeout (1 s an example)"))
    assert found.uncertified == 1


def test_no_result_at_all_is_summarised() -> None:
    got = summary(Tally(), options=OPTIONS, seconds={"total": 0.0})
    assert (got["examples"], got["clean_error"], got["robust_error_upper"]) == (0, None, None)
    print_summary(got, stream := io.StringIO())
    assert "0 examples" in stream.getvalue()


def test_the_table_says_it_all_within_80_columns() -> None:
    stream = io.StringIO()
    print_summary(summary(tally(), options=OPTIONS, seconds={"load": 1.0, "total": 3.5}), stream)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[:3] for row in cells[:4]] == [
        ["verified", "3", "37.50 %"], ["falsified", "2", "25.00 %"], ["unknown", "3", "37.50 %"],
        ["uncertified", "2", "25.00 %"],
    ]  # fmt: skip
    assert cells[3][3] == "unknown, though a method claims a proof"
    assert [row[:2] for row in cells[4:7]] == [
        ["clean error", "12.50 %"], ["robust error, at least", "25.00 %"], ["robust error, at most", "62.50 %"]
    ]  # fmt: skip
    assert ["crown", "3", "0", "0", "0.75", "250.0"] in cells[7:]
    flat = " ".join(text.split())
    assert "eps 0.1 in raw input units, norm inf, clip 0 to 1; normalisation: as the model file has it" in flat
    assert "semantics real; method auto" in flat and "load 1.00, total 3.50" in flat
    assert "unknown because: bounds too loose (1), uncertified (2)" in flat
    assert "counterexamples that the float32 forward pass does not show: 1" in flat


def test_nothing_uncertified_is_not_mentioned() -> None:
    found = Tally()
    found.add(result(Verdict.UNKNOWN, "alpha", "bounds too loose"))
    print_summary(summary(found, options=OPTIONS, seconds={"total": 0.0}), stream := io.StringIO())
    assert "uncertified" not in stream.getvalue()


def test_caption_tells_clip_and_normalisation_apart() -> None:
    given = caption({**OPTIONS, "clip": None, "mean": [0.1307], "std": None})
    assert "no clip" in given and "mean 0.1307, std 1" in given


@pytest.mark.parametrize(("count", "total", "text"), [(582, 10000, "5.82 %"), (0, 0, "-"), (1, 3, "33.33 %")])
def test_percent(count: int, total: int, text: str) -> None:
    assert percent(count, total) == text


def test_quartiles() -> None:
    assert list(quartiles([3.0, 1.0, 2.0, 5.0, 4.0]).values()) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert set(quartiles([2.0]).values()) == {2.0} and set(quartiles([]).values()) == {None}


def test_stopwatch_times_blocks_and_iterators() -> None:
    watch = Stopwatch()
    with watch("load"):
        pass
    assert list(watch.iterate("verify", [1, 2])) == [1, 2]
    seconds = watch.seconds()
    assert list(seconds) == ["load", "verify", "total"]
    assert all(math.isfinite(s) and 0 <= s <= seconds["total"] for s in seconds.values())
