"""Small runs of every kind, made by the commands themselves, and large ones written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lpverify.cli import main
from lpverify.report.content import read_run
from lpverify.report.page import render
from lpverify.report.run import RunReport
from lpverify.runs.audit import Judged

ASSETS = Path(__file__).resolve().parents[2] / "lpverify" / "assets"
DIGITS = str(ASSETS / "digits-demo.safetensors")
# Example 12 has a counterexample, 60 is hard, 71 is classified wrongly.
ASKED = [DIGITS, "--data", "digits", "--index", "10:14,60,71", "--clip", "0", "1", "--eps", "0.05"]
HEAD = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
# The network of ``absolute`` reaches 0.9 at X_0 = -0.9.
BOX = "(assert (>= X_0 -0.9))(assert (<= X_0 0.7))(assert (>= X_1 0.1))(assert (<= X_1 0.1))\n"
UNSAFE = HEAD + BOX + "(assert (>= Y_0 0.9))"


def make_runs(folder: Path) -> dict[str, Path]:
    """A run of each kind, by its name."""
    runs = {name: folder / name for name in ("verify", "larger", "attack", "detect", "radius", "cascade", "property")}
    stages = [ASSETS / name for name in ("digits-ibp.safetensors", "digits-dual.safetensors")]
    (folder / "cascade.toml").write_text(f"stages = {json.dumps([str(stage) for stage in stages])}\n")
    (folder / "unsafe.vnnlib").write_text(UNSAFE)
    absolute(folder / "abs.npz")
    data = ["--data", "digits", "--clip", "0", "1", "--index", "10:14"]
    for name, arguments in {
        "verify": ["verify", *ASKED, "--method", "crown"],
        "larger": ["verify", *ASKED[:-1], "0.1", "--method", "crown"],
        "attack": ["attack", *ASKED, "--steps", "10"],
        "detect": ["detect", *ASKED, "--method", "crown"],
        "radius": ["radius", *ASKED[:-2], "--method", "crown"],
        "cascade": ["verify", str(folder / "cascade.toml"), *data, "--eps", "0.05", "--method", "crown"],
        "property": ["verify", str(folder / "abs.npz"), "--vnnlib", str(folder / "unsafe.vnnlib"), "--timeout", "20"],
    }.items():
        assert main([*arguments, "--out", str(runs[name])]) == 0, name
    return runs


def absolute(path: Path) -> None:
    """The network f(x) = (|x_0|, |x_0| - x_1); x_1 + 8 is never clipped."""
    eye = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    out = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, -1.0]])
    np.savez(path, W1=eye, B1=np.array([0.0, 0.0, 8.0]), W2=out, B2=np.array([0.0, 8.0]))


def write_run(folder: Path, network: Path, lines: Sequence[dict[str, Any]], **summary: Any) -> Path:
    """A run folder by hand, without a store, as an older lpverify wrote it; ``network`` is another run's."""
    old = json.loads((network / "summary.json").read_text())
    counts = {v: sum(line["verdict"] == v for line in lines) for v in ("verified", "falsified", "unknown")}
    folder.mkdir()
    (folder / "network.lpnet").write_bytes((network / "network.lpnet").read_bytes())
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({**old, **counts, "examples": len(lines), **summary}))
    return folder


def line(index: int, **values: Any) -> dict[str, Any]:
    """A line of results that claims nothing, unless ``values`` say something else."""
    return {
        "index": index, "label": index % 10, "predicted": index % 10, "verdict": "unknown",
        "reason": "bounds too loose", "method": "crown", "margin_lower": -0.5, "margin_claimed": None,
        "seconds": 0.25, "certificate": None, "counterexample": None, **values,
    }  # fmt: skip


def read(run: Path, *, check: bool = True, images: int = 24) -> RunReport:
    """A run's report, without a bar of progress."""
    return read_run(run, check=check, images=images, watched=unwatched)


@cache
def page_of(*runs: Path, check: bool = True) -> bytes:
    """The page about runs that no test changes."""
    return render([read(run, check=check) for run in runs])


def unwatched(judged: Iterator[Judged], total: int) -> Iterator[Judged]:
    return judged
