"""Memory, open files and child processes of a long run, sampled from outside while it runs.

    python benchmarks/soak.py --data-dir FOLDER --index 0:10000 --out benchmarks/results/soak.json

The run is ``lpverify verify`` of the package's MNIST network (or ``--model``), in a process of its own; ``--seconds``
interrupts it, and what it has then done is reported. A sample says how many examples
have a row, the resident memory (VmRSS), the open files and the children, their children included. Growth is that of the
mean over the last tenth of the examples against the mean over the second: what a run takes once, it has then taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_runs import ROOT, rows

MODEL = ROOT / "lpverify" / "assets" / "mnist-small-fgsm.safetensors"


@dataclass(frozen=True)
class Sample:
    """One look at the process: seconds since its start, rows in the store, memory in MB, counts."""

    seconds: float
    examples: int
    rss: float
    files: int
    children: int


def sample(process: int, run: Path, began: float) -> Sample | None:
    """None where the process is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        rss = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        files = len(os.listdir(f"/proc/{process}/fd"))
    except (OSError, StopIteration):
        return None
    return Sample(round(time.monotonic() - began, 1), rows(run), round(rss, 1), files, len(descendants(process)))


def descendants(process: int) -> list[int]:
    """The children of a process, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            found.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            continue
    return found + [child for parent in found if Path(f"/proc/{parent}/task").is_dir() for child in descendants(parent)]


def growth(samples: list[Sample], total: int) -> dict[str, Any]:
    """The means over the second and the last tenth of the examples, and the growth of memory in per cent."""
    early = [s for s in samples if 0.1 * total <= s.examples < 0.2 * total]
    late = [s for s in samples if 0.9 * total <= s.examples]
    if not early or not late:
        raise SystemExit("too few samples; pass a smaller --every")
    means = {
        name: [round(sum(getattr(s, name) for s in part) / len(part), 2) for part in (early, late)]
        for name in ("rss", "files", "children")
    }
    return {
        "early_and_late": means,
        "rss_growth_percent": round(100 * (means["rss"][1] / means["rss"][0] - 1), 2),
        "most_files": max(s.files for s in samples), "most_children": max(s.children for s in samples),
        "most_rss": max(s.rss for s in samples),
    }  # fmt: skip


def main() -> None:
    """Run, sample, and write the samples with their growth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--index", default="0:10000")
    parser.add_argument("--eps", default="0.1")
    parser.add_argument("--timeout", default="5")
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    ask = ["--index", given.index, "--eps", given.eps, "--clip", "0", "1", "--timeout", given.timeout, "--threads", "1"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        line = [sys.executable, "-m", "lpverify", "verify", str(given.model), "--data", "mnist", "--data-dir"]
        command = [*line, str(given.data_dir), *ask, "--out", str(run)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        began, samples = time.monotonic(), []
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            if (found := sample(process.pid, run, began)) is not None:
                samples.append(found)
            time.sleep(given.every)
            if time.monotonic() - began > given.seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
        if process.returncode not in (0, 130):
            raise SystemExit(f"lpverify verify ended with {process.returncode}")
        summary = json.loads((run / "summary.json").read_text())
    about = {
        "command": " ".join(["lpverify verify", given.model.name, "--data mnist", *ask]),
        **{name: summary[name] for name in ("examples", "verified", "falsified", "unknown", "notes", "versions")},
        "stopped": summary.get("stopped"), "python": platform.python_version(), "cores": os.cpu_count(),
        "seconds": round(time.monotonic() - began, 1),
        **growth(samples, summary["examples"]),
        "samples": [list(asdict(s).values()) for s in samples[:: max(1, len(samples) // 200)]],
    }  # fmt: skip
    given.out.write_text(json.dumps(about) + "\n")
    print(json.dumps({name: value for name, value in about.items() if name not in ("samples", "versions")}, indent=2))


if __name__ == "__main__":
    main()
