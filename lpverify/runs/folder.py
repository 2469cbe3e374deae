"""The folder of a run: results, evidence and summary, written so that a reader never meets half a file.

    RUN/run.sqlite                      the run's memory: what was asked, and one row an example (``store``)
    RUN/results.jsonl                   one line an example, in order (``Result.record``)
    RUN/radii.jsonl                     instead, in a run of ``lpverify radius``
    RUN/summary.json                    counts, options, versions (``summary``)
    RUN/network.lpnet                   the lowered network, by whose SHA-256 the evidence names it
    RUN/certificates/000012.lpcert      the proof for example 12
    RUN/counterexamples/000012.lpwit    the witness for example 12
    RUN/crashes/000012.txt, .mps.gz     what is kept of a solver that crashed on example 12, for a replay
    RUN/property.vnnlib[.gz]            the property, in a run about one; its claims take the examples' place

An example's evidence is written first, under a temporary name, synced and renamed; then its row, synced; then its
line. So a killed run has every row whole, and the evidence of each; it is gone on with from the store, and written
from there to ``results.jsonl`` when it ends. While a process writes, ``lock`` keeps others out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from lpverify.certificate.claim import Claim
from lpverify.certificate.proof import decode_witness
from lpverify.errors import CertificateError, UsageError
from lpverify.files import TEMPORARY, disk, sync_path, write_atomic
from lpverify.result import MISCLASSIFIED, MOST_CRASHES, Counterexample, RadiusResult, Result, Verdict, noted, notes_of
from lpverify.runs.lock import LOCK, Lock
from lpverify.runs.store import FINISHED, STORE, Header, Store
from lpverify.versions import versions

if TYPE_CHECKING:
    pass

RESULTS = "results.jsonl"
RADII = "radii.jsonl"
SUMMARY = "summary.json"
NETWORK = "network.lpnet"
PROPERTY = ("property.vnnlib", "property.vnnlib.gz")
GZIP = b"\x1f\x8b"
CERTIFICATES, CERTIFICATE_SUFFIX = "certificates", ".lpcert"
COUNTEREXAMPLES, COUNTEREXAMPLE_SUFFIX = "counterexamples", ".lpwit"
CRASHES, CRASH_SUFFIX, CRASH_PROGRAM = "crashes", ".txt", ".mps.gz"
# What is written as null.
NO_RADIUS = {"certified": math.nan, "attacked": math.inf, "exact_lower": math.nan, "exact_upper": math.nan}
JOURNALS = ("-wal", "-shm", "-journal")


class RunFolder:
    """An open run, used as a context manager; what was written stays, whatever ends the run.

    Attributes:
        finished: the examples that had a result when it was opened.
        summary: of a run that was finished when it was opened, else None.
        sessions: how many processes have worked on it, this one included.
    """

    def __init__(
        self, path: Path, *, overwrite: bool = False, results: str = RESULTS, header: Header | None = None
    ) -> None:
        """Make the folder, take an empty one, or go on with the run that is there.

        Args:
            path: the folder; its parents are made.
            overwrite: remove an earlier run there first. Files that no run writes are never removed.
            results: the name of the file of lines, RESULTS or RADII.
            header: what the run is about; a run with the same header is gone on with. None: none is.

        Raises:
            UsageError: if the folder is not empty and ``overwrite`` is off, or holds other files, or is a file, or its
                run is about something else, or another process is writing it.
            ResourceError: if it cannot be made or written.
        """
        self.path, self._file = path, path / results
        with disk(path):
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path}: is a file; choose a folder for the run")
            resumable = header is not None and (path / STORE).is_file()
            if not (overwrite or resumable) and any(p.name != LOCK for p in _listed(path)):
                raise UsageError(f"{path}: the folder is not empty; choose another or pass --overwrite")
            path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
        try:
            if overwrite:
                with disk(path):
                    _remove_run(path)
            self._open(header or Header(""))
        except BaseException:
            self._lock.release()
            raise
        self.network_sha256 = ""

    def _open(self, header: Header) -> None:
        """Open the store, and write the lines that it has."""
        self._store = Store(self.path, header, versions())
        try:
            stored = self._store.stored
            self.finished = frozenset(record["index"] for record in stored.records)
            self.sessions, self._place = stored.sessions, len(stored.records)
            self.summary = stored.summary if stored.ended == FINISHED else None
            with disk(self.path):
                for name in (CERTIFICATES, COUNTEREXAMPLES):
                    (self.path / name).mkdir(exist_ok=True)
                if self.summary is None:
                    (self.path / SUMMARY).unlink(missing_ok=True)
            write_atomic(self._file, self._store.lines())
            with disk(self._file):
                self._lines: TextIO = self._file.open("a", encoding="utf-8", newline="\n")
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk(self._file):
                self._lines.close()
        finally:
            try:
                self._store.close()
            finally:
                self._lock.release()

    def records(self) -> list[dict[str, Any]]:
        """The lines so far, in the order of the run."""
        return [json.loads(text) for text in self._store.lines().splitlines()]

    def results(self) -> Iterator[Result]:
        """The results so far, in the order of the run: without certificates, and with the least margin only.

        Raises:
            CertificateError: if a counterexample's file is gone or damaged.
        """
        return (_restored(self.path, record) for record in self.records())

    def radii(self) -> Iterator[RadiusResult]:
        """The same in a run of radii; of the evidence only whether there is some."""
        for record in self.records():
            known: dict[str, Any] = {name: record[name] for name in ("index", "method", "reason", "seconds")}
            known |= {name: none if record[name] is None else record[name] for name, none in NO_RADIUS.items()}
            known |= {name: None if record[name] is None else b"" for name in ("certificate", "counterexample")}
            yield RadiusResult(**known, notes=notes_of(record))

    def write_network(self, data: bytes, sha256: str) -> None:
        """Store the network file, whose digest the witnesses of this run will name."""
        self.network_sha256 = sha256
        write_atomic(self.path / NETWORK, data, sync=True)

    def write_property(self, data: bytes) -> None:
        """Store the bytes of a VNN-LIB file, gzipped or not."""
        write_atomic(self.path / PROPERTY[data.startswith(GZIP)], data, sync=True)

    def add(self, result: Result, claim: Claim | None, *, place: int | None = None, **also: Any) -> Result:
        """Store one result: its evidence first, then its row and line with what it says besides (``also``).

        Args:
            claim: what a counterexample is one to; None for an example of which nothing is claimed.
            place: in the run; by default the next.

        Returns:
            The result as it was stored: where a solver's crash was kept, its reason says so.

        Raises:
            ResourceError: if the disk refuses; the lines and files before this one are intact.
        """
        witness = None
        if result.counterexample is not None:
            assert claim is not None
            witness = result.counterexample.witness(claim, self.network_sha256).encode()
        result, crash = self._store_crash(result)
        record = result.record(**self._store_evidence(result.index, result.certificate, witness))
        self.add_record({**record, **crash, **also}, place)
        return result

    def add_radius(self, found: RadiusResult, label: int, *, place: int | None = None) -> None:
        """Store one example's radii, its evidence first; radii that are infinite or unknown are written as null.

        Args:
            place: in the run; by default the next.
        """
        radii = {name: getattr(found, name) for name in NO_RADIUS}
        self.add_record({
            "index": found.index,
            "label": label,
            **{name: value if math.isfinite(value) else None for name, value in radii.items()},
            "method": found.method,
            "reason": found.reason,
            "seconds": round(found.seconds, 6),
            **noted(found.notes),
            **self._store_evidence(found.index, found.certificate, found.counterexample),
        }, place)  # fmt: skip

    def _store_crash(self, result: Result) -> tuple[Result, dict[str, str]]:
        """Write what is kept of a crash, if there is something and not too much of it yet; what the line says of it."""
        folder = self.path / CRASHES
        if result.replay is None or len([p for p in _listed(folder) if p.suffix == CRASH_SUFFIX]) >= MOST_CRASHES:
            return result, {}
        with disk(folder):
            folder.mkdir(exist_ok=True)
        name = folder / f"{result.index:06d}"
        if result.replay.program:
            write_atomic(name.with_suffix(CRASH_PROGRAM), result.replay.program)
        write_atomic(name.with_suffix(CRASH_SUFFIX), result.replay.text.encode())
        said = replace(result, reason=f"{result.reason}; kept in {CRASHES}/ for a replay")
        return said, {"crash": f"{CRASHES}/{name.name}{CRASH_SUFFIX}"}

    def _store_evidence(self, index: int, certificate: bytes | None, witness: bytes | None) -> dict[str, str | None]:
        """Write the files that there are; their paths in the folder, by the names that a line has for them."""
        names: dict[str, str | None] = {"certificate": None, "counterexample": None}
        for kind, folder, suffix, data in (
            ("certificate", CERTIFICATES, CERTIFICATE_SUFFIX, certificate),
            ("counterexample", COUNTEREXAMPLES, COUNTEREXAMPLE_SUFFIX, witness),
        ):
            if data is not None:
                names[kind] = name = f"{folder}/{index:06d}{suffix}"
                write_atomic(self.path / name, data, sync=True)
        return names

    def add_record(self, record: dict[str, Any], place: int | None = None) -> None:
        """Store one example's record at its place in the run (by default the next), then append its line."""
        text = self._store.add(self._place if place is None else place, record)
        self._place += 1
        with disk(self._file):
            self._lines.write(text + "\n")
            self._lines.flush()

    def write_summary(self, summary: dict[str, Any]) -> None:
        """End the run: write the file of lines from the store, then ``summary.json``, synced both.

        A summary with "stopped" says that the run did not finish: it can be gone on with.
        """
        with disk(self._file):
            self._lines.close()
        write_atomic(self._file, self._store.lines(), sync=True)
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_atomic(self.path / SUMMARY, text.encode(), sync=True)
        self._store.end(summary.get("stopped") or FINISHED, summary)


def _restored(folder: Path, record: dict[str, Any]) -> Result:
    """The result of which a record is the line."""
    counterexample = None
    if record["counterexample"] is not None:
        path = folder / record["counterexample"]
        try:
            witness = decode_witness(path.read_bytes(), str(path))
        except OSError as error:
            raise CertificateError(f"{path}: cannot be read ({error.strerror}); make the run again") from None
        counterexample = Counterexample(
            np.array(witness.x.values()), witness.row, witness.margin, witness.margin_float32,
            misclassified=record["reason"].startswith(MISCLASSIFIED),
        )  # fmt: skip
    lower = math.nan if record["margin_lower"] is None else record["margin_lower"]
    names = ("index", "reason", "method", "seconds", "label", "predicted")
    return Result(
        **{name: record[name] for name in names}, verdict=Verdict(record["verdict"]), semantics="",
        margins=np.array([lower]), counterexample=counterexample, leaves=record.get("leaves"),
        nodes=record.get("nodes"), notes=notes_of(record),
    )  # fmt: skip


def _remove_run(path: Path) -> None:
    """Remove what a run writes; refuse before removing anything if there is something else."""
    ours = [path / name for name in (RESULTS, RADII, SUMMARY, NETWORK, *PROPERTY, STORE)]
    folders: dict[Path, tuple[str, ...]] = {
        path / CERTIFICATES: (CERTIFICATE_SUFFIX,),
        path / COUNTEREXAMPLES: (COUNTEREXAMPLE_SUFFIX,),
        path / CRASHES: (CRASH_SUFFIX, CRASH_PROGRAM),
    }
    for folder, suffixes in folders.items():
        ours.extend(p for p in _listed(folder) if p.name.removesuffix(TEMPORARY).endswith(suffixes))
    journals = [path / (STORE + suffix) for suffix in JOURNALS]
    known = {*ours, *(p.with_name(p.name + TEMPORARY) for p in ours), *journals, *folders, path / LOCK}
    for found in (p for folder in (path, *folders) for p in _listed(folder)):
        if found not in known:
            raise UsageError(f"{path}: --overwrite removes a run, but {found} belongs to none; choose another folder")
    # The store first: without it no run is gone on with, whatever else is left when this is interrupted.
    first = [path / STORE, *journals]
    for file in first:
        file.unlink(missing_ok=True)
    if path.is_dir():
        sync_path(path)
    for file in known - {*first, *folders, path / LOCK}:
        file.unlink(missing_ok=True)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
