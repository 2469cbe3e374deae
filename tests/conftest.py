"""Fixtures shared by all tests: where the shared data is, and how many threads torch may take."""

from __future__ import annotations

import os
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
