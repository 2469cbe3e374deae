"""The ways to solve the LP relaxation of one image, row after row, that ``lp_speed.py`` compares.

Two forms of one LP: "layers", as a text-book writes it (columns for every pre-activation and every value), and
"program", lpverify's arrays (columns for unstable neurons only). A contender is given the image's bounds, builds
what it keeps for the image, and answers rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np
import pulp
from scipy import sparse
from scipy.optimize import linprog

from lpverify.backends.highs import HighsBackend
from lpverify.bounds.lp import lp_claim
from lpverify.bounds.root import Root
from lpverify.bounds.solving import Account
from lpverify.encode import encode
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import Region, Specification
from lpverify.program import Array, Program
from lpverify.textbook import textbook

# Solves row i: its least value.
Rows = Callable[[int], float]


@dataclass(frozen=True, eq=False)
class Image:
    """One image's LP: everything a contender may use. ``spec`` has one example and m rows."""

    network: Network
    region: Region
    spec: Specification
    root: Root

    def ranges(self, index: int) -> tuple[Array, Array]:
        """The bounds (n_k,) of the pre-activations of ReLU node ``index``."""
        layer = self.root.layers[index]
        return as_numpy(layer.lower[0]), as_numpy(layer.upper[0])

    @property
    def box(self) -> tuple[Array, Array]:
        """The input's bounds (n_0,)."""
        return as_numpy(self.region.lower[0]), as_numpy(self.region.upper[0])

    @property
    def C(self) -> Array:
        """The rows (m, n_K)."""
        return as_numpy(self.spec.C[0])


@dataclass(frozen=True, eq=False)
class Form:
    """An LP with one objective (n,) and offset a row."""

    program: Program
    objectives: Array
    offsets: Array


def eliminated(image: Image) -> Form:
    """lpverify's arrays."""
    encoder = encode(image.network, image.region, image.root.layers)
    return Form(encoder.program(), *encoder.rows(len(image.network.nodes) - 1, image.C))


def by_layers(image: Image) -> Form:
    """The text-book's arrays: z = W h + b; h = 0, h = z, or h >= 0, h >= z, h <= u (z - l) / (u - l)."""
    network = image.network
    start = np.concatenate([[0], np.cumsum(network.sizes)])
    n = int(start[-1])
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    lower[: network.input_size], upper[: network.input_size] = image.box
    blocks: list[tuple[Any, Array, Array]] = []

    def spread(matrix: Any, index: int) -> sparse.csr_array:
        """The matrix over one node's units as rows over all columns."""
        placed = sparse.coo_array(matrix)
        entries = (placed.data, (placed.row, placed.col + start[index]))
        return sparse.csr_array(entries, shape=(placed.shape[0], n))

    for k, node in enumerate(network.nodes[1:], 1):
        eye = sparse.eye_array(network.sizes[k], format="csr")
        rows = spread(eye, k)
        if isinstance(node, Affine):
            for source, matrix in zip(node.inputs, network.matrices(k), strict=True):
                rows = rows - spread(matrix, source)
            bias = as_numpy(node.bias)
            blocks.append((rows, bias, bias))
            continue
        (source,) = network.sources(k)
        low, high = image.ranges(k)
        unstable, active = (low < 0) & (high > 0), low >= 0
        lower[start[k] : start[k + 1]] = 0
        upper[start[k] : start[k + 1]] = np.where((high <= 0) & ~active, 0, np.inf)
        above = rows - spread(eye, source)
        blocks.append((above[active], np.zeros(active.sum()), np.zeros(active.sum())))
        blocks.append((above[unstable], np.zeros(unstable.sum()), np.full(unstable.sum(), np.inf)))
        low, high = low[unstable], high[unstable]
        slope = high / (high - low)
        cut = rows[unstable] - sparse.diags_array(slope) @ spread(eye, source)[unstable]
        blocks.append((cut, np.full(len(low), -np.inf), -slope * low))
    A = sparse.csr_array(sparse.vstack([block for block, _, _ in blocks], format="csr"))
    row_lower, row_upper = (np.concatenate([block[side] for block in blocks]) for side in (1, 2))
    program = Program(np.zeros(n), A, row_lower, row_upper, lower, upper, np.zeros(n, dtype=bool))
    objectives = np.zeros((len(image.C), n))
    objectives[:, start[-2] :] = image.C
    return Form(program, objectives, np.zeros(len(image.C)))


FORMS = {"program": eliminated, "layers": by_layers}


@dataclass
class Ours:
    """The method ``lp`` as it is: encoding, hot-started solves, multipliers. All rows are solved at the start."""

    presolve: bool = False
    other_share: list[float] = field(default_factory=list)
    solver_seconds: list[float] = field(default_factory=list)

    def __call__(self, image: Image) -> Rows:
        began = time.perf_counter()
        backend = HighsBackend(lp_presolve=self.presolve)
        found = lp_claim(
            image.network, image.region, image.spec, image.root, (), backend, Account(), stop_at_zero=False
        )
        inside = found.stats["solver_seconds"]
        self.solver_seconds.append(inside)
        self.other_share.append(1 - inside / (time.perf_counter() - began))
        margins = as_numpy(found.margins[0])
        return lambda i: float(margins[i])


def cvxpy_neurons(image: Image) -> Rows:
    """Every neuron a few scalar constraints, the whole problem written again for every row."""

    def solve(i: int) -> float:
        network = image.network
        values = [cp.Variable(network.input_size)]
        low, high = image.box
        constraints = [values[0] >= low, values[0] <= high]
        for k, node in enumerate(network.nodes[1:], 1):
            here = cp.Variable(network.sizes[k])
            values.append(here)
            if isinstance(node, Affine):
                matrix, bias = network.matrices(k)[0].toarray(), as_numpy(node.bias)
                for j in range(network.sizes[k]):
                    constraints.append(here[j] == matrix[j] @ values[k - 1] + bias[j])
                continue
            z, (low, high) = values[k - 1], image.ranges(k)
            for j, (l, u) in enumerate(zip(low, high, strict=True)):  # noqa: E741
                if l >= 0:
                    constraints.append(here[j] == z[j])
                elif u <= 0:
                    constraints.append(here[j] == 0)
                else:
                    constraints += [here[j] >= 0, here[j] >= z[j], here[j] <= u * (z[j] - l) / (u - l)]
        return _cvxpy_solve(cp.Problem(cp.Minimize(image.C[i] @ values[-1]), constraints))

    return solve


def cvxpy_textbook(image: Image) -> Rows:
    """``lpverify.textbook``: every layer a few vector constraints, the whole problem written again for every row."""

    def solve(i: int) -> float:
        return _cvxpy_solve(textbook(image.network, image.region, image.root.layers, image.C[i])[0])

    return solve


def cvxpy_matrices(form: str) -> Callable[[Image], Rows]:
    """Matrix constraints, written once; a new problem for every row."""

    def start(image: Image) -> Rows:
        made = FORMS[form](image)
        x, constraints = _cvxpy_constraints(made.program)
        return lambda i: made.offsets[i] + _cvxpy_solve(cp.Problem(cp.Minimize(made.objectives[i] @ x), constraints))

    return start


def cvxpy_parameter(form: str, *, warm: bool) -> Callable[[Image], Rows]:
    """One problem whose objective is a parameter (DPP): compiled once, solved again for every row.

    Args:
        warm: hand each solution to the next solve, as cvxpy does by default; it does not always pay.
    """

    def start(image: Image) -> Rows:
        made = FORMS[form](image)
        x, constraints = _cvxpy_constraints(made.program)
        costs = cp.Parameter(made.program.num_columns)
        problem = cp.Problem(cp.Minimize(costs @ x), constraints)

        def solve(i: int) -> float:
            costs.value = made.objectives[i]
            return float(made.offsets[i]) + _cvxpy_solve(problem, warm=warm)

        return solve

    return start


def scipy_linprog(form: str) -> Callable[[Image], Rows]:
    """scipy's linprog with its own HiGHS; the arrays are made once."""

    def start(image: Image) -> Rows:
        made = FORMS[form](image)
        program = made.program
        equal = program.row_lower == program.row_upper
        above = ~equal & np.isfinite(program.row_upper)
        below = ~equal & np.isfinite(program.row_lower)
        A_ub = sparse.vstack([program.A[above], -program.A[below]], format="csr")
        b_ub = np.concatenate([program.row_upper[above], -program.row_lower[below]])
        A_eq, b_eq = program.A[equal], program.row_lower[equal]
        bounds = np.stack([program.lower, program.upper], axis=1)

        def solve(i: int) -> float:
            found = linprog(made.objectives[i], A_ub, b_ub, A_eq, b_eq, bounds, method="highs")
            return float(found.fun + made.offsets[i]) if found.success else float("nan")

        return solve

    return start


def pulp_model(form: str, solver: str) -> Callable[[Image], Rows]:
    """A PuLP model, written once; the objective is replaced for every row."""

    def start(image: Image) -> Rows:
        made = FORMS[form](image)
        program, model = made.program, pulp.LpProblem("relaxation", pulp.LpMinimize)
        bounds = [(lo if np.isfinite(lo) else None, up if np.isfinite(up) else None)
                  for lo, up in zip(program.lower.tolist(), program.upper.tolist(), strict=True)]  # fmt: skip
        x = [pulp.LpVariable(f"x{j}", lo, up) for j, (lo, up) in enumerate(bounds)]
        A = program.A
        for r, (low, high) in enumerate(zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)):
            place = slice(A.indptr[r], A.indptr[r + 1])
            entries = zip(A.indices[place].tolist(), A.data[place].tolist(), strict=True)
            expression = pulp.LpAffineExpression([(x[j], value) for j, value in entries])
            if low == high:
                model += expression == low
            elif np.isfinite(low):
                model += expression >= low
            else:
                model += expression <= high

        def solve(i: int) -> float:
            costs = made.objectives[i]
            used = np.flatnonzero(costs)
            model.setObjective(pulp.LpAffineExpression([(x[j], float(costs[j])) for j in used]))
            chosen = pulp.PULP_CBC_CMD(msg=False, threads=1) if solver == "CBC" else pulp.HiGHS(msg=False, threads=1)
            model.solve(chosen)
            if model.sol_status != pulp.LpSolutionOptimal:
                return float("nan")
            return float(pulp.value(model.objective)) + float(made.offsets[i])

        return solve

    return start


def _cvxpy_constraints(program: Program) -> tuple[cp.Variable, list[Any]]:
    """The program's rows and bounds as three vector constraints."""
    x = cp.Variable(program.num_columns)
    equal = program.row_lower == program.row_upper
    above, below = ~equal & np.isfinite(program.row_upper), ~equal & np.isfinite(program.row_lower)
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    constraints = [x[low] >= program.lower[low], x[high] <= program.upper[high]]
    if equal.any():
        constraints.append(program.A[equal] @ x == program.row_lower[equal])
    if above.any():
        constraints.append(program.A[above] @ x <= program.row_upper[above])
    if below.any():
        constraints.append(program.A[below] @ x >= program.row_lower[below])
    return x, constraints


def _cvxpy_solve(problem: cp.Problem, *, warm: bool = False) -> float:
    """The optimum by HiGHS on one thread; NaN for any other status and where the solver fails."""
    try:
        problem.solve(solver=cp.HIGHS, threads=1, warm_start=warm)
    except cp.SolverError:
        return float("nan")
    return float(problem.value) if problem.status == cp.OPTIMAL else float("nan")
