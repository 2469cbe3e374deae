"""Bounds over a region in exact arithmetic: intervals forward, multipliers backward. Standard library only.

A lower bound of a row w.h over a region, for any vectors v, one per ReLU (Wong & Kolter 2018, theorem 1):

    constants + min over the region of w_0.x + sum over ReLU neurons of phi(w_i, v_i; l_i, u_i)
    phi(a, n; l, u) = min over z in {l, u} and, if l < 0 < u, 0 of  a max(z, 0) - n z

where w at a node is the sum of what its readers hand down: W^T w through an affine node, v through a ReLU.
At a ReLU w is rounded down: that takes from the row's value, since relu(z) >= 0. v is formed here from slopes, or is a
stored multiplier; either is rounded as is convenient, and the rounded v is used throughout: its rounding loosens the
bound and is never unsound. Bounds [l, u] of pre-activations come from the same rule layer by layer and are rounded
outward. All else is exact. With semantics "float32" every affine node may err by E_i in unit i, and |w_i| E_i is
taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import add, sub
from typing import Any, NamedTuple

from lpverify.certificate.exact_linear import ExactNetwork, ExactNode, Scaled, scaled, total
from lpverify.certificate.exact_region import ExactRegion, NoBoundError, Range, convert_region
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Duals, Leaf, Lemma, Slopes

ROW_BITS = 60  # a row keeps about so many leading bits of the largest entry of w and of its multipliers
SHORT = 12  # a row of w has at least ROW_BITS - SHORT of them, so that slopes change the last bits only
SLOPE_BITS = 48
UNIT = 1 << SLOPE_BITS
STORED_UNIT = 2**SLOPE_BITS // UNIT_SLOPE
BOUND_BITS = 64  # a layer's bounds keep the leading bits of its largest one
FLOAT32_LIMIT = 2**127

Row = tuple[dict[int, int], int]  # {unit: integer} without most zeros, and their common exponent


class Own(NamedTuple):
    """What is stored for one row, by ReLU node and neuron: slopes in units of 1 / UNIT_SLOPE, and multipliers."""

    slopes: Mapping[int, Mapping[int, int]]
    duals: Mapping[int, Mapping[int, float]]


RULE_ONLY = Own({}, {})


class Neuron(NamedTuple):
    """A ReLU neuron: bounds of its pre-activation in its layer's unit, slopes in units of 2**-SLOPE_BITS.

    ``below`` is v/w where w > 0, ``above`` where w < 0.
    """

    lower: int
    upper: int
    below: int
    above: int


@dataclass(frozen=True, eq=False)
class State:
    """What is known so far, node by node in order.

    Attributes:
        ranges: bounds of every node's value.
        steep: for every affine node, whether CROWN's lower slope is 1 at each unit.
        layers: for every ReLU node, its neurons and the exponent of their bounds.
        dead: for every ReLU node, the neurons where v = 0 by the rule, and so is phi.
        bent: for every ReLU node, the neurons where v is neither 0 nor w by the rule.
        errors: for every affine node, E_i of semantics "float32"; empty in "real".
    """

    network: ExactNetwork
    rule: str
    float32: bool
    region: ExactRegion
    ranges: list[Range] = field(default_factory=list)
    steep: dict[int, list[bool]] = field(default_factory=dict)
    layers: dict[int, tuple[list[Neuron], int]] = field(default_factory=dict)
    dead: dict[int, frozenset[int]] = field(default_factory=dict)
    bent: dict[int, dict[int, Neuron]] = field(default_factory=dict)
    errors: dict[int, Scaled] = field(default_factory=dict)


def root_state(network: ExactNetwork, certificate: Certificate) -> State:
    """Bounds of every node over the region by the certificate's rule and lemmas; raises NoBoundError."""
    region = convert_region(certificate.claim.region)
    state = State(network, certificate.rule, certificate.semantics == "float32", region)
    if state.float32 and not network.single:
        raise NoBoundError("semantics float32: the network has parameters that are not float32")
    feeds_relu = {node.inputs[0] for node in network.nodes if node.kind == "relu"}
    for index, node in enumerate(network.nodes):
        if node.kind == "input":
            state.ranges.append(region.box)
        elif node.kind == "affine":
            known = interval(state, index, node)
            if index in feeds_relu and gains_by_refining(state, node):
                known = refined(state, index, known, unstable(known))
            state.ranges.append(known)
        else:
            _relu(state, index, node, [lemma for lemma in certificate.lemmas if lemma.node == index])
    return state


def gains_by_refining(state: State, node: ExactNode) -> bool:
    """Whether the rule takes a backward pass from this affine node: over a box an interval is exact at the first."""
    return state.rule != "interval" and not (state.region.ball is None and node.inputs in ((), (0,)))


def unstable(known: Range) -> list[int]:
    """The units whose bounds lie on both sides of 0."""
    return [unit for unit, (low, high) in enumerate(zip(known.lower, known.upper, strict=True)) if low < 0 < high]


def interval(state: State, index: int, node: ExactNode) -> Range:
    """Interval arithmetic through an affine node, rounded outward; notes the slopes, and E_i if float32 is meant."""
    middle: list[Scaled] = [(node.bias, node.exponent)]
    radius: list[Scaled] = [([0] * node.size, 0)]
    for source, matrix in zip(node.inputs, node.maps, strict=True):
        known = state.ranges[source]
        exponent = known.exponent + matrix.exponent - 1
        middle.append((matrix.apply_often(list(map(add, known.lower, known.upper))), exponent))
        radius.append((matrix.apply_often(list(map(sub, known.upper, known.lower)), magnitude=True), exponent))
    if state.float32:
        state.errors[index] = _rounding_error(state, index, node)
        radius.append(state.errors[index])
    away, exponent = total(radius)
    (lower, unit), (upper, _) = total([*middle, ([-r for r in away], exponent)]), total([*middle, (away, exponent)])
    drop = max(0, max(map(abs, lower + upper), default=0).bit_length() - BOUND_BITS)
    found = Range([low >> drop for low in lower], [-(-high >> drop) for high in upper], unit + drop)
    state.steep[index] = _steep(found)
    return found


def _rounding_error(state: State, index: int, node: ExactNode) -> Scaled:
    """E_i = gamma_(n+1) (|W| H + |b|)_i + (n + 1) 2^-149 for sums of n products and a bias in any order."""
    sizes: list[Scaled] = [([abs(n) for n in node.bias], node.exponent)]
    for source, matrix in zip(node.inputs, node.maps, strict=True):
        known = state.ranges[source]
        largest = [max(-low, high, 0) for low, high in zip(known.lower, known.upper, strict=True)]
        sizes.append((matrix.apply(largest, magnitude=True), known.exponent + matrix.exponent))
    whole, unit = total([*sizes, ([0] * node.size, -149)])
    count = 1 + sum(matrix.terms for matrix in node.maps)
    if count >= 2**24:
        raise NoBoundError(f"node {index}: sums of {count} terms are too long for a float32 bound")
    errors = [-(-n * count // (2**24 - count)) + (count << -149 - unit) for n in whole]
    if any(n + e >= FLOAT32_LIMIT << -unit for n, e in zip(whole, errors, strict=True)):
        raise NoBoundError(f"node {index}: float32 evaluation may overflow")
    return errors, unit


def refined(state: State, index: int, known: Range, units: Sequence[int], *, both: bool = True) -> Range:
    """The bounds of affine node ``index`` with those of the backward pass at ``units``; notes the slopes.

    Unless ``both`` are wanted, the second bound of a unit is left where the first shows that its sign is fixed.
    """
    step = scaled(1, -known.exponent)
    raw = Range(list(known.lower), list(known.upper), known.exponent)
    for unit in units:
        upper_first = known.upper[unit] < -known.lower[unit]
        for upper in (upper_first, not upper_first):
            bound = math.floor(lower_bound(state, index, ({unit: -1 if upper else 1}, 0)) * step)
            if upper:
                raw.upper[unit] = -bound
            else:
                raw.lower[unit] = bound
            if bound >= 0 and not both:
                break
    state.steep[index] = _steep(raw)
    if state.rule == "dual":
        return raw
    return Range(list(map(max, raw.lower, known.lower)), list(map(min, raw.upper, known.upper)), known.exponent)


def _steep(known: Range) -> list[bool]:
    """CROWN's choice: the lower slope is 1 where that leaves the smaller triangle."""
    return [high >= -low for low, high in zip(known.lower, known.upper, strict=True)]


def _relu(state: State, index: int, node: ExactNode, lemmas: Sequence[Lemma]) -> None:
    """Set the neurons of a ReLU, their bounds tightened by the lemmas about it, and its range."""
    source = node.inputs[0]
    known = state.ranges[source]
    lower, upper, step = list(known.lower), list(known.upper), scaled(1, -known.exponent)
    for lemma in lemmas:
        units, sides = lemma.neurons.values(), lemma.sides.values()
        for unit, side, own in zip(units, sides, listed(lemma, len(units)), strict=True):
            proved = math.floor(lower_bound(state, source, ({unit: -1 if side else 1}, 0), own) * step)
            if side:
                upper[unit] = min(upper[unit], -proved)
            else:
                lower[unit] = max(lower[unit], proved)
    set_neurons(state, index, Range(lower, upper, known.exponent))


def set_neurons(state: State, index: int, known: Range) -> None:
    """Set the neurons of ReLU node ``index``, whose pre-activations lie in ``known``, and its range."""
    source = state.network.nodes[index].inputs[0]
    steep = state.steep.get(source, _steep(known))
    neurons = [_neuron(state.rule, *each) for each in zip(known.lower, known.upper, steep, strict=True)]
    state.layers[index] = neurons, known.exponent
    state.dead[index] = frozenset(i for i, n in enumerate(neurons) if n.upper <= 0 and not n.below)
    state.bent[index] = {
        i: n for i, n in enumerate(neurons) if not n.below == n.above == UNIT and i not in state.dead[index]
    }
    below = [max(low, 0) for low in known.lower]
    if state.rule == "dual":  # as published: the range of the dual's own relaxation, relu(z) >= s z
        below = [n.lower * n.above >> SLOPE_BITS if n.lower < 0 < n.upper else max(n.lower, 0) for n in neurons]
    state.ranges.append(Range(below, [max(high, 0) for high in known.upper], known.exponent))


def _neuron(rule: str, low: int, high: int, steep: bool) -> Neuron:
    if rule == "interval" or (high <= 0 and low < 0):
        return Neuron(low, high, 0, 0)
    if low >= 0:
        return Neuron(low, high, UNIT, UNIT)
    slope = high * UNIT // (high - low)
    return Neuron(low, high, UNIT * steep if rule == "crown" else slope, slope)


def lower_bound(state: State, index: int, row: Row, own: Own = RULE_ONLY) -> Fraction:
    """A lower bound of the row's inner product with the value of node ``index``: one backward pass.

    The row's stored slopes count at neurons that are unstable here, its stored multipliers at every one.
    """
    bound, parts, pending = Fraction(0), list[tuple[int, int]](), {index: row}  # parts: integers and their exponents
    while pending:
        at = max(pending)
        entries, exponent = pending.pop(at)
        node = state.network.nodes[at]
        if node.kind == "input":
            bound += state.region.minimum(entries, exponent)
        elif node.kind == "relu":
            given = own.slopes.get(at, {}), own.duals.get(at, {})
            (entries, exponent), gain = _absorb(state, at, entries, exponent, *given)
            parts.append(gain)
            _add(pending, node.inputs[0], entries, exponent)
        else:
            parts.append((sum([n * node.bias[unit] for unit, n in entries.items()]), exponent + node.exponent))
            if state.float32:
                errors, unit_exponent = state.errors[at]
                loss = sum(abs(n) * errors[unit] for unit, n in entries.items())
                parts.append((-loss, exponent + unit_exponent))
            for source, matrix in zip(node.inputs, node.maps, strict=True):
                if state.network.nodes[source].kind == "relu":
                    lower, shift = matrix.transpose_down(entries)
                    _add(pending, source, lower, exponent + matrix.exponent + shift)
                else:
                    _add(pending, source, matrix.transpose(entries), exponent + matrix.exponent)
    least = min((exponent for _, exponent in parts), default=0)
    return bound + scaled(sum(n << exponent - least for n, exponent in parts), least)


def _add(pending: dict[int, Row], index: int, entries: dict[int, int], exponent: int) -> None:
    """Add a row to what waits at node ``index``."""
    if index not in pending:
        pending[index] = entries, exponent
        return
    other, unit = pending[index]
    least = min(exponent, unit)
    joint = {u: n << (unit - least) for u, n in other.items()}
    for u, n in entries.items():
        joint[u] = joint.get(u, 0) + (n << (exponent - least))
    pending[index] = joint, least


def _absorb(
    state: State,
    index: int,
    entries: dict[int, int],
    exponent: int,
    slopes: Mapping[int, int],
    duals: Mapping[int, float],
) -> tuple[Row, tuple[int, int]]:
    """Form v from w at a ReLU; returns v and, as an integer and its exponent, the sum of phi(w_i, v_i; l_i, u_i)."""
    drop = _leading(entries, exponent, duals) - ROW_BITS - exponent
    if drop < -SHORT:
        entries, exponent = {i: a << -drop for i, a in entries.items()}, exponent + drop
    drop, whole = max(drop, 0), entries
    if drop:
        entries = {i: a >> drop for i, a in entries.items()}
    neurons, unit = state.layers[index]
    dead, bent, gain = state.dead[index], state.bent[index], 0
    row = {i: a for i, a in entries.items() if i not in dead}  # where v = w, phi is 0
    for i in bent.keys() & row.keys():
        if i in duals:
            continue
        low, high, below, above = bent[i]
        a = row[i]
        if a > 0:
            v = a * (slopes[i] * STORED_UNIT if i in slopes and low < 0 else below) >> SLOPE_BITS
        else:
            v = a * above >> SLOPE_BITS
        if v:
            row[i] = v
        else:
            del row[i]
        if a < 0 or low >= 0:  # else 0 <= v <= a, and phi is 0
            gain += _phi(a, v, low, high)
    gain <<= drop
    for i, value in duals.items():
        row[i] = v = _whole(value, exponent + drop)
        gain += _phi(whole.get(i, 0), v << drop, *neurons[i][:2])  # here w need not be rounded
    return (row, exponent + drop), (gain, exponent + unit)


def _phi(a: int, n: int, low: int, high: int) -> int:
    """The least value of a max(z, 0) - n z for z in [low, high]."""
    if low >= 0:
        return min((a - n) * low, (a - n) * high)
    return min(-n * low, -n * high) if high <= 0 else min(-n * low, (a - n) * high, 0)


def _leading(entries: dict[int, int], exponent: int, duals: Mapping[int, float]) -> int:
    """The exponent of the least power of two above every entry of w and every stored multiplier, if any is not 0."""
    w, v = max(map(abs, entries.values()), default=0), max(map(abs, duals.values()), default=0.0)
    found = [w.bit_length() + exponent] * bool(w) + [math.frexp(v)[1]] * bool(v)
    return max(found, default=exponent)


def _whole(value: float, exponent: int) -> int:
    """A finite float in units of 2**exponent, rounded down."""
    numerator, denominator = value.as_integer_ratio()
    shift = exponent + denominator.bit_length() - 1
    return numerator >> shift if shift >= 0 else numerator << -shift


def listed(tables: Leaf | Lemma, rows: int) -> Iterator[Own]:
    """What is stored for each of the rows in turn."""
    slopes, duals = _flat(tables.slopes), _flat(tables.duals)
    for row in range(rows):
        yield Own(_entries(slopes, row), _entries(duals, row))


def _flat(tables: Sequence[Slopes] | Sequence[Duals]) -> list[tuple[int, Sequence[int], Sequence[Any]]]:
    return [(table.node, table.neurons.values(), table.values.values()) for table in tables]


def _entries(tables: list[tuple[int, Sequence[int], Sequence[Any]]], row: int) -> dict[int, dict[int, Any]]:
    """Row ``row`` of each table, by node and neuron."""
    return {
        node: dict(zip(neurons, values[row * len(neurons) : (row + 1) * len(neurons)], strict=True))
        for node, neurons, values in tables
    }
