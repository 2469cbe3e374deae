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

# Boxes of sizes from 2^-4 to 2^4 stay as they are: the relaxations of networks in their own units were solved faster.
_BOX_BITS = 4.0
# A box larger than 2^40 or smaller than 2^-40 says nothing of its column's size.
_LARGEST_BOX_BITS = 40.0
# Geometric means of rows and columns settle in few passes: nearly at once where rows are dense.
_PASSES = 4
# A row whose entries lie further apart than 2^30 is lifted, by at most 2^10, so that solvers drop fewer of them.
_SPREAD_BITS = 30.0
_LIFT_BITS = 10.0
# Scaled finite bounds stay below 2^60, since solvers read 1e20 as infinite.
_BOUND_BITS = 60.0
# Larger exponents would leave the range of normal numbers when they meet.
_SCALE_BITS = 500.0
_UNIT_BITS = 1000.0


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
        return int(np.clip(largest, -_UNIT_BITS, _UNIT_BITS))


def equilibrate(program: Program) -> tuple[Program, Scaling]:
    """The program in units that bring its columns' boxes and its rows' largest entries near 1.

    Columns without a finite box take the geometric mean of their entries. Whole columns and those of a cone keep their
    unit. Exact unless numbers leave float64's normal range. The result's matrix is sorted, without duplicates or zeros.
    """
    A = program.A.copy()
    A.sum_duplicates()
    A.eliminate_zeros()
    entries = np.frexp(A.data)[1].astype(np.float64)
    boxes, sides = _exponents(program.lower, program.upper), _exponents(program.row_lower, program.row_upper)
    kept = program.integer.copy()
    if program.cone is not None:
        kept[program.cone.columns] = True
    boxed = (np.abs(boxes) <= _LARGEST_BOX_BITS) & np.isfinite(program.lower) & np.isfinite(program.upper) & ~kept
    exponents = np.where(boxed & (np.abs(boxes) > _BOX_BITS), boxes, 0.0)
    if not (kept | boxed).all():
        exponents = _with_means(A, entries, exponents, kept | boxed, sides)
    C = _rounded(np.maximum(exponents, boxes - _BOUND_BITS))
    C[kept] = 0
    R = _rounded(np.minimum(_row_exponents(A, entries + C[A.indices]), _BOUND_BITS - sides))
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


def _with_means(A: sparse.csr_array, entries: Array, exponents: Array, known: NDArray[np.bool_], sides: Array) -> Array:
    """The columns' exponents (n,), those not ``known`` from the geometric means of their entries.

    Args:
        entries: (nnz,) exponents of the entries.
        sides: (m,) exponents of the rows' bounds. Without any known column, means leave one factor open, which moves
            between rows and columns; it is chosen to suit these.
    """
    exponents = exponents.copy()
    lengths = np.diff(A.indptr)
    filled = np.flatnonzero(lengths)
    counts = np.bincount(A.indices, minlength=A.shape[1])
    open_ = (counts > 0) & ~known
    if not open_.any():
        return exponents
    starts, lengths = A.indptr[filled], lengths[filled]
    for _ in range(_PASSES):
        means = np.add.reduceat(entries + exponents[A.indices], starts) / lengths
        sums = np.bincount(A.indices, entries - np.repeat(means, lengths), A.shape[1])
        exponents[open_] = -(sums[open_] / counts[open_])
    bounds = sides[filled] - means
    if not known.any() and np.isfinite(bounds).any():
        exponents[open_] += np.median(bounds[np.isfinite(bounds)])
    return exponents


def _row_exponents(A: sparse.csr_array, entries: Array) -> Array:
    """Exponents (m,) that bring the rows' largest entries to 1, given the entries' own (nnz,)."""
    R = np.zeros(A.shape[0])
    filled = np.flatnonzero(np.diff(A.indptr))
    if len(filled):
        largest = np.maximum.reduceat(entries, A.indptr[filled])
        spread = largest - np.minimum.reduceat(entries, A.indptr[filled])
        R[filled] = np.clip((spread - _SPREAD_BITS) / 2, 0, _LIFT_BITS) - largest
    return R


def _exponents(lower: Array, upper: Array) -> Array:
    """Exponents (k,) of the larger finite bound of each pair; -inf where none is finite and nonzero."""
    sizes = np.maximum(np.where(np.isfinite(lower), np.abs(lower), 0), np.where(np.isfinite(upper), np.abs(upper), 0))
    return np.where(sizes > 0, np.frexp(sizes)[1], -np.inf)


def _rounded(exponents: Array) -> NDArray[np.int32]:
    """Whole exponents within the range that is safe."""
    return np.clip(np.rint(exponents), -_SCALE_BITS, _SCALE_BITS).astype(np.int32)
