"""What is known of each example's radius: certified from below, attacked from above, and what a MILP claims.

The certified radius is the zero of the least margin as a function of eps. For methods that bound whole batches it
is found by Newton's method with a bracket as its safeguard (Wong & Kolter 2018, section 3.5); a solver-backed one
starts from CROWN's radius and searches example by example (``search``). Its certificate is checked like any
other. The attacked radius is the distance of an exactly evaluated counterexample. For ``milp`` a solver also looks
for the exact radius (``distortion``): what it claims stands beside what is proved, never in its place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.backends import BACKENDS, Status
from lpverify.bounds import METHODS, BoundResult
from lpverify.certificate import rigorous
from lpverify.errors import SoundnessError
from lpverify.evidence import certificate, claim_of
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification, ball
from lpverify.radius.attack import ATTACK, THOROUGH_ATTACK, Example, close_in, push, take, witness_file
from lpverify.radius.distortion import Distortion, LeastDistortion
from lpverify.radius.search import TOLERANCE, FoundRadius, SearchRadius, decimal_below
from lpverify.recovery import recovered
from lpverify.result import UNCERTIFIED, RadiusResult
from lpverify.session import GRACE_SECONDS, Session, Solve, example_seconds
from lpverify.settings import Settings
from lpverify.sweep import Answer, Task, sweep
from lpverify.sweep.cut import Cut, cuts
from lpverify.verify import checked_inputs, checked_labels
from lpverify.workers import Failure

NEWTON_STEPS = 12
# A rejected certificate is tried again, smaller by TOLERANCE each time.
ATTEMPTS = 4


def radii(
    network: Network,
    x: Any,
    y: Any,
    settings: Settings,
    indices: Sequence[int] | None = None,
    finished: Collection[int] = (),
) -> Iterator[RadiusResult]:
    """Search each example's radius up to ``settings.eps`` with the bound ``settings.method`` ("auto": crown).

    Args:
        network: the lowered network.
        x: (N, ...) inputs; y: (N,) labels.
        indices: what to call each example; 0..N-1 by default.
        finished: those that have a result already; see ``verify.verify_stream``.

    Returns:
        The radii: in order from this process alone, else as they come.

    Raises:
        SoundnessError: for a counterexample inside a certified radius.
    """
    flat, labels = checked_inputs(network, x), checked_labels(network, x, y)
    names = list(range(len(flat)) if indices is None else indices)
    settings = replace(settings, method="crown" if settings.method == "auto" else settings.method)
    tasks = (RadiusBatch(cut) for cut in cuts(network, settings, flat, labels, names, finished))
    return sweep(network, settings, tasks, _certifier(settings))


@dataclass(frozen=True, eq=False)
class RadiusBatch(Task[RadiusResult]):
    """The radii of one batch."""

    cut: Cut

    def run(self, session: Session) -> Iterator[RadiusResult]:
        return recovered(_batch, session, self.cut)

    def __call__(self, session: Session) -> Answer[RadiusResult]:
        return Answer(list(self.run(session)))

    def seconds(self, settings: Settings) -> float:
        # Each example is searched below, certified again near there, and searched exactly: what hangs is ended late.
        return len(self.cut.x) * (2 * example_seconds(settings) + 4 * GRACE_SECONDS) + GRACE_SECONDS

    def parts(self) -> Sequence[RadiusBatch]:
        return [RadiusBatch(one) for one in self.cut.singles()]

    def given_up(self, settings: Settings, reason: str) -> Sequence[RadiusResult]:
        return [
            RadiusResult(self.cut.indices[i], 0.0, math.inf, 0.0, None, method=settings.method, reason=reason)
            for i in self.cut.wanted
        ]


def _batch(session: Session, cut: Cut) -> Iterator[RadiusResult]:
    """The radii of a batch; of the finished examples only what they share with the others."""
    x, y = cut.x, cut.y
    began = time.perf_counter()
    spec = Specification.label(torch.as_tensor(y), session.exact.output_size)
    points = torch.as_tensor(x).double()
    with torch.no_grad():
        right = spec.margins(session.exact.forward(points)).amin(1) > 0
    examples = [
        Example(cut.indices[i], x[i], int(y[i]), spec.select([i]), bool(right[i])) for i in range(len(x))
    ]
    name, certifier = session.settings.method, _certifier(session.settings)
    quick = "crown" if METHODS[name].isolated else name
    for example, eps in zip(examples, _newton(session, quick, points, spec, right).tolist(), strict=True):
        _prove(session, example, quick, eps)
    for example in examples:
        if not example.right:
            take(session, example, example.x, 0.0)
    close_in(session, examples, *ATTACK)
    if METHODS[name].isolated:
        close_in(session, examples, *THOROUGH_ATTACK)
    share = (time.perf_counter() - began) / len(x)
    examples = [example for example in examples if example.index not in cut.finished]
    attacked = [example.distance for example in examples]
    claims: list[tuple[float, float]] = [(math.nan, math.nan)] * len(examples)
    if certifier:
        _search(session, examples, certifier)
    if name == "milp":
        claims = _exact(session, examples)
    for example, reached, (lower, upper) in zip(examples, attacked, claims, strict=True):
        _agree(example)
        yield RadiusResult(
            index=example.index,
            certified=example.certified,
            attacked=reached,
            seconds=share + example.seconds,
            certificate=example.proof,
            exact_lower=lower,
            exact_upper=upper,
            method=example.method,
            counterexample=witness_file(session, example),
            reason="; ".join(example.reasons),
        )


def _newton(session: Session, name: str, points: Tensor, spec: Specification, right: Tensor) -> NDArray[np.float64]:
    """The engines' largest radius with positive margins, (B,); 0 where the clean input is wrong."""
    limit = float(session.settings.eps)
    low, high = torch.zeros(len(points), dtype=torch.float64), torch.full((len(points),), limit, dtype=torch.float64)
    eps = torch.full_like(high, limit / 16)
    for _ in range(NEWTON_STEPS + 2):
        margin, slope = _margin(session, name, points, spec, eps)
        proved = margin > 0
        low, high = torch.where(proved, eps, low), torch.where(proved, high, eps)
        if bool((~right | (high - low <= TOLERANCE * high)).all()):
            break
        step = eps - margin / slope
        # Aim a little to the safe side of the zero, so that the bracket closes from both ends.
        step = torch.where(proved, step * (1 + TOLERANCE / 4), step * (1 - TOLERANCE / 4))
        inside = (step > low) & (step < high)
        eps = torch.where(inside, step, (low + high) / 2)
    found = torch.where(right, low, 0.0)
    return as_numpy(found).copy()


def _margin(
    session: Session, name: str, points: Tensor, spec: Specification, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """The least margin of each example at its own radius and its derivative in eps: two (B,)."""
    settings, engine = session.settings, session.engine
    method = session.method(name)
    radius = eps.clone().requires_grad_(method.differentiable)
    x = points.to(engine.dtype)
    region = ball(x, radius.to(engine.dtype), settings.norm, settings.clip_floats).to(engine.dtype, engine.device)
    with torch.set_grad_enabled(method.differentiable or name == "alpha"):
        bound = method.bound(engine, region, spec.to(engine.dtype, engine.device))
    least = bound.margins.amin(1).double().cpu()
    if not method.differentiable:
        return least.detach(), torch.full_like(least, math.nan)
    (slope,) = torch.autograd.grad(least.sum(), radius)
    return least.detach(), slope


def _prove(session: Session, example: Example, name: str, eps: float) -> None:
    """Certify the largest radius not above ``eps`` for which the checker accepts a batch method's certificate."""
    for attempt in range(ATTEMPTS):
        text = decimal_below(eps * (1 - TOLERANCE * attempt))
        if not float(text) > 0:
            return
        region = replace(session.settings, eps=text).region(example.point)
        if _accept(session, example, name, text, session.bound(session.method(name), region, example.spec)):
            return


def _accept(session: Session, example: Example, name: str, eps: str, bound: BoundResult) -> bool:
    """Have the checker judge a method's result at radius ``eps``; what it accepts is the example's from then on."""
    settings = replace(session.settings, eps=eps)
    claim = claim_of(settings, example.x, example.label, session.exact.output_size)
    rows = range(example.spec.d.shape[1])
    proof = certificate(session.plain.sha256, settings.semantics, claim, bound, 0, rows)
    if not rigorous.check(session.checker, [proof])[0].accepted:
        return False
    example.eps, example.proof, example.method = eps, proof.encode(), name
    return True


def _certifier(settings: Settings) -> str:
    """The solver-backed method that raises CROWN's radii; empty for none.

    A MILP proves nothing, so ``milp`` is certified by the LPs that it begins with; in l2 by CROWN alone, since solvers
    of MILPs know no cone.
    """
    name, norm = settings.method, settings.norm
    if name == "milp":
        return "lp-tight" if norm != "2" else ""
    return name if METHODS[name].isolated else ""


def _search(session: Session, examples: list[Example], name: str) -> None:
    """Raise certified radii by a solver-backed method, in processes of its own; CROWN's stay where it fails."""
    settings = session.settings
    limit, seconds = float(settings.eps), example_seconds(session.settings)
    if settings.method == "milp":
        seconds /= 2
    method = session.method(name)
    open_ = [e for e in examples if e.right and e.certified < min(limit, e.distance)]
    tasks = [
        SearchRadius(
            method, e.point, e.spec, settings.norm, settings.clip_floats, low=e.certified, high=min(limit, e.distance),
            reachable=not e.distance <= limit, seconds=seconds,
        )
        for e in open_
    ]  # fmt: skip
    # All outcomes first: a refused certificate needs the workers again.
    for example, found in zip(open_, list(session.run(tasks, seconds)), strict=True):
        if isinstance(found, Failure):
            example.reasons.append(f"{name}: {found.reason}")
            continue
        example.seconds += found.seconds
        if found.eps is not None and found.bound is not None and not _accepted_near(session, example, name, found):
            example.reasons.append(f"{UNCERTIFIED}: {name} claims radius {found.eps}")


def _accepted_near(session: Session, example: Example, name: str, found: FoundRadius) -> bool:
    """Certify what a search found, or, where rounding spoils it, a radius just below."""
    assert found.eps is not None and found.bound is not None
    eps, bound = found.eps, found.bound
    for attempt in range(1, ATTEMPTS):
        if _accept(session, example, name, eps, bound):
            return True
        eps = decimal_below(float(found.eps) * (1 - TOLERANCE * attempt))
        if not float(eps) > example.certified:
            break
        region = replace(session.settings, eps=eps).region(example.point)
        began, left = time.perf_counter(), max(1.0, example_seconds(session.settings) - example.seconds)
        (again,) = session.run([Solve(session.method(name, seconds=left), region, example.spec)], left)
        example.seconds += time.perf_counter() - began
        if isinstance(again, Failure):
            break
        bound = again
    return False


def _exact(session: Session, examples: list[Example]) -> list[tuple[float, float]]:
    """What a solver claims of the exact radii: its lower bound, and the nearest counterexample at or before its point.

    Its points become counterexamples of the examples where exact evaluation agrees.
    """
    settings = session.settings
    limit, seconds = float(settings.eps), example_seconds(session.settings)
    backend = BACKENDS[settings.backend](solver=settings.solver, seed=settings.seed)
    time_limit = math.inf if settings.time_limit is None else settings.time_limit
    claims = [(math.nan, math.nan)] * len(examples)
    open_ = [i for i, e in enumerate(examples) if e.right and e.certified < min(limit, e.distance)]
    tasks = [
        LeastDistortion(
            examples[i].point, examples[i].spec, min(limit, examples[i].distance), settings.norm, settings.clip_floats,
            backend, time_limit, max(1.0, seconds - examples[i].seconds),
        )
        for i in open_
    ]  # fmt: skip
    for i, found in zip(open_, session.run(tasks, seconds), strict=True):
        if isinstance(found, Failure):
            examples[i].reasons.append(f"milp: {found.reason}")
        else:
            claims[i] = _claimed(session, examples[i], found)
    for i, example in enumerate(examples):
        if i not in open_:
            claims[i] = example.certified, example.distance
    return claims


def _claimed(session: Session, example: Example, found: Distortion) -> tuple[float, float]:
    """The solver's lower bound and the distance of the nearest counterexample, after its point was evaluated."""
    began = time.perf_counter()
    if found.point is not None:
        push(session, example, found.point, found.distance)
    example.seconds += found.seconds + time.perf_counter() - began
    if found.status in (Status.LIMIT, Status.FAILED):
        example.reasons.append(f"milp: {found.status}" + (f" ({found.message})" if found.message else ""))
    if found.bound > example.distance:
        example.reasons.append(f"milp claims radius {found.bound:.9g}, but a counterexample is nearer")
    return max(found.bound, example.certified), example.distance


def _agree(example: Example) -> None:
    """A counterexample inside a certified radius would mean that something here is broken."""
    if example.proof is not None and example.distance <= example.certified:
        raise SoundnessError(
            f"example {example.index}: radius {example.eps} is certified, but a counterexample is at distance "
            f"{example.distance!r}; nothing of this run can be trusted"
        )
