"""The store of a run: what was asked and one row an example, in one SQLite file that survives being killed.

    RUN/run.sqlite
        run        one row: the command, SHA-256 of model and data, the options as JSON, when it began and how it ended
        sessions   one row for each process that worked on it: when it began, and the versions it had
        examples   one row an example: its number, its place in the run, the line of ``results.jsonl``, its CRC-32

The journal is written ahead (WAL) and synced at every row, so that a row is either there, whole, or was never written,
whatever ends the process or the machine. What a row names is on the disk before it (``folder``). A run that has
ended leaves a single file, which can be read where nothing can be written.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lpverify.errors import CertificateError, ResourceError, UsageError

STORE = "run.sqlite"
FORMAT = 1
FINISHED = "finished"
# SQLite's errors where the folder cannot be written or the disk is full.
UNWRITABLE = ("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_READONLY")
SCHEMA = (
    "CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, command TEXT NOT NULL, "
    "model TEXT NOT NULL, data TEXT NOT NULL, options TEXT NOT NULL, began TEXT NOT NULL, ended TEXT, summary TEXT)",
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY, began TEXT NOT NULL, versions TEXT NOT NULL)",
    "CREATE TABLE examples (idx INTEGER PRIMARY KEY, place INTEGER NOT NULL, record TEXT NOT NULL, "
    "crc INTEGER NOT NULL, finished TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Header:
    """What a run is about: a run is gone on with only under the same header.

    Attributes:
        command: the subcommand.
        model, data: SHA-256 of the lowered network and of the examples.
        options: what else decides the results, an object of canonical JSON (``canonical``).
    """

    command: str
    model: str = ""
    data: str = ""
    options: str = "{}"

    def difference(self, other: Header) -> str:
        """The first thing in which two headers differ, for people; empty if there is none."""
        ours, theirs = (
            {"command": h.command, "model": h.model, **json.loads(h.options), "data": h.data} for h in (self, other)
        )
        for name in {**ours, **theirs}:
            if (name in ours) != (name in theirs) or ours[name] != theirs[name]:
                return f"{name} {_shown(ours.get(name))} there, {_shown(theirs.get(name))} here"
        return ""


@dataclass(frozen=True)
class Stored:
    """The content of a store.

    Attributes:
        header: what the run is about.
        records: the rows, in the order of the run.
        ended: None if the run is under way or was killed, FINISHED, or the name of what stopped it.
        summary: of a run that has ended.
        sessions: how many processes have worked on it.
    """

    header: Header
    records: tuple[dict[str, Any], ...]
    ended: str | None
    summary: dict[str, Any] | None
    sessions: int


class Store:
    """A store that is open for writing."""

    def __init__(self, folder: Path, header: Header, versions: dict[str, str]) -> None:
        """Make the store of a folder, or go on with the one that is there.

        Raises:
            UsageError: if the one that is there has another header.
            ResourceError: if it cannot be read or written.
        """
        self.path = folder / STORE
        with _disk(self.path):
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                self._begin(header, versions)
            except BaseException:
                self._connection.close()
                raise

    def _begin(self, header: Header, versions: dict[str, str]) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")
        if not run("SELECT 1 FROM sqlite_master").fetchone():
            for statement in SCHEMA:
                run(statement)
            asked = (FORMAT, header.command, header.model, header.data, header.options, _now())
            run("INSERT INTO run VALUES (1, ?, ?, ?, ?, ?, ?, NULL, NULL)", asked)
        self.stored = _content(self._connection, self.path)
        if difference := self.stored.header.difference(header):
            raise UsageError(
                f"{self.path.parent}: holds another run ({difference}); choose another folder or pass --overwrite"
            )
        if self.stored.ended != FINISHED:
            run("UPDATE run SET ended = NULL, summary = NULL")
            run("INSERT INTO sessions (began, versions) VALUES (?, ?)", (_now(), json.dumps(versions)))
            self.stored = replace(self.stored, sessions=self.stored.sessions + 1)
        run("COMMIT")

    def add(self, place: int, record: dict[str, Any]) -> str:
        """Write one row; it is on the disk when this returns. The row's text is returned."""
        text = _text(record)
        with _disk(self.path):
            self._connection.execute(
                "INSERT OR REPLACE INTO examples VALUES (?, ?, ?, ?, ?)",
                (record["index"], place, text, zlib.crc32(text.encode()), _now()),
            )
        return text

    def lines(self) -> bytes:
        """The rows as the content of ``results.jsonl``, in the order of the run."""
        with _disk(self.path):
            return "".join(text + "\n" for text in _rows(self._connection, self.path)).encode()

    def end(self, how: str, summary: dict[str, Any]) -> None:
        """Note how the run ended, after its other files were written."""
        with _disk(self.path):
            self._connection.execute("UPDATE run SET ended = ?, summary = ?", (how, _text(summary)))

    def close(self) -> None:
        """Close the store; the journal of one that has ended is merged into the file."""
        with _disk(self.path):
            try:
                if self._connection.execute("SELECT ended FROM run").fetchone()[0] is not None:
                    # A reader at this moment keeps the journal; then the next process that opens the store merges it.
                    with suppress(sqlite3.OperationalError):
                        self._connection.execute("PRAGMA journal_mode = DELETE")
            finally:
                self._connection.close()


def read_store(folder: Path) -> Stored | None:
    """The content of a folder's store, also while a process writes to it; None if there is none, or nothing in it.

    Raises:
        CertificateError: if it is damaged, or is no store.
    """
    path = folder / STORE
    if not path.is_file():
        return None
    address = path.absolute().as_uri() + "?mode=ro"
    try:
        try:
            return _read(address, path)
        except sqlite3.OperationalError as error:
            # Where nothing can be written, a store without a journal is read as it is, one with a journal as a copy.
            if not (folder / f"{STORE}-wal").exists():
                return _read(address + "&immutable=1", path)
            if not error.sqlite_errorname.startswith(UNWRITABLE):
                raise
            return _read_copy(path)
    except sqlite3.Error as error:
        raise CertificateError(f"{path}: cannot be read ({error}); it is damaged, or another program's") from None
    except ResourceError as error:
        raise CertificateError(str(error)) from None


def _read_copy(path: Path) -> Stored | None:
    """Read a store and its journal in another folder: SQLite writes an index beside them, and a disk may be full."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (STORE, f"{STORE}-wal"):
            shutil.copyfile(path.with_name(name), Path(folder) / name)
        return _read((Path(folder) / STORE).as_uri(), path)


def _read(address: str, path: Path) -> Stored | None:
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return None
        return _content(connection, path)
    finally:
        connection.close()


def _content(connection: sqlite3.Connection, path: Path) -> Stored:
    (version,) = connection.execute("SELECT format FROM run").fetchone() or (None,)
    if version != FORMAT:
        raise ResourceError(f"{path}: has format {version!r}, this lpverify reads {FORMAT}; use the one that wrote it")
    asked = connection.execute("SELECT command, model, data, options, ended, summary FROM run").fetchone()
    command, model, data, options, ended, summary = asked
    header = Header(command, model, data, options)
    (sessions,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
    records = tuple(json.loads(text) for text in _rows(connection, path))
    return Stored(header, records, ended, None if summary is None else json.loads(summary), sessions)


def _rows(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    for index, text, crc in connection.execute("SELECT idx, record, crc FROM examples ORDER BY place, idx"):
        if zlib.crc32(str(text).encode()) != crc:
            raise ResourceError(f"{path}: the row of example {index} is damaged; make the run again in another folder")
        yield text


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a ResourceError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise ResourceError(f"{path}: cannot be written ({error}); what was written before is kept") from error


def canonical(options: dict[str, Any]) -> str:
    """Options as canonical JSON: lists for tuples, names in order."""
    return json.dumps(options, sort_keys=True, allow_nan=False)


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 else text or "none"
