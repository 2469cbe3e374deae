"""What is asked: input sets (Box, Ball), the claim (Specification), and what is known (LayerBounds).

These are the engines' working forms, in the engine's dtype. The exact statement that a proof is about
(decimal eps, stored center) is ``certificate.claim.Claim``; only the checkers read that one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lpverify.errors import DataError, ShapeError, UsageError

NORMS = ("inf", "2", "1")
Clip = tuple[float, float] | None
NEWTON_STEPS = 30
TOP_ENTRIES = 64
# Multipliers of clipped balls are found for so many entries of rows at a time: some arrays of this size are needed.
CHUNK_ENTRIES = 2**22


def dual_norm(w: Tensor, norm: str) -> Tensor:
    """The norm dual to ``norm`` over the last axis: l1 for "inf", l2 for "2", l-infinity for "1"."""
    order = {"inf": 1.0, "2": 2.0, "1": math.inf}[norm]
    norms: Tensor = torch.linalg.vector_norm(w, ord=order, dim=-1)
    return norms


def row_products(w: Tensor, table: Tensor) -> Tensor:
    """The inner products of rows with a vector of their example: w (B, m, n), table (B, n) -> (B, m).

    Written as table^T w^T, which torch's batched product takes ten times faster on a CPU than w table.
    """
    return (table.unsqueeze(1) @ w.transpose(1, 2)).squeeze(1)


@dataclass(frozen=True, eq=False)
class Box:
    """All x with lower <= x <= upper: ``lower`` and ``upper`` have shape (B, n_0)."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape or self.lower.ndim != 2:
            raise ShapeError(
                f"Box: lower {tuple(self.lower.shape)} and upper {tuple(self.upper.shape)}, expected the same (B, n_0)"
            )
        if not bool((self.lower <= self.upper).all()):
            bad = (~(self.lower <= self.upper)).nonzero()[0].tolist()
            low, high = float(self.lower[tuple(bad)]), float(self.upper[tuple(bad)])
            raise DataError(
                f"Box: example {bad[0]}, input {bad[1]}: lower {low!r} is not <= upper {high!r}; "
                "give finite bounds with lower <= upper (is the input inside --clip?)"
            )

    @classmethod
    def linf(cls, x: Tensor, eps: float | Tensor, clip: Clip = None) -> Box:
        """The l-infinity ball of radius eps (a number or (B,)) about x (B, n_0), kept inside ``clip``."""
        x = x.flatten(1)
        radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device).reshape(-1, 1)
        lower, upper = x - radius, x + radius
        if clip is not None:
            lower, upper = lower.clamp(min=clip[0]), upper.clamp(max=clip[1])
        return cls(lower, upper)

    @property
    def box(self) -> Box:
        """The enclosing box: itself."""
        return self

    @property
    def center(self) -> Tensor:
        """The middle of the box, (B, n_0)."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half of the width, (B, n_0)."""
        return (self.upper - self.lower) / 2

    def extremes(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest w.x over the box for each row: (B, m, n_0) -> two (B, m)."""
        middle, spread = row_products(w, self.center), row_products(w.abs(), self.radius)
        return middle - spread, middle + spread

    def argmin(self, w: Tensor) -> Tensor:
        """The corner of the box where w.x is least, for each row: (B, m, n_0)."""
        return torch.where(w > 0, self.lower.unsqueeze(1), self.upper.unsqueeze(1))

    def select(self, index: Any) -> Box:
        """The boxes of the examples in ``index``."""
        return Box(self.lower[index], self.upper[index])

    def to(self, dtype: torch.dtype | None = None, device: Any = None) -> Box:
        """The box in another dtype or on another device."""
        return Box(self.lower.to(device=device, dtype=dtype), self.upper.to(device=device, dtype=dtype))


@dataclass(frozen=True, eq=False)
class Ball:
    """The l2 or l1 ball about ``point`` (B, n_0) of radius ``eps`` (B,), intersected with ``box``.

    ``box`` encloses the ball (and carries the clip, if any); ``norm`` is "2" or "1".
    """

    point: Tensor
    eps: Tensor
    norm: str
    box: Box

    @property
    def lower(self) -> Tensor:
        """Lower corner of the enclosing box, (B, n_0)."""
        return self.box.lower

    @property
    def upper(self) -> Tensor:
        """Upper corner of the enclosing box, (B, n_0)."""
        return self.box.upper

    @cached_property
    def cut(self) -> Tensor:
        """The examples whose ball reaches out of its box, beyond rounding: (examples,)."""
        eps = self.eps.unsqueeze(-1)
        slack = 4 * torch.finfo(self.point.dtype).eps * (self.point.abs() + eps)
        low, high = self.lower > self.point - eps + slack, self.upper < self.point + eps - slack
        return (low | high).any(-1).nonzero().squeeze(-1)

    def extremes(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest w.x over the intersection for each row: (B, m, n_0) -> two (B, m)."""
        low, high = self.box.extremes(w)
        middle = row_products(w, self.point)
        spread = self.eps.unsqueeze(-1) * dual_norm(w, self.norm)
        low, high = torch.maximum(low, middle - spread), torch.minimum(high, middle + spread)
        if not len(self.cut):
            return low, high
        part, rows = (self, w) if len(self.cut) == len(w) else (self.select(self.cut), w[self.cut])
        least, greatest = part._clipped(rows), -part._clipped(-rows)
        low = low.index_copy(0, self.cut, torch.fmax(low[self.cut], least))
        return low, high.index_copy(0, self.cut, torch.fmin(high[self.cut], greatest))

    def _clipped(self, w: Tensor) -> Tensor:
        """The least w.x over the ball and the box at once, by the ball's best multiplier theta: (B, m, n) -> (B, m).

        The formulas are those of ``certificate.rigorous_region``.
        """
        if self.norm == "1":
            nearest, eps = self._nearest()
            room = self._room(w, nearest)
            with torch.no_grad():
                pieces = zip(self._pieces(w), self._pieces(room), strict=True)
                found = torch.cat([_l1_place(part.abs(), space, eps) for part, space in pieces], 1)
            # The gradient passes through theta: the input that takes what is left of eps has no other.
            theta = w.abs().gather(-1, found.clamp(min=0)).masked_fill(found < 0, 0.0).squeeze(-1)
            loss = ((w.abs() - theta.unsqueeze(-1)).clamp(min=0) * room).sum(-1)
            return row_products(w, nearest) - loss - theta * eps.unsqueeze(-1)
        theta, offset = self._steepest(w)
        bent = (offset * offset).sum(-1) - (self.eps * self.eps).unsqueeze(-1)
        return row_products(w, self.point) + (w * offset).sum(-1) + theta / 2 * bent

    def argmin(self, w: Tensor) -> Tensor:
        """A point of the intersection where w.x is least, up to rounding, for each row: (B, m, n_0)."""
        x = self._argmin_over_ball(w)
        if not len(self.cut):
            return x
        part, rows = self.select(self.cut), w[self.cut]
        if self.norm == "2":
            _, offset = part._steepest(rows)
            return x.index_copy(0, self.cut, part.point.unsqueeze(1) + offset)
        nearest, eps = part._nearest()
        order = rows.abs().argsort(-1, descending=True)
        room = torch.where(rows == 0, 0.0, part._room(rows, nearest)).gather(-1, order)
        take = torch.minimum((eps.reshape(-1, 1, 1) - room.cumsum(-1) + room).clamp(min=0), room)
        offset = -rows.sign() * torch.zeros_like(rows).scatter(-1, order, take)
        return x.index_copy(0, self.cut, nearest.unsqueeze(1) + offset)

    def _nearest(self) -> tuple[Tensor, Tensor]:
        """The box's point nearest to the center (B, n), and what is left of eps there in the l1 norm (B,)."""
        nearest = torch.minimum(torch.maximum(self.point, self.lower), self.upper)
        return nearest, self.eps - (nearest - self.point).abs().sum(-1)

    def _room(self, w: Tensor, nearest: Tensor) -> Tensor:
        """How far each input can go from ``nearest`` in the direction that lowers w.x: (B, m, n)."""
        return torch.where(w > 0, (nearest - self.lower).unsqueeze(1), (self.upper - nearest).unsqueeze(1))

    def _steepest(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """For l2: theta (B, m), and the offset from the center that it gives, clamp(-w / theta) (B, m, n)."""
        low, high = (self.lower - self.point).unsqueeze(1), (self.upper - self.point).unsqueeze(1)
        eps = self.eps.clamp(min=torch.finfo(w.dtype).tiny).reshape(-1, 1, 1)
        with torch.no_grad():
            top = w.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
            steps = [_l2_step(part, low / eps, high / eps) for part in self._pieces(w / top)]
            step = torch.cat(steps, 1).unsqueeze(-1)
        offset = torch.minimum(torch.maximum(-(w / top) * (step * eps), low), high)
        return (top / (step * eps)).squeeze(-1).detach(), offset

    def _pieces(self, w: Tensor) -> tuple[Tensor, ...]:
        """The rows in pieces of a bounded number of entries."""
        return torch.split(w, max(1, CHUNK_ENTRIES // max(1, w.shape[0] * w.shape[2])), dim=1)

    def _argmin_over_ball(self, w: Tensor) -> Tensor:
        """The point of the ball where w.x is least, moved into the box, for each row: (B, m, n_0)."""
        if self.norm == "2":
            step = w / dual_norm(w, "2").clamp(min=torch.finfo(w.dtype).tiny).unsqueeze(-1)
        else:
            top = w.abs().argmax(-1, keepdim=True)
            step = torch.zeros_like(w).scatter(-1, top, w.gather(-1, top).sign())
        x = self.point.unsqueeze(1) - self.eps.reshape(-1, 1, 1) * step
        return torch.minimum(torch.maximum(x, self.lower.unsqueeze(1)), self.upper.unsqueeze(1))

    def select(self, index: Any) -> Ball:
        """The balls of the examples in ``index``."""
        return Ball(self.point[index], self.eps[index], self.norm, self.box.select(index))

    def to(self, dtype: torch.dtype | None = None, device: Any = None) -> Ball:
        """The ball in another dtype or on another device."""
        point = self.point.to(device=device, dtype=dtype)
        return Ball(point, self.eps.to(device=device, dtype=dtype), self.norm, self.box.to(dtype, device))


def _l1_place(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """Where ``room``, added up from the largest |w| (B, m, n) on, reaches eps (B,), or -1: (B, m, 1).

    A few of the largest |w| mostly are enough.
    """
    for count in (min(TOP_ENTRIES, size.shape[-1]), size.shape[-1]):
        order = size.topk(count, dim=-1).indices
        reached = room.gather(-1, order).cumsum(-1) >= eps.reshape(-1, 1, 1)
        if bool(reached[..., -1].all()):
            break
    place = order.gather(-1, reached.to(torch.uint8).argmax(-1, keepdim=True))
    found: Tensor = place.masked_fill(~reached[..., -1:], -1)
    return found


def _l2_step(v: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The s at which clamp(-s v, low, high) has the length 1: v (B, m, n), low and high (B, 1, n) -> (B, m).

    Newton's method on the squared length, which is piecewise linear in s^2; a step out of the bracket halves that
    instead. Where nothing reaches so far, s is so large that z is the corner where v z is least.
    """
    corner = torch.where(v > 0, low, torch.where(v < 0, high, high.clamp(max=0) + low.clamp(min=0)))
    reaches = (corner * corner).sum(-1) > 1
    tiny = torch.finfo(v.dtype).tiny
    s: Tensor = 1 / torch.linalg.vector_norm(v, dim=-1).clamp(min=tiny).where(reaches, tiny**0.5)
    below, above = torch.zeros_like(s), torch.full_like(s, math.inf)
    for _ in range(NEWTON_STEPS):
        z = torch.minimum(torch.maximum(-s.unsqueeze(-1) * v, low), high)
        free = (z > low) & (z < high)
        fixed, growth = (z * z).masked_fill(free, 0.0).sum(-1), (v * v).masked_fill(~free, 0.0).sum(-1)
        short = fixed + growth * s * s <= 1
        below, above = torch.where(short, s, below), torch.where(short, above, s)
        new = ((1 - fixed) / growth).sqrt()
        halved = torch.where(above < math.inf, (below + above) / 2, 2 * s)
        new = torch.where((new >= below) & (new <= above) & (new < math.inf), new, halved)
        new = torch.where(reaches, new, s)
        if torch.equal(new, s):
            break
        s = new
    return s


Region = Box | Ball


def ball(x: Tensor, eps: float | Tensor, norm: str = "inf", clip: Clip = None) -> Region:
    """The ball of radius eps (raw input units; a number or (B,)) in ``norm`` about x (B, ...), inside ``clip``.

    Raises:
        UsageError: for an unknown norm or an eps that is negative, NaN or infinite.
        DataError: if a point lies outside ``clip`` by more than eps.
    """
    if norm not in NORMS:
        raise UsageError(f"norm: {norm!r} is not one of {', '.join(NORMS)}")
    radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device).reshape(-1)
    if not bool((radius >= 0).all() and radius.isfinite().all()):
        raise UsageError(f"eps: {eps!r} must be finite and >= 0")
    box = Box.linf(x, radius, clip)
    if norm == "inf":
        return box
    return Ball(x.flatten(1), radius.expand(x.shape[0]), norm, box)


@dataclass(frozen=True, eq=False)
class Specification:
    """Holds at x when every row of C f(x) + d is > 0, strictly: ``C`` (B, m, n_K), ``d`` (B, m)."""

    C: Tensor
    d: Tensor

    def __post_init__(self) -> None:
        if self.C.ndim != 3 or tuple(self.d.shape) != tuple(self.C.shape[:2]):
            raise ShapeError(
                f"Specification: C {tuple(self.C.shape)} and d {tuple(self.d.shape)}, expected (B, m, n_K) and (B, m)"
            )

    @classmethod
    def label(cls, y: Tensor, num_classes: int, dtype: torch.dtype = torch.float64) -> Specification:
        """The claim that class y (B,) has the largest output: rows e_y - e_j for j != y in increasing order."""
        if not bool(((y >= 0) & (y < num_classes)).all()):
            bad = int((~((y >= 0) & (y < num_classes))).nonzero()[0])
            raise DataError(f"label of example {bad}: {int(y[bad])} is not in 0..{num_classes - 1}")
        unit = torch.eye(num_classes, dtype=dtype, device=y.device)
        others = torch.arange(num_classes, device=y.device).expand(len(y), -1)
        others = others[others != y.unsqueeze(1)].reshape(len(y), num_classes - 1)
        C = unit[y].unsqueeze(1) - unit[others]
        return cls(C, C.new_zeros(C.shape[:2]))

    def margins(self, outputs: Tensor) -> Tensor:
        """C f(x) + d at the given outputs: (B, n_K) -> (B, m)."""
        return (self.C @ outputs.unsqueeze(-1)).squeeze(-1) + self.d

    def select(self, index: Any) -> Specification:
        """The claims of the examples in ``index``."""
        return Specification(self.C[index], self.d[index])

    def to(self, dtype: torch.dtype | None = None, device: Any = None) -> Specification:
        """The claim in another dtype or on another device."""
        return Specification(self.C.to(device=device, dtype=dtype), self.d.to(device=device, dtype=dtype))


@dataclass(frozen=True, eq=False)
class LayerBounds:
    """Bounds on the pre-activations of one ReLU over the input set: ``lower``, ``upper`` (B, n_k)."""

    lower: Tensor
    upper: Tensor

    @property
    def active(self) -> Tensor:
        """Neurons that never clip: lower >= 0."""
        return self.lower >= 0

    @property
    def inactive(self) -> Tensor:
        """Neurons that are always 0: upper <= 0 (and not active)."""
        return (self.upper <= 0) & (self.lower < 0)

    @property
    def unstable(self) -> Tensor:
        """Neurons with lower < 0 < upper, the only source of looseness."""
        return (self.lower < 0) & (self.upper > 0)

    def select(self, index: Any) -> LayerBounds:
        """The bounds of the examples in ``index``."""
        return LayerBounds(self.lower[index], self.upper[index])
