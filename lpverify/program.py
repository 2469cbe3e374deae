"""Program: a linear or mixed-integer linear program as arrays.

    minimise    objective.x + offset
    subject to  row_lower <= A x <= row_upper,  lower <= x <= upper,
                x_j whole where integer[j],
                |x[cone.columns] - cone.center|_2 <= cone.radius  where there is a cone.

Encodings make programs, backends solve them, files carry them to other solvers. A solver sees nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lpverify.errors import ProgramError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cone:
    """The second-order cone |x[columns] - center|_2 <= radius: ``columns`` (k,) int64, ``center`` (k,)."""

    columns: NDArray[np.int64]
    center: Array
    radius: float


@dataclass(frozen=True, eq=False)
class Program:
    """A program with n columns and m rows; see the module's docstring.

    Attributes:
        objective: (n,) costs; ``offset`` the constant.
        A: (m, n) csr, float64.
        row_lower, row_upper: (m,) bounds of the rows; infinite where there is none, equal for an equation.
        lower, upper: (n,) bounds of the columns.
        integer: (n,) which columns are whole.
        cone: a second-order cone, which only some backends can handle.
        column_names, row_names: names for files; empty for none.

    Raises:
        ProgramError: for NaN anywhere, infinite costs or entries, an infinite bound of the wrong sign, bounds that
            cross, or arrays that do not fit together.
    """

    objective: Array
    A: sparse.csr_array
    row_lower: Array
    row_upper: Array
    lower: Array
    upper: Array
    integer: NDArray[np.bool_]
    offset: float = 0.0
    cone: Cone | None = None
    column_names: Sequence[str] = ()
    row_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        m, n = self.A.shape
        sizes = {"objective": n, "lower": n, "upper": n, "integer": n, "row_lower": m, "row_upper": m}
        for name, size in sizes.items():
            if getattr(self, name).shape != (size,):
                raise ProgramError(f"program: {name} has shape {getattr(self, name).shape}, expected ({size},)")
        for name, values in (("objective", self.objective), ("A", self.A.data), ("offset", np.array([self.offset]))):
            if not np.isfinite(values).all():
                odd = float(values[~np.isfinite(values)][0])
                raise ProgramError(f"program: {name} has {odd!r}; entries must be finite")
        for name, low, high in (
            ("column", self.lower, self.upper),
            ("row", self.row_lower, self.row_upper),
        ):
            bad = np.flatnonzero(~((low <= high) & (low < np.inf) & (high > -np.inf)))
            if len(bad):
                ends = float(low[bad[0]]), float(high[bad[0]])
                raise ProgramError(f"program: {name} {bad[0]} has bounds {ends[0]!r} and {ends[1]!r}")
        for name, names, size in (("column", self.column_names, n), ("row", self.row_names, m)):
            if len(names) not in (0, size):
                raise ProgramError(f"program: {len(names)} {name} names for {size} {name}s")

    @property
    def num_columns(self) -> int:
        """Number of columns n."""
        return int(self.A.shape[1])

    @property
    def num_rows(self) -> int:
        """Number of rows m."""
        return int(self.A.shape[0])

    @property
    def is_mip(self) -> bool:
        """Whether some column must be whole."""
        return bool(self.integer.any())

    def with_objective(self, objective: Array, offset: float = 0.0) -> Program:
        """The same feasible set under another objective."""
        return replace(self, objective=np.asarray(objective, dtype=np.float64), offset=float(offset))

    def with_columns(self, lower: Array, upper: Array, names: Sequence[str] = ()) -> Program:
        """The program with k further columns, bounded by ``lower`` and ``upper`` (k,), that nothing reads yet.

        ``names`` (k,) go with those of the other columns: given where they are, empty where they are not.
        """
        k = len(lower)
        return replace(
            self,
            objective=np.concatenate([self.objective, np.zeros(k)]),
            A=sparse.csr_array(sparse.hstack([self.A, sparse.csr_array((self.num_rows, k))])),
            lower=np.concatenate([self.lower, lower]),
            upper=np.concatenate([self.upper, upper]),
            integer=np.concatenate([self.integer, np.zeros(k, dtype=bool)]),
            column_names=(*self.column_names, *names),
        )

    def with_rows(self, rows: sparse.csr_array, lower: Array, upper: Array, names: Sequence[str] = ()) -> Program:
        """The program under k further rows lower <= rows x <= upper: ``rows`` (k, n); ``names`` as for columns."""
        return replace(
            self,
            A=sparse.csr_array(sparse.vstack([self.A, rows])),
            row_lower=np.concatenate([self.row_lower, lower]),
            row_upper=np.concatenate([self.row_upper, upper]),
            row_names=(*self.row_names, *names),
        )

    def relaxed(self) -> Program:
        """The program without its integrality."""
        return replace(self, integer=np.zeros(self.num_columns, dtype=bool))

    def value(self, x: Array) -> float:
        """The objective at x (n,)."""
        return float(self.objective @ x + self.offset)

    def violation(self, x: Any) -> float:
        """By how much x (n,) violates its worst row, bound, integrality or cone; 0 for a feasible point."""
        rows = self.A @ x
        away = [self.row_lower - rows, rows - self.row_upper, self.lower - x, x - self.upper]
        if self.is_mip:
            whole = x[self.integer]
            away.append(np.abs(whole - np.rint(whole)))
        if self.cone is not None:
            distance = np.linalg.norm(x[self.cone.columns] - self.cone.center)
            away.append(np.array([distance - self.cone.radius]))
        return max(0.0, *(float(a.max(initial=0.0)) for a in away))
