"""What the solver-backed methods share: one example at a time, rows of a node minimised by LP, time kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status
from lpverify.bounds.base import BoundResult, Multipliers
from lpverify.encode import Encoder
from lpverify.errors import SolverError, UsageError
from lpverify.network import Network
from lpverify.problem import LayerBounds, Region, Specification
from lpverify.program import Array, Cone, Program


@dataclass(eq=False)
class Account:
    """The time an example may take and what its solves cost.

    Attributes:
        time_limit: seconds for one solve.
        deadline: when the example must end, on ``time.perf_counter``.
        solves, failed: number of solves, and of those without a bound or a point.
        solver_seconds: time spent inside the solver.
    """

    time_limit: float = math.inf
    deadline: float = math.inf
    solves: int = 0
    failed: int = 0
    solver_seconds: float = 0.0
    iterations: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds for the next solve; 0 when the example's time is over."""
        return max(0.0, min(self.time_limit, self.deadline - time.perf_counter()))

    def minimise(
        self, session: AbstractSession, objective: Array, offset: float, stop_at: float | None = None
    ) -> Solution:
        """One solve within the limits; LIMIT without asking the solver if no time is left."""
        left = self.left
        if not left > 0:
            return Solution(Status.LIMIT)
        found = session.minimise(objective, float(offset), time_limit=left, stop_at=stop_at)
        self.solves += 1
        self.solver_seconds += found.seconds
        self.iterations += found.iterations
        if found.status is Status.FAILED:
            self.failed += 1
            self.messages.append(found.message)
        return found

    def stats(self) -> dict[str, float]:
        """The counts, for a result."""
        return {
            "solves": self.solves,
            "failed_solves": self.failed,
            "solver_seconds": self.solver_seconds,
            "iterations": self.iterations,
        }


@dataclass(frozen=True, eq=False)
class Rows:
    """Bounds of m rows from LPs over one program.

    Attributes:
        bounds: (m,) Lagrangian bounds; -inf where there is none.
        duals: the multipliers by ReLU node, each (m, n_k); 0 where there are none.
        solved: (m,) where there are multipliers.
        points: (m, n_0) inputs of the solutions; NaN where there is none.
    """

    bounds: Array
    duals: dict[int, Array]
    solved: NDArray[np.bool_]
    points: Array


def bound_rows_by_lp(
    encoder: Encoder, session: AbstractSession, objectives: Array, offsets: Array, account: Account
) -> Rows:
    """Minimise every objective over the session's program, hot-started from one to the next."""
    m = len(objectives)
    rows = Rows(
        np.full(m, -np.inf),
        {k: np.zeros((m, encoder.network.sizes[k])) for k in encoder.neurons},
        np.zeros(m, dtype=bool),
        np.full((m, encoder.network.input_size), np.nan),
    )
    for i in range(m):
        found = account.minimise(session, objectives[i], offsets[i])
        if found.x is not None:
            rows.points[i] = encoder.expressions[0].at(found.x)
        if found.row_duals is not None and math.isfinite(found.bound):
            rows.bounds[i], rows.solved[i] = found.bound, True
            for k, v in encoder.multipliers(found.row_duals).items():
                rows.duals[k][i] = v
    return rows


Bound = Callable[[Network, Region, Specification], BoundResult]


def one_by_one(bound: Bound, network: Network, region: Region, spec: Specification) -> BoundResult:
    """The bounds of a batch by a method of single examples, in float64 on the CPU and without gradients."""
    network = exact_network(network)
    with torch.no_grad():
        return stack([bound(network, *part) for part in singles(region, spec)])


def singles(region: Region, spec: Specification) -> Iterator[tuple[Region, Specification]]:
    """The examples of a batch one by one, in float64 on the CPU."""
    region, spec = region.to(torch.float64, "cpu"), spec.to(torch.float64, "cpu")
    for i in range(len(spec.C)):
        yield region.select([i]), spec.select([i])


def stack(results: list[BoundResult]) -> BoundResult:
    """The results of single examples, of one rule and number of rows, as that of a batch."""
    first, parts = results[0], [r.multipliers for r in results]
    layers = {
        k: LayerBounds(*(torch.cat([getattr(r.layers[k], side) for r in results]) for side in ("lower", "upper")))
        for k in first.layers
    }
    lemmas = tuple(
        replace(lemma, examples=torch.full_like(lemma.examples, i)) for i, p in enumerate(parts) for lemma in p.lemmas
    )
    duals = {k: torch.cat([_duals(r, k) for r in results]) for k in layers}
    own = torch.cat([torch.zeros_like(r.margins, dtype=torch.bool) if p.own is None else p.own
                     for r, p in zip(results, parts, strict=True)])  # fmt: skip
    candidates = [r.candidates for r in results if r.candidates is not None]
    return BoundResult(
        torch.cat([r.margins for r in results]),
        layers,
        Multipliers(parts[0].rule, lemmas=lemmas, duals=duals, own=own),
        torch.cat(candidates) if len(candidates) == len(results) else None,
        {name: sum(r.stats.get(name, 0.0) for r in results) / len(results) for name in first.stats},
    )


def _duals(result: BoundResult, index: int) -> Tensor:
    """The multipliers of one example's rows at a ReLU, (1, m, n_k); zeros where it has none."""
    shape = *result.margins.shape, result.layers[index].lower.shape[1]
    return result.multipliers.duals.get(index, result.margins.new_zeros(shape))


def require_backend(backend: AbstractBackend, norm: str, *, milp: bool) -> None:
    """Have a backend solve one column, whole or in a cone as the programs of a method will be.

    Raises:
        UsageError: if it cannot.
    """
    one = np.ones(1)
    cone = Cone(np.zeros(1, dtype=np.int64), one, 0.5) if norm == "2" else None
    rows = sparse.csr_array(one[:, None])
    tiny = Program(one, rows, 0 * one, 3 * one, 0 * one, 2 * one, np.array([milp]), cone=cone)
    try:
        found = backend.solve(tiny, time_limit=60.0)
    except SolverError as error:
        raise UsageError(str(error)) from None
    if found.status is not Status.OPTIMAL:
        kind = ("MILPs" if milp else "LPs") + (" with a cone" if norm == "2" else "")
        raise UsageError(
            f"backend {backend.name}: solver {backend.solver or 'of its choice'} does not solve {kind} here "
            f"({found.message or found.status.value}); give another --backend or --solver"
        )


def exact_network(network: Network) -> Network:
    """The network in float64 on the CPU, where programs are made; itself if it is there already."""
    if network.dtype == torch.float64 and network.device.type == "cpu":
        return network
    return network.detach().to(torch.float64, "cpu")
