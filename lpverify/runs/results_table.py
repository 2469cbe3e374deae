"""The lines of a run as JSON lines, CSV or Parquet, from its store or, of an older run, from its file of lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lpverify.errors import UsageError
from lpverify.runs.audit import read_lines
from lpverify.runs.folder import RADII, RESULTS
from lpverify.runs.store import read_store

Record = dict[str, Any]
RESULT_COLUMNS = (
    "index", "label", "predicted", "verdict", "reason", "method", "margin_lower", "margin_claimed", "seconds", "leaves",
    "nodes", "notes", "certificate", "counterexample", "crash",
)  # fmt: skip
RADIUS_COLUMNS = (
    "index", "label", "certified", "attacked", "exact_lower", "exact_upper", "method", "reason", "seconds", "notes",
    "certificate", "counterexample",
)  # fmt: skip


def run_records(run: Path) -> list[Record]:
    """The records of a run folder, in the order of the run.

    Raises:
        UsageError: if the folder holds no run.
        CertificateError: if its store or its file of lines is damaged.
    """
    stored = read_store(run)
    if stored is not None:
        return list(stored.records)
    for name in (RESULTS, RADII):
        if (run / name).is_file():
            return [line.record for line in read_lines(run / name)]
    raise UsageError(f"{run}: no run there; give the folder that lpverify verify --out wrote")


def to_jsonl(records: Sequence[Record]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def to_csv(records: Sequence[Record]) -> bytes:
    """A line of names, then one line a record; null is empty, lists are JSON."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(records), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: json.dumps(v) if isinstance(v, list) else v for name, v in record.items()})
    return text.getvalue().encode()


def to_parquet(records: Sequence[Record]) -> bytes:
    """A Parquet file with a column for each name.

    Raises:
        UsageError: without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("--parquet: needs pyarrow; pip install 'lpverify[parquet]'") from None
    table = pyarrow.table({name: [record.get(name) for record in records] for name in columns(records)})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def columns(records: Sequence[Record]) -> list[str]:
    """The names of a table's columns: what any record of this kind may have, then what only these have.

    So runs of one kind have the same columns, whatever befell them. Of no records the kind is not known: those of
    ``results.jsonl``.
    """
    known = RADIUS_COLUMNS if records and "certified" in records[0] else RESULT_COLUMNS
    return list(dict.fromkeys((*known, *(name for record in records for name in record))))


FORMS: dict[str, Callable[[Sequence[Record]], bytes]] = {"jsonl": to_jsonl, "csv": to_csv, "parquet": to_parquet}
