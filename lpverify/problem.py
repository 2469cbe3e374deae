"""What is asked: input sets (Box, Ball), the claim (Specification), and what is known (LayerBounds).

These are the engines' working forms, in the engine's dtype. The exact statement that a proof is about
(decimal eps, stored center) is ``certificate.claim.Claim``; only the checkers read that one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lpverify.errors import DataError, ShapeError, UsageError

NORMS = ("inf", "2", "1")
Clip = tuple[float, float] | None


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

    def extremes(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of w.x, the better of the ball's and the box's: (B, m, n_0) -> two (B, m)."""
        low, high = self.box.extremes(w)
        middle = row_products(w, self.point)
        spread = self.eps.unsqueeze(-1) * dual_norm(w, self.norm)
        return torch.maximum(low, middle - spread), torch.minimum(high, middle + spread)

    def argmin(self, w: Tensor) -> Tensor:
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
