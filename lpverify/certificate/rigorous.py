"""The rigorous float64 checker: recomputes a certificate's bounds with every rounding error accounted for.

For arbitrary vectors v the dual bound B(v) of ``design`` holds (Wong & Kolter 2018, theorem 1, for any v): with
w the exact row behind each node, ReLU i adds phi = min over z in {l, u, 0} of w max(z, 0) - v z. Floating
point enters in three ways, and each is charged to a table before any row is multiplied, so that a checked
bound costs no more than an unchecked one:

    w is computed, not exact   a row v through W costs at most gamma_N |v|.(|W| H + |b|), where H bounds the
                               values that W multiplies. E = that vector (and the float32 semantics' evaluation
                               error, which has the same form) moves the bias: v.b becomes v.b - |v|.E.
    v is rounded               any v is sound, only the phi of the rounded v differs: 8 u max(|l|, u, |b| + E).
    sums are rounded           gamma_N times the sum of the terms' magnitudes: 4 gamma_N of each table entry.

N exceeds the number of all terms of one bound, gamma_N = N u / (1 - N u), u = 2^-53: any order of summation
is covered (Higham 2002, section 3.1 and lemma 3.1). Underflow is charged absolutely. Overflow gives infinity or NaN,
and every test is written so that NaN proves nothing. numpy only; nothing is taken from the engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.claim import BallRegion, Claim, LabelRows, decimal
from lpverify.certificate.graph import PlainNetwork, PlainNode
from lpverify.certificate.linear import Array, Index, LinearMap, Rows, Windows, to_float, to_index
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Slopes

UNIT = 2.0**-53
TINY = 2.0**-1022
CHUNK_ENTRIES = 2**20
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one certificate: ``margins`` (m,) are proved lower bounds of the claim's rows."""

    accepted: bool
    margins: Array
    message: str


@dataclass(frozen=True)
class Region:
    """A batch of input sets in outward-rounded float64: the enclosing box, and for l2 and l1 balls the ball."""

    lower: Array
    upper: Array
    norm: str
    point: Array
    eps: Array

    def minimum(self, rows: Rows, gamma: float) -> tuple[Array, Array]:
        """Lower bounds of w.x and of -w.x for each row, rounding charged: two (B, m)."""
        center = self.lower + (self.upper - self.lower) / 2
        radius = np.maximum(self.upper - center, center - self.lower) * (1 + 4 * UNIT)
        radius = radius + 4 * gamma * (np.abs(center) + radius) + TINY
        middle, spread = inner(rows, center, radius)
        low, high = middle - spread, -middle - spread
        if self.norm == "inf":
            return low, high
        order = 2 if self.norm == "2" else 1
        size = np.linalg.norm(self.point, ord=order, axis=1)
        eps = (self.eps * (1 + 8 * gamma) + 8 * gamma * size) * (1 + 8 * gamma) + TINY
        if isinstance(rows, Windows):
            (inside,) = rows.gather(np.ones_like(self.point))
            rows = rows.with_values(rows.values * inside)
        middle, _ = inner(rows, self.point, None)
        flat = rows.values.reshape(*low.shape, -1) if isinstance(rows, Windows) else rows
        dual = np.linalg.norm(flat, ord=2, axis=2) if self.norm == "2" else np.abs(flat).max(axis=2, initial=0.0)
        reach = eps[:, None] * (dual + 1e-150)
        return np.maximum(low, middle - reach), np.maximum(high, -middle - reach)

    def select(self, examples: Index) -> Region:
        """The input sets of some examples."""
        return Region(
            self.lower[examples], self.upper[examples], self.norm, self.point[examples], self.eps[examples]
        )


@dataclass(frozen=True)
class Tables:
    """A node's tables, (B, n) or (B, m, n): slopes and gains for positive and for negative row entries."""

    lower_slope: Array
    upper_slope: Array
    lower_gain: Array
    upper_gain: Array

    def select(self, examples: Index) -> Tables:
        """The tables of some examples."""
        return Tables(
            self.lower_slope[examples], self.upper_slope[examples], self.lower_gain[examples], self.upper_gain[examples]
        )


def inner(rows: Rows, plain: Array, absolute: Array | None) -> tuple[Array, Array]:
    """The sums of w * plain and of |w| * absolute for each row, tables (B, n) or (B, m, n): two (B, m)."""
    if isinstance(rows, Windows):
        tables = rows.gather(plain) if absolute is None else rows.gather(plain, absolute)
        values = rows.values.reshape(len(rows.values), -1)
        first = np.einsum("rk,rk->r", values, tables[0].reshape(len(values), -1)).reshape(rows.batch, -1)
        if absolute is None:
            return first, np.zeros_like(first)
        second = np.einsum("rk,rk->r", np.abs(values), tables[1].reshape(len(values), -1))
        return first, second.reshape(rows.batch, -1)
    size = np.abs(rows) if absolute is not None else None
    if plain.ndim == 3:
        first = np.einsum("bmn,bmn->bm", rows, np.broadcast_to(plain, rows.shape))
        if size is None or absolute is None:
            return first, np.zeros_like(first)
        return first, np.einsum("bmn,bmn->bm", size, np.broadcast_to(absolute, rows.shape))
    first = np.matmul(rows, plain[:, :, None])[:, :, 0]
    if size is None or absolute is None:
        return first, np.zeros_like(first)
    return first, np.matmul(size, absolute[:, :, None])[:, :, 0]


def down(value: Fraction) -> float:
    """The largest float64 <= value."""
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def up(value: Fraction) -> float:
    """The least float64 >= value."""
    return -down(-value)


def regions(claims: Sequence[Claim]) -> Region:
    """The input sets of several claims (all balls of one norm and clip, or all boxes), rounded outward."""
    first = claims[0].region
    if not isinstance(first, BallRegion):
        lower = np.stack([to_float(c.region.lower) for c in claims])  # type: ignore[union-attr]
        upper = np.stack([to_float(c.region.upper) for c in claims])  # type: ignore[union-attr]
        return Region(lower, upper, "inf", lower, np.zeros(len(claims)))
    point = np.stack([to_float(c.region.center) for c in claims])  # type: ignore[union-attr]
    eps = np.array([up(decimal(c.region.eps)) for c in claims])  # type: ignore[union-attr]
    # point - eps rounds to nearest, so one step outward encloses the exact value; exact for eps = 0.
    step = eps[:, None] > 0
    lower = np.where(step, np.nextafter(point - eps[:, None], -np.inf), point)
    upper = np.where(step, np.nextafter(point + eps[:, None], np.inf), point)
    if first.clip is not None:
        lower = np.maximum(lower, down(decimal(first.clip[0])))
        upper = np.minimum(upper, up(decimal(first.clip[1])))
    return Region(lower, upper, first.norm, point, eps)


class Network:
    """The network file in float64, shared by all certificates that name it."""

    def __init__(self, plain: PlainNetwork) -> None:
        self.sha256 = plain.sha256
        self.nodes: tuple[PlainNode, ...] = plain.nodes
        self.maps = [[LinearMap(m) for m in node.maps] for node in plain.nodes]
        self.bias = [to_float(node.bias) if node.bias is not None else None for node in plain.nodes]
        reals = [a for node in plain.nodes for m in node.maps for k, a in m.arrays.items() if k in ("weight", "values")]
        reals += [node.bias for node in plain.nodes if node.bias is not None]
        self.is_float32 = all(a.dtype == "<f4" for a in reals)
        self.readers: list[list[int]] = [[] for _ in plain.nodes]
        for index, node in enumerate(plain.nodes):
            for source in node.inputs:
                self.readers[source].append(index)
        fans = [sum(m.fan[0] for m in maps) for maps in self.maps] + [0]
        back = [sum(max(m.fan[1] for m in self.maps[r]) if self.maps[r] else 1 for r in rs) for rs in self.readers]
        terms = sum(node.size for node in plain.nodes) + max(fans) + max(back) + 64
        self.gamma = terms * UNIT / (1 - terms * UNIT)

    def is_folded(self, index: int) -> bool:
        """Whether an affine node's bias and error are charged in its only reader's tables, a ReLU's."""
        return len(self.readers[index]) == 1 and self.nodes[self.readers[index][0]].kind == "relu"

    def feeds_relu(self, index: int) -> bool:
        """Whether some ReLU reads this node."""
        return any(self.nodes[r].kind == "relu" for r in self.readers[index])


class Checker:
    """The bounds of one batch of examples over one kind of region, rule and semantics."""

    def __init__(self, network: Network, region: Region, rule: str, semantics: str) -> None:
        self.network, self.region, self.rule, self.semantics = network, region, rule, semantics
        self.range: dict[int, tuple[Array, Array]] = {}
        self.error: dict[int, Array] = {}
        self.slope: dict[int, Array] = {}
        self.tables: dict[int, Tables] = {}
        self.underflow = np.full(len(region.lower), 2.0**-1000)

    def run(self, certificates: Sequence[Certificate]) -> None:
        """Compute the range and the tables of every node in order, with the certificates' lemmas."""
        for index, node in enumerate(self.network.nodes):
            if node.kind == "input":
                self.range[index] = (self.region.lower, self.region.upper)
            elif node.kind == "affine":
                self._affine(index, node)
            else:
                for example, certificate in enumerate(certificates):
                    self._lemmas(index, example, certificate)
                self._relu(index, node.inputs[0])
            size = np.maximum(np.abs(self.range[index][0]), np.abs(self.range[index][1])).sum(axis=1)
            self.underflow = self.underflow + 2.0**-1060 * size / UNIT * self.network.gamma

    def _affine(self, index: int, node: PlainNode) -> None:
        """Interval arithmetic, the error vector E, and the backward pass where a ReLU needs better."""
        net = self.network
        bias = net.bias[index]
        assert bias is not None
        batch = len(self.region.lower)
        center, radius = np.tile(bias, (batch, 1)), np.zeros((batch, len(bias)))
        size = np.tile(np.abs(bias), (batch, 1))
        for source, linear in zip(node.inputs, net.maps[index], strict=True):
            lower, upper = self.range[source]
            middle = lower + (upper - lower) / 2
            half = np.maximum(upper - middle, middle - lower) * (1 + 4 * UNIT)
            center = center + linear.apply(middle)
            both = linear.apply(np.concatenate([half, np.maximum(np.abs(lower), np.abs(upper))]), magnitude=True)
            radius, size = radius + both[:batch], size + both[batch:]
        error = 4 * net.gamma * size + TINY / UNIT * net.gamma
        if self.semantics == "float32":
            error = error + self._float32_error(index, size)
        self.error[index] = error
        lower, upper = center - radius - error, center + radius + error
        self.slope[index] = (upper >= -lower).astype(np.float64)
        direct = len(node.inputs) <= 1 and all(s == 0 for s in node.inputs) and self.region.norm == "inf"
        if net.feeds_relu(index) and self.rule != "interval" and not direct:
            lower, upper = self._refine(index, lower, upper)
        self.range[index] = (lower, upper)

    def _float32_error(self, index: int, size: Array) -> Array:
        """E of the float32 semantics: gamma_(n+1) (|W| H + |b|) at u = 2^-24, and n + 1 underflows."""
        n = sum(linear.fan[0] for linear in self.network.maps[index]) + 1
        if n >= 2**23:
            return np.full_like(size, np.inf)
        gamma = n * 2.0**-24 / (1 - n * 2.0**-24) * (1 + 4 * UNIT)
        return np.where(size < 2.0**127, gamma * size * (1 + 8 * self.network.gamma) + n * 2.0**-149, np.inf)

    def _refine(self, index: int, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The backward pass's bounds for neurons that the interval leaves possibly unstable."""
        raw_lower, raw_upper = lower.copy(), upper.copy()
        widest = max(node.size for node in self.network.nodes[: index + 1])
        mirrored = self.rule != "crown"
        mask = (lower < 0) & (upper > 0)
        for examples, neurons in chunks(mask, widest):
            if mirrored:
                low, high = self._neurons(index, examples, neurons, np.ones(neurons.shape), mirrored=True)
            else:
                signs = np.concatenate([np.ones(neurons.shape), -np.ones(neurons.shape)], axis=1)
                both, _ = self._neurons(index, examples, np.concatenate([neurons, neurons], axis=1), signs)
                low, high = np.split(both, 2, axis=1)
            raw_lower[examples[:, None], neurons] = low
            raw_upper[examples[:, None], neurons] = -high
        # Units that only filled up a rectangle: the outcome must not depend on what else is in the batch.
        raw_lower, raw_upper = np.where(mask, raw_lower, lower), np.where(mask, raw_upper, upper)
        self.slope[index] = (raw_upper >= -raw_lower).astype(np.float64)
        if self.rule == "dual":
            return raw_lower, raw_upper
        return np.fmax(lower, raw_lower), np.fmin(upper, raw_upper)

    def _lemmas(self, index: int, example: int, certificate: Certificate) -> None:
        """Tighten the input range of ReLU ``index`` for one example by its lemmas."""
        for lemma in certificate.lemmas:
            if lemma.node != index:
                continue
            source = self.network.nodes[index].inputs[0]
            neurons, sides = to_index(lemma.neurons)[None], to_index(lemma.sides)
            one = np.array([example])
            local = self._with_slopes(one, [lemma.slopes])
            bound, _ = self._neurons(source, one, neurons, np.where(sides[None] == 0, 1.0, -1.0), local)
            lower, upper = self.range[source]
            below, above = neurons[0][sides == 0], neurons[0][sides == 1]
            lower[example, below] = np.fmax(lower[example, below], bound[0][sides == 0])
            upper[example, above] = np.fmin(upper[example, above], -bound[0][sides == 1])

    def _relu(self, index: int, source: int) -> None:
        """The tables of a ReLU by the rule, and the range of its value."""
        lower, upper = self.range[source]
        self.tables[index] = self._table(index, None, None)
        floor = np.maximum(lower, 0.0)
        if self.rule == "dual":
            unstable = ~(lower >= 0) & ~(upper <= 0)
            width = np.where(unstable, upper - lower, 1.0)
            floor = np.where(unstable, upper * lower / width, floor)
        self.range[index] = (floor, np.maximum(upper, 0.0))

    def _table(self, index: int, slopes: Array | None, examples: Index | None) -> Tables:
        """The tables of ReLU ``index``, by the rule or with lower slopes (b, m, n) for some examples."""
        source = self.network.nodes[index].inputs[0]
        lower, upper = self.range[source]
        bias = error = np.zeros((1, lower.shape[1]))
        if source in self.error and self.network.is_folded(source):
            bias, error = np.asarray(self.network.bias[source])[None], self.error[source]
        if self.rule == "interval":
            zero = np.zeros_like(lower)
            low, high = np.maximum(lower, 0.0), np.maximum(upper, 0.0)
            slack = 4 * self.network.gamma * (low + high) + TINY
            return Tables(zero, zero, low - slack, high + slack)
        unstable = ~(lower >= 0) & ~(upper <= 0)
        s = np.where(unstable, upper / np.where(unstable, upper - lower, 1.0), (lower >= 0).astype(np.float64))
        s = np.clip(s, 0.0, 1.0)
        cut = np.where(unstable, np.maximum(-s * lower, (1 - s) * upper), 0.0)
        reach = np.where(unstable, np.maximum(-lower, upper), 0.0)
        if slopes is not None and examples is not None:
            bias_all = np.broadcast_to(bias, lower.shape)
            error_all = np.broadcast_to(error, lower.shape)
            lower_slope = np.where(unstable[examples, None], slopes, s[examples, None])
            s, cut, reach = s[examples, None], cut[examples, None], reach[examples, None]
            bias, error = bias_all[examples, None], error_all[examples, None]
        elif self.rule == "crown":
            rule_slope = self.slope.get(source, (upper >= -lower).astype(np.float64))
            lower_slope = np.where(unstable, rule_slope, s)
        else:
            lower_slope = s
        # Where a slope is exactly 0 or 1 everywhere it is used, v is exact and phi has no rounding of its own.
        slack = 8 * UNIT * (reach + np.abs(bias) + error) + TINY
        slack = slack + 8 * self.network.gamma * (np.abs(bias) + error + cut)
        lower_gain = lower_slope * (bias - error) - slack * (lower_slope + s > 0)
        upper_gain = s * (bias + error) + cut + slack * (lower_slope + s > 0)
        return Tables(lower_slope, np.broadcast_to(s, lower_slope.shape), lower_gain, upper_gain)

    def _with_slopes(self, examples: Index, slopes: Sequence[Sequence[Slopes]]) -> dict[int, Tables]:
        """The tables of ``examples`` with stored lower slopes for their rows; nodes without any follow the rule."""
        local = {k: t.select(examples) for k, t in self.tables.items()}
        for index in {s.node for per_example in slopes for s in per_example} & set(self.tables):
            rows = max(s.values.shape[0] for per_example in slopes for s in per_example)
            values = np.repeat(local[index].lower_slope[:, None], rows, axis=1)
            for position, per_example in enumerate(slopes):
                for stored in per_example:
                    if stored.node == index:
                        given = to_float(stored.values) / UNIT_SLOPE
                        values[position][: len(given), to_index(stored.neurons)] = given
            local[index] = self._table(index, values, examples)
        return local

    def claim(self, examples: Index, C: Array, d: Array, slopes: Sequence[Sequence[Slopes]] | None = None) -> Array:
        """Proved lower bounds of C f(x) + d: C (b, m, n_K), d (b, m) -> (b, m)."""
        tables = None if slopes is None else self._with_slopes(examples, slopes)
        score = d - 4 * self.network.gamma * np.abs(d)
        bound, _ = self._propagate(examples, {len(self.network.nodes) - 1: C}, score, score, tables)
        return bound

    def _neurons(
        self,
        index: int,
        examples: Index,
        neurons: Index,
        signs: Array,
        tables: dict[int, Tables] | None = None,
        mirrored: bool = False,
    ) -> tuple[Array, Array]:
        """Lower bounds of signs * z for units ``neurons`` (b, m) of an affine node (and of -signs * z if mirrored)."""
        node, pending = self.network.nodes[index], dict[int, Rows]()
        kinds = {m.kind for m in self.network.maps[index]}
        windows = "conv2d" in kinds and kinds <= {"conv2d", "diagonal"}
        windows = windows and len({m.out_shape for m in self.network.maps[index]}) == 1
        for source, linear in zip(node.inputs, self.network.maps[index], strict=True):
            rows = linear.first_rows(neurons, windows)
            if isinstance(rows, Windows):
                rows = rows.with_values(rows.values * signs.reshape(-1, 1, 1, 1))
            else:
                rows = rows * signs[:, :, None]
            _add(pending, source, rows)
        bias = np.asarray(self.network.bias[index])[neurons] * signs
        error = self.error[index][examples[:, None], neurons]
        return self._propagate(examples, pending, bias - error, -bias - error, tables, mirrored)

    def _propagate(
        self,
        examples: Index,
        pending: dict[int, Rows],
        score: Array,
        mirror: Array,
        tables: dict[int, Tables] | None,
        mirrored: bool = False,
    ) -> tuple[Array, Array]:
        """Carry rows down to the input: the bound, and the bound of the negated rows (valid if ``mirrored``)."""
        net = self.network
        while pending:
            index = max(pending)
            rows, node = pending.pop(index), net.nodes[index]
            if node.kind == "input":
                low, high = self.region.select(examples).minimum(rows, net.gamma)
            elif node.kind == "relu":
                table = tables[index] if tables is not None else self.tables[index].select(examples)
                rows, low, high = _absorb(rows, table, mirrored)
                _add(pending, node.inputs[0], rows)
            else:
                low = high = np.zeros(score.shape)
                if not net.is_folded(index):
                    bias = np.broadcast_to(np.asarray(net.bias[index]), self.error[index].shape)[examples]
                    plain, bent = inner(rows, bias, self.error[index][examples])
                    low, high = plain - bent, -plain - bent
                for source, linear in zip(node.inputs, net.maps[index], strict=True):
                    _add(pending, source, _transpose(linear, rows))
            score, mirror = score + low, mirror + high
        tiny = self.underflow[examples][:, None]
        return score - tiny, mirror - tiny


def _add(pending: dict[int, Rows], index: int, rows: Rows) -> None:
    if isinstance(rows, Windows):
        _, height, width = rows.shape
        if 3 * rows.values.shape[1] * rows.values.shape[2] >= 2 * height * width:
            rows = rows.dense()
    other = pending.get(index)
    if other is None:
        pending[index] = rows
        return
    total = rows.plus(other) if isinstance(rows, Windows) and isinstance(other, Windows) else None
    pending[index] = total if total is not None else _dense(rows) + _dense(other)


def _dense(rows: Rows) -> Array:
    return rows.dense() if isinstance(rows, Windows) else rows


def _transpose(linear: LinearMap, rows: Rows) -> Rows:
    if isinstance(rows, Windows) and linear.kind in ("conv2d", "diagonal") and rows.shape == linear.out_shape:
        return linear.transpose_windows(rows)
    rows = _dense(rows)
    return linear.transpose(rows.reshape(-1, rows.shape[2])).reshape(*rows.shape[:2], -1)


def _absorb(rows: Rows, table: Tables, mirrored: bool) -> tuple[Rows, Array, Array]:
    """Rows behind a ReLU, v = slope * w by the sign of w, and what they add to the bound (and to the mirror's)."""
    even, odd = (table.lower_slope + table.upper_slope) / 2, (table.lower_slope - table.upper_slope) / 2
    even_gain, odd_gain = (table.lower_gain + table.upper_gain) / 2, (table.lower_gain - table.upper_gain) / 2
    if isinstance(rows, Windows) and even.ndim == 3:
        rows = rows.dense()
    plain, bent = inner(rows, even_gain, odd_gain)
    if isinstance(rows, Windows):
        (a, b) = rows.gather(even, odd)
        return rows.with_values(rows.values * a + np.abs(rows.values) * b), plain + bent, bent - plain
    if even.ndim == 2:
        even, odd = even[:, None], odd[:, None]
    passed = rows * even
    if not mirrored:
        bend = np.abs(rows)
        bend *= odd
        passed += bend
    return passed, plain + bent, bent - plain


def chunks(mask: Flags, widest: int) -> Iterator[tuple[Index, Index]]:
    """Cut the true entries of a mask (B, n) into pieces: examples (b,), units (b, m), of bounded size."""
    counts = mask.sum(axis=1)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    ranked = np.argsort(~mask, axis=1, kind="stable")
    limit, at = max(1, CHUNK_ENTRIES // widest), 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * counts[order[end]] <= limit:
            if counts[order[end]] > 1.25 * counts[order[at]] + 8:
                break
            end += 1
        examples, most = order[at:end], int(counts[order[end - 1]])
        for start in range(0, most, limit):
            yield examples, ranked[examples, start : min(most, start + limit)]
        at = end


def claim_rows(claim: Claim) -> tuple[Array, Array]:
    """C (m, n_K) and d (m,) of a claim."""
    if isinstance(claim.rows, LabelRows):
        unit = np.eye(claim.rows.classes)
        return unit[claim.rows.label] - np.delete(unit, claim.rows.label, axis=0), np.zeros(claim.rows.classes - 1)
    return to_float(claim.rows.C), to_float(claim.rows.d)


def check(network: Network, certificates: Sequence[Certificate]) -> list[Outcome]:
    """Check certificates; those with the same rule, semantics and kind of region share their products."""
    groups: dict[object, list[int]] = {}
    outcomes: list[Outcome | None] = [None] * len(certificates)
    for position, certificate in enumerate(certificates):
        problem = _misfit(network, certificate)
        if problem:
            outcomes[position] = Outcome(False, np.full(certificate.claim.num_rows, -np.inf), problem)
            continue
        region = certificate.claim.region
        kind = (region.norm, region.clip) if isinstance(region, BallRegion) else "box"
        key = (kind, certificate.rule, certificate.semantics, certificate.claim.num_rows)
        groups.setdefault(key, []).append(position)
    for members in groups.values():
        with np.errstate(all="ignore"):
            margins = _check_group(network, [certificates[i] for i in members])
        for position, row in zip(members, margins, strict=True):
            accepted = bool((row > 0).all() and np.isfinite(row).all())
            worst = "" if accepted else f"row {int(np.argmin(np.where(row > 0, np.inf, -1)))} is not proved"
            outcomes[position] = Outcome(accepted, row, worst)
    return [o for o in outcomes if o is not None]


def _misfit(network: Network, certificate: Certificate) -> str:
    """Why a certificate does not belong to this network; empty if it does."""
    claim, first, last = certificate.claim, network.nodes[0], network.nodes[-1]
    if certificate.network != network.sha256:
        return f"names another network ({certificate.network[:12]}..., not {network.sha256[:12]}...)"
    if (claim.inputs, claim.outputs) != (first.size, last.size):
        return f"has {claim.inputs} inputs, {claim.outputs} outputs; the network has {first.size}, {last.size}"
    if certificate.semantics == "float32" and not network.is_float32:
        return "claims float32 semantics, but the network has parameters that are no float32 numbers"
    tables = [*certificate.leaf.slopes, *(s for x in certificate.lemmas for s in x.slopes)]
    for node, neurons in [(s.node, s.neurons) for s in tables] + [(x.node, x.neurons) for x in certificate.lemmas]:
        if node >= len(network.nodes) or network.nodes[node].kind != "relu":
            return f"node {node} is not a ReLU"
        if neurons.shape[0] and max(neurons.values()) >= network.nodes[node].size:
            return f"node {node} has no neuron {max(neurons.values())}"
    if any(network.nodes[network.nodes[x.node].inputs[0]].kind != "affine" for x in certificate.lemmas):
        return "a lemma is about a ReLU of the input"
    region = regions([claim])
    return "" if bool((region.lower <= region.upper).all()) else "the region is empty"


def _check_group(network: Network, certificates: Sequence[Certificate]) -> Array:
    first = certificates[0]
    checker = Checker(network, regions([c.claim for c in certificates]), first.rule, first.semantics)
    checker.run(certificates)
    rows = [claim_rows(c.claim) for c in certificates]
    C, d = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    margins = checker.claim(np.arange(len(certificates)), C, d)
    own = np.array([i for i, c in enumerate(certificates) if c.leaf.rows.shape[0]], dtype=np.int64)
    for example in own:
        listed = to_index(certificates[example].leaf.rows)
        one = np.array([example])
        slopes = [certificates[example].leaf.slopes]
        margins[example, listed] = checker.claim(one, C[one][:, listed], d[one][:, listed], slopes)[0]
    return margins
