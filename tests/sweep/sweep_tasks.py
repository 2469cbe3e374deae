"""Tasks that tests hand to workers: what they return, and what befalls the worker that they are given to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpverify.errors import SoundnessError
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.sweep import Answer, Task


@dataclass(frozen=True, eq=False)
class Numbers(Task[str]):
    """Says each of its numbers; those in ``left`` are left to tasks of their own.

    Attributes:
        poison: the worker that is given one of these is killed, in the first ``deaths`` tries.
        folder: where tries are counted, one file each.
        limit: seconds that the task may take; one that is ``slow`` takes longer.
    """

    numbers: tuple[int, ...]
    folder: Path
    left: tuple[int, ...] = ()
    poison: tuple[int, ...] = ()
    deaths: int = 100
    limit: float = 60.0
    slow: bool = False
    false: bool = False

    def run(self, session: Session) -> Iterator[str]:
        return iter([f"{n} here" for n in self.numbers])

    def __call__(self, session: Session) -> Answer[str]:
        name = "-".join(map(str, self.numbers))
        tries = sum(path.name.split(".")[0] == name for path in self.folder.iterdir())
        (self.folder / f"{name}.{tries}.{os.getpid()}").touch()
        if self.false:
            raise SoundnessError("two and two are five")
        if set(self.poison) & set(self.numbers) and tries < self.deaths:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.slow:
            time.sleep(100)
        said = [f"{n} eps {session.settings.eps}" for n in self.numbers if n not in self.left]
        return Answer(said, [Numbers((n,), self.folder, poison=self.poison) for n in self.left])

    def seconds(self, settings: Settings) -> float:
        return self.limit

    def parts(self) -> Sequence[Numbers]:
        if len(self.numbers) == 1:
            return []
        return [Numbers((n,), self.folder, poison=self.poison, deaths=self.deaths) for n in self.numbers]

    def given_up(self, settings: Settings, reason: str) -> Sequence[str]:
        return [f"{n} {reason}" for n in self.numbers]
