"""``lpverify results``: the lines of a run as a table for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--jsonl", "form", flag_value="jsonl", default=True, help="One object of JSON a line, as in "
              "results.jsonl; the default.")  # fmt: skip
@click.option("--csv", "form", flag_value="csv", help="Comma-separated, with a first line of names; nothing for null.")
@click.option("--parquet", "form", flag_value="parquet", help="Apache Parquet; needs --out, and the extra "
              "lpverify[parquet].")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write this file; "
              "standard output by default.")  # fmt: skip
def results(run: Path, form: str, out: Path | None) -> None:
    """Export the results of a run, one row an example, also of one that is under way, was interrupted or killed.

    The fields are those of RUN/results.jsonl or RUN/radii.jsonl.
    """
    from lpverify.errors import UsageError
    from lpverify.files import write_atomic
    from lpverify.runs.results_table import FORMS, run_records

    if form == "parquet" and out is None:
        raise UsageError("--parquet: writes a binary file; give --out FILE")
    data = FORMS[form](run_records(run))
    if out is not None:
        write_atomic(out, data)
        return
    sys.stdout.flush()
    _write(data)


def _write(data: bytes) -> None:
    stream: Any = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(data.decode())
    else:
        stream.write(data)
        stream.flush()
