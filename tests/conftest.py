"""Fixtures shared by all tests: where the shared data is, how many threads torch may take, signals put back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# The networks under test are small: more threads would mostly wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared networks and data: $LPVERIFY_SHARED, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("LPVERIFY_SHARED", ROOT.parent / "shared" / "data"))
    if not (folder / "networks.csv").is_file():
        pytest.skip(f"no shared data at {folder}; set LPVERIFY_SHARED to the folder that holds networks.csv")
    return folder


@pytest.fixture(autouse=True)
def restore_signal() -> Iterator[None]:
    """The command line installs a handler for SIGTERM; put back the one that was there."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
