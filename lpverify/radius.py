"""What is known of each example's radius: certified from below, attacked from above, and what a MILP claims.

The certified radius is the zero of the least margin as a function of eps. For methods that bound whole batches it
is found by Newton's method with a bracket as its safeguard (Wong & Kolter 2018, section 3.5); a solver-backed one
starts from CROWN's radius and searches example by example (``radius_search``). Its certificate is checked like any
other. The attacked radius is the distance of an exactly evaluated counterexample. For ``milp`` a solver also looks
for the exact radius (``distortion``): what it claims stands beside what is proved, never in its place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.attack import attack
from lpverify.backends import BACKENDS, Status
from lpverify.bounds import METHODS, BoundResult
from lpverify.certificate import rigorous
from lpverify.distortion import Distortion, LeastDistortion, distance_of
from lpverify.errors import SoundnessError
from lpverify.evidence import certificate
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification, ball
from lpverify.radius_search import TOLERANCE, FoundRadius, SearchRadius, decimal_above, decimal_below
from lpverify.result import UNCERTIFIED, Counterexample
from lpverify.run_folder import witness_of
from lpverify.session import EXAMPLE_SECONDS, Session, Solve
from lpverify.settings import Settings
from lpverify.verify import checked_inputs, checked_labels, claim_of
from lpverify.witness import witness_at
from lpverify.workers import Failure

NEWTON_STEPS = 12
# How often the attack halves its bracket, and from how many starts: at first, and before a solver is asked, for a
# smaller ball leaves a MILP fewer unstable neurons. On eight images of WK17a it brings the attacked radius from 5 % above the exact
# one to 2 % in 0.2 s an image, against seconds for the MILP.
ATTACK, THOROUGH_ATTACK = (10, 1), (6, 10)
# A rejected certificate is tried again, smaller by TOLERANCE each time.
ATTEMPTS = 4
# A solver's point lies on the border of the failing set, up to its tolerances: a descent of such shares of its
# distance leads inside.
PUSHES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
PUSH_STEPS = 5


@dataclass(frozen=True, eq=False)
class RadiusResult:
    """What is known of one example's radius, in raw input units.

    Attributes:
        index: the example.
        certified: the largest radius with an accepted certificate, 0 if none (0 also if misclassified).
        attacked: the distance of the nearest counterexample that the attack found; infinite if none within the limit.
        exact_lower: the exact radius is at least this, a solver claims; NaN where none was asked or answered.
        exact_upper: the distance of the nearest counterexample known, the one at the solver's point included; NaN
            where no solver was asked or answered.
        seconds: its share of the batch's time, and the time of its own solves.
        method: the bound that certified.
        certificate: the file proving ``certified``, or None.
        counterexample: the file of the nearest counterexample known, or None.
        reason: why a solver's answer is missing or doubtful; empty otherwise.
    """

    index: int
    certified: float
    attacked: float
    seconds: float
    certificate: bytes | None
    exact_lower: float = math.nan
    exact_upper: float = math.nan
    method: str = "crown"
    counterexample: bytes | None = None
    reason: str = ""


@dataclass(eq=False)
class Example:
    """One example of a batch, and what is known of it so far.

    Attributes:
        x: (n_0,) the input in its own dtype; ``label`` its label, ``spec`` its claim.
        right: whether the claim holds at x.
        eps, proof: the certified radius as a decimal, and its certificate; ``method`` that found it.
        distance, witness: the nearest counterexample known, at most so far away; infinite without one.
        seconds: time of its own solves.
        reasons: what went wrong.
    """

    index: int
    x: NDArray[Any]
    label: int
    spec: Specification
    right: bool
    eps: str = "0"
    proof: bytes | None = None
    method: str = "crown"
    distance: float = math.inf
    witness: Counterexample | None = None
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    @property
    def certified(self) -> float:
        """The certified radius."""
        return float(self.eps)

    @property
    def point(self) -> Tensor:
        """The input as the engines take it, (1, n_0)."""
        return torch.as_tensor(self.x[None]).double()


def radii(
    network: Network, x: Any, y: Any, settings: Settings, indices: Sequence[int] | None = None
) -> Iterator[RadiusResult]:
    """Search each example's radius up to ``settings.eps`` with the bound ``settings.method`` ("auto": crown).

    Args:
        network: the lowered network.
        x: (N, ...) inputs; y: (N,) labels.
        indices: what to call each example; 0..N-1 by default.

    Raises:
        SoundnessError: for a counterexample inside a certified radius.
    """
    flat, labels = checked_inputs(network, x), checked_labels(network, x, y)
    names = list(range(len(flat)) if indices is None else indices)
    settings = replace(settings, method="crown" if settings.method == "auto" else settings.method)
    with Session(network, settings) as session:
        if certifier := _certifier(session):
            # What it cannot do is refused before the run begins.
            session.method(certifier)
        for start in range(0, len(flat), session.batch_size):
            part = slice(start, start + session.batch_size)
            yield from _batch(session, names[part], flat[part], labels[part])


def _batch(session: Session, names: list[int], x: NDArray[Any], y: NDArray[np.int64]) -> Iterator[RadiusResult]:
    began = time.perf_counter()
    spec = Specification.label(torch.as_tensor(y), session.exact.output_size)
    points = torch.as_tensor(x).double()
    with torch.no_grad():
        right = spec.margins(session.exact.forward(points)).amin(1) > 0
    examples = [
        Example(names[i], x[i], int(y[i]), spec.select([i]), bool(right[i])) for i in range(len(x))
    ]
    name, certifier = session.settings.method, _certifier(session)
    quick = "crown" if METHODS[name].isolated else name
    for example, eps in zip(examples, _newton(session, quick, points, spec, right).tolist(), strict=True):
        _prove(session, example, quick, eps)
    for example in examples:
        if not example.right:
            _take(session, example, example.x, 0.0)
    _attack(session, examples, *ATTACK)
    if METHODS[name].isolated:
        _attack(session, examples, *THOROUGH_ATTACK)
    share = (time.perf_counter() - began) / len(x)
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
            counterexample=_witness_file(session, example),
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


def _certifier(session: Session) -> str:
    """The solver-backed method that raises CROWN's radii; empty for none.

    A MILP proves nothing, so ``milp`` is certified by the LPs that it begins with; in l2 by CROWN alone, since solvers
    of MILPs know no cone.
    """
    name, norm = session.settings.method, session.settings.norm
    if name == "milp":
        return "lp-tight" if norm != "2" else ""
    return name if METHODS[name].isolated else ""


def _search(session: Session, examples: list[Example], name: str) -> None:
    """Raise certified radii by a solver-backed method, in processes of its own; CROWN's stay where it fails."""
    settings = session.settings
    limit, seconds = float(settings.eps), _seconds(session)
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
        began, left = time.perf_counter(), max(1.0, _seconds(session) - example.seconds)
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
    limit, seconds = float(settings.eps), _seconds(session)
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
        _push(session, example, found.point, found.distance)
    example.seconds += found.seconds + time.perf_counter() - began
    if found.status in (Status.LIMIT, Status.FAILED):
        example.reasons.append(f"milp: {found.status}" + (f" ({found.message})" if found.message else ""))
    if found.bound > example.distance:
        example.reasons.append(f"milp claims radius {found.bound:.9g}, but a counterexample is nearer")
    return max(found.bound, example.certified), example.distance


def _push(session: Session, example: Example, point: NDArray[Any], distance: float) -> None:
    """Take the nearest counterexample next to a solver's point, if there is one nearer than what is known."""
    settings, start = session.settings, torch.as_tensor(point)[None]
    if not bool(start.isfinite().all()):
        return
    nearest = min(example.distance, float(settings.eps))
    for share in PUSHES:
        radius = distance * (1 + share)
        if not radius < nearest:
            return
        region = ball(example.point, radius, settings.norm, settings.clip_floats)
        # Not the first point that fails in floating point: the one that fails most, for exact evaluation.
        found = attack(
            session.exact, region, example.spec, start=start, steps=PUSH_STEPS, restarts=1, step_size=share,
            early_stop=False,
        )  # fmt: skip
        if _take(session, example, as_numpy(found.points[0]), radius):
            return


def _attack(session: Session, examples: list[Example], halvings: int, restarts: int) -> None:
    """The nearest counterexamples that a bisection with PGD finds, from the nearest ones known."""
    settings, limit = session.settings, float(session.settings.eps)
    low = np.array([example.certified for example in examples])
    high = np.array([min(limit, example.distance) for example in examples])
    eps = np.array([limit if e.distance > limit else (e.certified + e.distance) / 2 for e in examples])
    for turn in range(halvings + 1):
        open_ = [i for i, example in enumerate(examples) if example.right and low[i] < high[i]]
        if not open_:
            break
        points = torch.cat([examples[i].point for i in open_])
        spec = Specification(*(torch.cat([getattr(examples[i].spec, part) for i in open_]) for part in "Cd"))
        region = ball(points, torch.as_tensor(eps[open_]), settings.norm, settings.clip_floats)
        seed = settings.seed + turn
        result = attack(session.engine, region, spec, steps=20, restarts=restarts, seed=seed, start=points)
        for place, i in enumerate(open_):
            example = examples[i]
            if bool(result.falsified[place]) and _take(session, example, as_numpy(result.points[place]), float(eps[i])):
                high[i] = min(high[i], example.distance)
            else:
                low[i] = eps[i]
        eps = (low + high) / 2


def _take(session: Session, example: Example, point: NDArray[Any], eps: float) -> bool:
    """Make a point within eps the example's counterexample, if exact evaluation finds it one, nearer than the last."""
    settings = replace(session.settings, eps=repr(eps))
    witness = witness_at(session.exact, session.single, settings, example.x, point, example.spec, 0)
    if witness is None or (settings.semantics == "float32" and not witness.agrees):
        return False
    length = distance_of(witness.x - example.x.astype(np.float64), settings.norm)
    # Rounded up by more than a sum over the inputs can have lost.
    distance = min(eps, float(decimal_above(length * (1 + (len(example.x) + 8) * 2.0**-52))))
    if not distance < example.distance:
        return False
    example.distance, example.witness = distance, witness
    return True


def _agree(example: Example) -> None:
    """A counterexample inside a certified radius would mean that something here is broken."""
    if example.proof is not None and example.distance <= example.certified:
        raise SoundnessError(
            f"example {example.index}: radius {example.eps} is certified, but a counterexample is at distance "
            f"{example.distance!r}; nothing of this run can be trusted"
        )


def _witness_file(session: Session, example: Example) -> bytes | None:
    """The file of the example's counterexample, about the ball that just holds it."""
    if example.witness is None:
        return None
    settings = replace(session.settings, eps=repr(example.distance))
    claim = claim_of(settings, example.x, example.label, session.exact.output_size)
    return witness_of(example.witness, claim, session.plain.sha256).encode()


def _seconds(session: Session) -> float:
    """The time that an example may take."""
    return EXAMPLE_SECONDS if session.settings.timeout is None else session.settings.timeout
