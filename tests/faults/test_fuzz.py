"""A sample of the fuzzing of ``benchmarks/fuzz.py``, and edits drawn by hypothesis on the two largest readers."""

from __future__ import annotations

import random
from pathlib import Path

import benchmark_path  # noqa: F401
import fuzz
import fuzz_targets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import bytewise, in_archive, wordwise

from lpverify.errors import DataError, ModelError
from lpverify.lowering.onnx_file import lower_onnx
from lpverify.vnnlib import parse_property
from lpverify.vnnlib.source import Source
from lpverify.vnnlib.work import Work

ONNX = fuzz_targets.onnx_bytes()
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 64), st.binary(max_size=16)), min_size=1, max_size=6
)  # fmt: skip
TOKENS = st.lists(
    st.sampled_from([
        "(assert", "(and", "(or", "(<=", "(>", "(*", "(-", ")", ")", ")", "X_0", "X_1", "Y_0", "Y_1", "0.5", "-1e-3",
        "(declare-const X_0 Real)", "(declare-const Y_0 Real)", "(vnnlib-version <2.0>)", "[0,1]", ";", "1e999", "\n",
    ]),
    max_size=60,
)  # fmt: skip


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes replaced by others, each time so many from some place on."""
    for place, length, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    return data


@settings(max_examples=60, deadline=10_000, derandomize=True)
@given(EDITS)
def test_an_edited_onnx_file_is_refused_or_a_network(edits: list[tuple[int, int, bytes]]) -> None:
    try:
        network = lower_onnx(edited(ONNX, edits), "net.onnx")
    except ModelError as error:
        assert str(error).startswith("net.onnx: ") and "\n" not in str(error)
    else:
        assert network.input_size > 0 and network.output_size > 0


@settings(max_examples=150, deadline=10_000, derandomize=True)
@given(st.one_of(EDITS.map(lambda edits: edited(fuzz_targets.PROPERTY.encode(), edits).decode("latin-1")),
                 TOKENS.map(" ".join), st.text(max_size=200)))  # fmt: skip
def test_any_text_is_refused_or_a_property(text: str) -> None:
    try:
        found = parse_property(Source(Path("p.vnnlib"), text, ""), Work())
    except DataError as error:
        assert str(error).startswith("p.vnnlib, line ") and "\n" not in str(error)
    else:
        assert all(claim.num_rows or len(found.claims) > 1 for claim in found.claims)


@pytest.mark.parametrize("mutate", [bytewise, wordwise, in_archive])
def test_damage_depends_on_the_seed_alone(mutate: fuzz_targets.Mutate, tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    np.savez(path, W1=np.eye(3), B1=np.zeros(3))
    good = path.read_bytes()
    changed = [mutate(good, random.Random(seed)) for seed in range(20)]
    assert changed == [mutate(good, random.Random(seed)) for seed in range(20)]
    assert sum(one != good for one in changed) > 10


def test_the_targets_are_those_of_the_command_line() -> None:
    assert tuple(fuzz_targets.TARGETS) == fuzz.NAMES


@pytest.mark.parametrize(
    ("cases", "seed"), [(30, 0), pytest.param(2000, 10**6, marks=pytest.mark.slow)]
)  # fmt: skip
def test_no_damaged_file_crashes_a_command_or_gets_a_verdict(cases: int, seed: int, tmp_path: Path) -> None:
    """Every target: exit codes, one line, memory, processor time, and verdicts that the exact checker accepts."""
    found = fuzz.fuzz(600.0 if cases < 100 else 7200.0, cases, seed, list(fuzz.NAMES), tmp_path)
    assert [f"{name}: {fault}" for name, entry in found.items() for fault in entry["wrong"]] == []
    assert all(entry["cases"] == cases for entry in found.values())
    # Neither does everything fail, nor is all damage overlooked.
    assert all(0 < entry["codes"][0] < cases for entry in found.values())
