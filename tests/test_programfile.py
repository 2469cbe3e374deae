"""Program files: read back by HiGHS bit for bit, and by CBC to the same optimum."""

from __future__ import annotations

import gzip
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import highspy
import numpy as np
import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import EDGES, INF, UNIT, named_programs, optimum, program, random_program
from scipy import sparse

from lpverify import programfile
from lpverify.errors import ProgramError, ResourceError, UsageError
from lpverify.program import Cone, Program
from lpverify.programfile import SAFE, safe_names, write_program

PROGRAMS = dict(named_programs())
KINDS = ("mps", "lp")
STATUS = {
    highspy.HighsModelStatus.kInfeasible: "infeasible",
    highspy.HighsModelStatus.kUnbounded: "unbounded",
    highspy.HighsModelStatus.kUnboundedOrInfeasible: "unbounded",
}


def read(path: Path) -> highspy.Highs:
    """The file as HiGHS has it; a warning is a failure."""
    solver = highspy.Highs()
    solver.silent()
    assert solver.readModel(str(path)) == highspy.HighsStatus.kOk
    return solver


def merged_rows(lp: highspy.HighsLp) -> dict[str, tuple[np.ndarray, float, float]]:
    """Entries and bounds by the row's name, where ``x_up`` counts as x's second half."""
    start, index, value = (np.array(v) for v in (lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_))
    shape = (lp.num_row_, lp.num_col_)
    dense = sparse.csc_array((value, index, start), shape=shape).toarray()
    found: dict[str, tuple[np.ndarray, float, float]] = {}
    for name, row, low, high in zip(lp.row_names_, dense, lp.row_lower_, lp.row_upper_, strict=True):
        whole = name.removesuffix("_up")
        entries, lower, upper = found.get(whole, (row, -INF, INF))
        assert np.array_equal(entries, row)
        found[whole] = entries, max(lower, low), min(upper, high)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "names"])
def test_highs_reads_the_same_arrays_back(tmp_path: Path, name: str, kind: str) -> None:
    given, path = PROGRAMS[name], tmp_path / f"file.{kind}"
    write_program(given, path, name)
    lp, n = read(path).getLp(), given.num_columns
    constant = kind == "lp" and given.offset != 0
    assert lp.num_col_ == n + constant
    assert lp.col_names_ == [f"c{j}" for j in range(n)] + ["constant"] * constant
    if constant:
        assert (lp.offset_, lp.col_cost_[n], lp.col_lower_[n], lp.col_upper_[n]) == (0, given.offset, 1, 1)
    else:
        assert lp.offset_ == given.offset
    for got, want in (
        (lp.col_cost_, given.objective),
        (lp.col_lower_, given.lower),
        (lp.col_upper_, given.upper),
    ):
        assert np.array_equal(got[:n], want)
    whole = [kind == highspy.HighsVarType.kInteger for kind in lp.integrality_] or [False] * lp.num_col_
    assert whole == [*given.integer.tolist(), *[False] * constant]
    rows, dense = merged_rows(lp), given.A.toarray()
    bounded = np.flatnonzero((given.row_lower > -INF) | (given.row_upper < INF)).tolist()
    assert list(rows) == [f"r{i}" for i in bounded]
    for i in bounded:
        entries, low, high = rows[f"r{i}"]
        assert np.array_equal(entries[:n], dense[i]) and not entries[n:].any()
        assert (low, high) == (given.row_lower[i], given.row_upper[i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_highs_finds_the_same_optimum(tmp_path: Path, name: str, kind: str) -> None:
    given, path = PROGRAMS[name], tmp_path / f"file.{kind}"
    write_program(given, path, name)
    solver = read(path)
    solver.setOptionValue("mip_rel_gap", 0.0)
    # The presolve of HiGHS 1.14.0 reduces "binaries" wrongly (its issue 2957, mended in 1.15.0).
    solver.setOptionValue("presolve", "off")
    solver.run()
    status = solver.getModelStatus()
    want = optimum(given)
    if isinstance(want, str):
        assert STATUS[status] == want
    else:
        assert status == highspy.HighsModelStatus.kOptimal
        assert math.isclose(solver.getObjectiveValue(), want, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_cbc_finds_the_same_optimum(tmp_path: Path, name: str, kind: str) -> None:
    given, path = PROGRAMS[name], tmp_path / f"file.{kind}"
    write_program(given, path, name)
    cbc, solution = Path(pulp.PULP_CBC_CMD.pulp_cbc_path), tmp_path / "solution"
    if not cbc.is_file():
        pytest.skip("this PuLP brings no CBC")
    command = [cbc, path, "ratio", "0", "solve", "solution", solution]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    head = solution.read_text().splitlines()[0]
    want = optimum(given)
    if isinstance(want, str):
        assert want in head.lower()
    else:
        assert head.startswith("Optimal - objective value ")
        # CBC prints eight digits behind the point.
        assert math.isclose(float(head.split()[-1]), want, rel_tol=1e-7, abs_tol=1e-7)


def test_the_kinds_of_ranges_that_the_edges_are_for(tmp_path: Path) -> None:
    write_program(EDGES["ranges"], tmp_path / "a.mps")
    assert read(tmp_path / "a.mps").getLp().row_names_ == [f"r{i}" for i in range(5)]
    write_program(EDGES["awkward-ranges"], tmp_path / "b.mps")
    assert read(tmp_path / "b.mps").getLp().row_names_ == ["r0", "r0_up", "r1"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e19, 1e19, allow_subnormal=True), min_size=3, max_size=3),
    st.sampled_from(KINDS),
)
def test_every_number_comes_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[float], kind: str) -> None:
    cost, *ends = numbers
    low, high = sorted(ends)
    path = tmp_path_factory.getbasetemp() / f"number.{kind}"
    write_program(program([cost], [(low, high)], [(low, [1], high)], offset=cost), path)
    solver = read(path)
    lp = solver.getLp()
    (_, row_low, row_high) = merged_rows(lp)["r0"]
    offset = lp.offset_ if kind == "mps" or not cost else lp.col_cost_[1]
    got = [lp.col_cost_[0], offset, lp.col_lower_[0], lp.col_upper_[0], row_low, row_high]
    assert got == [cost, cost, low, high, low, high]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=8) | st.sampled_from(["e1", "E", "nan", "inf_2", "c1", "c", "c_1"]), max_size=9))
def test_names_are_safe_and_different(wanted: list[str]) -> None:
    names = safe_names(wanted, len(wanted), "c", ("taken",))
    assert len(set(names) | {"taken"}) == len(wanted) + 1
    assert all(SAFE.fullmatch(name) and len(name) < 200 for name in names)


def test_names_of_encodings_stay_as_they_are() -> None:
    names = ["x_12", "h_3_45", "p_3_45", "d_3_45", "z_3_45", "t_3_45", "a_3_45", "b_0", "ball_"]
    assert safe_names(names, len(names), "c") == names


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_short_and_plain(tmp_path: Path, kind: str) -> None:
    wide = random_program(1).with_objective(np.full(random_program(1).num_columns, -1.2345678901234567e-100))
    for each in (wide, EDGES["names"]):
        write_program(each, tmp_path / f"file.{kind}", "ä name " * 50, ["what\nit is é " * 100, "and more"])
        text = (tmp_path / f"file.{kind}").read_bytes().decode("ascii")
        assert max(map(len, text.splitlines())) <= 255
        comments = [line for line in text.splitlines() if line.startswith("*" if kind == "mps" else "\\")]
        assert comments[0].startswith(("* what it is", "\\ what it is")) and comments[-1].endswith(" and more")


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_file_holds_the_same_text(tmp_path: Path, kind: str) -> None:
    given = random_program(3)
    for name in (f"a.{kind}", f"a.{kind}.gz", f"B.{kind.upper()}.GZ"):
        write_program(given, tmp_path / name)
    plain = (tmp_path / f"a.{kind}").read_bytes()
    packed = (tmp_path / f"a.{kind}.gz").read_bytes()
    assert gzip.decompress(packed) == plain and (tmp_path / f"B.{kind.upper()}.GZ").read_bytes() == packed


@pytest.mark.parametrize(
    ("given", "name", "error", "message"),
    [
        (EDGES["ranges"], "a.txt", UsageError, r"must end in one of .mps, .lp"),
        (EDGES["ranges"], "mps", UsageError, r"must end in one of .mps, .lp"),
        (program([], []), "a.lp", ProgramError, "no columns"),
        (program([1], [UNIT], cone=Cone(np.array([0]), np.zeros(1), 1.0)), "a.lp", ProgramError, "cone"),
        (program([1], [(0, 2e20)]), "a.mps", ProgramError, r"upper has 2e\+20"),
        (program([-1e20], [UNIT]), "a.mps", ProgramError, r"objective has -1e\+20"),
        (program([1], [UNIT], [(-1e300, [1], 3)]), "a.mps", ProgramError, r"row_lower has -1e\+300"),
        (program([1], [UNIT], offset=1e21), "a.mps", ProgramError, r"offset has 1e\+21"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, given: Program, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_program(given, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_where_there_is_no_file(tmp_path: Path) -> None:
    write_program(EDGES["ranges"], tmp_path / "new" / "a.mps")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mps"]
    with pytest.raises(ResourceError, match="cannot be written"):
        write_program(EDGES["ranges"], tmp_path / "new" / "a.mps" / "b.lp")


@pytest.mark.parametrize("ending", ["lp", "lp.gz"])
@pytest.mark.parametrize(
    ("error", "seen"), [(OSError(28, "No space left"), ResourceError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, error: BaseException, seen: type[BaseException]
) -> None:
    path = tmp_path / f"a.{ending}"
    write_program(EDGES["ranges"], path)
    before = path.read_bytes()

    def broken(given: Program) -> Iterator[str]:
        yield "Minimize"
        raise error

    monkeypatch.setattr(programfile, "_lp", broken)
    with pytest.raises(seen):
        write_program(EDGES["ranges"], path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before
