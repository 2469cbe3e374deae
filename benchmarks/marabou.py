"""Marabou on the instances of a list: verdicts and times, to compare with ``instances.py``.

    python3.11 -m venv MARABOU
    MARABOU/bin/pip install --no-deps maraboupy==2.0.0 numpy==1.26.4 onnx==1.15.0 onnxruntime==1.16.3 protobuf==4.25.3
    PYTHONPATH=. python benchmarks/marabou.py --python MARABOU/bin/python --sample 20 --seed 0 \\
        --family rl_benchmarks --family safenlp --family reach_prob_density

Marabou's wheel gets an environment of its own (Python 3.12 at most), without dependencies: those it names would bring
TensorFlow. It runs with its default options (DeepSoI, DeepPoly, its own LP solver), one worker, one thread of BLAS,
each instance in a process of its own (``marabou_child.py``). Its own VNN-LIB reader takes the property, disjunctions
included; where that raises, the network is loaded once for each disjunct, and ``way`` says ``parts N``.

The limit, the smaller of the instance's timeout and ``--limit``, is one of CPU seconds of that process (start of
Python and reading of the network included), so that other programs on the machine take nothing from it; the wall
clock may show ``--wall-factor`` times as much. ``stopped_by`` says which of the two ended the process, ``cpu_s`` and
``wall_s`` are what it took; ``--again`` runs those once more that the wall clock stopped. ``load_cpu`` and
``solve_cpu`` are the CPU seconds of reading the network and of the query itself. ``ok`` is ``no`` where Marabou's
verdict contradicts the list's. The sample is that of ``instances.py``.

An instance that is already in the CSV is skipped; exit code 1 says that some verdict was wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from child import Ended, last_line, run
from common import HERE, Table
from instance_list import Instance, add_options, chosen

CHILD = HERE / "marabou_child.py"
COLUMNS = (
    "onnx", "vnnlib", "family", "expected", "verdict", "ok", "wall_s", "cpu_s", "load_cpu", "solve_cpu", "way",
    "limit_s", "stopped_by", "error", "version",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measure(python: Path, instance: Instance, limit: float, wall: float) -> dict[str, object]:
    """Marabou on one instance; ``limit`` in CPU seconds, ``wall`` in seconds."""
    command = [str(python), str(CHILD), str(instance.model), str(instance.property_file)]
    ended = run(command, wall=wall, cpu=limit, env=os.environ | dict.fromkeys(THREADS, "1"))
    found = _answer(ended)
    stopped_by = ""
    if ended.killed:
        stopped_by = "cpu" if ended.cpu > limit else "wall"
    verdict = str(found["verdict"])
    decided = verdict in ("sat", "unsat") and bool(instance.expected)
    return found | {
        "onnx": instance.onnx, "vnnlib": instance.vnnlib, "family": instance.family, "expected": instance.expected,
        "ok": ("yes" if verdict == instance.expected else "no") if decided else "", "wall_s": ended.wall,
        "cpu_s": ended.cpu, "limit_s": limit, "stopped_by": stopped_by,
    }  # fmt: skip


def _answer(ended: Ended) -> dict[str, object]:
    """The child's object, or what stands for it."""
    if ended.killed:
        return {"verdict": "timeout"}
    try:
        found = json.loads(last_line(ended.out))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {"verdict": "error", "error": f"exit code {ended.code}: {last_line(ended.err)}"[:200]}
    return found | {"error": str(found["error"])[:200]}


def forget(path: Path) -> None:
    """Take the lines that the wall clock stopped out of a CSV."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for line in lines if line["stopped_by"] != "wall")


def version(python: Path) -> str:
    """The version of Marabou in that environment.

    Raises:
        subprocess.CalledProcessError: if there is none.
    """
    ask = "from importlib.metadata import version; print('maraboupy', version('maraboupy'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Run what is not in the CSV yet."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(options)
    options.add_argument("--python", type=Path, required=True, help="the Python of Marabou's environment")
    options.add_argument("--out", type=Path, default=HERE / "results" / "marabou.csv", help="CSV; continued")
    options.add_argument("--wall-factor", type=float, default=3.0, help="times the limit, by the wall clock")
    options.add_argument("--again", action="store_true", help="run again what the wall clock stopped")
    arguments = options.parse_args()
    # Ending this process ends the running child too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.again and arguments.out.is_file():
        forget(arguments.out)
    about, table = version(arguments.python), Table(arguments.out, COLUMNS, 2)
    for instance in chosen(arguments):
        if table.has(instance.onnx, instance.vnnlib):
            continue
        limit = min(instance.timeout, arguments.limit)
        line = measure(arguments.python, instance, limit, arguments.wall_factor * limit)
        table.add(**line, version=about)
        print("  ".join(table.lines[-1][c] for c in ("onnx", "vnnlib", "expected", "verdict", "cpu_s")), flush=True)
    return 1 if any(line["ok"] == "no" for line in table.lines) else 0


if __name__ == "__main__":
    sys.exit(main())
