"""The pipeline: attack, cheap bounds, costly bounds, search, check; each example stops when it is decided.

Engines only propose. ``verified`` is written where the rigorous checker accepted a certificate, ``falsified``
where a point of the exact input set was evaluated exactly; everything else is ``unknown`` with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack import attack
from lpverify.bounds import METHODS, AlphaBound, BoundResult, CrownBound
from lpverify.bounds.base import AbstractBoundMethod
from lpverify.bounds.root import Root, root_bounds
from lpverify.errors import is_out_of_memory
from lpverify.network import Network, as_numpy
from lpverify.problem import Region, Specification, row_products
from lpverify.progress import Asked, Batch, Progress, accept, certify, decide, falsify, prove_margins
from lpverify.replay import replay_of
from lpverify.result import UNCERTIFIED, Result, Verdict
from lpverify.search.solve import solve
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.witness import rounding_error
from lpverify.workers import Failure

Array = NDArray[Any]

# Without a timeout, the search stops after so many seconds an example.
SEARCH_SECONDS = 20.0
# How the reason begins where time ran out.
TIMEOUT = "timeout"

# What a batch's open examples go through together; they share its time evenly.
Stage = Callable[[Session, Batch, Progress], None]


@dataclass(frozen=True, eq=False)
class OpenExample:
    """An example that the stages of its batch left open, by itself: a batch of one and what is known of it.

    It can be pickled, and finished wherever a session of the same network and settings is.
    """

    batch: Batch
    progress: Progress

    @property
    def index(self) -> int:
        """What the example is called in its result."""
        return self.batch.indices[0]

    def given_up(self, settings: Settings, reason: str) -> Result:
        """The result where nothing more could be done."""
        method = self.progress.methods.get(0, settings.method)
        decide(settings, self.batch, self.progress, 0, Verdict.UNKNOWN, reason, method)
        return _result(self.progress, 0)


def run_batch(session: Session, asked: Asked) -> Iterator[Result]:
    """Decide the examples of one batch that have no result; results in order, as they come."""
    for found in share_batch(session, asked):
        yield finish(session, found) if isinstance(found, OpenExample) else found


def share_batch(session: Session, asked: Asked) -> list[Result | OpenExample]:
    """The stages that a batch shares: a result for each decided example, the others as they are left, in order."""
    settings, x, wanted = session.settings, asked.x, asked.wanted
    region = settings.region(torch.as_tensor(x).double())
    batch = Batch(asked.indices, x, asked.claims, asked.spec, region, asked.labels)
    stages = _stages(session)
    began = time.perf_counter()
    limit = None if settings.timeout is None else began + settings.timeout * len(x)
    nothing = np.full(tuple(asked.spec.d.shape), np.nan)
    progress = Progress(
        nothing, margins=nothing.copy(), claimed=nothing.copy(), seconds=np.zeros(len(x)), deadline=limit
    )
    for stage in stages:
        waiting = progress.open(batch)
        if not set(waiting) & set(wanted):
            break
        start = time.perf_counter()
        if limit is not None and start > limit:
            for i in waiting:
                late = progress.reasons.get(i, f"{TIMEOUT} ({settings.timeout:g} s an example)")
                decide(settings, batch, progress, i, Verdict.UNKNOWN, late, progress.methods.get(i, settings.method))
            break
        stage(session, batch, progress)
        progress.seconds[waiting] += (time.perf_counter() - start) / len(waiting)
    return [
        _result(progress, i) if i in progress.decided else OpenExample(batch.select(i), progress.select(i))
        for i in wanted
    ]


def finish(session: Session, left: OpenExample) -> Result:
    """What is done for an open example by itself: a search in "auto", a solver for a method that has one."""
    batch, progress, settings = left.batch, left.progress, session.settings
    start = time.perf_counter()
    if settings.method == "auto":
        _search(session, batch, progress, 0)
    elif METHODS[settings.method].isolated:
        _solve(session, batch, progress)
    progress.seconds[0] += time.perf_counter() - start
    if 0 not in progress.decided:
        return left.given_up(settings, progress.reasons.get(0, "bounds too loose and no counterexample found"))
    return _result(progress, 0)


def _result(progress: Progress, i: int) -> Result:
    """The result of a decided example, with the time and the nodes that it took, and what is kept of a crash."""
    spent, nodes = float(progress.seconds[i]), progress.nodes.get(i)
    return replace(progress.decided[i], seconds=spent, nodes=nodes, replay=progress.replays.get(i))


def _stages(session: Session) -> list[Stage]:
    """The stages that a batch shares, cheap ones first; what is done for each example (``finish``) comes after them."""
    name, quick, thorough = session.settings.method, _attack_stage(10, 1), _attack_stage(40, 3)
    if name == "auto":
        return [
            _clean_stage,
            quick,
            _bound_stage(session.method("interval")),
            _bound_stage(session.method("crown")),
            thorough,
            _bound_stage(AlphaBound(stop_at_zero=True)),
            prove_margins,
        ]
    if METHODS[name].isolated:
        # What it cannot do is refused before the batch is begun.
        session.method(name)
        return [_clean_stage, quick, thorough]
    return [_clean_stage, quick, _bound_stage(session.method(name)), thorough, prove_margins]


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
            falsify(session, batch, progress, i, batch.x[i], "clean")


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
        falsify(session, batch, progress, waiting[place], point, "pgd")


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
        certify(session, batch, progress, waiting, bound, rows, method.name)
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
    try:
        found = solve(session, batch.claims[i], deadline=time.perf_counter() + left, attack_first=False)
    except Exception as error:
        # A smaller batch is no help for one example; on a device the CPU may have more.
        if session.device != "cpu" or not is_out_of_memory(error):
            raise
        progress.reasons[i] = "out of memory in the search"
        return
    proved = np.where(np.isfinite(found.margins), found.margins, np.nan)
    progress.methods[i], progress.nodes[i] = found.method, found.nodes
    if not progress.reasons.get(i, "").startswith(UNCERTIFIED):
        progress.reasons[i] = late if found.reason.startswith(TIMEOUT) else found.reason
    progress.claimed[i] = np.fmax(progress.claimed[i], proved)
    if found.certificate is not None:
        accept(session, batch, progress, i, found.margins, found.certificate, found.leaves)
        return
    progress.margins[i] = np.fmax(progress.margins[i], proved)
    if found.counterexample is not None:
        falsify(session, batch, progress, i, found.counterexample.x, found.method)


def _solve(session: Session, batch: Batch, progress: Progress) -> None:
    """A solver-backed method on a batch of one, in a process of its own."""
    method, timeout = session.method(session.settings.method, stop_at_zero=True), session.settings.timeout
    left = None if timeout is None else max(0.0, timeout - float(progress.seconds[0]))
    (result,) = session.solve(method, batch.region, batch.spec, left)
    if isinstance(result, Failure):
        progress.methods[0], progress.reasons[0] = method.name, f"{method.name}: {result.reason}"
        if result.crashed:
            asked = batch.indices[0], batch.labels[0], batch.region, batch.spec
            progress.replays[0] = replay_of(session, method, *asked, result.reason)
        return
    certify(session, batch, progress, [0], result, [list(range(result.margins.shape[1]))], method.name)
    _try_solution(session, batch, progress, 0, result)
    prove_margins(session, batch, progress, [0])


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
            falsify(session, batch, progress, i, as_numpy(points[at, best[at]]).astype(np.float64), "candidate")


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
