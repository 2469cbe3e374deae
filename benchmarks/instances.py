"""lpverify on the VNN-LIB instances of a list: verdicts, proofs and times.

    PYTHONPATH=. python benchmarks/instances.py --limit 120 --threads 2 --sample 20 --seed 0

``--instances`` is any list with the columns ``onnx,vnnlib,timeout`` (paths relative to its folder), with ``verdict``
where one is known; the lists of VNN-COMP, without a header, are read too. ``--sample`` draws from each family by the
seed. An instance that is already in the CSV is skipped.

Each instance is a run of the command line in a process of its own: ``lpverify verify MODEL --vnnlib FILE --timeout S
--json``, S the smaller of the instance's timeout and ``--limit``, then ``lpverify check`` of what it wrote. A process
that passes 1.1 S + 2 s is marked in ``overrun``, and killed ``--grace`` seconds later. ``wall_s`` and ``cpu_s`` are of
the whole process (start of Python and reading of the files included; ``cpu_s`` with its children, except those that
were killed with it), ``own_s`` is what it says itself, ``check_s`` the check's wall time. ``certified`` says whether
the check accepted the proof or the witness. ``verdict`` is ``sat``, ``unsat``, ``unknown``, ``timeout`` (killed) or
``error``; ``ok`` is ``no`` where it contradicts the list's. ``instance_summary.py`` makes the tables.

Exit code 1 says that some verdict was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from child import Ended, last_line, run
from common import HERE, Table
from instance_list import Instance, add_options, chosen

ROOT = HERE.parent
COLUMNS = (
    "onnx", "vnnlib", "family", "expected", "verdict", "ok", "reason", "method", "wall_s", "cpu_s", "own_s", "leaves",
    "certificate_bytes", "check_s", "certified", "overrun", "limit_s", "threads", "workers", "commit",
)  # fmt: skip
# The command line's verdicts in the words of the lists.
WORDS = {"verified": "unsat", "falsified": "sat", "unknown": "unknown"}
ACCEPTED = re.compile(r"certificate accepted: (\d+) leaves")


@dataclass(frozen=True)
class Runner:
    """How instances are run.

    Args:
        program: the command line's first words.
        threads: that each process may use.
        grace: seconds past the allowed overrun after which a process is killed.
        check_limit: seconds for the check.
        stop: when set, what runs is killed.
    """

    program: Sequence[str]
    threads: int = 1
    grace: float = 5.0
    check_limit: float = 600.0
    stop: threading.Event = field(default_factory=threading.Event)

    def measure(self, instance: Instance, limit: float) -> dict[str, object]:
        """One instance, at most ``limit`` seconds: its line of the CSV."""
        allowed = 1.1 * limit + 2
        with tempfile.TemporaryDirectory(prefix="instance-") as folder:
            out = Path(folder) / "run"
            ended = self._call(
                "verify", str(instance.model), "--vnnlib", str(instance.property_file), "--timeout", f"{limit:g}",
                "--threads", str(self.threads), "--json", "--out", str(out), limit=allowed + self.grace,
            )  # fmt: skip
            line = answer(ended, instance.expected)
            if line["verdict"] in ("sat", "unsat"):
                line |= self._check(out, str(line["verdict"]))
            line["certificate_bytes"] = size(out, line.pop("certificate"))
        return line | {
            "onnx": instance.onnx, "vnnlib": instance.vnnlib, "family": instance.family, "limit_s": limit,
            "expected": instance.expected, "overrun": "yes" if ended.wall > allowed else "no", "threads": self.threads,
        }  # fmt: skip

    def _check(self, out: Path, verdict: str) -> dict[str, object]:
        """What ``lpverify check`` says of a decided run."""
        ended = self._call("check", str(out), limit=self.check_limit)
        found = ACCEPTED.search(ended.out)
        certified = ended.code == 0 and (verdict == "sat" or found is not None)
        line: dict[str, object] = {"check_s": ended.wall, "certified": "yes" if certified else "no"}
        return line | ({"leaves": found[1]} if found else {})

    def _call(self, *arguments: str, limit: float) -> Ended:
        env = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        return run([*self.program, *arguments], wall=limit, cwd=ROOT, env=env, stop=self.stop)


def answer(ended: Ended, expected: str) -> dict[str, object]:
    """What ``lpverify verify`` said, in the CSV's words; ``certificate`` as it was printed."""
    line: dict[str, object] = {"wall_s": ended.wall, "cpu_s": ended.cpu, "certificate": None}
    try:
        said = json.loads(last_line(ended.out))
    except ValueError:
        said = None
    if ended.killed:
        line |= {"verdict": "timeout", "reason": "killed"}
    elif isinstance(said, Mapping) and said.get("verdict") in WORDS:
        line |= {
            "verdict": WORDS[said["verdict"]], "reason": said.get("reason") or "",
            "method": said.get("method") or "", "own_s": said.get("seconds", ""), "leaves": said.get("leaves") or "",
            "certificate": said.get("certificate"),
        }  # fmt: skip
    else:
        line |= {"verdict": "error", "reason": f"exit code {ended.code}: {last_line(ended.err)}"[:200]}
    decided = line["verdict"] in ("sat", "unsat") and bool(expected)
    return line | {"ok": ("yes" if line["verdict"] == expected else "no") if decided else ""}


def size(out: Path, certificate: object) -> int | str:
    """Bytes of the certificate, a file or a folder; its path is absolute or relative to the run."""
    if not isinstance(certificate, str):
        return ""
    path = out / certificate
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files if p.is_file())


def commit() -> str:
    """The checkout's commit, with a plus sign if tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno", "lpverify") else "")


def main() -> int:
    """Run what is not in the CSV yet."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(options)
    options.add_argument("--workers", type=int, default=1, help="instances at a time")
    options.add_argument("--threads", type=int, default=1, help="of each process")
    options.add_argument("--grace", type=float, default=5.0, help="seconds past the allowed overrun before the kill")
    options.add_argument("--program", default=f"{sys.executable} -m lpverify", help="the command line under test")
    options.add_argument("--out", type=Path, default=HERE / "results" / "instances.csv", help="CSV; continued")
    arguments = options.parse_args()
    # Ending this process ends the running children too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(shlex.split(arguments.program), arguments.threads, arguments.grace)
    table, about = Table(arguments.out, COLUMNS, 2), commit()
    todo = [i for i in chosen(arguments) if not table.has(i.onnx, i.vnnlib)]
    with ThreadPoolExecutor(arguments.workers) as pool:
        jobs = [pool.submit(runner.measure, i, min(i.timeout, arguments.limit)) for i in todo]
        try:
            for job in as_completed(jobs):
                table.add(**job.result(), workers=arguments.workers, commit=about)
                last = table.lines[-1]
                words = [last[c] for c in ("onnx", "vnnlib", "expected", "verdict", "certified", "wall_s")]
                print("  ".join(words), flush=True)
        except BaseException:
            runner.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return 1 if any(line["ok"] == "no" for line in table.lines) else 0


if __name__ == "__main__":
    sys.exit(main())
