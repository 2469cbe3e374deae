"""A Dask cluster on the loopback interface: a scheduler and workers of one thread, processes that may be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from fault_runs import ROOT


class Cluster:
    """Started when it is made, gone when the ``with`` block or ``close`` ends it.

    Attributes:
        address: of the scheduler.
        scheduler, workers: the processes, each the first of a group of its own.
    """

    def __init__(self, folder: Path, workers: int, path: Path) -> None:
        """Start the processes; they may not be ready yet.

        Args:
            folder: for what they write.
            path: where workers find the modules of tasks, besides lpverify.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(path)])}
        self._log = (folder / "cluster.log").open("w")
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port))
        line = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--memory-limit", "4GB"]
        self.workers = [self._start(*line, "--local-directory", str(folder)) for _ in range(workers)]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that are still there."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self._log.close()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", "from dask.__main__ import main; main()", *arguments, "--no-dashboard"],
            stdout=self._log, stderr=self._log, env=self._environment, start_new_session=True,
        )  # fmt: skip
