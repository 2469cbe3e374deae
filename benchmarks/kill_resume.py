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
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fault_runs import MODEL, Server, content, rows


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
    parser.add_argument("--split", default="test", choices=("train", "test"), help="400 test digits, 1,397 others")
    parser.add_argument("--eps", default="0.09")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ask = ["verify", str(MODEL), "--data", "digits", "--split", given.split, "--index", given.index]
    ask += ["--eps", given.eps, "--clip", "0", "1"]
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
