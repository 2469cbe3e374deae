"""What every attack takes and returns: AttackOptions and AttackResult.

Shapes: ``B`` examples, ``n_0`` inputs, ``m`` rows of the claim, ``k`` clauses. A claim fails where all rows of a clause
fail; without ``AttackOptions.clauses`` every row is a clause of its own.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from lpverify.attack.losses import LOSSES
from lpverify.errors import UsageError
from lpverify.problem import Specification

SCHEDULES = ("constant", "linear")


@dataclass(frozen=True)
class AttackOptions:
    """How an attack searches.

    Attributes:
        steps: gradient steps of a restart, >= 0.
        restarts: runs from different starts, >= 1; the first begins at the given start, the others at random.
        loss: a key of ``losses.LOSSES``; "targeted" makes one run for each clause.
        schedule: step sizes over a run, "constant" or "linear" (falling to nothing).
        step_size: the first step as a share of the radius (of eps, or of half of the box's width), > 0.
        seed: of the random starts; one draw serves all examples, so batching changes no start.
        early_stop: leave an example as soon as some clause's margin is <= 0; without it the least margin is sought.
        max_floats: how many activations may be held at once; bounds the memory.
        clauses: the rows of each clause, the same for all examples; None: every row is one.
        deadline: when to stop with what was found so far (``time.perf_counter``).
    """

    steps: int = 40
    restarts: int = 2
    loss: str = "margin"
    schedule: str = "linear"
    step_size: float = 0.25
    seed: int = 0
    early_stop: bool = True
    max_floats: int = 2**26
    clauses: tuple[tuple[int, ...], ...] | None = None
    deadline: float = math.inf

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"loss: {self.loss!r} is not one of {', '.join(LOSSES)}")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule: {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if self.steps < 0 or self.restarts < 1:
            raise UsageError(f"attack: steps {self.steps} must be >= 0 and restarts {self.restarts} >= 1")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise UsageError(f"step_size: {self.step_size!r} must be finite and > 0")

    def rate(self, step: int) -> float:
        """The size of a step (counted from 0) as a share of the radius."""
        return self.step_size * (1.0 if self.schedule == "constant" else 1.0 - step / self.steps)

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return time.perf_counter() > self.deadline

    def targets(self, spec: Specification) -> int:
        """How many runs a start makes: one for each clause if the loss is "targeted"."""
        if self.loss != "targeted":
            return 1
        return spec.d.shape[1] if self.clauses is None else len(self.clauses)

    def margins(self, spec: Specification, outputs: Tensor) -> Tensor:
        """The margins of the clauses, each the greatest of its rows': outputs (R, n_K) -> (R, k)."""
        return self.margins_and_heights(spec, outputs)[0]

    def margins_and_heights(self, spec: Specification, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The margins, and what a descent lowers in their place while they are > 0: (R, k), (R, k).

        A clause's height is the sum of its rows' positive values. The greatest alone would pull a descent to and fro
        between rows.
        """
        rows = spec.margins(outputs)
        if self.clauses is None:
            return rows, rows
        # Shorter clauses are filled up with a column that never counts; one without rows fails everywhere.
        longest, none = max(1, *map(len, self.clauses)), rows.shape[1]
        index = [[*clause, *[none] * (longest - len(clause))] for clause in self.clauses]
        filled = torch.cat([rows, torch.full_like(rows[:, :1], -torch.inf)], 1)
        values = filled[:, torch.tensor(index, device=rows.device)]
        margins = values.amax(2)
        return margins, torch.where(margins > 0, values.clamp(min=0).sum(2), margins)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The best point found for each example. It proves nothing: see ``exact`` for what makes it a witness.

    Attributes:
        points: (B, n_0), inside the region up to the rounding of its dtype.
        margins: (B,) the least clause's margin at the point by the network's forward pass in its own dtype; an
            upper bound of the true minimum up to rounding. Infinite if no finite margin was met.
        rows: (B,) int64, the row (of a claim of clauses: the clause) with that margin.
    """

    points: Tensor
    margins: Tensor
    rows: Tensor

    @property
    def falsified(self) -> Tensor:
        """(B,) bool: the forward pass says that the claim fails at the point."""
        return self.margins <= 0

    def better(self, other: AttackResult) -> AttackResult:
        """For each example the point with the lesser margin; this one's where they tie."""
        won = other.margins < self.margins
        return AttackResult(
            torch.where(won.unsqueeze(1), other.points, self.points),
            torch.where(won, other.margins, self.margins),
            torch.where(won, other.rows, self.rows),
        )
