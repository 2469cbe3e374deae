"""The progress bar of a training run, with its running losses and errors."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lpverify.training.metrics import Means

# Means are read from the device, which has to be waited for, only so often.
SECONDS = 0.5
SHOWN = {"loss": "loss {:.4f}", "error": "error {:.2%}", "robust_error": "robust {:.2%}"}


class Bar:
    """Draws on standard error while used as a context manager; nothing where that is no terminal."""

    def __init__(self, epochs: int) -> None:
        console = Console(file=sys.stderr)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._epochs, self._last, self._drawn = epochs, 0.0, console.is_terminal
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._progress.add_task("train")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(self, epoch: int, step: int, steps: int, means: Means) -> None:
        """Move to a step of an epoch (``loop.Report``)."""
        now = time.monotonic()
        if not self._drawn or (now - self._last < SECONDS and step < steps):
            return
        self._last = now
        self._progress.update(
            self._task,
            total=self._epochs * steps,
            completed=(epoch - 1) * steps + step,
            description=f"epoch {epoch}/{self._epochs} {describe(means)}",
        )


def describe(means: Means) -> str:
    """The means in a few words, those that were not evaluated left out."""
    values = means.values()
    return ", ".join(text.format(values[name]) for name, text in SHOWN.items() if values[name] is not None)
