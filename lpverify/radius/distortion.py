"""The exact least distortion of an input: how near the nearest point is at which some row of the claim fails.

    minimise  |x' - x|_p  subject to  c.f(x') + d <= 0,  x' inside the clip         (Tjeng et al. 2019, eq. 1-3)

for every row of the claim, as a MILP (``encode``) inside a ball that a known counterexample, or the user, gives:

    p = inf   one column t with -t <= x'_i - x_i <= t
    p = 1     the columns a, b of the encoding, x' = x + a - b, and their sum
    p = 2     columns q_i >= ((x'_i - x_i) / s)^2 and their sum, by tangents (outer approximation: Duran & Grossmann
              1986): the MILP gives a bound and an activation pattern; with the pattern fixed, linear programs and
              tangents at their solutions give the pattern's nearest point; its tangents go into the next MILP.

All of it is a solver's word, within its tolerances: ``bound`` is what it claims, and ``distance`` that of its point,
at which the claim need not fail when it is evaluated exactly. Proofs are certificates, counterexamples witnesses.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from lpverify.backends.base import AbstractBackend, Solution, Status
from lpverify.backends.highs import HighsBackend
from lpverify.bounds.alpha import AlphaBound
from lpverify.bounds.crown import CrownBound
from lpverify.bounds.lp import lp_claim
from lpverify.bounds.lp_tight import LPTightBound
from lpverify.bounds.solving import Account, exact_network
from lpverify.encode import Encoder, encode
from lpverify.network import Network, as_numpy
from lpverify.problem import Clip, LayerBounds, Region, Specification, ball
from lpverify.program import Array, Program

# In l2, a row is settled when bound and point differ by this share of the distance, and a pattern when its squares
# miss this share of their sum. Solvers keep rows to 1e-6 or 1e-7, so that less would not be reached.
GAP, SQUARES_GAP = 1e-5, 1e-6
# MILPs that the tangents of one row may take, and linear programs for one activation pattern.
ROUNDS, PATTERN_ROUNDS = 50, 30
# Distances below this share of the radius are not resolved any further.
LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Distortion:
    """What a solver says of the least distortion.

    Attributes:
        bound: no point where the claim fails is nearer, the solver claims; at most the radius that was searched.
        distance: that of ``point``; infinite without one.
        point: (n_0,) where some row is <= 0 up to the solver's tolerances, or None.
        row: the row that fails at ``point``, -1 without one.
        status: OPTIMAL, or INFEASIBLE if no point was found and every row is settled; LIMIT or FAILED otherwise.
        seconds: all of the time.
        stats: rows solved as MILPs, their seconds and nodes, LPs for the bounds and their seconds, unstable neurons;
            nothing where the claim fails at the input itself.
        message: what solvers that failed said.
    """

    bound: float
    distance: float
    point: Array | None
    row: int
    status: Status
    seconds: float
    stats: dict[str, float]
    message: str = ""


@dataclass(frozen=True, eq=False)
class LeastDistortion:
    """The task of a worker: the exact least distortion of one example.

    Attributes:
        x: (1, n_0) the input.
        spec: its claim.
        radius: how far to look, in raw input units; the distance of a known counterexample, at best.
        norm: "inf", "1" or "2".
        clip: keeps all inputs inside, or None.
        backend: the solver; it must know whole columns.
        time_limit: seconds for one LP or MILP; ``seconds``: for all of them.
    """

    x: Tensor
    spec: Specification
    radius: float
    norm: str = "inf"
    clip: Clip = None
    backend: AbstractBackend = field(default_factory=HighsBackend)
    time_limit: float = math.inf
    seconds: float = math.inf

    def __call__(self, network: Network) -> Distortion:
        """Look for the nearest point: pre-activation bounds over the ball, then a MILP for each row that is open."""
        network = exact_network(network)
        with torch.no_grad():
            return _Search(self, network).run()

    def region(self, radius: float) -> Region:
        """The ball of this radius, inside the clip."""
        return ball(self.x.double().cpu().flatten(1), radius, self.norm, self.clip)


@dataclass(frozen=True, eq=False)
class _Row:
    """What a solver says of one row: a lower bound of the distance, and the nearest point."""

    bound: float
    point: Array | None
    status: Status


class _Search:
    """One search: the time spent, and the best point so far."""

    def __init__(self, task: LeastDistortion, network: Network) -> None:
        self.task, self.network = task, network
        self.began = time.perf_counter()
        deadline = self.began + task.seconds
        self.bounding, self.account = Account(task.time_limit, deadline), Account(task.time_limit, deadline)
        self.spec = task.spec.to(torch.float64, "cpu")
        self.center = as_numpy(task.x.double().cpu().flatten())
        self.nodes, self.unstable = 0, 0.0

    def run(self) -> Distortion:
        """Every row that is open, the one with the least relaxed margin first."""
        failing = self._at_the_input()
        if failing is not None:
            return failing
        margins, layers = self._relaxed()
        limit = bound = self.task.radius
        nearest, point, row = math.inf, None, -1
        statuses = list[Status]()
        order = np.argsort(margins)
        for candidate in order[~(margins[order] > 0)].tolist():
            found = self._row(candidate, layers, limit)
            statuses.append(found.status)
            bound = min(bound, found.bound)
            if found.point is not None:
                distance = distance_of(found.point - self.center, self.task.norm)
                if distance < nearest:
                    nearest, point, row = distance, found.point, candidate
                    limit = min(limit, nearest)
        open_ = set(statuses) - {Status.OPTIMAL, Status.INFEASIBLE}
        status = Status.INFEASIBLE if point is None else Status.OPTIMAL
        if open_:
            status = Status.LIMIT if open_ == {Status.LIMIT} else Status.FAILED
        return Distortion(
            bound=max(0.0, min(bound, limit)),
            distance=nearest,
            point=point,
            row=row,
            status=status,
            seconds=time.perf_counter() - self.began,
            stats={
                "unstable": self.unstable,
                "solves": self.bounding.solves,
                "solver_seconds": self.bounding.solver_seconds,
                "milp_rows": len(statuses),
                "milp_solves": self.account.solves,
                "milp_seconds": self.account.solver_seconds,
                "milp_nodes": self.nodes,
            },
            message="; ".join(dict.fromkeys([*self.bounding.messages, *self.account.messages])),
        )

    def _at_the_input(self) -> Distortion | None:
        """The answer 0 where the claim fails at the input itself, if the clip holds that."""
        clip, x = self.task.clip, torch.as_tensor(self.center)[None]
        least, row = self.spec.margins(self.network.forward(x))[0].min(0)
        if float(least) > 0 or (clip is not None and not bool(((x >= clip[0]) & (x <= clip[1])).all())):
            return None
        return Distortion(0.0, 0.0, self.center, int(row), Status.OPTIMAL, time.perf_counter() - self.began, {})

    def _relaxed(self) -> tuple[Array, dict[int, LayerBounds]]:
        """The rows' lower bounds (m,) over the whole ball, and the pre-activation bounds that the MILPs build on.

        By LPs; over an l2 ball, whose cone is not for solvers of MILPs, by optimised dual bounds.
        """
        task, network, region = self.task, self.network, self.task.region(self.task.radius)
        if task.norm == "2":
            root, _ = AlphaBound().tightened_root(network, region, self.bounding.deadline)
            bound = CrownBound.claim(network, region, self.spec, root)
        else:
            backend, account = task.backend, self.bounding
            root, lemmas, encoder = LPTightBound(backend).tightened_root(network, region, account)
            bound = lp_claim(
                network, region, self.spec, root, lemmas, backend, account, stop_at_zero=True, encoder=encoder
            )
        self.unstable = sum(float(layer.unstable.sum()) for layer in root.layers.values())
        return as_numpy(bound.margins[0]), root.layers

    def _row(self, row: int, layers: dict[int, LayerBounds], limit: float) -> _Row:
        """The nearest point within ``limit`` at which one row is <= 0."""
        norm, region = self.task.norm, self.task.region(limit)
        encoder = encode(self.network, region if norm == "1" else region.box, layers, milp=True)
        weights, offset = encoder.rows(len(self.network.nodes) - 1, as_numpy(self.spec.C[0, row])[None])
        most = -(offset + as_numpy(self.spec.d[0, row]))
        program = encoder.program().with_rows(sparse.csr_array(weights), np.array([-np.inf]), most, ["claim"])
        if norm == "2":
            return _Tangents(self, encoder, program, limit).run()
        program = self._with_l1(program) if norm == "1" else self._with_linf(encoder, program, limit)
        found = self.minimise(program)
        point = None if found.x is None else encoder.expressions[0].at(found.x)
        return _Row(limit if found.status is Status.INFEASIBLE else found.bound, point, found.status)

    def _with_l1(self, program: Program) -> Program:
        """Minimise the sum of the columns a and b, which are the encoding's first."""
        objective = np.zeros(program.num_columns)
        objective[: 2 * len(self.center)] = 1.0
        return program.with_objective(objective)

    def _with_linf(self, encoder: Encoder, program: Program, limit: float) -> Program:
        """Minimise a further column t that no input's distance exceeds; sides that the clip closes need no row."""
        n, x, at = program.num_columns, encoder.expressions[0], self.center
        ends = program.with_columns(np.zeros(1), np.array([limit]), ["t"])
        X = x.wide(n + 1)
        lower, upper = program.lower[: len(at)], program.upper[: len(at)]
        above, below = np.flatnonzero(upper > at), np.flatnonzero(lower < at)
        sides = sparse.csr_array(sparse.vstack([X[above], -X[below]]))
        k = len(above) + len(below)
        t = sparse.csr_array((np.ones(k), (np.arange(k), np.full(k, n))), shape=(k, n + 1))
        names = [f"{side}_{i}" for side, units in (("u", above), ("l", below)) for i in units]
        rows = ends.with_rows(sides - t, np.full(k, -np.inf), np.concatenate([at[above], -at[below]]), names)
        objective = np.zeros(n + 1)
        objective[n] = 1.0
        return rows.with_objective(objective)

    def minimise(self, program: Program) -> Solution:
        """Solve one program within the time that is left."""
        session = self.task.backend.open(program)
        found = self.account.minimise(session, program.objective, program.offset)
        self.nodes += found.nodes
        return found


class _Tangents:
    """The nearest point of one row in l2: see the module's docstring.

    Distances are in the unit s = limit / sqrt(n_0), in which the squares q of a point on the border are 1 on average.
    """

    def __init__(self, search: _Search, encoder: Encoder, claim: Program, limit: float) -> None:
        n = len(search.center)
        self.search, self.encoder, self.claim = search, encoder, claim
        self.limit, self.unit = limit, limit / math.sqrt(n)
        self.first, self.inputs = claim.num_columns, encoder.expressions[0]
        self.objective = np.concatenate([np.zeros(self.first), np.ones(n)])
        names = [f"q_{i}" for i in range(n)]
        self.program = claim.with_columns(np.zeros(n), np.full(n, float(n)), names).with_objective(self.objective)

    def run(self) -> _Row:
        """Alternate between MILPs and patterns until bound and point meet."""
        bound, point, nearest = 0.0, None, self.limit
        self._settle(self.program.relaxed())
        for _ in range(ROUNDS):
            found = self.search.minimise(self._within(nearest))
            if found.status is Status.INFEASIBLE:
                return _Row(nearest, point, Status.INFEASIBLE if point is None else Status.OPTIMAL)
            bound = max(bound, self.unit * math.sqrt(max(found.bound, 0.0)))
            if found.x is None:
                return _Row(min(bound, nearest), point, found.status)
            x = self._settle(self._pattern(found.x))
            x = found.x if x is None else x
            distance = distance_of(self._step(x), "2") * self.unit
            if distance < nearest or point is None:
                nearest, point = min(distance, nearest), self.inputs.at(x)
            if LEAST * self.search.task.radius < nearest < self.limit / 2:
                # In this unit the squares are so small that the solver's tolerances tell.
                again = _Tangents(self.search, self.encoder, self.claim, nearest).run()
                return replace(again, point=point if again.point is None else again.point)
            if found.status is not Status.OPTIMAL or nearest - bound <= GAP * nearest:
                return _Row(min(bound, nearest), point, found.status)
        return _Row(min(bound, nearest), point, Status.LIMIT)

    def _settle(self, program: Program) -> Array | None:
        """Minimise over a linear program, adding tangents to it and to the MILP; its point, None if it has none."""
        x: Array | None = None
        for _ in range(PATTERN_ROUNDS):
            found = self.search.minimise(program)
            if found.x is None:
                break
            x = found.x
            step = self._step(x)
            missing = step**2 - x[self.first :]
            if missing.sum() <= SQUARES_GAP * (step**2).sum():
                break
            units = np.flatnonzero(missing > SQUARES_GAP * (step**2).mean())
            rows, least = self._at(units, step[units])
            free, names = np.full(len(units), np.inf), [f"g_{self.program.num_rows + i}" for i in range(len(units))]
            program = program.with_rows(rows, least, free, names)
            self.program = self.program.with_rows(rows, least, free, names)
        return x

    def _at(self, units: NDArray[np.int64], step: Array) -> tuple[sparse.csr_array, Array]:
        """The tangents q_i >= 2 g y_i - g^2 at y_i = g, with y = (x - center) / s: rows (k, columns), least (k,)."""
        slope, at = 2 * step / self.unit, np.arange(len(units))
        q = sparse.csr_array((np.ones(len(units)), (at, self.first + units)), shape=(len(units), len(self.objective)))
        X = self.inputs.wide(len(self.objective))[units]
        rows = q - sparse.diags_array(slope, format="csr") @ X
        return sparse.csr_array(rows), -(step**2) - slope * self.search.center[units]

    def _step(self, x: Array) -> Array:
        """The point's way from the input (n_0,), in units of s."""
        return np.asarray((self.inputs.at(x) - self.search.center) / self.unit)

    def _within(self, distance: float) -> Program:
        """The MILP, for points up to a distance."""
        most = np.array([(distance / self.unit) ** 2])
        return self.program.with_rows(sparse.csr_array(self.objective[None]), np.array([-np.inf]), most, ["ball"])

    def _pattern(self, x: Array) -> Program:
        """The linear program in which every whole column keeps the value that it has at x."""
        program = self.program
        whole = np.rint(x)
        return replace(
            program.relaxed(),
            lower=np.where(program.integer, whole, program.lower),
            upper=np.where(program.integer, whole, program.upper),
        )


def distance_of(step: Array, norm: str) -> float:
    """The length of a step (n_0,) in the norm."""
    return float(np.linalg.norm(step, ord={"inf": np.inf, "1": 1, "2": 2}[norm]))
