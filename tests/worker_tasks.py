"""What the tests of the pool have its workers do; nothing here imports torch."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from lpverify.errors import ResourceError, SoundnessError

Job = tuple[Any, ...]


@dataclass(frozen=True)
class Setup:
    """Takes some seconds; ``fault`` is what goes wrong, "later" once a worker has left the file ``marker``."""

    fault: str = ""
    marker: str = ""
    seconds: float = 0.0

    def __call__(self) -> Callable[[Job], Any]:
        time.sleep(self.seconds)
        if self.fault == "bomb":
            Worker().bomb()
        if self.fault == "error":
            raise ValueError("no such file")
        if self.fault == "ours":
            raise ResourceError("disk: full")
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "later" and Path(self.marker).exists():
            os._exit(7)
        if self.marker:
            Path(self.marker).touch()
        return Worker()


class Worker:
    """Does jobs (name, *arguments) and counts them."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, job: Job) -> Any:
        self.done += 1
        name, *arguments = job
        return getattr(self, name)(*arguments)

    def echo(self, value: Any, seconds: float = 0.0) -> Any:
        time.sleep(seconds)
        return value

    def count(self) -> tuple[int, int]:
        return os.getpid(), self.done

    def pid(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def parent(self, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        return os.getppid()

    def environment(self) -> tuple[str | None, int, bool]:
        return os.environ.get("OMP_NUM_THREADS"), os.getsid(0), os.read(0, 1) == b""

    def sacrifice(self) -> str:
        """How readily the kernel ends this process when memory is short."""
        return Path("/proc/self/oom_score_adj").read_text().strip()

    def chatter(self) -> str:
        print("python says", flush=True)
        os.write(1, b"a solver says\n")
        os.system("echo a program says")
        return "done"

    def segfault(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def null(self) -> None:
        ctypes.string_at(0)

    def exit(self, code: int) -> None:
        os._exit(code)

    def system_exit(self, code: int) -> None:
        raise SystemExit(code)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def unsound(self, text: str) -> None:
        raise SoundnessError(text)

    def unpicklable(self) -> Any:
        return threading.Lock()

    def unreadable(self) -> Any:
        return Unreadable()

    def bomb(self) -> int:
        return sum(len(block) for block in [bytearray(1 << 26) for _ in range(24)])

    def like_torch(self) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes")

    def interrupt(self) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "still here"

    def stubborn(self) -> None:
        """A loop in C that no signal handler and no other thread interrupts."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        sum(repeat(0))

    def program(self, folder: str) -> None:
        """Wait for a program of its own, as PuLP waits for CBC."""
        child = subprocess.Popen(["sleep", "100"])
        note(folder, child.pid)
        note(folder, os.getpid())
        child.wait()

    def left_behind(self, folder: str, code: int) -> None:
        """A crash that leaves a program behind, which has all that is inherited."""
        note(folder, subprocess.Popen(["sleep", "100"], close_fds=False).pid)
        os._exit(code)

    def hard_limit(self) -> int:
        return resource.getrlimit(resource.RLIMIT_DATA)[1]

    def noted(self, folder: str, *then: Any) -> Any:
        """Another job, after this process's id is written down."""
        note(folder, os.getpid())
        return self(then)

    def maybe(self, seed: int) -> int:
        """The seed, or in three of ten cases one of several ends."""
        chosen = random.Random(seed).random()
        if chosen < 0.1:
            self.segfault()
        elif chosen < 0.2:
            os._exit(9)
        elif chosen < 0.3:
            raise ValueError(str(seed))
        return seed


class Unreadable:
    """Can be sent but not received."""

    def __reduce__(self) -> Any:
        return int, ("none",)


def note(folder: str, pid: int) -> None:
    (Path(folder) / str(pid)).touch()
