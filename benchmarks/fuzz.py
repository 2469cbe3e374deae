"""Fuzz the readers of every kind of file: no crash, no more than 2 GB, no more than 10 s, no wrong exit code, no
verdict from garbage.

    python benchmarks/fuzz.py SECONDS [--seed N] [--targets onnx,vnnlib,...] [--cases N] [--keep FOLDER]

Cases are drawn round the targets from consecutive seeds, in a child process that may map 2 GB more than it has when
its modules are loaded; it counts processor time, since what else runs should not matter. A case that ends the child is
a crash. Prints one line a target: cases, exit codes, the slowest case, the peak of memory. Exits with 1 if anything
was wrong, and keeps the files that did it in --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

SECONDS, MEMORY = 10.0, 2 << 30
NAMES = ("onnx", "safetensors", "pth", "npz model", "npz data", "vnnlib", "certificate", "counterexample", "config")


def cases(seconds: float, count: int, seed: int, names: list[str], folder: Path) -> None:
    """The child: print one line of JSON a case, after one that says which it is."""
    from fuzz_targets import TARGETS, faults_of, good_files

    good_files(folder)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    good = {name: (folder / TARGETS[name].file).read_bytes() for name in names}
    end = time.monotonic() + seconds
    for number in range(count * len(names)):
        if time.monotonic() > end:
            return
        name, own = names[number % len(names)], seed + number // len(names)
        print(json.dumps({"target": name, "seed": own}), flush=True)
        begin = time.process_time()
        code, wrong = faults_of(TARGETS[name], folder, good[name], own)
        spent = time.process_time() - begin
        if spent > SECONDS:
            wrong.append(f"took {spent:.1f} s")
        peak = high_water()
        if peak > MEMORY:
            wrong.append(f"took {peak >> 20} MiB")
        print(json.dumps({"code": code, "seconds": spent, "peak": peak, "wrong": wrong}), flush=True)
        if wrong:
            (folder / f"bad-{name.replace(' ', '-')}-{own}").write_bytes((folder / TARGETS[name].file).read_bytes())
        (folder / TARGETS[name].file).write_bytes(good[name])


def high_water() -> int:
    """The most bytes that this program has held; ``ru_maxrss`` has those of the process that started it, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def fuzz(seconds: float, count: int, seed: int, names: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Run cases in a child, and again in another from the next seed where one crashed: what happened, by target."""
    found: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"cases": 0, "codes": Counter(), "seconds": 0.0, "peak": 0, "wrong": []}
    )
    end = time.monotonic() + seconds
    while count > 0 and time.monotonic() < end:
        line = [sys.executable, __file__, str(end - time.monotonic()), "--child", "--seed", str(seed)]
        line += ["--targets", ",".join(names), "--cases", str(count), "--keep", str(folder)]
        case: dict[str, Any] | None = None
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for text in child.stdout:
                told = json.loads(text)
                if "target" in told:
                    case = told
                    continue
                assert case is not None
                entry = found[case["target"]]
                entry["cases"] += 1
                entry["codes"][told["code"]] += 1
                for most in ("seconds", "peak"):
                    entry[most] = max(entry[most], told[most])
                entry["wrong"] += [f"seed {case['seed']}: {fault}" for fault in told["wrong"]]
        if child.returncode == 0:
            break
        if case is None:
            raise RuntimeError(f"the good files could not be made (exit code {child.returncode})")
        found[case["target"]]["wrong"].append(f"seed {case['seed']}: crash, exit code {child.returncode}")
        count -= case["seed"] + 1 - seed
        seed = case["seed"] + 1
    return dict(found)


def main() -> int:
    """Fuzz as the command line says, print a line a target, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(NAMES))
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many of each target")
    parser.add_argument("--keep", type=Path, help="the folder of the files; by default one that is removed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.targets.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown targets {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    if given.child:
        cases(given.seconds, given.cases, given.seed, names, given.keep)
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = given.keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        found = fuzz(given.seconds, given.cases, given.seed, names, folder)
    for name, entry in found.items():
        codes = ", ".join(f"{code}: {times}" for code, times in sorted(entry["codes"].items()))
        print(f"{name}: {entry['cases']} cases, exit codes {codes}; slowest {entry['seconds']:.2f} s, "
              f"peak {entry['peak'] >> 20} MiB, wrong {len(entry['wrong'])}")  # fmt: skip
        for fault in entry["wrong"]:
            print(f"  {fault}")
    return int(any(entry["wrong"] for entry in found.values()))


if __name__ == "__main__":
    sys.exit(main())
