"""The run folder: what is on disk at every moment, and what is refused."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from lpverify.certificate.claim import BallRegion, Claim, LabelRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import decode_witness
from lpverify.errors import ResourceError, UsageError
from lpverify.files import write_atomic, write_csv
from lpverify.result import Counterexample, Result, Verdict
from lpverify.runs.folder import RunFolder

CENTER = np.array([0.25, 0.5])
CLAIM = Claim(BallRegion(RawArray("<f8", (2,), CENTER.tobytes()), "0.1", "inf", ("0", "1")), LabelRows(1, 3))


def verified(index: int) -> Result:
    return Result(index, Verdict.VERIFIED, "", "crown", "real", np.array([0.5, 0.25]), 0.125, 1, 1, None, b"proof")


def falsified(index: int) -> Result:
    point = Counterexample(np.array([0.3, 0.45]), 1, -0.5, -0.25)
    return Result(index, Verdict.FALSIFIED, "", "pgd", "real", np.full(2, math.nan), 0.5, 1, 1, point)


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]


def test_a_line_is_on_disk_as_soon_as_it_is_added_and_names_its_evidence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_network(b"network", "cafe")
        run.add(verified(12), CLAIM)
        (line,) = records(run.path)
        assert line == {
            "index": 12, "label": 1, "predicted": 1, "verdict": "verified", "reason": "", "method": "crown",
            "margin_lower": 0.25, "margin_claimed": None, "seconds": 0.125,
            "certificate": "certificates/000012.lpcert", "counterexample": None,
        }  # fmt: skip
        assert (run.path / "certificates/000012.lpcert").read_bytes() == b"proof"
        run.add(falsified(7), CLAIM)
        line = records(run.path)[1]
        assert (line["margin_lower"], line["counterexample"]) == (None, "counterexamples/000007.lpwit")
        witness = decode_witness((run.path / "counterexamples/000007.lpwit").read_bytes())
        assert witness.network == "cafe" and witness.claim == CLAIM
        assert (list(witness.x.values()), witness.row, witness.margin) == ([0.3, 0.45], 1, -0.5)


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder(tmp_path / "run") as run:
        run.add(verified(0), CLAIM)
        monkeypatch.setattr(*((os, "replace") if failing == "replace" else (Path, "write_bytes")), full)
        with pytest.raises(ResourceError, match=r"000001\.lpcert: cannot be written \(No space left on device\)"):
            run.add(verified(1), CLAIM)
    assert [line["index"] for line in records(run.path)] == [0]
    assert sorted(p.name for p in (run.path / "certificates").iterdir()) == ["000000.lpcert"]


def test_a_failed_rewrite_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "summary.json"
    write_atomic(target, b"old")

    def full(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_an_earlier_run_is_refused_and_overwritten_only_when_asked(tmp_path: Path) -> None:
    for index in (3, 4):
        with RunFolder(tmp_path, overwrite=index == 4) as run:
            run.add(verified(index), CLAIM)
            run.write_summary({"examples": 1})
    assert [p.name for p in (tmp_path / "certificates").iterdir()] == ["000004.lpcert"]
    with pytest.raises(UsageError, match="not empty; choose another or pass --overwrite"):
        RunFolder(tmp_path)
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize("stranger", ["thesis.tex", "certificates/thesis.tex"])
def test_overwrite_removes_nothing_where_other_files_lie(tmp_path: Path, stranger: str) -> None:
    with RunFolder(tmp_path) as run:
        run.add(verified(0), CLAIM)
    (tmp_path / stranger).write_text("years of work")
    with pytest.raises(UsageError, match="belongs to none"):
        RunFolder(tmp_path, overwrite=True)
    assert (tmp_path / stranger).read_text() == "years of work" and len(records(tmp_path)) == 1


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "run")


def test_csv_is_written_with_its_folder(tmp_path: Path) -> None:
    write_csv(tmp_path / "a/b.csv", ["index", "note"], [["0", "x,y"]])
    assert (tmp_path / "a/b.csv").read_bytes() == b'index,note\n0,"x,y"\n'
