"""Kill a run at random moments, go on with it, and compare with the run that nobody killed.

    python benchmarks/kill_resume.py --kills 50 --index 0:500 --out kill_resume.json

The run is ``lpverify verify`` of the digits in the package. Every process is killed (SIGKILL) after a random share of
the time that the whole run takes, until ``--kills`` have hit; a run that finishes first is begun anew. Compared are
all fields of the lines but the seconds, and the bytes of every certificate and counterexample.

Counted over all kills are the examples that were searched twice (``searched_again``), and those that took part twice in
what a batch does together (``shared_again``), for the batch under way begins anew. With ``--batch-size 1`` both are
at most one a kill. What has a row in the store is never begun again, but for its part in an unfinished batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
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
import lpverify.cli.loading, lpverify.cli.running, lpverify.pipeline as pipeline, lpverify.verify as verify
import lpverify.audit, lpverify.radius, lpverify.run_folder, lpverify.table
from lpverify.cli import main

def announce(log):
    def run_batch(session, indices, x, claims, spec, labels, finished=(), original=pipeline.run_batch):
        os.write(log, "".join(f"batch {i}\\n" for i in indices if i not in finished).encode())
        yield from original(session, indices, x, claims, spec, labels, finished)

    def search(session, batch, progress, i, original=pipeline._search):
        os.write(log, f"alone {batch.indices[i]}\\n".encode())
        original(session, batch, progress, i)

    verify.run_batch, pipeline._search = run_batch, search

# Nothing is computed before a fork but what reading the files takes.
lpverify.lowering.load_model(sys.argv[1])
lpverify.data.load_data("digits", data_dir=None, split="test", scale=None)
print("ready", flush=True)
for line in sys.stdin:
    log, limit, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        output = os.open(log + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        announce(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
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

    def start(self, arguments: list[str], log: Path, limit: int = 0) -> int:
        """Begin a command; its process id. What it prints goes to ``log`` with ``.out``.

        Args:
            limit: no file may become larger; 0 for none.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(log), limit, *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._said())

    def end(self) -> int:
        """Wait for the command; its exit code, negative where a signal ended it."""
        return int(self._said())

    def run(self, arguments: list[str], log: Path, limit: int = 0) -> int:
        """Both."""
        self.start(arguments, log, limit)
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


def begun(log: Path, kind: str) -> Counter[str]:
    """How often each example was begun, together or alone."""
    words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(index for name, index in words if name == kind)


def measure(server: Server, arguments: list[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run, kill, go on, compare; the counts."""
    draw = random.Random(seed)
    whole, began = folder / "whole", time.perf_counter()
    if server.run([*arguments, "--out", str(whole)], folder / "whole.log") != 0:
        raise SystemExit((folder / "whole.log.out").read_text())
    seconds = time.perf_counter() - began
    expected, at_kill, runs, equal = content(whole), [], 0, 0
    again = {"alone": 0, "batch": 0}
    while len(at_kill) < kills:
        run, log = folder / f"run{runs}", folder / f"run{runs}.log"
        command = [*arguments, "--out", str(run)]
        while len(at_kill) < kills and server.killed(command, log, draw.uniform(0.0, seconds)):
            at_kill.append(rows(run))
        if server.run(command, log) != 0:
            raise SystemExit(Path(f"{log}.out").read_text())
        for kind in again:
            again[kind] += sum(n - 1 for n in begun(log, kind).values())
        equal += content(run) == expected
        runs += 1
        shutil.rmtree(run)
    return {
        "command": " ".join(["lpverify", arguments[0], MODEL.name, *arguments[2:]]), "examples": len(expected[0]),
        "kills": len(at_kill), "runs": runs, "equal": equal, "searched_again": again["alone"],
        "shared_again": again["batch"], "rows_at_kill": at_kill, "seconds_whole": round(seconds, 2),
    }  # fmt: skip


def main() -> None:
    """Print the counts as JSON, and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--index", default="0:400")
    parser.add_argument("--eps", default="0.09")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ask = ["verify", str(MODEL), "--data", "digits", "--index", given.index, "--eps", given.eps, "--clip", "0", "1"]
    # Time for every example, for what a limit of time decides is not the same twice.
    ask += ["--workers", str(given.workers), "--timeout", "600"]
    ask += [] if given.batch_size is None else ["--batch-size", str(given.batch_size)]
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        found = measure(server, ask, given.kills, given.seed, Path(folder))
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text)
    if found["equal"] != found["runs"]:
        raise SystemExit("a run that was killed and gone on with differs")


if __name__ == "__main__":
    main()
