"""The metrics of a run for TensorBoard: RUN/tensorboard holds what metrics.jsonl does, by epoch.

An event file is written anew from the metrics whenever a run begins or goes on, so that no epoch is in it twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lpverify.errors import UsageError
from lpverify.files import disk

TENSORBOARD, EVENTS = "tensorboard", "events.out.tfevents.*"


class Board:
    """The open event file of a run."""

    def __init__(self, folder: Path, lines: Iterable[dict[str, Any]]) -> None:
        """Replace the event files in ``folder`` by one with the given lines of metrics.

        Raises:
            UsageError: without the package.
            ResourceError: if the disk refuses.
        """
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        with disk(folder):
            for old in folder.glob(EVENTS):
                old.unlink()
            self._writer: Any = SummaryWriter(str(folder))
        for line in lines:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """Add the numbers of one epoch."""
        with disk(self.folder):
            for name, value in line.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(_tag(name), value, line["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with disk(self.folder):
            self._writer.close()


def require_tensorboard() -> None:
    """Refuse to go on without the package.

    Raises:
        UsageError: naming what to install.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        advice = 'pip install "lpverify[tensorboard]", or leave it out'
        raise UsageError(f"tensorboard: is not installed; {advice}") from None


def _tag(name: str) -> str:
    """Names such as test_robust_error as "test/robust_error", which groups them."""
    for part in ("validation", "test"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}"
    return f"train/{name}"
