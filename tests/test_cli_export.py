"""``lpverify export``: what stands in the file is the claim's program."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import highspy
import numpy as np
import pytest
import torch

from lpverify.backends.highs import HighsBackend
from lpverify.cli import main
from lpverify.cli.export import METHODS as EXPORT_METHODS
from lpverify.data import load_data
from lpverify.encode import encode
from lpverify.export import claim_program, runner_up
from lpverify.lowering import load_model
from lpverify.problem import Specification
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.workers import Failure

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "lpverify/assets/digits-demo.safetensors")
INDEX, EPS = 40, "0.06"
ASK = ["--data", "digits", "--index", str(INDEX), "--eps", EPS, "--clip", "0", "1"]
SETTINGS = Settings(EPS, clip=("0", "1"), method="crown", dtype="float64")
NETWORK = load_model(Path(DIGITS))
EXAMPLES = load_data("digits")
X, LABEL = EXAMPLES.x[INDEX], int(EXAMPLES.y[INDEX])
TARGET = runner_up(NETWORK, X, LABEL)
# Two runs of a simplex method end within its tolerances of the same optimum, which is of size 1.
SOLVED = 1e-6

Captured = pytest.CaptureFixture[str]


def solved(path: Path) -> highspy.Highs:
    """The file, read and solved by HiGHS, without its presolve (see tests/test_programfile.py)."""
    if path.suffix == ".gz":
        plain = path.with_suffix("")
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        path = plain
    solver = highspy.Highs()
    solver.silent()
    # A warning says that entries of at most 1e-9 were dropped; the command told so.
    assert solver.readModel(str(path)) != highspy.HighsStatus.kError
    solver.setOptionValue("presolve", "off")
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return solver


@pytest.mark.parametrize("ending", ["mps", "lp", "mps.gz", "lp.gz"])
def test_the_file_has_the_optimum_of_the_relaxation(tmp_path: Path, capsys: Captured, ending: str) -> None:
    out = tmp_path / "new" / f"claim.{ending}"
    assert main(["export", DIGITS, *ASK, "--out", str(out)]) == 0
    size, claim = capsys.readouterr().out.splitlines()
    program = claim_program(NETWORK, X, LABEL, TARGET, SETTINGS)
    assert size.startswith(f"lp: {program.num_rows} rows, {program.num_columns} columns, {program.A.nnz} entries, 0 ")
    assert size.endswith(f": {out}")
    assert claim.startswith(f"claim: output {LABEL} > output {TARGET}, label {LABEL}, example {INDEX} of digits; ")
    assert f"eps {EPS} in raw input units, norm inf, clip 0 to 1" in claim and claim.endswith("method crown")
    solver = solved(out)
    want = HighsBackend().solve(program).objective
    assert math.isclose(solver.getObjectiveValue(), want, abs_tol=SOLVED)
    text = (tmp_path / "new" / f"claim.{ending.removesuffix('.gz')}").read_text()
    assert [line[2:] for line in text.splitlines() if line[0] in "*\\"] == [claim, size.rpartition(":")[0]]


def test_the_exact_program_attains_its_optimum_at_a_real_point(tmp_path: Path) -> None:
    relaxed, exact = tmp_path / "lp.mps", tmp_path / "milp.lp"
    assert main(["export", DIGITS, *ASK, "--out", str(relaxed)]) == 0
    assert main(["export", DIGITS, *ASK, "--relaxation", "milp", "--out", str(exact)]) == 0
    solver = solved(exact)
    names = solver.getLp().col_names_
    found = dict(zip(names, solver.getSolution().col_value, strict=True))
    x = torch.tensor([[found[f"x_{i}"] for i in range(64)]], dtype=torch.float64)
    assert bool((x >= -SOLVED).all()) and bool(((x - torch.as_tensor(X).flatten()).abs() <= float(EPS) + SOLVED).all())
    outputs = NETWORK.forward(x)[0]
    margin = float(outputs[LABEL] - outputs[TARGET])
    assert math.isclose(margin, solver.getObjectiveValue(), abs_tol=1e-5)
    assert solved(relaxed).getObjectiveValue() <= margin + SOLVED
    assert sum(name.startswith("d_") for name in names) > 0


def test_tighter_bounds_give_a_tighter_relaxation(tmp_path: Path) -> None:
    found = {}
    for method in EXPORT_METHODS:
        assert main(["export", DIGITS, *ASK, "--method", method, "--out", str(tmp_path / f"{method}.mps")]) == 0
        found[method] = solved(tmp_path / f"{method}.mps").getObjectiveValue()
    assert found["interval"] < found["crown"] < min(found["alpha"], found["lp-tight"])


@pytest.mark.parametrize("target", [j for j in range(10) if j != LABEL])
def test_every_target_has_its_own_row(target: int) -> None:
    """Against the row of the label claim, whose order is another than the classes'."""
    network = NETWORK.detach()
    settings = Settings("0.01", norm="1", method="interval", dtype="float64")
    program = claim_program(NETWORK, X, LABEL, target, settings)
    region = settings.region(torch.as_tensor(X).double().reshape(1, -1))
    with Session(NETWORK, settings) as session:
        spec = Specification.label(torch.tensor([LABEL]), 10)
        encoder = encode(network, region, session.bound(session.method("interval"), region, spec).layers)
    unit = np.zeros((1, 10))
    unit[0, LABEL], unit[0, target] = 1, -1
    costs, offset = encoder.rows(len(network.nodes) - 1, unit)
    assert np.array_equal(costs[0], program.objective) and offset[0] == program.offset


def test_the_runner_up_is_the_best_other_class() -> None:
    outputs = NETWORK.forward(torch.as_tensor(X).double().reshape(1, -1))[0]
    assert int(outputs.argmax()) == LABEL and outputs.argsort()[-2] == TARGET
    assert runner_up(NETWORK, X, TARGET) == LABEL


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--index", "3,4", "--out", "a.lp"], 2, "index: 2 examples are selected"),
        (["--index", "0:", "--out", "a.lp"], 2, "index: 400 examples are selected"),
        (["--index", "400", "--out", "a.lp"], 4, "digits has 400 examples"),
        (["--norm", "2", "--out", "a.lp"], 2, "norm: an l2 ball"),
        (["--out", "a.txt"], 2, "a.txt: a program's file must end in"),
        (["--out", "a.mps", "--target", str(LABEL)], 2, f"target: {LABEL} must be one of"),
        (["--out", "a.mps", "--target", "10"], 2, "target: 10 must be one of the classes 0 to 9"),
        (["--out", "a.mps", "--target", "-1"], 2, "target: -1 must be one of"),
        (["--out", "a.mps", "--method", "dual"], 2, "'dual' is not one of"),
        (["--out", "a.mps", "--relaxation", "sdp"], 2, "'sdp' is not one of"),
        (["--out", "a.mps", "--clip", "1", "0"], 4, "the lower end"),
        (["--out", "/dev/null/a.mps"], 5, "/dev/null/a.mps: cannot be written"),
        ([], 2, "Missing option '--out'"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", DIGITS, *ASK, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("lpverify: error: ") and message in err
    assert list(tmp_path.iterdir()) == []


def test_a_solver_that_gives_no_bounds_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(Session, "solve", lambda *_: iter([Failure("solver process ended by signal 9")]))
    assert main(["export", DIGITS, *ASK, "--method", "lp-tight", "--out", str(tmp_path / "a.lp")]) == 6
    assert "no pre-activation bounds: solver process ended by signal 9; pass another" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
