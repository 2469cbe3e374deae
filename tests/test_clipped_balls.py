"""Rows over l2 and l1 balls that the clip cuts: both checkers and the engine, against points and a solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

from lpverify.certificate.claim import BallRegion, Claim, LabelRows, decimal
from lpverify.certificate.exact_linear import integers
from lpverify.certificate.exact_region import convert_region, outside, region_ends
from lpverify.certificate.rigorous_linear import Windows
from lpverify.certificate.rigorous_region import UNIT, Region, regions
from lpverify.problem import Ball, Clip, ball, dual_norm, row_products
from lpverify.serialize import raw_array

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]
GAMMA = 2000 * UNIT
ROWS: dict[str, Draw] = {
    "normal": lambda g, n: g.standard_normal(n),
    "zeros": lambda g, n: g.standard_normal(n) * (g.random(n) < 0.4),
    "ties": lambda g, n: g.integers(-2, 3, n).astype(np.float64),
    "spread": lambda g, n: g.standard_normal(n) * 10.0 ** g.integers(-6, 7, n),
    "one": lambda g, n: np.eye(n)[int(g.integers(n))] * g.choice([-1.0, 1.0]),
    "large": lambda g, n: g.standard_normal(n) * 2.0**400,
    "small": lambda g, n: g.standard_normal(n) * 2.0**-400,
}
CENTERS: dict[str, Draw] = {
    "inside": lambda g, n: g.random(n),
    "corner": lambda g, n: (g.random(n) < 0.5) * 1.0,
    "outside": lambda g, n: g.random(n) * 1.06 - 0.03,
}
RADII = ("0", "0.001", "0.2", "0.7", "1.5", "40")
BOTH = pytest.mark.parametrize("norm", ["1", "2"])


def claimed(center: Array, eps: str, norm: str, clip: tuple[str, str] | None = ("0", "1")) -> BallRegion:
    return BallRegion(raw_array(center), eps, norm, clip)


def batch(*balls: BallRegion) -> Region:
    return regions([Claim(b, LabelRows(0, 2)) for b in balls])


def rational(values: Array) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]


def inner(w: Array, x: list[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(rational(w), x, strict=True)), Fraction(0))


def low_point(w: Array, region: BallRegion) -> list[Fraction] | None:
    """A point of the exact region at which w.x is within about 1e-11 of least; None if the region is empty."""
    center, ends, eps = rational(np.array(region.center.values())), region_ends(region), decimal(region.eps)
    if any(low > high for low, high in ends):
        return None
    near = [min(max(c, low), high) for c, (low, high) in zip(center, ends, strict=True)]
    if outside(region, near):
        return None
    if region.norm == "1":
        left, x = eps - sum(abs(a - c) for a, c in zip(near, center, strict=True)), list(near)
        for i in np.argsort(-np.abs(w)).tolist():
            room = near[i] - ends[i][0] if w[i] > 0 else ends[i][1] - near[i]
            step = min(left, room) if w[i] else Fraction(0)
            x[i], left = near[i] - (step if w[i] > 0 else -step), left - step
    else:
        v = w / max(np.abs(w).max(), 2.0**-1000)
        low, high = (np.array([float(end[k] - c) for end, c in zip(ends, center, strict=True)]) for k in (0, 1))
        least, most = 1e-12, 1e12
        for _ in range(200):
            s = (least * most) ** 0.5
            d = np.clip(-v * s, low, high)
            least, most = (s, most) if d @ d <= float(eps * eps) else (least, s)
        moved = rational(np.clip(-v * least, low, high))
        x = [min(max(c + d, end[0]), end[1]) for c, d, end in zip(center, moved, ends, strict=True)]
        # Rounding may have left it outside the ball: a little back, towards the box's point nearest to the center.
        for k in range(60, 0, -1):
            if not outside(region, x):
                break
            x = [b + (a - b) * (1 - Fraction(1, 2**k)) for a, b in zip(x, near, strict=True)]
    assert not outside(region, x)
    return x


def exact_minimum(w: Array, region: BallRegion, clipped: bool = True) -> Fraction:
    whole, exponent = integers(w.tolist())
    converted = convert_region(region)
    converted = converted if clipped else replace(converted, offsets=None)
    return converted.minimum({i: n for i, n in enumerate(whole) if n}, exponent)


def cases(norm: str, seeds: int = 4) -> Iterator[tuple[str, Array, BallRegion, list[Fraction], float]]:
    """Names, rows, regions that are not empty, their low points, and the size of the numbers that are added."""
    for (name, row), (place, center) in ((r, c) for r in ROWS.items() for c in CENTERS.items()):
        for eps in RADII:
            for seed in range(seeds):
                g = np.random.default_rng([seed, len(name), len(place), len(eps)])
                n = int(g.integers(1, 30))
                w, region = row(g, n), claimed(center(g, n), eps, norm)
                x = low_point(w, region)
                if x is not None:
                    size = float(np.abs(w) @ np.abs(np.array(region.center.values())))
                    size += min(float(eps), n) * float(np.linalg.norm(w, ord=2 if norm == "2" else np.inf))
                    yield f"{name} {place} {eps} {seed}", w, region, x, size


@BOTH
def test_both_checkers_give_the_least_value(norm: str) -> None:
    """A bound that is no more than 1e-9 below the value at a point of the region, and never above it."""
    compared = 0
    for name, w, region, x, size in cases(norm):
        value = inner(w, x)
        exact = exact_minimum(w, region)
        low, high = batch(region).minimum(w[None, None], GAMMA)
        flipped, _ = batch(region).minimum(-w[None, None], GAMMA)
        assert exact <= value and Fraction(low[0, 0]) <= value, name
        assert value - exact <= 1e-9 * Fraction(size), (name, float(value), float(exact))
        assert value - Fraction(low[0, 0]) <= 1e-9 * Fraction(size) + Fraction(2) ** -1000, (name, float(value), low)
        assert high[0, 0] == pytest.approx(flipped[0, 0], rel=1e-12, abs=1e-12 * size)
        compared += 1
    assert compared > 300


@BOTH
def test_a_bound_is_never_below_the_one_without_the_clip_cutting(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    better = 0
    found = [(batch(r).minimum(w[None, None], GAMMA), w, r, size) for _, w, r, _, size in cases(norm)]
    monkeypatch.setattr(Region, "_cut", lambda self: np.zeros(0, np.int64))
    for (low, high), w, region, size in found:
        old_low, old_high = batch(region).minimum(w[None, None], GAMMA)
        assert low[0, 0] >= old_low[0, 0] and high[0, 0] >= old_high[0, 0]
        assert exact_minimum(w, region) >= exact_minimum(w, region, clipped=False)
        better += bool(low[0, 0] > old_low[0, 0] + 1e-6 * size)
    assert better > 100


def test_l1_against_linear_programming() -> None:
    for seed in range(20):
        g = np.random.default_rng(seed)
        n = 12
        w, center, eps = g.standard_normal(n), g.random(n) * 1.1 - 0.05, float(g.choice([0.6, 1.0, 2.0]))
        # x = center + a - b with a, b >= 0 and sum (a + b) <= eps, inside the clip.
        eye = np.eye(n)
        A = np.vstack([np.ones((1, 2 * n)), np.hstack([eye, -eye]), np.hstack([-eye, eye])])
        solved = linprog(np.concatenate([w, -w]), A, np.concatenate([[eps], 1 - center, center]), method="highs")
        least = solved.fun + w @ center
        region = claimed(center, repr(eps), "1")
        assert float(exact_minimum(w, region)) == pytest.approx(least, abs=1e-9)
        assert batch(region).minimum(w[None, None], GAMMA)[0][0, 0] == pytest.approx(least, abs=1e-9)


@BOTH
def test_no_point_is_below_a_bound_of_a_large_row(norm: str) -> None:
    g = np.random.default_rng(1)
    n = 784
    center = np.where(g.random(n) < 0.6, 0.0, g.random(n)).astype(np.float32).astype(np.float64)
    w, region = g.standard_normal(n), claimed(center, "1.58", norm)
    x = low_point(w, region)
    assert x is not None
    exact, value = exact_minimum(w, region), inner(w, x)
    (low,) = batch(region).minimum(w[None, None], GAMMA)[0][0]
    assert max(Fraction(low), exact) <= value
    assert float(value - exact) <= 1e-9 and float(value) - low <= 1e-8  # 8 gamma of |w|.|center|, which is near 100


@BOTH
def test_an_uncut_ball_is_bounded_as_ever(norm: str) -> None:
    g = np.random.default_rng(0)
    w, inside, at_edge = g.standard_normal((1, 3, 6)), 0.3 + 0.4 * g.random(6), np.zeros(6)
    for clip in (None, ("0", "1")):
        region = claimed(inside, "0.25", norm, clip)
        assert convert_region(region).offsets is None and not len(batch(region)._cut())
        alone = batch(region).minimum(w, GAMMA)
        if clip is not None:
            both = batch(claimed(at_edge, "0.25", norm), region).minimum(np.concatenate([w, w]), GAMMA)
            assert all(np.array_equal(a[0], b[1]) for a, b in zip(alone, both, strict=True))
    point, rows = torch.from_numpy(inside)[None], torch.from_numpy(w)
    region, spread = ball(point, 0.25, norm, (0.0, 1.0)), 0.25 * dual_norm(rows, norm)
    assert isinstance(region, Ball)
    low, high = region.extremes(rows)
    middle, (least, most) = row_products(rows, point), region.box.extremes(rows)
    assert torch.equal(low, torch.maximum(least, middle - spread))
    assert torch.equal(high, torch.minimum(most, middle + spread))


@BOTH
def test_overflow_and_nan_leave_the_other_bounds(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    region = batch(claimed(np.array([0.0, 0.5, 1.0]), "0.6", norm))
    rows = np.array([[[1e308, -1e308, 1e308], [np.inf, 1.0, 0.0], [np.nan, 1.0, 0.0], [0.0, 0.0, 0.0],
                      [5e-324, -5e-324, 1e-320], [1e-200, 1e200, -1e-300]]])  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        low, _ = region.minimum(rows, GAMMA)
        monkeypatch.setattr(Region, "_cut", lambda self: np.zeros(0, np.int64))
        old, _ = region.minimum(rows, GAMMA)
    assert not (low[0, 1:3] > -np.inf).any() and low[0, 0] >= old[0, 0] and low[0, 3] == old[0, 3]
    for k in (0, 3, 4, 5):
        value = inner(rows[0, k], low_point(rows[0, k], claimed(np.array([0.0, 0.5, 1.0]), "0.6", norm)) or [])
        assert Fraction(low[0, k]) <= value


@BOTH
def test_windows_are_bounded_as_dense_rows(norm: str) -> None:
    g = np.random.default_rng(0)
    shape, count = (2, 4, 5), 6
    region = batch(*(claimed(CENTERS["corner"](g, 40), "0.9", norm) for _ in range(2)))
    top, left = g.integers(-1, 3, 2 * count), g.integers(-1, 4, 2 * count)
    windows = Windows(g.standard_normal((2 * count, 3, 2, 2)), top, left, shape, 2)
    for found, expected in zip(region.minimum(windows, GAMMA), region.minimum(windows.dense(), GAMMA), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_engine_agrees_with_the_checker(norm: str, dtype: torch.dtype) -> None:
    g = np.random.default_rng(5)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    for eps in ("0.001", "0.3", "1.1", "9"):
        for place in ("inside", "corner"):
            center = CENTERS[place](g, 5 * 9).reshape(5, 9).astype(np.float32).astype(np.float64)
            w = np.stack([draw(g, 9) for name, draw in ROWS.items() if name not in ("large", "small")])
            w = np.broadcast_to(w, (5, *w.shape)).copy()
            low, high = batch(*(claimed(c, eps, norm) for c in center)).minimum(w, GAMMA)
            region = ball(torch.from_numpy(center).to(dtype), float(eps), norm, (0.0, 1.0))
            rows = torch.from_numpy(w).to(dtype)
            size = np.abs(w).max()
            for found, expected in zip(region.extremes(rows), (low, -high), strict=True):
                assert found.dtype == dtype
                np.testing.assert_allclose(found.double().numpy(), expected, rtol=tolerance, atol=tolerance * size)
            x = region.argmin(rows).double()
            values = (x * torch.from_numpy(w)).sum(-1).numpy()
            np.testing.assert_allclose(values, low, rtol=tolerance, atol=tolerance * size)
            assert bool((x >= -tolerance).all() and (x <= 1 + tolerance).all())
            length = torch.linalg.vector_norm(x - torch.from_numpy(center)[:, None], ord=float(norm), dim=-1)
            assert bool((length <= float(eps) + tolerance).all())


@BOTH
def test_the_engine_with_centers_outside_the_clip(norm: str) -> None:
    for name, w, where, x, size in cases(norm, seeds=2):
        if "outside" not in name or where.eps == "0":
            continue
        center = torch.tensor(where.center.values(), dtype=torch.float64)[None]
        region = ball(center, float(where.eps), norm, (0.0, 1.0))
        low, high = region.extremes(torch.from_numpy(w)[None, None])
        value = float(inner(w, x))
        assert float(low) == pytest.approx(value, abs=1e-9 * size), name
        assert bool(low <= high)


@BOTH
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_gradients_of_the_extremes_are_the_points_where_they_are_taken(norm: str, clip: Clip) -> None:
    g = torch.Generator().manual_seed(2)
    region = ball(torch.rand(3, 6, generator=g, dtype=torch.float64), 0.8, norm, clip)
    w = torch.randn(3, 4, 6, generator=g, dtype=torch.float64, requires_grad=True)
    low, high = region.extremes(w)
    (slope,) = torch.autograd.grad(low.sum(), w, retain_graph=True)
    torch.testing.assert_close(slope, region.argmin(w.detach()), atol=1e-9, rtol=0)
    (slope,) = torch.autograd.grad(high.sum(), w)
    torch.testing.assert_close(slope, region.argmin(-w.detach()), atol=1e-9, rtol=0)
    zero = torch.zeros(3, 4, 6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(region.extremes(zero)[0].sum(), zero)
    assert bool(slope.isfinite().all())


@BOTH
def test_the_engine_does_not_depend_on_the_batch_or_its_pieces(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(4)
    center = torch.rand(4, 7, generator=g, dtype=torch.float64)
    center[2] = 0.5
    w = torch.randn(4, 5, 7, generator=g, dtype=torch.float64)
    region = ball(center, 0.45, norm, (0.0, 1.0))
    assert isinstance(region, Ball) and region.cut.tolist() == [0, 1, 3]
    whole, points = region.extremes(w), region.argmin(w)
    monkeypatch.setattr("lpverify.problem.CHUNK_ENTRIES", 4 * 7 * 2)
    for i in range(4):
        one = region.select([i])
        for a, b in zip(whole, one.extremes(w[i : i + 1]), strict=True):
            torch.testing.assert_close(a[i], b[0], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(points[i], one.argmin(w[i : i + 1])[0], rtol=1e-13, atol=1e-13)
    for a, b in zip(whole, region.extremes(w), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
