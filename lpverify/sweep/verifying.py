"""The tasks of ``verify`` and ``detect``: a batch's shared stages, then each example that they leave open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.bounds import METHODS
from lpverify.certificate.claim import Claim
from lpverify.pipeline import SEARCH_SECONDS, OpenExample
from lpverify.problem import Specification
from lpverify.recovery import finish, run_batch, share_batch
from lpverify.result import Result, Verdict
from lpverify.session import EXAMPLE_SECONDS, GRACE_SECONDS, Session
from lpverify.settings import Settings
from lpverify.sweep.task import Answer, Task


@dataclass(frozen=True, eq=False)
class VerifyBatch(Task[Result]):
    """The arguments of ``recovery.run_batch``."""

    indices: Sequence[int]
    x: NDArray[Any]
    claims: Sequence[Claim]
    spec: Specification
    labels: Sequence[int | None]
    finished: frozenset[int] = frozenset()

    def run(self, session: Session) -> Iterator[Result]:
        return run_batch(session, self.indices, self.x, self.claims, self.spec, self.labels, self.finished)

    def __call__(self, session: Session) -> Answer[Result]:
        found = share_batch(session, self.indices, self.x, self.claims, self.spec, self.labels, self.finished)
        left = [VerifyOpen(one) for one in found if isinstance(one, OpenExample)]
        return Answer([one for one in found if isinstance(one, Result)], left)

    def seconds(self, settings: Settings) -> float:
        return len(self.x) * _example_seconds(settings, EXAMPLE_SECONDS) + GRACE_SECONDS

    def parts(self) -> Sequence[VerifyBatch]:
        if len(self.x) == 1:
            return []
        return [
            VerifyBatch([index], self.x[i : i + 1], [self.claims[i]], self.spec.select([i]), [self.labels[i]])
            for i, index in enumerate(self.indices)
            if index not in self.finished
        ]

    def given_up(self, settings: Settings, reason: str) -> Sequence[Result]:
        nothing = np.full(self.spec.d.shape[1], np.nan)
        return [
            Result(
                index=index, verdict=Verdict.UNKNOWN, reason=reason, method=settings.method,
                semantics=settings.semantics, margins=nothing, seconds=0.0, label=label,
            )
            for index, label in zip(self.indices, self.labels, strict=True)
            if index not in self.finished
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class VerifyOpen(Task[Result]):
    """An example that its batch left open."""

    example: OpenExample

    def run(self, session: Session) -> Iterator[Result]:
        yield finish(session, self.example)

    def __call__(self, session: Session) -> Answer[Result]:
        return Answer([finish(session, self.example)])

    def seconds(self, settings: Settings) -> float:
        searched = METHODS[settings.method].isolated if settings.method in METHODS else False
        # The final check of a search's proof comes after its time.
        return 2 * _example_seconds(settings, EXAMPLE_SECONDS if searched else SEARCH_SECONDS) + 2 * GRACE_SECONDS

    def parts(self) -> Sequence[VerifyOpen]:
        return []

    def given_up(self, settings: Settings, reason: str) -> Sequence[Result]:
        return [self.example.given_up(settings, reason)]


def _example_seconds(settings: Settings, otherwise: float) -> float:
    return otherwise if settings.timeout is None else settings.timeout
