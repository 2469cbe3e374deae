"""What must be equal of two results about one example."""

from __future__ import annotations

from typing import Any

from lpverify.result import Result


def said(result: Result) -> tuple[Any, ...]:
    """Everything but the time."""
    record = result.record(None, None)
    del record["seconds"]
    point = None if result.counterexample is None else result.counterexample.x.tobytes()
    return tuple(record.items()), result.certificate, point, result.margins.tobytes()
