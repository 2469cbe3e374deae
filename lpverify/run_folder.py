"""The folder of a run: results, evidence and summary, written so that a reader never meets half a file.

    RUN/results.jsonl                   one line an example, in order (``Result.record``)
    RUN/radii.jsonl                     instead, in a run of ``lpverify radius``
    RUN/summary.json                    counts, options, versions (``summary``)
    RUN/network.lpnet                   the lowered network, by whose SHA-256 the evidence names it
    RUN/certificates/000012.lpcert      the proof for example 12
    RUN/counterexamples/000012.lpwit    the witness for example 12
    RUN/property.vnnlib[.gz]            the property, in a run about one; its claims take the examples' place

``results.jsonl`` grows line by line, each flushed, and a line is written after the evidence that it names.
Every other file is written under a temporary name and renamed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from lpverify.certificate.claim import Claim
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import Witness
from lpverify.errors import ResourceError, UsageError
from lpverify.result import Counterexample, Result

if TYPE_CHECKING:
    from lpverify.network import Network
    from lpverify.radius import RadiusResult

RESULTS = "results.jsonl"
RADII = "radii.jsonl"
SUMMARY = "summary.json"
NETWORK = "network.lpnet"
PROPERTY = ("property.vnnlib", "property.vnnlib.gz")
GZIP = b"\x1f\x8b"
CERTIFICATES, CERTIFICATE_SUFFIX = "certificates", ".lpcert"
COUNTEREXAMPLES, COUNTEREXAMPLE_SUFFIX = "counterexamples", ".lpwit"
TEMPORARY = ".tmp"


class RunFolder:
    """An open run, used as a context manager; what was written stays, whatever ends the run."""

    def __init__(self, path: Path, *, overwrite: bool = False, results: str = RESULTS) -> None:
        """Make the folder, or take an empty one.

        Args:
            path: the folder; its parents are made.
            overwrite: remove an earlier run there first. Files that no run writes are never removed.
            results: the name of the file of lines, RESULTS or RADII.

        Raises:
            UsageError: if the folder is not empty and ``overwrite`` is off, or holds other files, or is a file.
            ResourceError: if it cannot be made or written.
        """
        self.path, self._file = path, path / results
        with disk(path):
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path}: is a file; choose a folder for the run")
            if path.exists() and any(path.iterdir()):
                if not overwrite:
                    raise UsageError(f"{path}: the folder is not empty; choose another or pass --overwrite")
                _remove_run(path)
            for folder in (path, path / CERTIFICATES, path / COUNTEREXAMPLES):
                folder.mkdir(parents=True, exist_ok=True)
            self._results: TextIO = self._file.open("w", encoding="utf-8", newline="\n")
        self.network_sha256 = ""

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk(self._file):
            self._results.close()

    def write_network(self, data: bytes, sha256: str) -> None:
        """Store the network file, whose digest the witnesses of this run will name."""
        self.network_sha256 = sha256
        write_atomic(self.path / NETWORK, data)

    def write_property(self, data: bytes) -> None:
        """Store the bytes of a VNN-LIB file, gzipped or not."""
        write_atomic(self.path / PROPERTY[data.startswith(GZIP)], data)

    def add(self, result: Result, claim: Claim, **also: Any) -> None:
        """Append one result: its evidence first, then its line with what it says besides (``also``), flushed.

        Raises:
            ResourceError: if the disk refuses; the lines and files before this one are intact.
        """
        witness = None
        if result.counterexample is not None:
            witness = witness_of(result.counterexample, claim, self.network_sha256).encode()
        certificate = self._store_certificate(result.index, result.certificate)
        self.add_record({**result.record(certificate, self._store_witness(result.index, witness)), **also})

    def add_radius(self, found: RadiusResult, label: int) -> None:
        """Append one example's radii, its evidence first; radii that are infinite or unknown are written as null."""
        names = ("certified", "attacked", "exact_lower", "exact_upper")
        radii = {name: getattr(found, name) for name in names}
        self.add_record({
            "index": found.index,
            "label": label,
            **{name: value if math.isfinite(value) else None for name, value in radii.items()},
            "method": found.method,
            "reason": found.reason,
            "seconds": round(found.seconds, 6),
            "certificate": self._store_certificate(found.index, found.certificate),
            "counterexample": self._store_witness(found.index, found.counterexample),
        })  # fmt: skip

    def _store_certificate(self, index: int, data: bytes | None) -> str | None:
        """Write a certificate, if there is one, and return its path in the folder."""
        if data is None:
            return None
        name = f"{CERTIFICATES}/{index:06d}{CERTIFICATE_SUFFIX}"
        write_atomic(self.path / name, data)
        return name

    def _store_witness(self, index: int, data: bytes | None) -> str | None:
        """The same for a counterexample's file."""
        if data is None:
            return None
        name = f"{COUNTEREXAMPLES}/{index:06d}{COUNTEREXAMPLE_SUFFIX}"
        write_atomic(self.path / name, data)
        return name

    def add_record(self, record: dict[str, Any]) -> None:
        """Append one line and flush it."""
        with disk(self._file):
            self._results.write(json.dumps(record, allow_nan=False) + "\n")
            self._results.flush()

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_atomic(self.path / SUMMARY, text.encode())


def network_file(network: Network) -> tuple[bytes, str]:
    """The network file's bytes and the SHA-256 by which certificates name the network."""
    from lpverify.serialize import network_bytes

    data = network_bytes(network)
    return data, hashlib.sha256(data).hexdigest()


def witness_of(counterexample: Counterexample, claim: Claim, network_sha256: str) -> Witness:
    """The witness file's content for a counterexample."""
    point = np.ascontiguousarray(counterexample.x, dtype="<f8")
    x = RawArray("<f8", point.shape, point.tobytes())
    return Witness(network_sha256, claim, x, counterexample.row, counterexample.margin, counterexample.margin_float32)


def write_atomic(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file under a temporary name beside it, then rename it; a failure leaves the old file, if any.

    Args:
        sync: wait for the disk, so that after a power cut too the old or the new file is there, whole.

    Raises:
        ResourceError: if the disk refuses.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with disk(path):
        try:
            temporary.write_bytes(data)
            if sync:
                _sync(temporary)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write a CSV file at once; its folder is made if need be."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomic(path, text.getvalue().encode())


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn an OSError into a ResourceError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"{path}: cannot be written ({reason}); what was written before is kept") from error


def _remove_run(path: Path) -> None:
    """Remove what a run writes; refuse before removing anything if there is something else."""
    ours = [path / name for name in (RESULTS, RADII, SUMMARY, NETWORK, *PROPERTY)]
    folders = {path / CERTIFICATES: CERTIFICATE_SUFFIX, path / COUNTEREXAMPLES: COUNTEREXAMPLE_SUFFIX}
    for folder, suffix in folders.items():
        ours.extend(p for p in _listed(folder) if p.name.removesuffix(TEMPORARY).endswith(suffix))
    known = {*ours, *(p.with_name(p.name + TEMPORARY) for p in ours), *folders}
    for found in (p for folder in (path, *folders) for p in _listed(folder)):
        if found not in known:
            raise UsageError(f"{path}: --overwrite removes a run, but {found} belongs to none; choose another folder")
    for file in known - set(folders):
        file.unlink(missing_ok=True)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
