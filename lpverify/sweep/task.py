"""What a sweep is made of: a task about some examples, and its answer."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lpverify.session import Session
from lpverify.settings import Settings

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Answer(Generic[R]):
    """What comes of a task: the results that it found, and what is left to do for the others."""

    results: Sequence[R]
    left: Sequence[Task[R]] = ()


class Task(abc.ABC, Generic[R]):
    """Work on some examples; it is pickled, and done in a worker that has a session open."""

    @abc.abstractmethod
    def run(self, session: Session) -> Iterator[R]:
        """Do all of it in this process: results in the order of its examples, as they come."""

    @abc.abstractmethod
    def __call__(self, session: Session) -> Answer[R]:
        """Do it in a worker, but for what others can do beside it."""

    @abc.abstractmethod
    def seconds(self, settings: Settings) -> float:
        """How long it may take; a worker that takes longer is ended."""

    @abc.abstractmethod
    def parts(self) -> Sequence[Task[R]]:
        """The same work in smaller pieces; none if it is about one example."""

    @abc.abstractmethod
    def given_up(self, settings: Settings, reason: str) -> Sequence[R]:
        """The results of its examples where no worker survives it."""
