"""A property: many claims, each about a box of its own, that are decided together within one limit of time.

All claims proved is ``verified``; one counterexample is ``falsified`` and ends the run. Many claims are first attacked
and bounded in batches, for most of hundreds of small boxes need no more; ``search.solve`` has the others in turn.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack import attack
from lpverify.certificate import rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.rigorous_claim import claim_rows
from lpverify.certificate.rigorous_region import regions
from lpverify.clause_witness import Judge
from lpverify.errors import CertificateError, DataError, ShapeError
from lpverify.evidence import certificate
from lpverify.network import as_numpy
from lpverify.problem import Box, Specification
from lpverify.result import Counterexample, Result, Verdict
from lpverify.search.solve import solve
from lpverify.session import Session
from lpverify.vnnlib import Property

# A claim that ran out of time is tried again only with more than so many times the seconds that it had.
MORE_TIME = 2.0
# The attack and the bound that all claims of a property with several get first.
ATTACK_STEPS, ATTACK_RESTARTS, FIRST_BOUND = 20, 2, "crown"
# The descent from a counterexample that the float32 forward pass does not show.
DEEPER_STEPS, DEEPER_STEP = 20, 0.02
TIMEOUT = "timeout"


def verify_property(
    session: Session, asked: Property, *, deadline: float = math.inf, finished: Collection[int] = ()
) -> Iterator[Result]:
    """Decide the claims of a property; one result a claim, named by its number, as they come.

    After a counterexample the claims without an answer are ``unknown``.

    Args:
        session: of the network; its settings give semantics, device and seed (eps and clip are not used).
        deadline: when to stop (``time.perf_counter``).
        finished: claims that have a result already, none of them ``falsified``; nothing is yielded of them.

    Raises:
        ShapeError: if the property has other inputs or outputs than the network.
        DataError: if a coefficient has more digits than the checkers take.
    """
    network = session.exact
    if (asked.inputs, asked.outputs) != (network.input_size, network.output_size):
        raise ShapeError(
            f"property: {asked.inputs} inputs and {asked.outputs} outputs, but the network has {network.input_size} "
            f"and {network.output_size}; give the network that the property was written for"
        )
    _require_floats(asked)
    state = _State(session, asked, deadline, [k for k in range(len(asked.claims)) if k not in finished])
    stages = (state.attacked, state.bounded, state.solved) if len(asked.claims) > 1 else (state.solved,)
    for stage in stages:
        for result in stage():
            state.waiting.remove(result.index)
            yield result
            if result.verdict is Verdict.FALSIFIED:
                yield from unanswered(session, asked, state.waiting, f"claim {result.index} is falsified")
                return


def _require_floats(asked: Property) -> None:
    """Refuse coefficients that float64 cannot hold exactly: no checker could take them."""
    for k, claim in enumerate(asked.claims):
        try:
            claim_rows(claim)
        except CertificateError as error:
            raise DataError(f"property: box {k}: {error}; write them with fewer digits") from None


def unanswered(session: Session, asked: Property, claims: Sequence[int], reason: str) -> Iterator[Result]:
    """Results of claims that nobody answered."""
    for k in claims:
        yield _unknown(session, asked.claims[k], k, reason, "none", 0.0)


@dataclass
class Conclusion:
    """The verdict on a property, from the results of its claims as they pass.

    Attributes:
        claims: how many the property has.
        verdicts: results by verdict.
        counterexample: of the claim that is falsified, if one is.
        methods: which decided, or were the last ones tried.
        reasons: of unknown claims.
        leaves: of all certificates together.
    """

    claims: int
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    counterexample: Counterexample | None = None
    falsified: Result | None = None
    methods: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    leaves: int = 0

    def add(self, result: Result) -> None:
        """Take one claim's result."""
        self.verdicts[result.verdict] += 1
        self.leaves += result.leaves or 0
        if result.verdict is Verdict.FALSIFIED:
            self.falsified, self.counterexample = result, result.counterexample
        if result.verdict is Verdict.UNKNOWN:
            self.reasons[result.reason] += 1
        self.methods[result.method] += 1

    @property
    def verdict(self) -> Verdict:
        """``verified`` if all claims are, ``falsified`` if one is, else ``unknown``."""
        if self.falsified is not None:
            return Verdict.FALSIFIED
        return Verdict.VERIFIED if self.verdicts[Verdict.VERIFIED] == self.claims else Verdict.UNKNOWN

    @property
    def method(self) -> str:
        """The methods that decided, the most frequent first."""
        if self.falsified is not None:
            return self.falsified.method
        return ", ".join(name for name, _ in self.methods.most_common()) or "none"

    @property
    def reason(self) -> str:
        """Why unknown, or what else must be said."""
        if self.falsified is not None:
            return self.falsified.reason
        if self.verdict is Verdict.UNKNOWN:
            return "; ".join(f"{reason} ({n} of {self.claims} claims)" for reason, n in self.reasons.most_common(3))
        return "" if self.claims else "the file describes no unsafe input"


@dataclass(eq=False)
class _State:
    """The run of one property: ``waiting`` are the claims without an answer."""

    session: Session
    asked: Property
    deadline: float
    waiting: list[int]

    def attacked(self) -> Iterator[Result]:
        """The first counterexample of a short attack on all boxes."""
        for part in self._batches():
            began = time.perf_counter()
            claims = [self.asked.claims[k] for k in part]
            box, spec = tensors(claims)
            found = attack(
                self.session.engine, box, spec, steps=ATTACK_STEPS, restarts=ATTACK_RESTARTS, deadline=self.deadline,
                seed=self.session.settings.seed, clauses=claims[0].clauses,
            )  # fmt: skip
            for place in found.falsified.nonzero().flatten().tolist():
                if part[place] not in self.waiting:
                    continue
                witness = self._judge(part[place])(as_numpy(found.points[place]))
                witness = None if witness is None else self._deeper(part[place], witness, self.deadline)
                if witness is not None and (witness.agrees or self.session.settings.semantics == "real"):
                    seconds = time.perf_counter() - began
                    yield replace(
                        _unknown(self.session, claims[place], part[place], witness.note, "pgd", seconds),
                        verdict=Verdict.FALSIFIED, counterexample=witness,
                    )  # fmt: skip
                    return

    def bounded(self) -> Iterator[Result]:
        """The claims that a quick bound proves."""
        session = self.session
        method = session.method(FIRST_BOUND)
        for part in self._batches():
            began = time.perf_counter()
            claims = [self.asked.claims[k] for k in part]
            bound = session.bound(method, *tensors(claims))
            margins = as_numpy(bound.margins)
            open_ = [i for i, k in enumerate(part) if k in self.waiting]
            hopeful = [i for i in open_ if _all_clauses(claims[i], margins[i])]
            proofs = [
                certificate(session.plain.sha256, session.settings.semantics, claims[i], bound, i,
                            range(claims[i].num_rows)) for i in hopeful
            ]  # fmt: skip
            outcomes = rigorous.check(session.checker, proofs)
            share = (time.perf_counter() - began) / len(part)
            for i, proof, outcome in zip(hopeful, proofs, outcomes, strict=True):
                if outcome.accepted:
                    yield replace(
                        _unknown(session, claims[i], part[i], "", FIRST_BOUND, share), verdict=Verdict.VERIFIED,
                        margins=outcome.margins, certificate=proof.encode(), leaves=1,
                    )  # fmt: skip

    def solved(self) -> Iterator[Result]:
        """The waiting claims one by one; what one does not need of its share of the time is the others'."""
        waiting, had = list(self.waiting), 0.0
        results: dict[int, Result] = {}
        while waiting and self._left() / len(waiting) > MORE_TIME * had:
            had, late = self._left() / len(waiting), []
            for position, k in enumerate(waiting):
                share = self._left() / (len(waiting) - position)
                limit = time.perf_counter() + share
                result = self._solve(k, limit)
                if result.verdict is Verdict.UNKNOWN and time.perf_counter() >= limit:
                    results[k] = result
                    late.append(k)
                else:
                    yield result
            waiting = late
        yield from (results[k] if k in results else next(
            unanswered(self.session, self.asked, [k], TIMEOUT)) for k in waiting)  # fmt: skip

    def _solve(self, k: int, limit: float) -> Result:
        claim, began = self.asked.claims[k], time.perf_counter()
        found = solve(self.session, claim, deadline=limit)
        verdict, reason, witness = found.verdict, found.reason, found.counterexample
        if witness is not None and self.asked.open_faces[k]:
            # The search is about the closed box; a point on a side that the file leaves out is moved off it.
            witness = self._judge(k)(witness.x)
            if witness is None:
                verdict, reason = Verdict.UNKNOWN, "the counterexample found is on a side of its box that is left out"
        if witness is not None:
            witness = self._deeper(k, witness, limit)
            reason = witness.note
        result = _unknown(self.session, claim, k, reason, found.method, time.perf_counter() - began)
        return replace(
            result, verdict=verdict, margins=found.margins, counterexample=witness, certificate=found.certificate,
            leaves=found.leaves,
        )  # fmt: skip

    def _deeper(self, k: int, witness: Counterexample, limit: float) -> Counterexample:
        """A counterexample that the float32 forward pass shows as well, if one is near; else the one given."""
        claim = self.asked.claims[k]
        if witness.agrees or not all(claim.clauses):
            return witness
        found = attack(
            self.session.engine, *tensors([claim]), steps=DEEPER_STEPS, restarts=1, step_size=DEEPER_STEP,
            early_stop=False, start=torch.from_numpy(witness.x).unsqueeze(0), clauses=claim.clauses, deadline=limit,
        )  # fmt: skip
        better = self._judge(k)(as_numpy(found.points[0]))
        return better if better is not None and better.agrees else witness

    def _judge(self, k: int) -> Judge:
        return Judge(self.session.exact, self.session.single, self.asked.claims[k], self.asked.open_faces[k])

    def _left(self) -> float:
        return max(0.0, self.deadline - time.perf_counter())

    def _batches(self) -> Iterator[list[int]]:
        """The claims with the same clauses in batches, those with one that waits, until the time is over.

        Batches are cut by place, so that a run that is gone on with computes the same bits.
        """
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for k in range(len(self.asked.claims)):
            if all(self.asked.claims[k].clauses):
                groups.setdefault(self.asked.claims[k].clauses, []).append(k)
        size = self.session.batch_size
        for members in groups.values():
            for start in range(0, len(members), size):
                part = members[start : start + size]
                if self._left() > 0 and not set(self.waiting).isdisjoint(part):
                    yield part


def tensors(claims: Sequence[Claim]) -> tuple[Box, Specification]:
    """The engines' form of claims with equally many rows: their boxes, rounded outward, and rows, in float64."""
    boxes, rows = regions(claims), [claim_rows(claim) for claim in claims]
    C, d = torch.from_numpy(np.stack([r[0] for r in rows])), torch.from_numpy(np.stack([r[1] for r in rows]))
    return Box(torch.from_numpy(boxes.lower), torch.from_numpy(boxes.upper)), Specification(C, d)


def _all_clauses(claim: Claim, margins: NDArray[Any]) -> bool:
    """Whether in every clause some row's bound is > 0: margins (m,)."""
    return all(bool((margins[list(clause)] > 0).any()) for clause in claim.clauses)


def _unknown(session: Session, claim: Claim, k: int, reason: str, method: str, seconds: float) -> Result:
    return Result(
        index=k, verdict=Verdict.UNKNOWN, reason=reason, method=method, semantics=session.settings.semantics,
        margins=np.full(claim.num_rows, np.nan), seconds=seconds,
    )  # fmt: skip
