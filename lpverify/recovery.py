"""Batches that run out of memory or lose their device: done again in smaller parts, then on the CPU.

Results that a batch has made before the fault are kept; the others are made again. What they then are: every verdict
has its own evidence, as always, but the last bits of margins and certificates depend on the size of a batch and on the
device, and an example that a limit of time decides may be decided otherwise. The first result after a fault has a note
of it, which ends up in its line and in the summary.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, Self, TypeVar

import torch

from lpverify import pipeline
from lpverify.errors import LpverifyError, ResourceError, is_out_of_memory
from lpverify.memory import gib, least_needed
from lpverify.pipeline import OpenExample
from lpverify.progress import Asked
from lpverify.result import RadiusResult, Result
from lpverify.session import Session

# So often a run may halve its batches, the last time down to one, before it gives the device up.
HALVINGS = 5
# What drivers say when a device cannot be used any more.
DEVICE_FAULTS = ("CUDA error", "HIP error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")
NOTE_LENGTH = 120


def run_batch(session: Session, asked: Asked) -> Iterator[Result]:
    """As ``pipeline.run_batch``, whatever memory and device do.

    Raises:
        ResourceError: if a batch cannot be halved any more and runs on the CPU already; the results so far stay.
    """
    return recovered(pipeline.run_batch, session, asked)


def share_batch(session: Session, asked: Asked) -> list[Result | OpenExample]:
    """As ``pipeline.share_batch``, whatever memory and device do; raises as ``run_batch``."""
    return list(recovered(pipeline.share_batch, session, asked))


def finish(session: Session, left: OpenExample) -> Result:
    """As ``pipeline.finish``; where a device fails, again on the CPU."""
    try:
        return pipeline.finish(session, left)
    except LpverifyError:
        raise
    except Exception as error:
        session.notes.append(_give_way(session, error, 1))
    _release()
    return replace(pipeline.finish(session, left), notes=session.take_notes())


class Divisible(Protocol):
    """A batch of examples that can be done in parts: ``Asked`` or a ``Cut``, dataclasses both."""

    @property
    def indices(self) -> Sequence[int]:
        """What each example is called."""
        ...

    @property
    def finished(self) -> frozenset[int]:
        """The indices of those that have a result."""
        ...

    def part(self, places: Sequence[int]) -> Self:
        """A batch of the examples at these positions alone."""
        ...


class Found(Protocol):
    """What comes of an example: a result of any kind, or an ``OpenExample``."""

    @property
    def index(self) -> int:
        """What the example is called."""
        ...


B = TypeVar("B", bound=Divisible)
F = TypeVar("F", bound=Found)


def recovered(do: Callable[[Session, B], Iterable[F]], session: Session, whole: B) -> Iterator[F]:
    """What ``do`` yields of a batch, of its parts where the whole is too large, or on the CPU.

    Raises:
        ResourceError: if a batch cannot be halved any more and runs on the CPU already; the results so far stay.
    """
    done, places = set(whole.finished), list(range(len(whole.indices)))
    parts = deque([places])
    while parts:
        part = parts.popleft()
        if session.most is not None and len(part) > session.most:
            parts.extendleft([part[session.most :], part[: session.most]])
            continue
        if done.issuperset(whole.indices[i] for i in part):
            continue
        now: B = replace(whole, finished=frozenset(done))  # type: ignore[type-var]
        try:
            for found in do(session, now if part == places else now.part(part)):
                yield _noted(session, found)
                done.add(found.index)
            continue
        except LpverifyError:
            raise
        except Exception as error:
            session.notes.append(_give_way(session, error, len(part)))
        # The error is gone, and with it what its frames held.
        _release()
        parts.appendleft([i for i in part if whole.indices[i] not in done])


def _noted(session: Session, found: F) -> F:
    """The same with what must be said of the run; an open example says it when it is finished."""
    if isinstance(found, Result | RadiusResult):
        return replace(found, notes=session.take_notes())
    return found


def is_device_fault(error: BaseException) -> bool:
    """Whether an error says that a device is lost or broken."""
    kinds = getattr(torch, "AcceleratorError", ())
    if not isinstance(error, RuntimeError) or isinstance(error, LpverifyError):
        return False
    return isinstance(error, kinds) or any(words in str(error) for words in DEVICE_FAULTS)


def _give_way(session: Session, error: Exception, size: int) -> str:
    """Make the session smaller or move it to the CPU, and say so; what is no such fault is raised again."""
    device = session.device
    if is_out_of_memory(error):
        if size > 1 and session.halvings < HALVINGS:
            session.halvings += 1
            session.most = size // 2 if session.halvings < HALVINGS else 1
            return f"out of memory at batch size {size}: went on with {session.most}"
        if device == "cpu":
            need = least_needed(session.exact, session.settings)
            raise ResourceError(
                f"out of memory at batch size {size}; what was written is kept; the network and a batch of one need "
                f"more than {gib(need)} besides: end other programs, or take a machine with more memory"
            ) from error
        session.move_to_cpu()
        return f"out of memory on {device} at batch size {size}: went on on the CPU"
    if device == "cpu" or not is_device_fault(error):
        raise error
    session.move_to_cpu()
    said = " ".join(str(error).replace(";", ",").split())[:NOTE_LENGTH]
    return f"device {device} failed ({said}): went on on the CPU"


def _release() -> None:
    """Give back what no one holds any more."""
    gc.collect()
    # A device that is lost cannot do it, which is as well.
    with suppress(Exception):
        torch.cuda.empty_cache()
