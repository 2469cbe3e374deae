"""The store: every row whole or absent whatever is cut off, what is refused, and who may write."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpverify.errors import CertificateError, ResourceError, UsageError
from lpverify.result import Result, Verdict
from lpverify.runs.folder import RunFolder
from lpverify.runs.lock import LOCK, Lock
from lpverify.runs.results_table import run_records, to_csv, to_jsonl, to_parquet
from lpverify.runs.store import FINISHED, STORE, Header, Store, canonical, read_store

HEADER = Header("verify", "a" * 64, "b" * 64, canonical({"eps": "0.1", "clip": ("0", "1")}))


def record(index: int) -> dict[str, Any]:
    return {"index": index, "verdict": "unknown", "reason": "x" * index, "margin_lower": -1 / 3, "seconds": 0.1}


def filled(folder: Path, count: int) -> Store:
    store = Store(folder, HEADER, {})
    for index in range(count):
        store.add(index, record(index))
    return store


def copied(folder: Path, to: Path) -> Path:
    """What is on the disk while the store is open: what a killed process leaves."""
    to.mkdir()
    for name in (STORE, f"{STORE}-wal"):
        shutil.copy(folder / name, to / name)
    return to


def test_rows_of_a_killed_process_are_there(tmp_path: Path) -> None:
    filled(tmp_path, 5)
    left = copied(tmp_path, tmp_path / "left")
    stored = read_store(left)
    assert stored is not None and stored.ended is None and stored.header == HEADER
    assert list(stored.records) == [record(i) for i in range(5)]
    again = Store(left, HEADER, {})
    assert (again.stored.records, again.stored.sessions) == (stored.records, 2)
    again.close()


def test_a_journal_on_a_full_disk_is_read_as_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite makes an index beside a journal, for which there may be no room; other errors are told."""
    import lpverify.runs.store

    filled(tmp_path, 3)
    left, read, said = copied(tmp_path, tmp_path / "left"), lpverify.runs.store._read, ["SQLITE_IOERR_SHMSIZE"]

    def refuse(address: str, path: Path) -> Any:
        if "left" in address:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = said[0]
            raise error
        return read(address, path)

    monkeypatch.setattr(lpverify.runs.store, "_read", refuse)
    stored = read_store(left)
    assert stored is not None and list(stored.records) == [record(i) for i in range(3)]
    said[0] = "SQLITE_BUSY"
    with pytest.raises(CertificateError, match="disk I/O error"):
        read_store(left)


def test_a_torn_journal_gives_the_rows_before_it(tmp_path: Path) -> None:
    filled(tmp_path, 6)
    journal = (tmp_path / f"{STORE}-wal").read_bytes()
    seen = set()
    for number, length in enumerate([*range(len(journal), len(journal) - 4300, -331), *range(0, len(journal), 5003)]):
        left = copied(tmp_path, tmp_path / str(number))
        (left / f"{STORE}-wal").write_bytes(journal[:length])
        stored = read_store(left)
        rows = [] if stored is None else list(stored.records)
        assert rows == [record(i) for i in range(len(rows))]
        seen.add(len(rows))
    assert {0, 5, 6} <= seen


def test_a_row_that_was_changed_is_told(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.end(FINISHED, {})
    store.close()
    data = (tmp_path / STORE).read_bytes()
    assert data.count(b'"reason": "xx"') == 1
    (tmp_path / STORE).write_bytes(data.replace(b'"reason": "xx"', b'"reason": "xy"'))
    with pytest.raises(CertificateError, match="the row of example 2 is damaged"):
        read_store(tmp_path)
    with pytest.raises(ResourceError, match="the row of example 2 is damaged"):
        Store(tmp_path, HEADER, {})


def test_another_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / STORE).write_bytes(b"years of work" * 1000)
    with pytest.raises(CertificateError, match="file is not a database"):
        read_store(tmp_path)
    with pytest.raises(ResourceError, match="file is not a database"):
        Store(tmp_path, HEADER, {})
    assert (tmp_path / STORE).read_bytes() == b"years of work" * 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "radius"}, "command verify there, radius here"),
        ({"model": "c" * 64}, r"model aaaaaaaaaaaa\.\.\. there, cccccccccccc\.\.\. here"),
        ({"data": "c" * 64}, r"data bbbbbbbbbbbb\.\.\. there"),
        ({"options": canonical({"eps": "0.2", "clip": ["0", "1"]})}, r"eps 0\.1 there, 0\.2 here"),
        ({"options": canonical({"eps": "0.1", "clip": None})}, r'clip \["0", "1"\] there, null here'),
    ],
)
def test_another_header_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    filled(tmp_path, 2).close()
    with pytest.raises(UsageError, match=message):
        Store(tmp_path, Header(**{**vars(HEADER), **change}), {})
    stored = read_store(tmp_path)
    assert stored is not None and (len(stored.records), stored.sessions) == (2, 1)


def test_a_finished_store_is_one_file_that_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.end(FINISHED, {"examples": 2})
    store.close()
    assert [p.name for p in tmp_path.iterdir()] == [STORE]
    with sqlite3.connect(tmp_path / STORE) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    stored = read_store(tmp_path)
    assert stored is not None and (stored.ended, stored.summary) == (FINISHED, {"examples": 2})


def test_no_store_and_an_empty_one_have_nothing(tmp_path: Path) -> None:
    assert read_store(tmp_path) is None
    (tmp_path / STORE).touch()
    assert read_store(tmp_path) is None
    filled(tmp_path, 1).close()
    assert read_store(tmp_path) is not None


def test_one_process_a_folder_and_a_stale_lock_is_taken_over(tmp_path: Path) -> None:
    hold = "import os, pathlib, sys; from lpverify.runs.lock import Lock; lock = Lock(pathlib.Path(sys.argv[1])); "
    hold += "print(os.getpid(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert process.stdout is not None
    owner = process.stdout.readline().strip()
    for attempt in (lambda: Lock(tmp_path), lambda: RunFolder(tmp_path, header=HEADER)):
        with pytest.raises(UsageError, match=f"process {owner} is writing this run"):
            attempt()
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).read_text() == f"{owner}\n"
    lock = Lock(tmp_path)
    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    with pytest.raises(UsageError, match=f"process {os.getpid()} is writing"):
        Lock(tmp_path)
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_overwrite_waits_for_nobody(tmp_path: Path) -> None:
    with RunFolder(tmp_path, header=HEADER) as run:
        run.add_record(record(0))
        with pytest.raises(UsageError, match="is writing this run"):
            RunFolder(tmp_path, header=HEADER, overwrite=True)
        run.add_record(record(1))
    assert len(run_records(tmp_path)) == 2


def test_a_folder_is_gone_on_with_in_the_order_of_the_run(tmp_path: Path) -> None:
    for place in ((2, 0), (1,)):
        with RunFolder(tmp_path, header=HEADER) as run:
            assert run.finished == (frozenset() if len(place) == 2 else {0, 2})
            for at in place:
                run.add_record(record(at), at)
            if len(place) == 1:
                run.write_summary({"examples": 3})
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines == [record(0), record(1), record(2)] == run_records(tmp_path)
    with RunFolder(tmp_path, header=HEADER) as run:
        assert run.summary == {"examples": 3}


def test_exports_have_the_same_fields(tmp_path: Path) -> None:
    records = [{"index": 0, "verdict": "verified", "leaves": 2, "certificate": "a"}, {"index": 1, "verdict": "unknown",
               "certificate": None, "predicted": [1, 2], "flagged": True}]  # fmt: skip
    assert [json.loads(line) for line in to_jsonl(records).splitlines()] == records
    assert to_csv(records).decode() == (
        'index,label,predicted,verdict,reason,method,margin_lower,margin_claimed,seconds,leaves,nodes,notes,'
        'certificate,counterexample,crash,flagged\n0,,,verified,,,,,,2,,,a,,,\n1,,"[1, 2]",unknown,,,,,,,,,,,,True\n'
    )
    assert to_csv([]).decode().startswith("index,label,predicted,verdict,reason")
    assert to_csv([{"index": 3, "certified": 0.5}]).decode().splitlines() == [
        "index,label,certified,attacked,exact_lower,exact_upper,method,reason,seconds,notes,certificate,counterexample",
        "3,,0.5,,,,,,,,,",
    ]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "t.parquet").write_bytes(to_parquet(records))
    rows = pyarrow.read_table(tmp_path / "t.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == [
        {k: v for k, v in record.items() if v is not None} for record in records
    ]


def test_a_run_that_was_half_removed_is_never_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``overwrite`` ended after each of its steps: the run is whole, or there is none."""

    def made(path: Path) -> None:
        with RunFolder(path, header=HEADER) as run:
            run.write_network(b"network", "0" * 64)
            for index in range(3):
                proved = Result(index, Verdict.VERIFIED, "", "crown", "real", np.ones(2), 0.0, certificate=b"proof")
                run.add(proved, None)
            run.write_summary({"examples": 3})

    unlink, left, refused = Path.unlink, [0], 0

    def limited(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    for steps in range(6):
        path, left[0] = tmp_path / str(steps), steps
        made(path)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", limited)
            with pytest.raises(KeyboardInterrupt):
                RunFolder(path, header=HEADER, overwrite=True)
        (path / LOCK).unlink(missing_ok=True)
        if steps == 0:
            with RunFolder(path, header=HEADER) as run:
                assert run.summary == {"examples": 3}
            assert len(list((path / "certificates").iterdir())) == 3 and (path / "network.lpnet").exists()
            continue
        with pytest.raises(UsageError, match="not empty"):
            RunFolder(path, header=HEADER)
        refused += 1
    assert refused == 5
