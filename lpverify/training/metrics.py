"""Running means of losses, and metrics.jsonl: one line an epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from lpverify.files import disk
from lpverify.training.methods import Losses

METRICS = "metrics.jsonl"
COLUMNS = ("loss", "nominal_loss", "robust_loss", "error", "robust_error")


class Means:
    """Means over examples of what ``Losses`` holds. Nothing is read from the device before ``values``."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: torch.Tensor | None = None

    def add(self, losses: Losses) -> None:
        """Count a batch."""
        size = len(losses.broken)
        missing = losses.robust.new_full((), torch.nan)
        parts = [
            losses.loss.detach() * size,
            missing if losses.nominal is None else losses.nominal * size,
            losses.robust * size,
            missing if losses.wrong is None else losses.wrong.sum(),
            losses.broken.sum(),
        ]
        sums = torch.stack([part.double() for part in parts])
        self._sums = sums if self._sums is None else self._sums + sums
        self.count += size

    def values(self) -> dict[str, float | None]:
        """COLUMNS by name; None what was not evaluated."""
        if self._sums is None:
            return dict.fromkeys(COLUMNS)
        means = (self._sums / self.count).tolist()
        return {name: None if value != value else value for name, value in zip(COLUMNS, means, strict=True)}


class MetricsFile:
    """The growing file of a run; each line is on the disk before ``add`` returns."""

    def __init__(self, path: Path, length: int) -> None:
        """Open the file and cut it to ``length`` bytes: lines of epochs that will be run again."""
        self.path = path
        with disk(path):
            self._file = path.open("ab")
            self._file.truncate(length)

    def add(self, record: dict[str, Any]) -> int:
        """Append a line; returns the file's length in bytes."""
        with disk(self.path):
            self._file.write((json.dumps(record, allow_nan=False) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        with disk(self.path):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
