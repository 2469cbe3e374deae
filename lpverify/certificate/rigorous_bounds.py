"""The bounds of the rigorous float64 checker, with every rounding error accounted for.

For arbitrary vectors v at the pre-activations z (Wong & Kolter 2018, theorem 1, stated for any multipliers):

    c.f(x) + d >= d + sum v.b + min over the region of w_0.x + sum phi,
    phi = min over z in {l, u} and, if l < 0 < u, 0 of w max(z, 0) - v z

where w = the sum of W^T v over a node's consumers and [l, u] are bounds of z proved before. Floating point
enters in four ways, and each is charged to a table before any row is multiplied, so that a checked bound
costs no more than an unchecked one:

    w is computed, not exact   a row v through W costs at most gamma_N |v|.(|W| H + |b|), where H bounds the
                               values that W multiplies. E = that vector (and the float32 semantics' evaluation
                               error, which has the same form) moves the bias: v.b becomes v.b - |v|.E.
    v is rounded               any v is sound, only the phi of the rounded v differs: 8 u max(|l|, u, |b| + E).
    sums are rounded           gamma_N times the sum of the terms' magnitudes: 4 gamma_N of each table entry.
    rows of readers are added  gamma_N |v| |z| more. At z > 0 this is at most |w| H, in the E above. At z < 0 it is at
                               most the cut's charge for negative v; of positive v what is not cancelled by those
                               or by other rows, which are charged, is in the sum, and met by E or the region below.

A stored multiplier v is used as it stands, so that nothing about it is rounded; what it costs is charged where its
row meets it (``rigorous_relu``), since both v and w are needed:

    w is computed, not exact   phi changes by |error of w| max(z, 0) <= |error of w| H: in the E of the rows above.
    phi and v.b are rounded    a few u of (|v| + |w|) max(|l|, |u|) + |v| (|b| + E).
    sums are rounded           gamma_N times the same magnitudes, when the gains are summed; and where other readers'
                               rows are added to v, gamma_N |v| |z| with |z| <= max(|l|, |u|).

Together these are less than 4 gamma_N (|v| + |w|) (max(|l|, |u|) + |b| + E); twice that is taken off.

N exceeds the number of all terms of one bound, gamma_N = N u / (1 - N u), u = 2^-53: any order of summation
is covered (Higham 2002, section 3.1 and lemma 3.1). Underflow is charged absolutely, with subnormal
numbers (``container`` refuses to read where there are none). Overflow gives infinity or NaN: a bound that is either
proves nothing, and every test is written so that NaN fails it. numpy only; nothing is taken from the engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.graph import PlainNetwork, PlainNode
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Duals, Leaf, Lemma
from lpverify.certificate.rigorous_linear import (
    Array,
    Flags,
    Index,
    LinearMap,
    Rows,
    Windows,
    dense,
    to_float,
    to_index,
)
from lpverify.certificate.rigorous_region import TINY, UNIT, Region, inner
from lpverify.certificate.rigorous_relu import Explicit, Tables, absorb

# The most entries of a piece, and the most rows: pieces of narrow rows that stay in the cache take half the time.
CHUNK_ENTRIES = 2**20
CHUNK_ROWS = 2**9


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
        self.fans = [sum(m.fan[0] for m in maps) for maps in self.maps]
        back = [sum(max(m.fan[1] for m in self.maps[r]) if self.maps[r] else 1 for r in rs) for rs in self.readers]
        terms = sum(node.size for node in plain.nodes) + max(self.fans) + max(back) + 64
        self.gamma = terms * UNIT / (1 - terms * UNIT)

    def is_folded(self, index: int) -> bool:
        """Whether an affine node's bias and error are charged in its only reader's tables, a ReLU's."""
        return len(self.readers[index]) == 1 and self.nodes[self.readers[index][0]].kind == "relu"

    def feeds_relu(self, index: int) -> bool:
        """Whether some ReLU reads this node."""
        return any(self.nodes[r].kind == "relu" for r in self.readers[index])


class Checker:
    """The bounds of one batch of examples over one kind of region, rule and semantics.

    Args:
        known: ranges of nodes' values, each (1, n), that hold in all of the examples' regions.
        phases: for ReLU nodes (B, n): 1 where an example is restricted to z >= 0, -1 to z <= 0, 0 elsewhere.
        twins: for affine nodes (B,): an example whose regions and restrictions are the same as far as the node knows,
            and which is its own twin; its backward pass serves both.

    Attributes:
        range: bounds of every node's value.
        before: for every ReLU node, bounds of its pre-activations: what is known of them there.
        empty: (B,) the examples found to have no point, where ``known`` or ``phases`` contradict a range. What else is
            said of them may be anything.
    """

    def __init__(
        self,
        network: Network,
        region: Region,
        rule: str,
        semantics: str,
        known: Mapping[int, tuple[Array, Array]] | None = None,
        phases: Mapping[int, NDArray[np.int8]] | None = None,
        twins: Mapping[int, Index] | None = None,
    ) -> None:
        self.network, self.region, self.rule, self.semantics = network, region, rule, semantics
        self.known, self.phases, self.twins = known or {}, phases or {}, twins or {}
        self.empty: Flags = np.any(region.lower > region.upper, axis=1)
        self.range: dict[int, tuple[Array, Array]] = {}
        self.before: dict[int, tuple[Array, Array]] = {}
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
                self._restrict(index, node.inputs[0])
                self._relu(index)
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
        if index in self.known:
            lower, upper = self._meet((lower, upper), self.known[index])
        direct = len(node.inputs) <= 1 and all(s == 0 for s in node.inputs) and self.region.norm == "inf"
        if net.feeds_relu(index) and self.rule != "interval" and not direct:
            refined = self._refine(index, lower, upper)
            lower, upper = self._meet(refined, (lower, upper)) if index in self.known else refined
        self.range[index] = (lower, upper)

    def _meet(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        """What two ranges of the same values have in common."""
        lower, upper = np.fmax(first[0], second[0]), np.fmin(first[1], second[1])
        self.empty |= crossed(lower, upper)
        return lower, upper

    def _restrict(self, index: int, source: int) -> None:
        """Set what ReLU ``index`` knows of its input: the range of ``source``, cut to the examples' phases."""
        self.before[index] = self.range[source]
        if index in self.phases:
            self.before[index] = clamped(*self.before[index], self.phases[index])
            self.empty |= crossed(*self.before[index])

    def _float32_error(self, index: int, size: Array) -> Array:
        """E of the float32 semantics: gamma_(n+1) (|W| H + |b|) at u = 2^-24, and n + 1 underflows."""
        n = self.network.fans[index] + 1
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
        every = np.arange(len(mask))
        twin = self.twins.get(index, every)
        mask = mask[twin]
        for examples, neurons in chunks(mask & (twin == every)[:, None], widest):
            if mirrored:
                low, high = self._neurons(index, examples, neurons, np.ones(neurons.shape), mirrored=True)
            else:
                signs = np.concatenate([np.ones(neurons.shape), -np.ones(neurons.shape)], axis=1)
                both, _ = self._neurons(index, examples, np.concatenate([neurons, neurons], axis=1), signs)
                low, high = np.split(both, 2, axis=1)
            raw_lower[examples[:, None], neurons] = low
            raw_upper[examples[:, None], neurons] = -high
        # Units that only filled up a rectangle: the outcome must not depend on what else is in the batch.
        raw_lower, raw_upper = np.where(mask, raw_lower[twin], lower), np.where(mask, raw_upper[twin], upper)
        self.slope[index] = (raw_upper >= -raw_lower).astype(np.float64)
        if self.rule == "dual":
            return raw_lower, raw_upper
        return np.fmax(lower, raw_lower), np.fmin(upper, raw_upper)

    def _lemmas(self, index: int, example: int, certificate: Certificate) -> None:
        """Tighten the input range of ReLU ``index`` for one example by its lemmas."""
        for lemma in certificate.lemmas:
            if lemma.node != index or not lemma.neurons.shape[0]:
                continue
            source = self.network.nodes[index].inputs[0]
            neurons, sides = to_index(lemma.neurons)[None], to_index(lemma.sides)
            signs = np.where(sides[None] == 0, 1.0, -1.0)
            bound, _ = self._neurons(source, np.array([example]), neurons, signs, self._own_tables(example, lemma))
            lower, upper = self.range[source]
            below, above = neurons[0][sides == 0], neurons[0][sides == 1]
            lower[example, below] = np.fmax(lower[example, below], bound[0][sides == 0])
            upper[example, above] = np.fmin(upper[example, above], -bound[0][sides == 1])

    def _relu(self, index: int) -> None:
        """The tables of a ReLU by the rule, and the range of its value."""
        lower, upper = self.before[index]
        self.tables[index] = self.table(index, None, None)
        floor = np.maximum(lower, 0.0)
        if self.rule == "dual":
            unstable = ~(lower >= 0) & ~(upper <= 0)
            width = np.where(unstable, upper - lower, 1.0)
            floor = np.where(unstable, upper * lower / width, floor)
        self.range[index] = (floor, np.maximum(upper, 0.0))

    def table(self, index: int, slopes: Array | None, examples: Index | None) -> Tables:
        """The tables of ReLU ``index``, by the rule or with lower slopes (b, m, n) for some examples."""
        source = self.network.nodes[index].inputs[0]
        lower, upper = self.before[index]
        bias, error = self.folded(source)
        if self.rule == "interval":
            zero = np.zeros_like(lower)
            low, high = np.maximum(lower, 0.0), np.maximum(upper, 0.0)
            slack = 4 * self.network.gamma * (low + high) + TINY
            tables = Tables(zero, zero, low - slack, high + slack)
            if slopes is None or examples is None:
                return tables
            known = (x[examples, None] for x in (lower, upper, bias, error))
            return self._bent(tables.select(examples), slopes, *known)
        unstable = ~(lower >= 0) & ~(upper <= 0)
        s = np.where(unstable, upper / np.where(unstable, upper - lower, 1.0), (lower >= 0).astype(np.float64))
        s = np.clip(s, 0.0, 1.0)
        cut = np.where(unstable, np.maximum(-s * lower, (1 - s) * upper), 0.0)
        reach = np.where(unstable, np.maximum(-lower, upper), 0.0)
        if slopes is not None and examples is not None:
            lower_slope = np.where(unstable[examples, None], slopes, s[examples, None])
            s, cut, reach = s[examples, None], cut[examples, None], reach[examples, None]
            bias, error = bias[examples, None], error[examples, None]
        elif self.rule == "crown":
            rule_slope = self.slope.get(source, (upper >= -lower).astype(np.float64))
            lower_slope = np.where(unstable, rule_slope, s)
        else:
            lower_slope = s
        # An inactive neuron has v = 0 and phi = 0 without any rounding. An unstable one has a cut even at slopes of 0.
        slack = 8 * UNIT * (reach + np.abs(bias) + error) + TINY
        slack = slack + 8 * self.network.gamma * (np.abs(bias) + error + cut)
        charged = (lower_slope + s > 0) | (reach > 0)
        lower_gain = lower_slope * (bias - error) - slack * charged
        upper_gain = s * (bias + error) + cut + slack * charged
        return Tables(lower_slope, np.broadcast_to(s, lower_slope.shape), lower_gain, upper_gain)

    def _bent(self, tables: Tables, slopes: Array, lower: Array, upper: Array, bias: Array, error: Array) -> Tables:
        """Interval arithmetic's tables with lower slopes (b, m, n) for unstable neurons."""
        unstable = ~(lower >= 0) & ~(upper <= 0)
        slack = 8 * UNIT * (np.maximum(-lower, upper) + np.abs(bias) + error) + TINY
        slack = slack + 8 * self.network.gamma * (np.abs(bias) + error)
        low, high = tables.lower_gain[:, None], tables.upper_gain[:, None]
        gain = np.where(unstable, slopes * (bias - error) - slack, low)
        zero = np.zeros_like(slopes)
        return Tables(np.where(unstable, slopes, 0.0), zero, gain, np.broadcast_to(high, slopes.shape))

    def folded(self, source: int) -> tuple[Array, Array]:
        """The bias and error (B, n) that the ReLU reading ``source`` charges; zero where ``source`` does so itself."""
        shape = self.range[source][0].shape
        if source not in self.error or not self.network.is_folded(source):
            return np.zeros(shape), np.zeros(shape)
        return np.broadcast_to(np.asarray(self.network.bias[source]), shape), self.error[source]

    def _own_tables(self, example: int, own: Leaf | Lemma) -> dict[int, Tables]:
        """The tables of one example's rows with what is stored for them; ReLUs without any follow the rule."""
        one = np.array([example])
        local = {k: t.select(one) for k, t in self.tables.items()}
        for slopes in own.slopes:
            if slopes.node in local:
                values = np.repeat(local[slopes.node].lower_slope[:, None], slopes.values.shape[0], axis=1)
                given = np.minimum(to_float(slopes.values) / UNIT_SLOPE, 1.0)
                values[0][:, to_index(slopes.neurons)] = given
                local[slopes.node] = self.table(slopes.node, values, one)
        for duals in own.duals:
            if duals.node in local:
                local[duals.node] = replace(local[duals.node], explicit=self._explicit(example, duals))
        return local

    def _explicit(self, example: int, duals: Duals) -> Explicit:
        """Stored multipliers with the bounds, bias and error of their neurons."""
        source, neurons = self.network.nodes[duals.node].inputs[0], to_index(duals.neurons)
        known = (table[example, neurons][None, None] for table in (*self.before[duals.node], *self.folded(source)))
        values = to_float(duals.values)[None]
        return Explicit(neurons, values, np.ones((1, 1, len(neurons)), bool), *known)

    def claim(self, examples: Index, C: Array, d: Array, own: Leaf | None = None) -> Array:
        """Proved lower bounds of C f(x) + d: C (b, m, n_K), d (b, m) -> (b, m); ``own`` is of a single example."""
        tables = None if own is None else self._own_tables(int(examples[0]), own)
        return self.rows(examples, C, d, tables, self.region.select(examples))

    def rows(self, examples: Index, C: Array, d: Array, tables: dict[int, Tables] | None, region: Region) -> Array:
        """The same by given tables, over a region inside the examples'. A single example serves all of C."""
        score = d - 4 * self.network.gamma * np.abs(d)
        pending: dict[int, Rows] = {len(self.network.nodes) - 1: C.copy()}
        bound, _ = self._propagate(examples, pending, score, score, tables, region=region)
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
                rows *= signs[:, :, None]
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
        region: Region | None = None,
    ) -> tuple[Array, Array]:
        """Carry rows down to the input: the bound, and the bound of the negated rows (valid if ``mirrored``)."""
        net = self.network
        while pending:
            index = max(pending)
            rows, node = pending.pop(index), net.nodes[index]
            if node.kind == "input":
                low, high = (region or self.region.select(examples)).minimum(rows, net.gamma)
            elif node.kind == "relu":
                table = tables[index] if tables is not None else self.tables[index].select(examples)
                rows, low, high = absorb(rows, table, net.gamma, mirrored)
                _add(pending, node.inputs[0], rows)
            else:
                low = high = np.zeros(score.shape)
                if not net.is_folded(index):
                    rows = rows.cropped() if isinstance(rows, Windows) else rows
                    bias = np.broadcast_to(np.asarray(net.bias[index]), self.error[index].shape)[examples]
                    plain, bent = inner(rows, bias, self.error[index][examples])
                    low, high = plain - bent, -plain - bent
                for source, linear in zip(node.inputs, net.maps[index], strict=True):
                    _add(pending, source, _transpose(linear, rows))
            score, mirror = score + low, mirror + high
        tiny = self.underflow[examples][:, None]
        return _finite(score - tiny), _finite(mirror - tiny)


def clamped(lower: Array, upper: Array, phases: NDArray[np.int8]) -> tuple[Array, Array]:
    """A range cut to z >= 0 where the phase is positive and to z <= 0 where it is negative."""
    return np.where(phases > 0, np.fmax(lower, 0.0), lower), np.where(phases < 0, np.fmin(upper, 0.0), upper)


def crossed(lower: Array, upper: Array) -> Flags:
    """Where a finite lower bound lies above a finite upper one, for any of the units of the last axis."""
    found: Flags = np.any((lower > upper) & (np.abs(lower) < np.inf) & (np.abs(upper) < np.inf), axis=-1)
    return found


def _finite(bound: Array) -> Array:
    """A lower bound that overflowed to infinity, or is NaN, proves nothing: it becomes minus infinity."""
    return np.where(bound < np.inf, bound, -np.inf)


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
    pending[index] = total if total is not None else dense(rows) + dense(other)


def _transpose(linear: LinearMap, rows: Rows) -> Rows:
    if isinstance(rows, Windows) and linear.kind in ("conv2d", "diagonal") and rows.shape == linear.out_shape:
        return linear.transpose_windows(rows)
    rows = dense(rows)
    return linear.transpose(rows.reshape(-1, rows.shape[2])).reshape(*rows.shape[:2], -1)


def chunks(mask: Flags, widest: int) -> Iterator[tuple[Index, Index]]:
    """Cut the true entries of a mask (B, n) into pieces: examples (b,), units (b, m), of bounded size."""
    counts = mask.sum(axis=1)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    ranked = np.argsort(~mask, axis=1, kind="stable")
    limit, at = max(1, min(CHUNK_ROWS, CHUNK_ENTRIES // widest)), 0
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
