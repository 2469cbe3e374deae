"""``lpverify vnncomp`` and the competition's scripts: the result file's forms, and its time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpverify.cli import main
from lpverify.cli.property import decimal_text

ROOT = Path(__file__).resolve().parent.parent
PROPERTY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 -0.9))(assert (<= X_0 0.7))(assert (>= X_1 0.1))(assert (<= X_1 0.1))(assert (>= Y_0 {}))"""
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """f(x) = |x_0| + x_1 for x_1 >= 0."""
    np.savez(tmp_path / "abs.npz", W1=np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]), B1=np.zeros(3),
             W2=np.ones((3, 1)), B2=np.zeros(1))  # fmt: skip
    return str(tmp_path / "abs.npz")


def asked(tmp_path: Path, threshold: str) -> str:
    path = tmp_path / "p.vnnlib"
    path.write_text(PROPERTY.format(threshold))
    return str(path)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimals_read_back_and_have_no_exponent(value: float) -> None:
    text = decimal_text(value)
    assert float(text) == value and "e" not in text.lower() and Decimal(text) == Decimal(repr(value))


def test_sat_comes_with_the_witness(model: str, tmp_path: Path, capsys: Captured) -> None:
    results = tmp_path / "results.txt"
    assert main(["vnncomp", "test", model, asked(tmp_path, "0.75"), str(results), "60"]) == 0
    assert capsys.readouterr().out.startswith("sat (test, ")
    text = results.read_text()
    assert text.startswith("sat\n((X_0 ") and text.endswith("))\n")
    pairs = re.findall(r"\(([XY]_[0-9]+) (-?[0-9.]+)\)", text)
    assert text == "sat\n(" + "\n".join(f"({name} {value})" for name, value in pairs) + ")\n"
    assert [name for name, _ in pairs] == ["X_0", "X_1", "Y_0"]
    x0, x1, y = (float(value) for _, value in pairs)
    assert -0.9 <= x0 <= 0.7 and x1 == 0.1 and y == pytest.approx(abs(x0) + x1, abs=1e-6) and y >= 0.75


def test_unsat_is_one_word(model: str, tmp_path: Path) -> None:
    results = tmp_path / "results.txt"
    assert main(["vnncomp", "test", model, asked(tmp_path, "1.01"), str(results), "60"]) == 0
    assert results.read_text() == "unsat\n"


def test_what_cannot_be_decided_is_unknown_or_timeout(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from lpverify import properties
    from lpverify.result import Verdict

    nothing = SimpleNamespace(
        verdict=Verdict.UNKNOWN, reason="no bound", method="m", margins=np.zeros(1), certificate=None,
        counterexample=None, leaves=0,
    )  # fmt: skip
    results = tmp_path / "results.txt"
    monkeypatch.setattr(properties, "solve", lambda *_, **__: nothing)
    assert main(["vnncomp", "test", model, asked(tmp_path, "1.01"), str(results), "60"]) == 0
    assert results.read_text() == "unknown\n"
    monkeypatch.setattr(properties, "solve", lambda *_, **__: time.sleep(60))
    began = time.perf_counter()
    assert main(["vnncomp", "test", model, asked(tmp_path, "1.01"), str(results), "2"]) == 0
    assert time.perf_counter() - began < 2.0
    assert results.read_text() == "timeout\n"


def test_bad_input_is_one_line_and_unknown(model: str, tmp_path: Path, capsys: Captured) -> None:
    results = tmp_path / "results.txt"
    for code, network, text in ((4, model, "(assert (sin X_0))"), (3, str(tmp_path / "none.onnx"), PROPERTY.format(1))):
        path = tmp_path / "p.vnnlib"
        path.write_text(text)
        assert main(["vnncomp", "test", network, str(path), str(results), "60"]) == code
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and results.read_text() == "unknown\n"
    assert main(["vnncomp", "test", model, str(tmp_path / "p.vnnlib"), str(results), "-1"]) == 2


# A step that neither signals nor the interpreter can interrupt, as a long product of matrices would be.
STUCK = """
import signal, sys, time
import lpverify.properties as properties
from lpverify.cli import main
def stuck(*args, **options):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    while True:
        time.sleep(0.01)
properties.solve = stuck
sys.exit(main(sys.argv[1:]))
"""


def test_the_command_ends_in_time_whatever_is_stuck(model: str, tmp_path: Path) -> None:
    results, began = tmp_path / "results.txt", time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", STUCK, "vnncomp", "test", model, asked(tmp_path, "1.01"), str(results), "12"]
    done = subprocess.run(line, env=environment, timeout=60)
    # The child's imports come before ``main`` and are not in its time.
    assert done.returncode == 0 and time.perf_counter() - began < 12 + 20
    assert results.read_text() == "timeout\n"


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LPVERIFY_PYTHON": sys.executable}
    line = ["bash", str(ROOT / "vnncomp" / f"{name}.sh"), *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def test_the_scripts_prepare_and_run_an_instance(model: str, tmp_path: Path) -> None:
    results, question = tmp_path / "out with a space.txt", asked(tmp_path, "1.01")
    assert script("prepare_instance", "v1", "test", model, question).returncode == 0
    done = script("run_instance", "v1", "test", model, question, str(results), "60")
    assert (done.returncode, done.stderr, results.read_text()) == (0, "", "unsat\n")


def test_the_scripts_refuse_what_they_do_not_know(model: str, tmp_path: Path) -> None:
    question = asked(tmp_path, "1.01")
    for name, arguments in (
        ("prepare_instance", ["v2", "test", model, question]),
        ("prepare_instance", ["v1", "test", model]),
        ("prepare_instance", ["v1", "test", model, str(tmp_path / "none.vnnlib")]),
        ("prepare_instance", ["v1", "test", str(tmp_path / "none.onnx"), question]),
        ("run_instance", ["v1", "test", model, question]),
        ("install_tool", ["v2"]),
    ):
        done = script(name, *arguments)
        assert done.returncode != 0 and done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.shared
def test_a_hard_instance_ends_in_time(shared_data: Path, tmp_path: Path) -> None:
    """From the start of the script to its end; 10 percent and 2 s more where other programs use the processors."""
    folder = shared_data / "vnncomp/cifar10_resnet"
    network, question = next((folder / "onnx").iterdir()), next((folder / "vnnlib").iterdir())
    results, began = tmp_path / "results.txt", time.perf_counter()
    done = script("run_instance", "v1", "cifar10_resnet", str(network), str(question), str(results), "6")
    assert time.perf_counter() - began < 1.1 * 6 + 2
    assert done.returncode == 0 and results.read_text() in ("timeout\n", "unknown\n", "unsat\n")
