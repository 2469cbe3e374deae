"""Equilibration of a program by powers of two, so that no solver meets entries or bounds far from 1.

Multiplying by a power of two is exact, so the scaled program is the same program in other units:

    x = 2^C x',   A' = 2^R A 2^C,   y = 2^R y' unit,   objective' = 2^C objective / unit.

Solvers drop small entries and compare with absolute tolerances, and so go wrong on programs in odd units: the
encoding of a network with one layer times 2^k and the next times 2^-k, say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lpverify.program import Array, Program

# Geometric means of rows and columns settle in few passes: nearly at once where rows are dense.
_PASSES = 4
# An entry more bits below its row's largest counts as this far: weights that training has pushed to almost zero
# must not lift the others.
_ROW_BITS = 8.0
# Boxes within 2^-8 to 2^8 are left as the entries ask; others pull their column's unit by at most 15 bits.
_BOX_BITS = 8.0
_PULL_BITS = 15.0
# Scaled finite bounds stay below 2^60, since solvers read 1e20 as infinite.
_BOUND_BITS = 60.0
# Larger exponents would leave the range of normal numbers when they meet.
_SCALE_BITS = 500.0


@dataclass(frozen=True, eq=False)
class Scaling:
    """The units of an equilibrated program: exponents of two, ``rows`` (m,) and ``columns`` (n,)."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]

    def unit(self, objective: Array) -> float:
        """The power of two that brings the largest scaled cost of (n,) costs into [1, 2); 1 for costs of zero."""
        return float(np.ldexp(1.0, self._unit_exponent(objective)))

    def objective(self, objective: Array) -> Array:
        """The (n,) costs of the scaled program, divided by ``unit(objective)``."""
        return np.asarray(np.ldexp(objective, self.columns - self._unit_exponent(objective)))

    def point(self, x: Array) -> Array:
        """A point (n,) of the scaled program in the program's units."""
        return np.asarray(np.ldexp(x, self.columns))

    def duals(self, y: Array) -> Array:
        """Row duals (m,) of the scaled program in the program's units, still to be multiplied by the unit."""
        return np.asarray(np.ldexp(y, self.rows))

    def _unit_exponent(self, objective: Array) -> int:
        mantissas, exponents = np.frexp(objective)
        used = mantissas != 0
        largest = float((exponents + self.columns)[used].max()) - 1 if used.any() else 0.0
        return int(np.clip(largest, -_SCALE_BITS, _SCALE_BITS))


def equilibrate(program: Program) -> tuple[Program, Scaling]:
    """The program in units that bring its entries near 1 and its columns' boxes not too far from it.

    Columns take the geometric mean of their entries, and move on by at most 2^15 where their box would be very wide
    or narrow; rows take the geometric mean of what results. Whole columns and those of a cone keep their unit.
    Exact unless numbers leave float64's normal range. The result's matrix is sorted, without duplicates or zeros.
    """
    A = program.A.copy()
    A.sum_duplicates()
    A.eliminate_zeros()
    fixed = program.integer.copy()
    if program.cone is not None:
        fixed[program.cone.columns] = True
    entries = np.frexp(A.data)[1].astype(np.float64)
    boxes = _exponents(program.lower, program.upper)
    means = _column_means(A, entries, fixed)
    boxed = np.isfinite(boxes) & np.isfinite(program.lower) & np.isfinite(program.upper) & ~fixed
    if boxed.any():
        if not fixed.any():
            # Means leave one factor open, which moves between rows and columns: let it suit the boxes.
            means += np.median((boxes - means)[boxed])
        pulled = np.clip(means, boxes - _BOX_BITS, boxes + _BOX_BITS)
        means[boxed] = np.clip(pulled, means - _PULL_BITS, means + _PULL_BITS)[boxed]
    C = _rounded(np.maximum(means, boxes - _BOUND_BITS))
    C[fixed] = 0
    limits = _BOUND_BITS - _exponents(program.row_lower, program.row_upper)
    R = _rounded(np.minimum(_row_means(A, entries + C[A.indices]), limits))
    scaling = Scaling(R, C)
    A.data = np.ldexp(A.data, C[A.indices] + np.repeat(R, np.diff(A.indptr)))
    scaled = replace(
        program,
        objective=scaling.objective(program.objective),
        offset=0.0,
        A=A,
        row_lower=np.ldexp(program.row_lower, R),
        row_upper=np.ldexp(program.row_upper, R),
        lower=np.ldexp(program.lower, -C),
        upper=np.ldexp(program.upper, -C),
    )
    return scaled, scaling


def _column_means(A: sparse.csr_array, entries: Array, fixed: NDArray[np.bool_]) -> Array:
    """Exponents of the columns' units (n,) that bring every free column's and row's geometric mean to 1."""
    C = np.zeros(A.shape[1])
    counts = np.bincount(A.indices, minlength=A.shape[1])
    free = (counts > 0) & ~fixed
    if not free.any():
        return C
    lengths = np.diff(A.indptr)
    filled = np.flatnonzero(lengths)
    starts, lengths = A.indptr[filled], lengths[filled]
    for _ in range(_PASSES):
        R = -np.add.reduceat(entries + C[A.indices], starts) / lengths
        sums = np.bincount(A.indices, entries + np.repeat(R, lengths), A.shape[1])
        C[free] = -(sums[free] / counts[free])
    return C


def _row_means(A: sparse.csr_array, entries: Array) -> Array:
    """Exponents of the rows' units (m,) for entries with the exponents ``entries`` (nnz,), small ones cut off."""
    R = np.zeros(A.shape[0])
    lengths = np.diff(A.indptr)
    filled = np.flatnonzero(lengths)
    if len(filled):
        starts, lengths = A.indptr[filled], lengths[filled]
        floors = np.maximum.reduceat(entries, starts) - _ROW_BITS
        R[filled] = -np.add.reduceat(np.maximum(entries, np.repeat(floors, lengths)), starts) / lengths
    return R


def _exponents(lower: Array, upper: Array) -> Array:
    """Exponents (k,) of the larger finite bound of each pair; -inf where none is finite and nonzero."""
    sizes = np.maximum(np.where(np.isfinite(lower), np.abs(lower), 0), np.where(np.isfinite(upper), np.abs(upper), 0))
    return np.where(sizes > 0, np.frexp(sizes)[1], -np.inf)


def _rounded(exponents: Array) -> NDArray[np.int32]:
    """Whole exponents within the range that is safe."""
    return np.clip(np.rint(exponents), -_SCALE_BITS, _SCALE_BITS).astype(np.int32)
