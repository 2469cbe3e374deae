"""The package's public face: what importing it loads, and that its lazy names resolve."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "cvxpy", "matplotlib", "onnx", "sklearn", "highspy", "pulp", "rich")


def loaded_after(code: str) -> list[str]:
    """The heavy modules that a fresh interpreter has loaded after running ``code``."""
    report = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import lpverify") == []


@pytest.mark.parametrize("arguments", ["--help", "verify --help", "--version", "verify m.pth --eps x"])
def test_help_and_usage_errors_load_nothing_heavy(arguments: str) -> None:
    assert loaded_after(f"from lpverify.cli import main; main({arguments.split()!r})") == []


def test_lowering_and_verifying_leave_solvers_and_plots_alone() -> None:
    found = loaded_after("import lpverify; lpverify.load_model, lpverify.verify, lpverify.METHODS")
    assert not {"cvxpy", "matplotlib", "highspy", "pulp", "rich", "sklearn"} & set(found)


def test_every_public_name_resolves() -> None:
    import lpverify

    for name in lpverify.__all__:
        assert getattr(lpverify, name) is not None
        assert name in dir(lpverify)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lpverify.nonsense  # noqa: B018


def test_verify_and_bounds_are_modules_that_can_be_called() -> None:
    import numpy as np

    import lpverify
    import lpverify.bounds
    import lpverify.bounds.crown as crown_module
    import lpverify.verify as verify_module
    from lpverify.linear import Dense
    from lpverify.network import Affine, Input, Network, torch

    weight, bias = torch.tensor([[2.0], [-1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    network = Network((Input((1,)), Affine((0,), (Dense(weight),), bias, (2,))))
    (result,) = lpverify.verify(network, np.array([[1.0]]), np.array([0]), eps="0.5")
    # outputs 2x and -x: the margin 3x is least, 1.5, at x = 0.5
    assert result.verdict is lpverify.Verdict.VERIFIED
    assert float(result.margins.min()) == pytest.approx(1.5)
    found = lpverify.bounds(network, np.array([[1.0]]), np.array([0]), "0.5", method="dual")
    assert found.margins.item() == pytest.approx(1.5)
    assert verify_module.verify_stream and crown_module.CrownBound is lpverify.METHODS["crown"]
