"""What the benchmarks of faults share: a server of commands, and what of a run must be equal to another's."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "lpverify" / "assets" / "digits-demo.safetensors"
# A process that has loaded everything forks one for each command. The fork says which examples it
# begins, together and alone, and is the command otherwise; the parent says its id and how it ended.
SERVER = """
import json, os, resource, signal, sys
import lpverify.lowering, lpverify.data, lpverify.search.solve
import lpverify.cli.loading, lpverify.cli.running, lpverify.pipeline as pipeline, lpverify.verify
import lpverify.runs.audit, lpverify.radius.radii, lpverify.runs.folder, lpverify.table
from lpverify.cli import main

def announce(log):
    def share_batch(session, asked, original=pipeline.share_batch):
        os.write(log, "".join(f"batch {asked.indices[i]}\\n" for i in asked.wanted).encode())
        return original(session, asked)

    def search(session, batch, progress, i, original=pipeline._search):
        os.write(log, f"alone {batch.indices[i]}\\n".encode())
        original(session, batch, progress, i)

    pipeline.share_batch, pipeline._search = share_batch, search

def failing(fail):
    # The n-th call of a function of os and all after it fail, as on a full disk.
    import errno
    name, place = fail.split()
    original, calls = getattr(os, name), [0]

    def call(*arguments):
        calls[0] += 1
        if calls[0] >= int(place):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    setattr(os, name, call)

# Nothing is computed before a fork but what reading the files takes.
lpverify.lowering.load_model(sys.argv[1])
lpverify.data.load_data("digits", data_dir=None, split="test", scale=None)
print("ready", flush=True)
for line in sys.stdin:
    log, limit, fail, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        output = os.open(log + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        announce(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if fail:
            failing(fail)
        code = 6
        try:
            code = main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Runs commands of lpverify, each in a fork of one process that has loaded it; used as a context manager."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        line = [sys.executable, "-c", SERVER, str(MODEL)]
        self._process = subprocess.Popen(
            line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, arguments: list[str], log: Path, limit: int = 0, fail: str = "") -> int:
        """Begin a command; its process id. What it prints goes to ``log`` with ``.out``.

        Args:
            limit: no file may become larger; 0 for none.
            fail: a function of ``os`` and the number of the call from which on it fails for want of space.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(log), limit, fail, *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._said())

    def end(self) -> int:
        """Wait for the command; its exit code, negative where a signal ended it."""
        return int(self._said())

    def run(self, arguments: list[str], log: Path, limit: int = 0, fail: str = "") -> int:
        """Both."""
        self.start(arguments, log, limit, fail)
        return self.end()

    def killed(self, arguments: list[str], log: Path, seconds: float) -> bool:
        """Begin a command and kill it after so many seconds; False where it was finished before."""
        child = self.start(arguments, log)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code = self.end()
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"exit code {code}: {Path(f'{log}.out').read_text()}")
        return code != 0

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def content(run: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What must be equal: the lines without seconds, and the evidence files by name."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines, evidence(run)


def evidence(run: Path) -> dict[str, bytes]:
    """The network, the certificates and the counterexamples by name."""
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*.lp*")) if p.is_file()}


def rows(run: Path) -> int:
    """How many rows the store has; 0 before there is one."""
    try:
        with sqlite3.connect(f"{(run / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM examples").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
