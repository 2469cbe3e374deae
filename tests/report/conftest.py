"""Runs that all tests of reports share: they are read, never written."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_kinds import make_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind, by name."""
    return make_runs(tmp_path_factory.mktemp("runs"))
