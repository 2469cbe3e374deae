"""What is known of a batch of examples so far, and how evidence decides one of them.

Engines propose; here ``verified`` is written where the rigorous checker accepted a certificate, ``falsified`` where a
point of the exact input set was evaluated exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.bounds import BoundResult
from lpverify.bounds.root import Root
from lpverify.certificate import rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous import Outcome
from lpverify.errors import SoundnessError
from lpverify.evidence import certificate
from lpverify.network import as_numpy
from lpverify.problem import Region, Specification
from lpverify.result import MISCLASSIFIED, UNCERTIFIED, Counterexample, Replay, Result, Verdict
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.witness import witness_at

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of one batch: examples x (B, n_0) with their claims.

    Attributes:
        indices: what each is called in its result.
        spec: (B, m, n_K), (B, m) the claims in the engines' form.
        labels: the classes, where the claims are about one.
        finished: the indices of those that have a result. They take part in the stages that the batch shares, for the
            last bits of floating-point results depend on a batch's size; nothing else is done for them.
    """

    indices: Sequence[int]
    x: Array
    claims: Sequence[Claim]
    spec: Specification
    labels: Sequence[int | None]
    finished: frozenset[int] = frozenset()

    @property
    def wanted(self) -> list[int]:
        """The positions of the examples that have no result."""
        return [i for i, index in enumerate(self.indices) if index not in self.finished]

    def part(self, places: Sequence[int]) -> Asked:
        """A batch of the examples at these positions alone."""
        some = [self.indices[i] for i in places], self.x[places], [self.claims[i] for i in places]
        return Asked(*some, self.spec.select(torch.as_tensor(places)), [self.labels[i] for i in places], self.finished)


@dataclass(frozen=True, eq=False)
class Batch:
    """The examples of one batch: exact claims and the engines' tensors."""

    indices: Sequence[int]
    x: Array
    claims: Sequence[Claim]
    spec: Specification
    region: Region
    labels: Sequence[int | None]

    def select(self, i: int) -> Batch:
        """The batch of one that example i is by itself."""
        return Batch(
            [self.indices[i]], self.x[i : i + 1], [self.claims[i]], self.spec.select([i]), self.region.select([i]),
            [self.labels[i]],
        )  # fmt: skip


@dataclass(eq=False)
class Progress:
    """What is known so far of each example of a batch; filled in stage by stage.

    Attributes:
        best: (B, m) what the engines claim and the checker has not refused; ``claimed`` (B, m) all that they claim;
            ``margins`` (B, m) what the checker proved; NaN where nothing.
        decided: results by position in the batch; ``reasons`` and ``methods`` of the others so far.
        clean: (B, m) the margins at the clean inputs, in float64.
        seconds: (B,) time spent.
        root: CROWN's root bounds and the examples that they are for.
        proposals: the last certificate proposed for an undecided example.
        nodes: how many the search bounded, of examples that it was tried on.
        replays: what is kept of solvers that crashed.
        deadline: when the batch must stop (``time.perf_counter``).
    """

    best: NDArray[np.float64]
    decided: dict[int, Result] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    methods: dict[int, str] = field(default_factory=dict)
    clean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    predicted: list[int | None] = field(default_factory=list)
    margins: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    claimed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    root: tuple[list[int], Root] | None = None
    proposals: dict[int, Certificate] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)
    replays: dict[int, Replay | None] = field(default_factory=dict)
    deadline: float | None = None

    def open(self, batch: Batch) -> list[int]:
        """The examples that are not decided yet."""
        return [i for i in range(len(batch.claims)) if i not in self.decided]

    def select(self, i: int) -> Progress:
        """What is known of example i by itself; not what serves the stages of a batch: its root and its deadline."""
        known: dict[str, Any] = {name: getattr(self, name)[i : i + 1].copy() for name in ARRAYS}
        known |= {name: {0: found[i]} for name in SAID if i in (found := getattr(self, name))}
        return Progress(**known, predicted=self.predicted[i : i + 1])


ARRAYS = ("best", "clean", "seconds", "margins", "claimed")
SAID = ("reasons", "methods", "nodes")


def falsify(session: Session, batch: Batch, progress: Progress, i: int, point: Array, method: str) -> None:
    """Turn a proposed point into a witness, if exact evaluation and (where asked) float32 agree."""
    settings = session.settings
    witness = witness_at(session.exact, session.single, settings, batch.x[i], point, batch.spec, i)
    if witness is None:
        return
    reason = MISCLASSIFIED if witness.misclassified else ""
    if not witness.agrees:
        note = f"the float32 forward pass gives {witness.margin_float32:.3g} at the witness"
        if settings.semantics == "float32":
            progress.reasons[i] = f"a point fails over the reals, but {note}"
            return
        reason = f"{reason}; {note}" if reason else note
    decide(settings, batch, progress, i, Verdict.FALSIFIED, reason, method, counterexample=witness)


def certify(
    session: Session,
    batch: Batch,
    progress: Progress,
    waiting: list[int],
    bound: BoundResult,
    rows: list[list[int]],
    method: str,
) -> None:
    """Have the checker recompute what the method proposes; accepted certificates decide."""
    proposed = as_numpy(bound.margins).astype(np.float64)
    best = progress.best[waiting]
    for place, listed in enumerate(rows):
        best[place, listed] = np.fmax(best[place, listed], proposed[place, : len(listed)])
    progress.best[waiting] = best
    progress.claimed[waiting] = np.fmax(progress.claimed[waiting], best)
    sha, semantics = session.plain.sha256, session.settings.semantics
    hopeful: list[int] = []
    for place, i in enumerate(waiting):
        progress.methods[i] = method
        progress.reasons.pop(i, None)
        progress.proposals[i] = certificate(sha, semantics, batch.claims[i], bound, place, rows[place])
        # A certificate with lemmas has tables of its own: what earlier stages proved does not count there.
        claimed = proposed[place] if bound.multipliers.lemmas else best[place]
        if (claimed > 0).all():
            hopeful.append(i)
    for i, outcome in _judge(session, batch, progress, hopeful):
        # What the checker refused is open again: the next stage must not take the engine's word for it.
        progress.best[i] = outcome.margins
        progress.reasons[i] = f"{UNCERTIFIED}: {method} claims a proof, but the checker found {outcome.message}"


def prove_margins(session: Session, batch: Batch, progress: Progress, examples: Collection[int] | None = None) -> None:
    """Undecided examples (all, or these) report proved margins too: those that the checker finds for the last proposal.

    The checker may find more than a float32 engine dared to claim.
    """
    waiting = [i for i in progress.open(batch) if i in progress.proposals]
    _judge(session, batch, progress, waiting if examples is None else [i for i in waiting if i in examples])


def _judge(session: Session, batch: Batch, progress: Progress, waiting: list[int]) -> list[tuple[int, Outcome]]:
    """Check the proposals of some examples: accepted ones are decided; the others' outcomes are returned."""
    outcomes = rigorous.check(session.checker, [progress.proposals[i] for i in waiting])
    refused = []
    for i, outcome in zip(waiting, outcomes, strict=True):
        progress.margins[i] = np.fmax(progress.margins[i], outcome.margins)
        if outcome.accepted:
            proof = progress.proposals[i].encode()
            accept(session, batch, progress, i, outcome.margins, proof, outcome.leaves)
        else:
            refused.append((i, outcome))
    return refused


def accept(
    session: Session, batch: Batch, progress: Progress, i: int, margins: Array, proof: bytes, leaves: int
) -> None:
    """Note that the checker accepted a proof, unless what it proved contradicts the clean input."""
    _agree_with_points(batch, progress, i, margins)
    progress.margins[i] = margins
    decide(session.settings, batch, progress, i, Verdict.VERIFIED, "", progress.methods[i], proof=proof, leaves=leaves)


def _agree_with_points(batch: Batch, progress: Progress, i: int, lower: NDArray[np.float64]) -> None:
    """A proved bound above the value at a point of the region would mean that something here is broken."""
    region = batch.region.box.select([i])
    x = torch.as_tensor(batch.x[i : i + 1]).double()
    value, slack = progress.clean[i], 1e-6 * (1 + np.abs(progress.clean[i]))
    if bool(((x >= region.lower) & (x <= region.upper)).all()) and bool((lower > value + slack).any()):
        row = int(np.argmax(lower - value))
        raise SoundnessError(
            f"example {batch.indices[i]}, row {row}: certified bound {float(lower[row])!r} is above the margin "
            f"{float(value[row])!r} at the clean input; nothing of this run can be trusted"
        )


def decide(
    settings: Settings,
    batch: Batch,
    progress: Progress,
    i: int,
    verdict: Verdict,
    reason: str,
    method: str,
    counterexample: Counterexample | None = None,
    proof: bytes | None = None,
    leaves: int | None = None,
) -> None:
    """Note an example's result; its time and nodes are added when it is handed on."""
    progress.decided[i] = Result(
        index=batch.indices[i],
        verdict=verdict,
        reason=reason,
        method=method,
        semantics=settings.semantics,
        margins=progress.margins[i].copy(),
        claimed=progress.claimed[i].copy(),
        seconds=0.0,
        label=batch.labels[i],
        predicted=progress.predicted[i] if progress.predicted else None,
        counterexample=counterexample,
        certificate=proof,
        leaves=leaves,
    )
