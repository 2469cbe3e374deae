"""Other programs in a process of their own, with limits that they cannot overrun and the CPU time they took."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.01
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """What became of a program.

    Attributes:
        code: exit status; negative: the signal that ended it.
        out, err: its output.
        wall, cpu: seconds; ``cpu`` is user and system time of the process and of the children it waited for.
        killed: whether it was ended because of a limit.
    """

    code: int
    out: str
    err: str
    wall: float
    cpu: float
    killed: bool


def run(
    command: Sequence[str],
    *,
    wall: float,
    cpu: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Ended:
    """Run a program until it ends, passes ``wall`` seconds or ``cpu`` seconds of CPU time, or ``stop`` is set.

    It gets a session of its own, and all that is left of it is killed in the end.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=env, start_new_session=True
        )
        killed = False
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                over = time.perf_counter() - began > wall or (cpu is not None and _cpu_seconds(process.pid) > cpu)
                if not killed and (over or (stop is not None and stop.is_set())):
                    killed = True
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(POLL_SECONDS)
            # Popen would otherwise look for a process that is no longer there.
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        seconds = time.perf_counter() - began
        texts = [_content(file) for file in (out, err)]
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, texts[0], texts[1], seconds, cpu_seconds, killed)


def _content(file: IO[bytes]) -> str:
    """All that was written to a file."""
    file.seek(0)
    return file.read().decode(errors="replace")


def _cpu_seconds(pid: int) -> float:
    """CPU time of a running process and of its children that ended; 0 where /proc does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
