"""The semidefinite relaxation of a network with one hidden layer; for comparisons on small networks.

In the coordinates x = center + radius s, |s_j| <= 1, and h = u t for the k unstable neurons, whose pre-activations
over their range are z / (u - l) = A s + a, the matrix P stands for the products of the vector (1, s, t), of size
N = 1 + n + k (Raghunathan, Steinhardt & Liang 2018, section 4):

    P psd,  P[1, 1] = 1
    P[s_j, s_j] <= 1                                                     the box, (x - lower)(x - upper) <= 0
    P[t_i, t_i] <= P[1, t_i]                                             0 <= h <= u, h (h - u) <= 0
    P[1, t_i] >= 0,  u_i/(u_i - l_i) P[1, t_i] >= A_i P[1, s] + a_i      h >= 0, h >= z
    u_i/(u_i - l_i) P[t_i, t_i] = A_i P[t_i, s] + a_i P[1, t_i]          h^2 = h z
    P[1, t_i] <= A_i P[1, s] + a_i - l_i/(u_i - l_i)                     the triangle: never looser than the LP

Stable neurons are substituted, as in ``encode``. With rows M P <= r (y >= 0) and = r (y free) and costs q of (s, t),
any multipliers y prove for S(y) = q + M^T y, as a matrix,

    q.(s, t) >= -r.y + N min(0, least eigenvalue of S(y)),

since the trace of (1, s, t)(1, s, t)^T is at most N. This is what is reported, and its maximum over S(y) psd is what is
solved: the dual has n + 5 k + 1 variables, the primal N^2 / 2.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse

from lpverify.backends.base import import_solver, one_line
from lpverify.bounds.base import AbstractBoundMethod, BoundResult
from lpverify.bounds.crown import CrownBound
from lpverify.bounds.root import Root, root_bounds
from lpverify.bounds.solving import Account, exact_network, singles, stack
from lpverify.errors import UsageError
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import Box, LayerBounds, Region, Specification
from lpverify.program import Array

# The solvers, the default first, and the option that takes their limit in seconds.
_TIME_LIMITS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}


@dataclass(frozen=True)
class SDPBound(AbstractBoundMethod):
    """The minimum of every row over the semidefinite relaxation, for one hidden layer.

    Requires: a chain Affine-ReLU-Affine; an l-infinity region; few inputs and unstable neurons.
    Method: CROWN's (exact) pre-activation bounds; one dual SDP an example, compiled once, solved for each row.
    Property: where it is solved, at least as tight as ``lp``. Only a claim: its bound carries no multipliers of the
        certificate's kind, so that only what CROWN proves is certified.
    Source: Raghunathan, Steinhardt & Liang 2018 (arXiv 1811.01057), section 4, with the triangle added.

    Attributes:
        solver: "CLARABEL" or "SCS"; "" for the first.
        time_limit: seconds for one solve.
        seconds: seconds for an example; rows that are not reached keep CROWN's bounds.
        max_neurons: the most varying inputs and unstable neurons of an example together; time grows steeply.
        stop_at_zero: solve only for the rows that CROWN leaves open (for verdicts; not for tight values).
    """

    name: ClassVar[str] = "sdp"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False
    isolated: ClassVar[bool] = True
    solver: str = ""
    time_limit: float = math.inf
    seconds: float = math.inf
    max_neurons: int = 120
    stop_at_zero: bool = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        """As in the base class.

        Raises:
            UsageError: for another network or region, too many neurons, or an unknown solver.
            SolverError: if cvxpy is missing.
        """
        self.require(network, "inf" if isinstance(region, Box) else region.norm)
        network = exact_network(network)
        with torch.no_grad():
            parts = list(singles(region, spec))
            roots = [root_bounds(network, box, "crown") for box, _ in parts]
            for example, ((box, _), root) in enumerate(zip(parts, roots, strict=True)):
                self._require_small(example, box, root)
            return stack([self._one(network, *part, root) for part, root in zip(parts, roots, strict=True)])

    def require(self, network: Network, norm: str) -> None:
        if self.solver not in ("", *_TIME_LIMITS):
            raise UsageError(f"sdp: solver {self.solver!r} is not one of {', '.join(_TIME_LIMITS)}")
        _require_one_hidden_layer(network)
        if norm != "inf":
            raise UsageError(f"sdp: the region is an l{norm} ball; give an l-infinity box, or use lp")

    def _require_small(self, example: int, region: Region, root: Root) -> None:
        n, k = int((region.box.radius > 0).sum()), int(root.layers[2].unstable.sum())
        if n + k > self.max_neurons:
            raise UsageError(
                f"sdp: example {example} has {n} varying inputs and {k} unstable neurons, {n + k} in all; "
                f"max_neurons is {self.max_neurons}: raise it, or use lp"
            )

    def _one(self, network: Network, region: Region, spec: Specification, root: Root) -> BoundResult:
        account = Account(self.time_limit, time.perf_counter() + self.seconds)
        found = CrownBound.claim(network, region, spec, root)
        assert found.candidates is not None
        lifted = Lifted(network, region, root.layers[2])
        open_ = (~(found.margins[0] > 0)).nonzero().flatten().tolist()
        rows = open_ if self.stop_at_zero else range(found.margins.shape[1])
        if lifted.num_units and len(rows):
            problem = Problem(lifted, self.solver or next(iter(_TIME_LIMITS)))
            for row in rows:
                bound, point = problem.minimise(as_numpy(spec.C[0, row]), account)
                found.margins[0, row] = max(float(found.margins[0, row]), bound + float(spec.d[0, row]))
                if point is not None:
                    found.candidates[0, row] = torch.as_tensor(point)
        found.stats.update(account.stats())
        return found


class Lifted:
    """The relaxation of one example as rows over P, row-major; see the module's docstring.

    Attributes:
        num_inputs, num_units: n and k.
        size: N.
        rows: (n + 5 k + 1, N^2) csr; the first ``num_bounds`` are <= ``limits``, the others equal.
    """

    def __init__(self, network: Network, region: Region, layer: LayerBounds) -> None:
        (W,), (self._last,) = network.matrices(1), network.matrices(3)
        bias, self._shift = (as_numpy(node.bias) for node in network.nodes if isinstance(node, Affine))
        self._box = as_numpy(region.lower[0]), as_numpy(region.upper[0])
        self._center, self._radius = as_numpy(region.box.center[0]), as_numpy(region.box.radius[0])
        lower, upper = as_numpy(layer.lower[0]), as_numpy(layer.upper[0])
        self._inputs = np.flatnonzero(self._radius > 0)
        self._units, self._active = np.flatnonzero((lower < 0) & (upper > 0)), lower >= 0
        self._upper = upper[self._units]
        n, k = self.num_inputs, self.num_units = len(self._inputs), len(self._units)
        self.size = 1 + n + k
        width = self._upper - lower[self._units]
        self._slopes = W[:, self._inputs] * self._radius[self._inputs]
        self._middle = W @ self._center + bias
        A, a = self._slopes[self._units].toarray() / width[:, None], self._middle[self._units] / width
        share, low = self._upper / width, lower[self._units] / width
        s, t = 1 + np.arange(n), 1 + n + np.arange(k)[:, None]
        one = np.ones((k, 1))
        self.rows = self._symmetric(
            self._rows((s[:, None], s[:, None], np.ones((n, 1)))),
            self._rows((t, t, one), (0, t, -one)),
            self._rows((0, t, -one)),
            self._rows((0, s, A), (0, t, -share[:, None])),
            self._rows((0, t, one), (0, s, -A)),
            self._rows((0, 0, np.ones((1, 1)))),
            self._rows((t, t, share[:, None]), (t, s, -A), (0, t, -a[:, None])),
        )
        self.num_bounds = n + 4 * k
        self.limits = np.concatenate([np.ones(n), np.zeros(2 * k), -a, a - low, np.ones(1), np.zeros(k)])

    def _rows(self, *parts: tuple[Any, Any, Array]) -> sparse.csr_array:
        """Rows over P with the values (rows, w) at the places (i, j), which broadcast against them."""
        places = np.concatenate([np.broadcast_to(i * self.size + j, v.shape) for i, j, v in parts], axis=1)
        values = np.concatenate([v for _, _, v in parts], axis=1)
        at = np.repeat(np.arange(len(values)), values.shape[1])
        return sparse.csr_array((values.ravel(), (at, places.ravel())), shape=(len(values), self.size**2))

    def _symmetric(self, *blocks: sparse.csr_array) -> sparse.csr_array:
        """The blocks one below the other, each row as a symmetric matrix."""
        rows = sparse.vstack(blocks, format="csr")
        mirror = np.arange(self.size**2).reshape(self.size, self.size).T.ravel()
        return sparse.csr_array((rows + rows[:, mirror]) / 2)

    def costs(self, c: Array) -> tuple[Array, float]:
        """The row c (n_K,) of the outputs as costs (n + k,) of (s, t) and a constant."""
        hidden = self._last.T @ c
        passed = np.where(self._active, hidden, 0.0)
        constant = float(c @ self._shift + passed @ self._middle)
        return np.concatenate([self._slopes.T @ passed, hidden[self._units] * self._upper]), constant

    def cost_places(self) -> sparse.csr_array:
        """The map (N^2, n + k) from costs to their symmetric matrix."""
        at = np.arange(1, self.size)[:, None]
        return sparse.csr_array(self._symmetric(self._rows((0, at, np.ones((self.size - 1, 1))))).T)

    def bound(self, costs: Array, y: Array) -> float:
        """What any multipliers y prove about the least costs.(s, t), up to rounding; -inf for NaN."""
        y = np.concatenate([np.maximum(y[: self.num_bounds], 0.0), y[self.num_bounds :]])
        S = (self.cost_places() @ costs + self.rows.T @ y).reshape(self.size, self.size)
        if not np.isfinite(S).all():
            return -math.inf
        return float(-self.limits @ y + self.size * min(0.0, np.linalg.eigvalsh(S)[0]))

    def point(self, P: Array) -> Array:
        """The input (n_0,) that a solution stands for."""
        x = self._center.copy()
        x[self._inputs] += self._radius[self._inputs] * P[0, 1 : 1 + self.num_inputs]
        return np.asarray(np.clip(x, *self._box))


class Problem:
    """The dual SDP of one example in cvxpy, compiled once: the costs are a parameter."""

    def __init__(self, lifted: Lifted, solver: str) -> None:
        self._cp = cp = import_solver("cvxpy", "sdp")
        self._lifted, self._solver = lifted, solver
        self._y, self._costs = cp.Variable(len(lifted.limits)), cp.Parameter(lifted.size - 1)
        S = cp.reshape(
            lifted.cost_places() @ self._costs + lifted.rows.T @ self._y, (lifted.size, lifted.size), order="C"
        )
        self._cone = S >> 0
        signs = self._y[: lifted.num_bounds] >= 0
        self._problem = cp.Problem(cp.Maximize(-lifted.limits @ self._y), [self._cone, signs])

    def minimise(self, c: Array, account: Account) -> tuple[float, Array | None]:
        """A bound of c.f over the relaxation, -inf without one, and the input of the solution, if there is one."""
        costs, constant = self._lifted.costs(c)
        size = float(np.abs(costs).max(initial=0.0))
        if size == 0.0:
            return constant, None
        left = account.left
        if not left > 0:
            return -math.inf, None
        self._costs.value, began = costs / size, time.perf_counter()
        options = {_TIME_LIMITS[self._solver]: left} if left < math.inf else {}
        try:
            with warnings.catch_warnings():
                # cvxpy warns of what it also returns as the status.
                warnings.simplefilter("ignore")
                self._problem.solve(solver=self._solver, **options)
            status = str(self._problem.status)
        except (self._cp.SolverError, ValueError, ArithmeticError) as error:
            status = one_line(error)
        account.solves += 1
        account.solver_seconds += time.perf_counter() - began
        y, P = self._y.value, self._cone.dual_value
        if status != "optimal" or y is None:
            account.failed += 1
            account.messages.append(f"{self._solver}: {status}")
            return -math.inf, None
        account.iterations += int(self._problem.solver_stats.num_iters or 0)
        return self._lifted.bound(self._costs.value, y) * size + constant, None if P is None else self._lifted.point(P)


def _require_one_hidden_layer(network: Network) -> None:
    """Refuse anything but a chain Affine-ReLU-Affine."""
    sources = [network.sources(i) for i in range(len(network.nodes))]
    ends = [isinstance(network.nodes[i], Affine) for i in (1, 3)] if len(network.nodes) == 4 else []
    if not all(ends) or sources[1:] != [(0,), (1,), (2,)]:
        kinds = [f"{type(node).__name__}{list(s)}" for node, s in zip(network.nodes, sources, strict=True)]
        shown = ", ".join(kinds[1:6]) + (", ..." if len(kinds) > 6 else "")
        raise UsageError(
            f"sdp: the network has nodes {shown}; "
            "give one hidden layer, Affine[0], ReLU[1], Affine[2], or use lp, lp-tight or milp"
        )
