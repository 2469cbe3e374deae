"""The tasks of ``verify`` and ``detect``: a batch's shared stages, then each example that they leave open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.pipeline import SEARCH_SECONDS, OpenExample
from lpverify.progress import Asked
from lpverify.recovery import finish, run_batch, share_batch
from lpverify.result import Result, Verdict
from lpverify.session import EXAMPLE_SECONDS, GRACE_SECONDS, Session, example_seconds, solver_method
from lpverify.settings import Settings
from lpverify.sweep.task import Answer, Task


@dataclass(frozen=True, eq=False)
class VerifyBatch(Task[Result]):
    """A batch: what its examples share, and in this process also the rest."""

    asked: Asked

    def run(self, session: Session) -> Iterator[Result]:
        return run_batch(session, self.asked)

    def __call__(self, session: Session) -> Answer[Result]:
        found = share_batch(session, self.asked)
        left = [VerifyOpen(one) for one in found if isinstance(one, OpenExample)]
        return Answer([one for one in found if isinstance(one, Result)], left)

    def seconds(self, settings: Settings) -> float:
        return len(self.asked.x) * example_seconds(settings) + GRACE_SECONDS

    def parts(self) -> Sequence[VerifyBatch]:
        if len(self.asked.x) == 1:
            return []
        return [VerifyBatch(self.asked.part([i])) for i in self.asked.wanted]

    def given_up(self, settings: Settings, reason: str) -> Sequence[Result]:
        nothing = np.full(self.asked.spec.d.shape[1], np.nan)
        return [
            Result(
                index=self.asked.indices[i], verdict=Verdict.UNKNOWN, reason=reason, method=settings.method,
                semantics=settings.semantics, margins=nothing, seconds=0.0, label=self.asked.labels[i],
            )
            for i in self.asked.wanted
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
        seconds = example_seconds(settings, EXAMPLE_SECONDS if solver_method(settings) else SEARCH_SECONDS)
        # The final check of a search's proof comes after its time.
        return 2 * (seconds + GRACE_SECONDS)

    def parts(self) -> Sequence[VerifyOpen]:
        return []

    def given_up(self, settings: Settings, reason: str) -> Sequence[Result]:
        return [self.example.given_up(settings, reason)]
