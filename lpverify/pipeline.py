"""The pipeline: attack, cheap bounds, costly bounds, search, check; each example stops when it is decided.

Engines only propose. ``verified`` is written where the rigorous checker accepted a certificate, ``falsified``
where a point of the exact input set was evaluated exactly; everything else is ``unknown`` with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack import attack
from lpverify.bounds import METHODS, AlphaBound, BoundResult, CrownBound
from lpverify.bounds.base import AbstractBoundMethod
from lpverify.bounds.root import Root, root_bounds
from lpverify.certificate import rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.proof import Certificate
from lpverify.certificate.rigorous import Outcome
from lpverify.errors import SoundnessError
from lpverify.evidence import certificate
from lpverify.network import Network, as_numpy
from lpverify.problem import Region, Specification, row_products
from lpverify.result import UNCERTIFIED, Counterexample, Result, Verdict
from lpverify.search.solve import solve
from lpverify.session import Session
from lpverify.witness import rounding_error, witness_at
from lpverify.workers import Failure

Array = NDArray[Any]

# Without a timeout, the search stops after so many seconds an example.
SEARCH_SECONDS = 20.0
# How the reason begins where time ran out.
TIMEOUT = "timeout"


@dataclass(frozen=True, eq=False)
class Batch:
    """The examples of one batch: exact claims and the engines' tensors."""

    indices: Sequence[int]
    x: Array
    claims: Sequence[Claim]
    spec: Specification
    region: Region
    labels: Sequence[int | None]


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
    deadline: float | None = None

    def open(self, batch: Batch) -> list[int]:
        """The examples that are not decided yet."""
        return [i for i in range(len(batch.claims)) if i not in self.decided]


# A stage may return the seconds that it spent on each of the open examples; else they share its time evenly.
Stage = Callable[[Session, Batch, Progress], NDArray[np.float64] | None]


def run_batch(
    session: Session,
    indices: Sequence[int],
    x: Array,
    claims: Sequence[Claim],
    spec: Specification,
    labels: Sequence[int | None],
) -> Iterator[Result]:
    """Decide one batch of examples x (B, n_0) with their claims; results in order, as they come."""
    settings = session.settings
    region = settings.region(torch.as_tensor(x).double())
    batch = Batch(indices, x, claims, spec, region, labels)
    stages = [*_stages(session), _prove_margins]
    began = time.perf_counter()
    limit = None if settings.timeout is None else began + settings.timeout * len(x)
    nothing = np.full(tuple(spec.d.shape), np.nan)
    progress = Progress(
        nothing, margins=nothing.copy(), claimed=nothing.copy(), seconds=np.zeros(len(x)), deadline=limit
    )
    is_late = False
    for stage in stages:
        waiting = progress.open(batch)
        if not waiting:
            break
        start = time.perf_counter()
        is_late = limit is not None and start > limit
        if is_late:
            for i in waiting:
                progress.reasons.setdefault(i, f"{TIMEOUT} ({settings.timeout:g} s an example)")
            break
        spent = stage(session, batch, progress)
        progress.seconds[waiting] += (time.perf_counter() - start) / len(waiting) if spent is None else spent
    for i in range(len(x)):
        if i not in progress.decided and settings.method == "auto" and not is_late:
            start = time.perf_counter()
            _search(session, batch, progress, i)
            progress.seconds[i] += time.perf_counter() - start
        if i not in progress.decided:
            reason = progress.reasons.get(i, "bounds too loose and no counterexample found")
            _decide(session, batch, progress, i, Verdict.UNKNOWN, reason, progress.methods.get(i, settings.method))
        yield replace(progress.decided[i], seconds=float(progress.seconds[i]), nodes=progress.nodes.get(i))


def _stages(session: Session) -> list[Stage]:
    """The stages of the settings' method, cheap ones first; in "auto" the search comes after them."""
    name, quick, thorough = session.settings.method, _attack_stage(10, 1), _attack_stage(40, 3)
    if name == "auto":
        return [
            _clean_stage,
            quick,
            _bound_stage(session.method("interval")),
            _bound_stage(session.method("crown")),
            thorough,
            _bound_stage(AlphaBound(stop_at_zero=True)),
        ]
    if METHODS[name].isolated:
        return [_clean_stage, quick, thorough, _solver_stage(session.method(name, stop_at_zero=True))]
    return [_clean_stage, quick, _bound_stage(session.method(name)), thorough]


def _clean_stage(session: Session, batch: Batch, progress: Progress) -> None:
    """The clean inputs: predictions, and examples that fail before any perturbation."""
    with torch.no_grad():
        values = session.exact.values(torch.as_tensor(batch.x).double())
    outputs = values[-1]
    labelled = batch.labels and batch.labels[0] is not None
    progress.predicted = [int(o.argmax()) if labelled and o.isfinite().all() else None for o in outputs]
    margins = batch.spec.margins(outputs)
    progress.clean = as_numpy(margins)
    # A margin that rounding could turn is settled by exact evaluation, as is every negative one.
    error = row_products(batch.spec.C.abs(), rounding_error(session.exact, values))
    safe = margins - 2 * error > 1e-12 * outputs.abs().amax(1, keepdim=True)
    for i in (~safe.all(1)).nonzero().flatten().tolist():
        if bool(outputs[i].isfinite().all()):
            _falsify(session, batch, progress, i, batch.x[i], "clean")


def _attack_stage(steps: int, restarts: int) -> Stage:
    def stage(session: Session, batch: Batch, progress: Progress) -> None:
        waiting = progress.open(batch)
        _attack(session, batch, progress, waiting, torch.as_tensor(batch.x[waiting]).double(), steps, restarts)

    return stage


def _attack(
    session: Session,
    batch: Batch,
    progress: Progress,
    waiting: list[int],
    start: torch.Tensor,
    steps: int,
    restarts: int,
) -> None:
    """Search for counterexamples of the waiting examples from their start points (b, n_0) and random ones."""
    index = torch.as_tensor(waiting)
    region, spec = batch.region.select(index), batch.spec.select(index)
    found = attack(
        session.engine, region, spec, steps=steps, restarts=restarts, seed=session.settings.seed, start=start
    )
    for place in found.falsified.nonzero().flatten().tolist():
        point = as_numpy(found.points[place]).astype(np.float64)
        _falsify(session, batch, progress, waiting[place], point, "pgd")


def _falsify(session: Session, batch: Batch, progress: Progress, i: int, point: Array, method: str) -> None:
    """Turn a proposed point into a witness, if exact evaluation and (where asked) float32 agree."""
    settings = session.settings
    witness = witness_at(session.exact, session.single, settings, batch.x[i], point, batch.spec, i)
    if witness is None:
        return
    reason = "misclassified" if witness.misclassified else ""
    if not witness.agrees:
        note = f"the float32 forward pass gives {witness.margin_float32:.3g} at the witness"
        if settings.semantics == "float32":
            progress.reasons[i] = f"a point fails over the reals, but {note}"
            return
        reason = f"{reason}; {note}" if reason else note
    _decide(session, batch, progress, i, Verdict.FALSIFIED, reason, method, counterexample=witness)


def _bound_stage(method: AbstractBoundMethod) -> Stage:
    def stage(session: Session, batch: Batch, progress: Progress) -> None:
        waiting = progress.open(batch)
        index = torch.as_tensor(waiting)
        engine = session.engine
        region = batch.region.select(index).to(engine.dtype, engine.device)
        spec = batch.spec.select(index).to(engine.dtype, engine.device)
        rows = [list(range(spec.d.shape[1]))] * len(waiting)
        if isinstance(method, AlphaBound):
            rows, spec = _open_rows(progress.best[waiting], spec)
            seconds = (progress.deadline or float("inf")) - time.perf_counter()
            root = _root(progress, engine, region, waiting)
            bound = replace(method, seconds=seconds).improve(engine, region, spec, root)
        else:
            with torch.no_grad():
                bound = _first_bound(method, engine, region, spec, progress, waiting)
        _certify(session, batch, progress, waiting, bound, rows, method.name)
        if bound.candidates is not None:
            _try_candidates(session, batch, progress, waiting, bound.candidates)

    return stage


def _search(session: Session, batch: Batch, progress: Progress, i: int) -> None:
    """Search on one open example in the time that is left to it."""
    timeout, limit = session.settings.timeout, session.settings.timeout or SEARCH_SECONDS
    late = f"{TIMEOUT} ({limit:g} s an example)"
    left = limit if timeout is None else limit - float(progress.seconds[i])
    if not left > 0:
        progress.reasons.setdefault(i, late)
        return
    found = solve(session, batch.claims[i], deadline=time.perf_counter() + left, attack_first=False)
    proved = np.where(np.isfinite(found.margins), found.margins, np.nan)
    progress.methods[i], progress.nodes[i] = found.method, found.nodes
    if not progress.reasons.get(i, "").startswith(UNCERTIFIED):
        progress.reasons[i] = late if found.reason.startswith(TIMEOUT) else found.reason
    progress.claimed[i] = np.fmax(progress.claimed[i], proved)
    if found.certificate is not None:
        _verify(session, batch, progress, i, found.margins, found.certificate, found.leaves)
        return
    progress.margins[i] = np.fmax(progress.margins[i], proved)
    if found.counterexample is not None:
        _falsify(session, batch, progress, i, found.counterexample.x, found.method)


def _solver_stage(method: AbstractBoundMethod) -> Stage:
    """A solver-backed method, one example at a time in a process of its own."""

    def stage(session: Session, batch: Batch, progress: Progress) -> NDArray[np.float64]:
        waiting, spent, start = progress.open(batch), [], time.perf_counter()
        index, timeout = torch.as_tensor(waiting), session.settings.timeout
        left = None if timeout is None else max(0.0, timeout - float(progress.seconds[waiting].max()))
        results = session.solve(method, batch.region.select(index), batch.spec.select(index), left)
        for i, result in zip(waiting, results, strict=True):
            if isinstance(result, Failure):
                progress.methods[i], progress.reasons[i] = method.name, f"{method.name}: {result.reason}"
            else:
                _certify(session, batch, progress, [i], result, [list(range(result.margins.shape[1]))], method.name)
                _try_solution(session, batch, progress, i, result)
            spent.append(time.perf_counter() - start)
            start = time.perf_counter()
        return np.array(spent)

    return stage


def _try_solution(session: Session, batch: Batch, progress: Progress, i: int, result: BoundResult) -> None:
    """Evaluate the points of a solver's solutions and search on from the one of the worst row.

    A solver keeps its constraints to a tolerance only, so its point may miss a counterexample next to it.
    """
    if i in progress.decided or result.candidates is None:
        return
    _try_candidates(session, batch, progress, [i], result.candidates)
    if i not in progress.decided:
        worst = int(result.margins[0].argmin())
        _attack(session, batch, progress, [i], result.candidates[:, worst].double(), 40, 1)


def _try_candidates(
    session: Session, batch: Batch, progress: Progress, waiting: list[int], candidates: torch.Tensor
) -> None:
    """Evaluate the points where a relaxation attains its bound; gradients are no use where a network is flat."""
    open_ = [(place, i) for place, i in enumerate(waiting) if i not in progress.decided]
    if not open_:
        return
    places = torch.as_tensor([place for place, _ in open_], device=candidates.device)
    points = candidates[places].to(session.engine.device, session.engine.dtype)
    spec = batch.spec.select(torch.as_tensor([i for _, i in open_])).to(points.dtype, points.device)
    with torch.no_grad():
        outputs = session.engine.forward(points.flatten(0, 1)).view(*points.shape[:2], -1)
    least, best = (outputs @ spec.C.transpose(1, 2) + spec.d.unsqueeze(1)).amin(2).min(1)
    for at, (_, i) in enumerate(open_):
        if bool(least[at] <= 0):
            _falsify(session, batch, progress, i, as_numpy(points[at, best[at]]).astype(np.float64), "candidate")


def _first_bound(
    method: AbstractBoundMethod,
    engine: Network,
    region: Region,
    spec: Specification,
    progress: Progress,
    waiting: list[int],
) -> BoundResult:
    """A method's bound; CROWN's root is kept for the stages that build on it."""
    if method.name != "crown":
        return method.bound(engine, region, spec)
    root = _root(progress, engine, region, waiting)
    return CrownBound.claim(engine, region, spec, root)


def _root(progress: Progress, engine: Network, region: Region, waiting: list[int]) -> Root:
    """CROWN's root for the waiting examples, computed once a batch."""
    if progress.root is None:
        with torch.no_grad():
            progress.root = (list(waiting), root_bounds(engine, region, "crown"))
    had, root = progress.root
    place = {example: at for at, example in enumerate(had)}
    return root.select(torch.as_tensor([place[i] for i in waiting], device=engine.device))


def _open_rows(margins: NDArray[np.float64], spec: Specification) -> tuple[list[list[int]], Specification]:
    """The rows not proved yet, filled up to a rectangle by repeating the last one."""
    rows = [np.flatnonzero(~(m > 0)).tolist() for m in margins]
    most = max(len(r) for r in rows)
    index = torch.as_tensor([r + [r[-1]] * (most - len(r)) for r in rows], device=spec.C.device)
    C = spec.C.gather(1, index.unsqueeze(2).expand(-1, -1, spec.C.shape[2]))
    return rows, Specification(C, spec.d.gather(1, index))


def _certify(
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


def _prove_margins(session: Session, batch: Batch, progress: Progress) -> None:
    """Undecided examples report proved margins too: those that the checker finds for the last proposal.

    The checker may find more than a float32 engine dared to claim.
    """
    _judge(session, batch, progress, [i for i in progress.open(batch) if i in progress.proposals])


def _judge(session: Session, batch: Batch, progress: Progress, waiting: list[int]) -> list[tuple[int, Outcome]]:
    """Check the proposals of some examples: accepted ones are decided; the others' outcomes are returned."""
    outcomes = rigorous.check(session.checker, [progress.proposals[i] for i in waiting])
    refused = []
    for i, outcome in zip(waiting, outcomes, strict=True):
        progress.margins[i] = np.fmax(progress.margins[i], outcome.margins)
        if outcome.accepted:
            proof = progress.proposals[i].encode()
            _verify(session, batch, progress, i, outcome.margins, proof, outcome.leaves)
        else:
            refused.append((i, outcome))
    return refused


def _verify(
    session: Session, batch: Batch, progress: Progress, i: int, margins: Array, proof: bytes, leaves: int
) -> None:
    """Note that the checker accepted a proof, unless what it proved contradicts the clean input."""
    _agree_with_points(batch, progress, i, margins)
    progress.margins[i] = margins
    _decide(session, batch, progress, i, Verdict.VERIFIED, "", progress.methods[i], proof=proof, leaves=leaves)


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


def _decide(
    session: Session,
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
    progress.decided[i] = Result(
        index=batch.indices[i],
        verdict=verdict,
        reason=reason,
        method=method,
        semantics=session.settings.semantics,
        margins=progress.margins[i].copy(),
        claimed=progress.claimed[i].copy(),
        seconds=0.0,
        label=batch.labels[i],
        predicted=progress.predicted[i] if progress.predicted else None,
        counterexample=counterexample,
        certificate=proof,
        leaves=leaves,
    )
