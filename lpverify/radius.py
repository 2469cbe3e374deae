"""The largest certified radius of each example, and an upper bound from the attack.

The certified radius is the zero of the least margin as a function of eps, found by Newton's method with a
bracket as its safeguard (Wong & Kolter 2018, section 3.5). Its certificate is checked like any other; the upper
bound is the distance of an exactly evaluated counterexample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.attack import attack
from lpverify.certificate import rigorous
from lpverify.evidence import certificate
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification, ball
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.verify import checked_inputs, checked_labels, claim_of
from lpverify.witness import witness_at

NEWTON_STEPS = 12
ATTACK_HALVINGS = 10
# The bracket is closed to this share of the radius, and a rejected certificate is tried again that much smaller.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class RadiusResult:
    """What is known of one example's radius, in raw input units.

    Attributes:
        index: the example.
        certified: the largest radius with an accepted certificate, 0 if none (0 also if misclassified).
        attacked: the distance of the nearest counterexample found; infinite if none within the limit.
        seconds: its share of the batch's time.
        certificate: the file proving ``certified``, or None.
    """

    index: int
    certified: float
    attacked: float
    seconds: float
    certificate: bytes | None


def radii(
    network: Network, x: Any, y: Any, settings: Settings, indices: Sequence[int] | None = None
) -> Iterator[RadiusResult]:
    """Search each example's radius up to ``settings.eps`` with the bound ``settings.method`` ("auto": crown).

    Args:
        network: the lowered network.
        x: (N, ...) inputs; y: (N,) labels.
        indices: what to call each example; 0..N-1 by default.
    """
    flat, labels = checked_inputs(network, x), checked_labels(network, x, y)
    names = list(range(len(flat)) if indices is None else indices)
    settings = replace(settings, method="crown" if settings.method == "auto" else settings.method)
    with Session(network, settings) as session:
        for start in range(0, len(flat), session.batch_size):
            part = slice(start, start + session.batch_size)
            yield from _batch(session, names[part], flat[part], labels[part])


def _batch(session: Session, names: list[int], x: NDArray[Any], y: NDArray[np.int64]) -> Iterator[RadiusResult]:
    began = time.perf_counter()
    spec = Specification.label(torch.as_tensor(y), session.exact.output_size)
    points = torch.as_tensor(x).double()
    with torch.no_grad():
        clean = spec.margins(session.exact.forward(points)).amin(1)
    right = clean > 0
    certified = _newton(session, points, spec, right)
    proofs: list[bytes | None] = [None] * len(x)
    for i in range(len(x)):
        certified[i], proofs[i] = _proved(session, x[i], int(y[i]), float(certified[i]))
    attacked = _attacked(session, x, spec, right, certified)
    share = (time.perf_counter() - began) / len(x)
    for i, name in enumerate(names):
        yield RadiusResult(name, float(certified[i]), float(attacked[i]), share, proofs[i])


def _newton(session: Session, points: Tensor, spec: Specification, right: Tensor) -> NDArray[np.float64]:
    """The engines' largest radius with positive margins, (B,); 0 where the clean input is wrong."""
    limit = float(session.settings.eps)
    low, high = torch.zeros(len(points), dtype=torch.float64), torch.full((len(points),), limit, dtype=torch.float64)
    eps = torch.full_like(high, limit / 16)
    for _ in range(NEWTON_STEPS + 2):
        margin, slope = _margin(session, points, spec, eps)
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


def _margin(session: Session, points: Tensor, spec: Specification, eps: Tensor) -> tuple[Tensor, Tensor]:
    """The least margin of each example at its own radius and its derivative in eps: two (B,)."""
    settings, engine = session.settings, session.engine
    method = session.method(settings.method)
    radius = eps.clone().requires_grad_(method.differentiable)
    x = points.to(engine.dtype)
    region = ball(x, radius.to(engine.dtype), settings.norm, settings.clip_floats).to(engine.dtype, engine.device)
    with torch.set_grad_enabled(method.differentiable or settings.method == "alpha"):
        bound = method.bound(engine, region, spec.to(engine.dtype, engine.device))
    least = bound.margins.amin(1).double().cpu()
    if not method.differentiable:
        return least.detach(), torch.full_like(least, math.nan)
    (slope,) = torch.autograd.grad(least.sum(), radius)
    return least.detach(), slope


def _proved(session: Session, x: NDArray[Any], label: int, eps: float) -> tuple[float, bytes | None]:
    """The largest radius not above ``eps`` for which the checker accepts the method's certificate."""
    for attempt in range(4):
        text = _decimal_below(eps * (1 - TOLERANCE * attempt))
        if not float(text) > 0:
            break
        settings = replace(session.settings, eps=text)
        claim = claim_of(settings, x, label, session.exact.output_size)
        spec = Specification.label(torch.tensor([label]), session.exact.output_size)
        bound = session.bound(session.method(settings.method), settings.region(torch.as_tensor(x[None]).double()), spec)
        rows = range(spec.d.shape[1])
        proof = certificate(session.plain.sha256, settings.semantics, claim, bound, 0, rows)
        if rigorous.check(session.checker, [proof])[0].accepted:
            return float(text), proof.encode()
    return 0.0, None


def _decimal_below(eps: float) -> str:
    """A decimal of six digits not above eps: the radius that is then certified exactly."""
    if not eps > 0:
        return "0"
    digits = 5 - math.floor(math.log10(eps))
    whole = math.floor(Fraction(eps) * Fraction(10) ** digits)
    return f"{whole}e{-digits}"


def _attacked(
    session: Session, x: NDArray[Any], spec: Specification, right: Tensor, certified: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The distance of the nearest counterexample that a bisection with PGD finds, (B,)."""
    settings, points = session.settings, torch.as_tensor(x).double()
    low, high = torch.tensor(certified), torch.full((len(x),), float(settings.eps), dtype=torch.float64)
    found = np.where(as_numpy(right), np.inf, 0.0)
    eps = high.clone()
    for _ in range(ATTACK_HALVINGS + 1):
        open_ = right & (low < high)
        if not bool(open_.any()):
            break
        index = open_.nonzero().flatten()
        region = ball(points[index], eps[index], settings.norm, settings.clip_floats)
        result = attack(
            session.engine, region, spec.select(index), steps=20, restarts=1, seed=settings.seed, start=points[index]
        )
        for place, i in enumerate(index.tolist()):
            distance = math.inf
            if bool(result.falsified[place]):
                distance = _distance(session, x[i], spec, i, as_numpy(result.points[place]), float(eps[i]))
            if distance < math.inf:
                found[i], high[i] = min(found[i], distance), min(float(high[i]), distance)
            else:
                low[i] = eps[i]
        eps = (low + high) / 2
    return found


def _distance(
    session: Session, x: NDArray[Any], spec: Specification, i: int, point: NDArray[Any], eps: float
) -> float:
    """The distance of a point that is a counterexample by exact evaluation, rounded up; infinite if it is none."""
    settings = replace(session.settings, eps=repr(eps))
    witness = witness_at(session.exact, session.single, settings, x, point, spec, i)
    if witness is None:
        return math.inf
    order = {"inf": np.inf, "2": 2, "1": 1}[settings.norm]
    return min(eps, float(np.linalg.norm(witness.x - x.astype(np.float64), ord=order)) * (1 + 1e-12))
