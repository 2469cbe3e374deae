"""The table of cases in README.md: all 42 of them, and no test that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
TABLE = (Path(__file__).parent / "README.md").read_text()


def test_every_case_has_tests_and_every_test_exists() -> None:
    rows = [line.split("|") for line in TABLE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[1]) for row in rows] == list(range(1, 43))
    for row in rows:
        named = re.findall(r"`([TF])/([\w/.]+)::(\w+)`", row[4])
        assert named, f"case {row[1]}: no test"
        for folder, file, name in named:
            path = TESTS / file if folder == "T" else TESTS / "faults" / file
            assert f"def {name}(" in path.read_text(), f"case {row[1]}: {path}::{name}"
