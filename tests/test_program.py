"""Programs grown by columns and rows: the old part stays, names go along, misfits are refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from lpverify.errors import ProgramError
from lpverify.program import Program

# minimise x - y + 3 subject to 1 <= x + 2 y <= 4 with y whole.
PROGRAM = Program(
    objective=np.array([1.0, -1.0]),
    A=sparse.csr_array(np.array([[1.0, 2.0]])),
    row_lower=np.array([1.0]),
    row_upper=np.array([4.0]),
    lower=np.zeros(2),
    upper=np.full(2, 5.0),
    integer=np.array([False, True]),
    offset=3.0,
    column_names=("x", "y"),
    row_names=("sum",),
)


def test_new_columns_are_read_by_nothing() -> None:
    grown = PROGRAM.with_columns(np.array([-1.0, 0.0]), np.array([np.inf, 2.0]), ["s", "t"])
    assert grown.column_names == ("x", "y", "s", "t") and grown.num_rows == 1
    np.testing.assert_array_equal(grown.A.toarray(), [[1, 2, 0, 0]])
    np.testing.assert_array_equal(grown.lower, [0, 0, -1, 0])
    np.testing.assert_array_equal(grown.upper, [5, 5, np.inf, 2])
    np.testing.assert_array_equal(grown.integer, [False, True, False, False])
    point = np.array([1.0, 1.0, 7.0, 0.5])
    assert grown.value(point) == PROGRAM.value(point[:2]) == 3.0
    assert grown.violation(point) == 0 and grown.violation(np.array([1.0, 1.0, 7.0, 2.5])) == 0.5


def test_new_rows_bind_the_columns() -> None:
    rows = sparse.csr_array(np.array([[1.0, 0.0], [0.0, -1.0]]))
    grown = PROGRAM.with_rows(rows, np.array([2.0, -np.inf]), np.array([np.inf, -1.0]), ["a", "b"])
    assert grown.row_names == ("sum", "a", "b")
    np.testing.assert_array_equal(grown.A.toarray(), [[1, 2], [1, 0], [0, -1]])
    np.testing.assert_array_equal(grown.row_lower, [1, 2, -np.inf])
    np.testing.assert_array_equal(grown.row_upper, [4, np.inf, -1])
    assert grown.violation(np.array([2.0, 1.0])) == 0
    assert grown.violation(np.array([0.5, 1.0])) == 1.5 and grown.violation(np.array([2.0, 0.0])) == 1.0
    assert PROGRAM.num_rows == 1


def test_misfits_are_refused() -> None:
    with pytest.raises(ProgramError, match="2 column names for 3 columns"):
        PROGRAM.with_columns(np.zeros(1), np.ones(1))
    with pytest.raises(ProgramError, match=r"column 2 has bounds 1\.0 and 0\.0"):
        PROGRAM.with_columns(np.ones(1), np.zeros(1), ["s"])
    with pytest.raises(ProgramError, match="1 row names for 2 rows"):
        PROGRAM.with_rows(sparse.csr_array((1, 2)), np.zeros(1), np.zeros(1))
    with pytest.raises(ProgramError, match="A has nan"):
        PROGRAM.with_rows(sparse.csr_array(np.array([[np.nan, 0.0]])), np.zeros(1), np.zeros(1), ["a"])
