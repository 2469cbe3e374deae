"""Shared by all tests: where the shared data is, how many threads torch may take, that interrupts are heard."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# The networks under test are small: more threads would mostly wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests interrupt what they start; where these are started in the background, interrupts may be ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared networks and data: $LPVERIFY_SHARED, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("LPVERIFY_SHARED", ROOT.parent / "shared" / "data"))
    if not (folder / "networks.csv").is_file():
        pytest.skip(f"no shared data at {folder}; set LPVERIFY_SHARED to the folder that holds networks.csv")
    return folder
