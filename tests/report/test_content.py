"""What a report says of a run is what the run's own files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_kinds import line, read, write_run

from lpverify.errors import CertificateError, UsageError
from lpverify.report.figures import _bins
from lpverify.report.page import render
from lpverify.report.run import Kind
from lpverify.runs.folder import RunFolder
from lpverify.runs.store import Header


def summary_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


@pytest.mark.parametrize("name", ["verify", "larger", "attack", "detect", "cascade", "property"])
def test_verdicts_and_reasons_are_those_of_the_summary(runs: dict[str, Path], name: str) -> None:
    report, summary = read(runs[name]), summary_of(runs[name])
    assert report.ended == "finished" and report.total == (None if name == "cascade" else report.examples)
    assert dict(report.verdicts) == {verdict: summary[verdict] for verdict in ("verified", "falsified", "unknown")}
    if name in ("verify", "larger", "attack"):
        assert report.misclassified == summary["misclassified"] == 1
        assert report.share(report.verdicts["falsified"]) == summary["robust_error_lower"]
        assert report.share(report.examples - report.verdicts["verified"]) == summary["robust_error_upper"]
        found = {
            m.name: {"verified": m.verified, "falsified": m.falsified, "unknown": m.unknown, "seconds": m.seconds}
            for m in report.methods
        }
        for method in summary["methods"].values():
            method["seconds"] = pytest.approx(method["seconds"], abs=1e-5)
        assert summary["methods"] == found
    if "unknown_reasons" in summary:
        assert dict(report.reasons) == summary["unknown_reasons"]


def test_every_kind_is_known_and_all_of_its_evidence_checked(runs: dict[str, Path]) -> None:
    kinds = {name: read(run).kind for name, run in runs.items()}
    assert kinds == {name: Kind(name if name != "larger" else "verify") for name in runs}
    for name in ("verify", "detect", "attack"):
        report = read(runs[name])
        assert report.checked is not None
        assert report.checked.certificates == report.verdicts["verified"]
        assert report.checked.counterexamples == report.verdicts["falsified"]
        assert read(runs[name], check=False).checked is None


def test_radii_have_the_quartiles_of_the_summary(runs: dict[str, Path]) -> None:
    report, summary = read(runs["radius"]), summary_of(runs["radius"])
    assert report.verdicts == {} and report.checked is not None
    for name, count, quartiles in report.radii:
        assert {"count": count, **quartiles} == summary[name]
    assert [name for name, _, _ in report.radii] == ["certified", "attacked"]
    assert report.checked.certificates == summary["certified"]["count"] == 5


def test_a_property_says_what_became_of_all_claims(runs: dict[str, Path]) -> None:
    report = read(runs["property"])
    (picture,) = report.pictures
    assert report.outcome == "falsified" and report.total == 1 and picture.images == ()
    assert [change.unit for change in picture.changes] == [0, 1]
    assert (picture.changes[0].before, picture.changes[0].after) == ("-0.9 to 0.7", "-0.9")


def test_pictures_are_of_counterexamples_that_were_found(runs: dict[str, Path]) -> None:
    report = read(runs["verify"])
    (picture,) = report.pictures
    assert picture.index == 12 and picture.size == (8, 8)
    assert [name for name, _ in picture.images] == ["input", "change", "result"]
    assert all(data.startswith("data:image/png;base64,") for _, data in picture.images)
    assert "changed by up to 0.05" in picture.caption and read(runs["verify"], images=0).pictures == ()


def test_rows_are_the_lines(runs: dict[str, Path]) -> None:
    report = read(runs["verify"])
    lines = [json.loads(text) for text in (runs["verify"] / "results.jsonl").read_text().splitlines()]
    for place, column in enumerate(report.columns):
        assert [row[place] for row in report.rows] == [record.get(column.name) for record in lines]
    assert report.texts("verdict") == [record["verdict"] for record in lines]
    assert report.values("no such column") == [None] * len(lines)


def test_a_run_that_was_stopped_or_killed_is_told_as_such(runs: dict[str, Path], tmp_path: Path) -> None:
    stopped = write_run(tmp_path / "stopped", runs["verify"], [line(3)], stopped="KeyboardInterrupt")
    report = read(stopped)
    assert (report.ended, report.stopped, report.examples, report.total) == ("stopped", "KeyboardInterrupt", 1, None)
    killed = tmp_path / "killed"
    asked = json.dumps({"eps": "0.1", "norm": "inf", "index": "0:7,9", "clip": ["0", "1"]})
    with RunFolder(killed, header=Header("attack", "", "f" * 64, asked)) as run:
        with pytest.raises(UsageError, match="has no result yet"):
            read(killed)
        run.write_network((runs["verify"] / "network.lpnet").read_bytes(), "")
        run.add_record(line(3))
        running = read(killed)
    for report in (running, read(killed)):
        assert (report.ended, report.examples, report.total, report.kind) == ("unfinished", 1, 8, Kind.ATTACK)
        assert report.question.eps == "0.1" and report.question.clip == ("0", "1") and report.normalisation == ""


def test_a_run_of_no_examples(runs: dict[str, Path], tmp_path: Path) -> None:
    report = read(write_run(tmp_path / "none", runs["verify"], []))
    assert report.examples == 0 and report.share(0) is None and report.rows == ()


def test_what_is_no_run_or_was_changed_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        read(tmp_path)
    changed = tmp_path / "changed"
    shutil.copytree(runs["verify"], changed)
    next((changed / "certificates").iterdir()).unlink()
    with pytest.raises(CertificateError, match="cannot be read"):
        read(changed)
    assert read(changed, check=False).checked is None
    counts = summary_of(runs["cascade"])
    cascade = tmp_path / "cascade"
    shutil.copytree(runs["cascade"], cascade)
    (cascade / "summary.json").write_text(json.dumps({**counts, "verified": 99}))
    with pytest.raises(CertificateError, match="99 verified, but the results have"):
        read(cascade, check=False)


def test_a_counterexample_outside_the_run_is_not_read(runs: dict[str, Path], tmp_path: Path) -> None:
    name = "../verify/counterexamples/000012.lpwit"
    run = write_run(tmp_path / "r", runs["verify"], [line(3, verdict="falsified", counterexample=name)])
    with pytest.raises(CertificateError, match="is no file of a counterexample"):
        read(run, check=False)


def test_values_of_any_type_are_taken(runs: dict[str, Path], tmp_path: Path) -> None:
    odd = [
        {"index": 1, "verdict": "unknown"},
        line(2, seconds="long", method={"a": 1}, label=True, margin_lower=10**400),
        line(3, reason=["x", None], predicted=[1, 2], leaves=2**70, nodes=-0.5),
    ]
    report = read(write_run(tmp_path / "odd", runs["verify"], odd, seconds={"a": None}, data=[], options=7))
    assert report.question.eps == "" and sum(method.seconds for method in report.methods) == 0.25
    assert b"<svg" in render([report])
    assert report.values("margin_lower") == [None, None, -0.5] and report.values("leaves") == [None] * 3


@pytest.mark.parametrize("margins", [[0.0], [-3.0, 1e-300], [0.1] * 100, [1e99, -1e99], [0.19, 0.195, 2.0]], ids=len)
def test_every_margin_lies_in_a_bin_on_its_own_side_of_zero(margins: list[float]) -> None:
    edges = _bins(margins)
    assert edges[0] <= min(margins) and max(margins) <= edges[-1] and len(edges) > 1 and 0 in edges


def test_many_methods_and_reasons_are_counted_together(runs: dict[str, Path], tmp_path: Path) -> None:
    lines = [line(i, method=f"m{i:03}", reason=f"r{i:03}") for i in range(100)]
    report = read(write_run(tmp_path / "many", runs["verify"], lines))
    assert len(report.methods) == len(report.reasons) == 12
    assert report.methods[-1].name == "89 others" and sum(method.examples for method in report.methods) == 100
    assert sum(count for _, count in report.reasons) == 100
