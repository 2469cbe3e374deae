"""What becomes of a task: its value, a Failure, or an error that ends the run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lpverify.errors import LpverifyError, is_out_of_memory

Task = TypeVar("Task")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Failure:
    """A task without an answer.

    Attributes:
        reason: one line, fit for a result's reason.
        crashed: the process ended by itself, by a signal or otherwise, as the reason says too.
    """

    reason: str
    crashed: bool = field(default=False, compare=False, repr=False)


def attempt(work: Callable[[Task], Value], task: Task, through: type[LpverifyError]) -> Value | Failure | MemoryError:
    """What the work returns, or what became of it; errors of class ``through`` are raised."""
    try:
        return work(task)
    except through:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            return MemoryError()
        return Failure(_line(error))


def loaded(data: bytes) -> Any:
    """A value that a worker sent, or the Failure to understand it."""
    try:
        return pickle.loads(data)
    except Exception as error:
        return Failure(f"its answer cannot be read: {_line(error)}")


def _line(error: BaseException) -> str:
    """An exception in one line; those of lpverify speak for themselves."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LpverifyError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
