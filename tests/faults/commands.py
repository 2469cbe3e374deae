"""The command line for tests of faults: in this process or in its own, and the one line that a refusal is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpverify.cli import main

ROOT = Path(__file__).resolve().parents[2]
ERROR = "lpverify: error: "

Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, code: int, *arguments: str | Path) -> str:
    """What standard error says, in one line, of a command that ends with ``code`` and prints nothing else."""
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(ERROR)
    return err.removeprefix(ERROR).rstrip("\n")


def refused_outside(code: int, *arguments: str | Path | bytes, **environment: str) -> str:
    """As ``refused``, of the real command in a process of its own."""
    done = outside(*arguments, **environment)
    assert (done.returncode, done.stdout) == (code, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(ERROR)
    return done.stderr.removeprefix(ERROR).rstrip("\n")


def outside(*arguments: str | Path | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    line: list[Any] = [sys.executable, "-m", "lpverify", *arguments]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(line, capture_output=True, text=True, errors="replace", env=settings, timeout=300)


def save_model(path: Path) -> Path:
    """A network of two inputs, three ReLUs and two outputs as W1, B1, W2, B2."""
    np.savez(
        path,
        W1=np.array([[1, -1, 0.5], [0.25, 1, -1]], np.float32), B1=np.array([0, 0.25, 0.125], np.float32),
        W2=np.array([[1, -1], [-0.5, 1], [0.25, 0.75]], np.float32), B2=np.array([0.125, 0], np.float32),
    )  # fmt: skip
    return path


def save_data(path: Path, x: Any, y: Any = None) -> Path:
    """Examples as FILE.npz."""
    np.savez(path, x=x, **({} if y is None else {"y": y}))
    return path


def ask(model: Path, data: Path, out: Path, *more: str, eps: str = "0.05") -> list[str]:
    """``lpverify verify`` on all examples of a file."""
    return ["verify", str(model), "--data", str(data), "--eps", eps, "--out", str(out), *more]


def results(run: Path) -> list[dict[str, Any]]:
    """The lines of a run."""
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
