"""One method on one example: what it claims, what the checker proves of it, the points it proposes, its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.attack import attack
from lpverify.attack.membership import into_exact_box
from lpverify.bounds.base import AbstractBoundMethod, BoundResult
from lpverify.certificate import rigorous
from lpverify.comparison.case import Limit
from lpverify.comparison.rows import ATTACK
from lpverify.evidence import certificate, claim_of
from lpverify.network import Network, as_numpy
from lpverify.problem import LayerBounds, Region, Specification
from lpverify.session import EXAMPLE_SECONDS, Session
from lpverify.settings import Settings
from lpverify.witness import rounding_error, witness_at
from lpverify.workers import Failure

Array = NDArray[np.float64]

# The attack on each row: PGD steps and restarts.
STEPS, RESTARTS = 40, 3
# Above the rounding of the few operations that combine outputs to margins and errors to their bounds.
WIDER = 1.01


@dataclass(frozen=True, eq=False)
class Example:
    """One example with its ball: x (n_0,) in the dtype it came in, and the m rows of its label claim."""

    x: NDArray[Any]
    label: int
    index: int
    settings: Settings
    classes: int

    @property
    def region(self) -> Region:
        """The ball as the engines read it, a batch of one."""
        return self.settings.region(torch.as_tensor(self.x)[None].double())

    @property
    def spec(self) -> Specification:
        """The rows as the engines read them, a batch of one."""
        return Specification.label(torch.tensor([self.label]), self.classes)


@dataclass(frozen=True, eq=False)
class Measured:
    """A method on an example with m rows.

    Attributes:
        margins: (m,) what it claims; NaN where it has nothing. Of the attack: upper bounds.
        certified: (m,) what the checker proves; NaN where it was not asked.
        own: (m,) rows that the method itself worked out; the others kept what a cheaper method gave.
        layers: its pre-activation bounds (1, n_k) by ReLU node.
        uppers: (m,) the rows' least margins at the points that it proposes, rounded up; infinite without points.
        verdict: "verified", "falsified" or "unknown", from this method alone.
        seconds, cpu: of the method.
        note: why there is nothing.
    """

    method: str
    margins: Array
    certified: Array
    own: NDArray[np.bool_]
    layers: dict[int, LayerBounds] = field(default_factory=dict)
    uppers: Array = field(default_factory=lambda: np.zeros(0))
    verdict: str = "unknown"
    seconds: float = 0.0
    cpu: float = 0.0
    note: str = ""

    @property
    def unstable(self) -> str:
        """Unstable neurons of each ReLU, joined by "/"."""
        return "/".join(str(int(layer.unstable.sum())) for layer in self.layers.values())


@dataclass(frozen=True, eq=False)
class Timed:
    """The task of a worker: a method on an example, with the seconds that it took."""

    method: AbstractBoundMethod
    region: Region
    spec: Specification

    def __call__(self, network: Network) -> tuple[BoundResult, float, float]:
        """The bounds, the wall's seconds, the processor's."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = self.method.bound(network, self.region, self.spec)
        return found, time.perf_counter() - wall, time.process_time() - cpu


class Bench:
    """One network on which methods are measured, example by example; it warms each method up once."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._warm: set[str] = set()

    def measure(self, name: str, example: Example, limit: Limit | None = None) -> Measured:
        """One method of METHODS, or the attack, on one example.

        Raises:
            UsageError: if the method cannot do what is asked on this network.
            SoundnessError: as raised by a method.
        """
        if name == ATTACK:
            return self._attack(example)
        rows = example.spec.d.shape[1]
        options = {} if limit is None else {"seconds": limit.seconds, "time_limit": limit.seconds / rows}
        if name == "alpha":
            options.pop("time_limit", None)
        method = self.session.method(name, **options)
        found = self._bound(method, example)
        nothing = np.full(rows, np.nan)
        if isinstance(found, Failure):
            return Measured(name, nothing, nothing, np.zeros(rows, dtype=bool), note=found.reason)
        bound, seconds, cpu = found
        margins = as_numpy(bound.margins[0]).astype(np.float64)
        certified = self._certified(bound, example)
        points = [] if bound.candidates is None else list(as_numpy(bound.candidates[0]).astype(np.float64))
        uppers, witnessed = self.uppers(example, points)
        verdict = "verified" if bool((certified > 0).all()) else "falsified" if witnessed else "unknown"
        layers = {k: LayerBounds(v.lower.double().cpu(), v.upper.double().cpu()) for k, v in bound.layers.items()}
        own = _own_rows(bound, name)
        return Measured(name, margins, certified, own, layers, uppers, verdict, seconds, cpu)

    def uppers(self, example: Example, points: Sequence[Array]) -> tuple[Array, bool]:
        """The least margin of each row at the points (n_0,), moved into the exact set; and whether one is a witness.

        The margins (m,) are rounded up: no exact margin at these points is greater.
        """
        settings, spec = example.settings, example.spec
        inside = [into_exact_box(p, example.x, settings.eps, settings.norm, settings.clip)
                  for p in points if np.isfinite(p).all()]  # fmt: skip
        stacked = [point for point in inside if point is not None]
        if not stacked:
            return np.full(spec.d.shape[1], np.inf), False
        values, errors = self._margins(np.stack(stacked), spec)
        least = (values + errors).min(axis=0)
        witnessed = False
        if (values <= errors).any():
            worst = stacked[int(values.min(axis=1).argmin())]
            exact, single = self.session.exact, self.session.single
            witnessed = witness_at(exact, single, settings, example.x, worst, spec, 0) is not None
        return least, witnessed

    def _margins(self, points: Array, spec: Specification) -> tuple[Array, Array]:
        """The rows' margins (p, m) at points (p, n_0) in float64, and bounds of their rounding errors."""
        exact, C = self.session.exact, spec.C[0]
        with torch.no_grad():
            values = exact.values(torch.as_tensor(points))
            error = rounding_error(exact, values)
        unit = 8 * torch.finfo(torch.float64).eps
        wrong: Tensor = (error + unit * values[-1].abs()) @ C.abs().T * WIDER
        return as_numpy(values[-1] @ C.T + spec.d[0]), as_numpy(wrong)

    def _bound(self, method: AbstractBoundMethod, example: Example) -> tuple[BoundResult, float, float] | Failure:
        region, spec = example.region, example.spec
        if method.isolated:
            seconds = getattr(method, "seconds", EXAMPLE_SECONDS)
            (found,) = self.session.run([Timed(method, region, spec)], min(seconds, EXAMPLE_SECONDS))
            return found
        if method.name not in self._warm:
            self.session.bound(method, region, spec)
            self._warm.add(method.name)
        wall, cpu = time.perf_counter(), time.process_time()
        bound = self.session.bound(method, region, spec)
        # What runs on a GPU is done when a value has come back.
        float(bound.margins.sum())
        return bound, time.perf_counter() - wall, time.process_time() - cpu

    def _certified(self, bound: BoundResult, example: Example) -> Array:
        claim = claim_of(example.settings, example.x, example.label, example.classes)
        rows = list(range(example.classes - 1))
        proposed = certificate(self.session.plain.sha256, "real", claim, bound, 0, rows)
        (outcome,) = rigorous.check(self.session.checker, [proposed])
        return outcome.margins.astype(np.float64)

    def _attack(self, example: Example) -> Measured:
        """PGD on each row alone; every row is judged at the points of all rows."""
        spec, seed = example.spec, example.settings.seed
        rows = spec.d.shape[1]
        alone = Specification(spec.C[0].unsqueeze(1), spec.d[0].unsqueeze(1))
        regions = example.settings.region(torch.as_tensor(example.x)[None].double().expand(rows, -1))
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.enable_grad():
            found = attack(
                self.session.engine, regions, alone, steps=STEPS, restarts=RESTARTS, seed=seed, early_stop=False
            )
        points = list(as_numpy(found.points).astype(np.float64))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        uppers, witnessed = self.uppers(example, [*points, example.x.astype(np.float64)])
        verdict = "falsified" if witnessed else "unknown"
        nothing, own = np.full(rows, np.nan), np.ones(rows, dtype=bool)
        margins = np.where(np.isfinite(uppers), uppers, np.nan)
        return Measured(ATTACK, margins, nothing, own, {}, uppers, verdict, wall, cpu)


def _own_rows(bound: BoundResult, name: str) -> NDArray[np.bool_]:
    rows = bound.margins.shape[1]
    if name == "sdp":
        # It does not tell which of its rows were solved: all, or it is not said of any.
        return np.full(rows, bound.stats.get("solves", 0) >= rows and not bound.stats.get("failed_solves"))
    own = bound.multipliers.own
    return np.ones(rows, dtype=bool) if own is None else as_numpy(own[0]).astype(bool)
