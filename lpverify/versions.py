"""Where something was made: the machine, and the packages that results may depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from lpverify import __version__

PACKAGES = (
    "torch", "numpy", "scipy", "highspy", "cvxpy", "clarabel", "pulp", "onnx", "safetensors", "scikit-learn"
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of lpverify and of the packages that its results may depend on."""
    found = {"lpverify": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(device: str, threads: int) -> dict[str, Any]:
    """Where a run was made: device, threads, Python and package versions."""
    return {"device": device, "threads": threads, "python": platform.python_version(), "versions": versions()}
