"""The exact checker: recomputes a certificate's bounds in integer arithmetic. Standard library only.

A bound of a row w.h over a region, for any vectors v one per ReLU (design: the certificate), is

    constants + min over the region of w_0.x + sum over ReLU neurons of phi(w_i, v_i; l_i, u_i)
    phi(a, n; l, u) = min over z in {l, u} and, if l < 0 < u, 0 of  a max(z, 0) - n z

where w at a node is the sum of what its readers hand down: W^T w through an affine node, v through a ReLU.
v is formed here, rounded as is convenient: a rounding of v loosens the bound and is never unsound. Bounds
[l, u] of pre-activations come from the same rule layer by layer and are rounded outward. Everything else
is exact. With semantics "float32" every affine node may err by E_i in unit i, and |w_i| E_i is taken off.

    python -m lpverify.certificate.exact RUN/

checks RUN/certificates/*.lpcert and RUN/counterexamples/*.lpwit against RUN/network.lpnet; the exit code
is 0, or 7 at the first file that is rejected.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import mul
from pathlib import Path

from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, LabelRows, decimal
from lpverify.certificate.exact_linear import (
    ExactNetwork,
    ExactNode,
    Scaled,
    convert,
    evaluate,
    integers,
    scaled,
    total,
)
from lpverify.certificate.graph import PlainNetwork, read_network
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Slopes, Witness, decode, decode_witness
from lpverify.errors import CertificateError

ROW_BITS = 56  # a multiplier keeps the leading bits of its row's largest entry
SLOPE_BITS = 48
BOUND_BITS = 64  # a layer's bounds keep the leading bits of its largest one
INPUT_BITS = 80
FLOAT32_LIMIT = 2**127

Row = tuple[dict[int, int], int]  # {unit: integer} without most zeros, and their common exponent
Listed = Mapping[int, Mapping[int, int]]  # stored lower slopes by ReLU node and neuron


@dataclass(frozen=True)
class Outcome:
    """What a check found: ``margins`` are the proved lower bounds of the rows (a witness: the row's value)."""

    accepted: bool
    margins: tuple[Fraction, ...]
    message: str


@dataclass(frozen=True, eq=False)
class Range:
    """lower <= value <= upper for every unit of a node, as integers times 2**exponent."""

    lower: list[int]
    upper: list[int]
    exponent: int


@dataclass(frozen=True, eq=False)
class Ball:
    """The l2 or l1 ball that a row is minimised over besides its enclosing box."""

    center: list[int]
    exponent: int
    eps: Fraction
    norm: str


@dataclass(eq=False)
class Neuron:
    """A ReLU neuron: bounds of its pre-activation (in its layer's unit), slopes in units of 2**-SLOPE_BITS."""

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
        errors: for every affine node, E_i of semantics "float32"; empty in "real".
    """

    network: ExactNetwork
    rule: str
    float32: bool
    ball: Ball | None
    ranges: list[Range] = field(default_factory=list)
    steep: dict[int, list[bool]] = field(default_factory=dict)
    layers: dict[int, tuple[list[Neuron], int]] = field(default_factory=dict)
    errors: dict[int, Scaled] = field(default_factory=dict)


class _NoBoundError(Exception):
    """No bound exists: float32 evaluation may overflow, or the region is empty."""


def check(network: PlainNetwork | ExactNetwork, certificate: Certificate) -> Outcome:
    """Recompute the certificate's bounds exactly; accepted if every row's bound is above zero.

    Args:
        network: as parsed, or from ``convert`` where several certificates of one network are checked.

    Raises:
        CertificateError: if the certificate refers to nodes or neurons that the network does not have.
    """
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, certificate.network, certificate.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    lemmas = certificate.lemmas
    _require_relus(exact, certificate.leaf.slopes)
    for lemma in lemmas:
        _require_relus(exact, (*lemma.slopes, Slopes(lemma.node, lemma.neurons, lemma.neurons)))
    try:
        state = _root(exact, certificate)
    except _NoBoundError as error:
        return Outcome(False, (), str(error))
    own = dict(zip(certificate.leaf.rows.values(), _listed(certificate.leaf.slopes, certificate.leaf.rows.shape[0])))
    margins = tuple(
        bound + _bound(state, len(exact.nodes) - 1, row, own.get(index, {}))
        for index, (row, bound) in enumerate(_rows(certificate.claim))
    )
    failed = next((index for index, margin in enumerate(margins) if not margin > 0), None)
    if failed is not None:
        return Outcome(False, margins, f"row {failed}: the bound {_nearest(margins[failed])!r} is not above 0")
    least = f", the least bound {_nearest(min(margins))!r}" if margins else ""
    return Outcome(True, margins, f"all {len(margins)} rows proved{least}")


def check_witness(network: PlainNetwork | ExactNetwork, witness: Witness) -> Outcome:
    """Whether the witness lies in the exact region and its row's exact value is the recorded one and <= 0."""
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, witness.network, witness.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    if not all(map(math.isfinite, witness.x.values())):
        return Outcome(False, (), "the point has an input that is not finite")
    x = [Fraction(value) for value in witness.x.values()]
    outside = _outside(witness.claim.region, x)
    if outside:
        return Outcome(False, (), outside)
    (whole, exponent), margin = list(_rows(witness.claim))[witness.row]
    outputs = evaluate(exact, x)
    margin += sum((scaled(n, exponent) * outputs[unit] for unit, n in whole.items()), Fraction(0))
    if not margin <= 0:
        return Outcome(False, (margin,), f"row {witness.row} holds at the point: its value is {_nearest(margin)!r}")
    if _nearest(margin) != witness.margin:
        return Outcome(False, (margin,), f"the margin is {_nearest(margin)!r}, recorded is {witness.margin!r}")
    return Outcome(True, (margin,), f"row {witness.row} fails at the point: its value is {_nearest(margin)!r}")


def _mismatch(network: ExactNetwork, sha256: str, claim: Claim) -> str:
    if sha256 != network.sha256:
        return f"made for network {sha256[:16]!r}, not for this one, {network.sha256[:16]!r}"
    have, want = (claim.inputs, claim.outputs), (network.nodes[0].size, network.nodes[-1].size)
    return "" if have == want else f"the claim has (inputs, outputs) {have}, the network {want}"


def _require_relus(network: ExactNetwork, slopes: Sequence[Slopes]) -> None:
    for entry in slopes:
        if entry.node >= len(network.nodes) or network.nodes[entry.node].kind != "relu":
            raise CertificateError(f"certificate: node {entry.node} is not a ReLU of the network")
        if max(entry.neurons.values(), default=0) >= network.nodes[entry.node].size:
            raise CertificateError(f"certificate: node {entry.node} has only {network.nodes[entry.node].size} neurons")


def _rows(claim: Claim) -> Iterator[tuple[Row, Fraction]]:
    """The claim's rows and their constants."""
    if isinstance(claim.rows, LabelRows):
        label = claim.rows.label
        for other in range(claim.rows.classes):
            if other != label:
                yield ({label: 1, other: -1}, 0), Fraction(0)
        return
    entries, width = claim.rows.C.values(), claim.rows.C.shape[1]
    for index, constant in enumerate(claim.rows.d.values()):
        whole, exponent = integers(entries[index * width : (index + 1) * width])
        yield ({unit: n for unit, n in enumerate(whole) if n}, exponent), Fraction(constant)


def _listed(slopes: Sequence[Slopes], rows: int) -> list[Listed]:
    """For each of the rows, its stored lower slopes."""
    tables = [(s.node, s.neurons.values(), s.values.values()) for s in slopes]
    return [
        {node: dict(zip(neurons, values[r * len(neurons) : (r + 1) * len(neurons)])) for node, neurons, values in tables}
        for r in range(rows)
    ]


def _ends(region: BallRegion | BoxRegion) -> list[tuple[Fraction, Fraction]]:
    """The exact ends of every input over the region's enclosing box."""
    if isinstance(region, BoxRegion):
        return [(Fraction(a), Fraction(b)) for a, b in zip(region.lower.values(), region.upper.values())]
    eps, center = decimal(region.eps), [Fraction(c) for c in region.center.values()]
    if region.clip is None:
        return [(c - eps, c + eps) for c in center]
    low, high = map(decimal, region.clip)
    return [(max(c - eps, low), min(c + eps, high)) for c in center]


def _outside(region: BallRegion | BoxRegion, x: list[Fraction]) -> str:
    """Why x is not in the region; empty if it is."""
    for index, (value, (low, high)) in enumerate(zip(x, _ends(region))):
        if not low <= value <= high:
            return f"input {index} of the point lies outside the region"
    if isinstance(region, BoxRegion) or region.norm == "inf":
        return ""
    offsets, eps = [abs(a - Fraction(c)) for a, c in zip(x, region.center.values())], decimal(region.eps)
    inside = sum(offsets) <= eps if region.norm == "1" else sum(o * o for o in offsets) <= eps * eps
    return "" if inside else f"the point lies outside the l{region.norm} ball"


def _root(network: ExactNetwork, certificate: Certificate) -> State:
    """Bounds of every node over the region, with the certificate's lemmas; raises _NoBoundError."""
    region = certificate.claim.region
    ball = None
    if isinstance(region, BallRegion) and region.norm != "inf":
        ball = Ball(*integers(region.center.values()), decimal(region.eps), region.norm)
    state = State(network, certificate.rule, certificate.semantics == "float32", ball)
    if state.float32 and not network.single:
        raise _NoBoundError("semantics float32: the network has parameters that are not float32")
    feeds_relu = {node.inputs[0] for node in network.nodes if node.kind == "relu"}
    for index, node in enumerate(network.nodes):
        if node.kind == "input":
            state.ranges.append(_input_range(_ends(region)))
        elif node.kind == "affine":
            interval = _interval(state, index, node)
            from_box = ball is None and node.inputs in ((), (0,))
            refine = index in feeds_relu and state.rule != "interval" and not from_box
            state.ranges.append(_refined(state, index, interval) if refine else interval)
            state.steep.setdefault(index, _steep(interval))
        else:
            _relu(state, index, node, certificate)
    return state


def _input_range(ends: list[tuple[Fraction, Fraction]]) -> Range:
    """The enclosing box, rounded outward to INPUT_BITS bits of its largest end."""
    for index, (low, high) in enumerate(ends):
        if not low <= high:
            raise _NoBoundError(f"input {index}: the region is empty: clip leaves nothing of the ball")
    sizes = [f.numerator.bit_length() - f.denominator.bit_length() for pair in ends for f in pair if f]
    exponent = max(sizes, default=0) + 1 - INPUT_BITS
    step = scaled(1, -exponent)
    return Range([math.floor(low * step) for low, _ in ends], [math.ceil(high * step) for _, high in ends], exponent)


def _interval(state: State, index: int, node: ExactNode) -> Range:
    """Interval arithmetic through an affine node, rounded outward; notes E_i if float32 is meant."""
    lows: list[Scaled] = [(node.bias, node.exponent)]
    highs = list(lows)
    for source, matrix in zip(node.inputs, node.maps, strict=True):
        known = state.ranges[source]
        twice = matrix.apply([low + high for low, high in zip(known.lower, known.upper)])
        width = matrix.apply([high - low for low, high in zip(known.lower, known.upper)], magnitude=True)
        exponent = known.exponent + matrix.exponent - 1
        lows.append(([a - b for a, b in zip(twice, width)], exponent))
        highs.append(([a + b for a, b in zip(twice, width)], exponent))
    if state.float32:
        error, exponent = state.errors[index] = _rounding_error(state, index, node)
        lows.append(([-e for e in error], exponent))
        highs.append((error, exponent))
    (lower, exponent), (upper, _) = total(lows), total(highs)
    drop = max(0, max(map(abs, lower + upper), default=0).bit_length() - BOUND_BITS)
    return Range([low >> drop for low in lower], [-(-high >> drop) for high in upper], exponent + drop)


def _rounding_error(state: State, index: int, node: ExactNode) -> Scaled:
    """E_i = gamma_(n+1) (|W| H + |b|)_i + (n + 1) 2^-149 for sums of n products and a bias in any order."""
    sizes: list[Scaled] = [([abs(n) for n in node.bias], node.exponent)]
    for source, matrix in zip(node.inputs, node.maps, strict=True):
        known = state.ranges[source]
        largest = [max(-low, high, 0) for low, high in zip(known.lower, known.upper)]
        sizes.append((matrix.apply(largest, magnitude=True), known.exponent + matrix.exponent))
    whole, unit = total([*sizes, ([0] * node.size, -149)])
    count = 1 + sum(matrix.terms for matrix in node.maps)
    if count >= 2**24:
        raise _NoBoundError(f"node {index}: sums of {count} terms are too long for a float32 bound")
    errors = [-(-n * count // (2**24 - count)) + (count << -149 - unit) for n in whole]
    if any(n + e >= FLOAT32_LIMIT << -unit for n, e in zip(whole, errors)):
        raise _NoBoundError(f"node {index}: float32 evaluation may overflow")
    return errors, unit


def _refined(state: State, index: int, interval: Range) -> Range:
    """The interval's bounds with those of the backward pass at every neuron that it leaves unstable."""
    step = scaled(1, -interval.exponent)
    raw = Range(list(interval.lower), list(interval.upper), interval.exponent)
    for unit, (low, high) in enumerate(zip(interval.lower, interval.upper)):
        if low < 0 < high:
            raw.lower[unit] = math.floor(_bound(state, index, ({unit: 1}, 0), {}) * step)
            raw.upper[unit] = -math.floor(_bound(state, index, ({unit: -1}, 0), {}) * step)
    state.steep[index] = _steep(raw)
    if state.rule == "dual":
        return raw
    lower, upper = map(max, raw.lower, interval.lower), map(min, raw.upper, interval.upper)
    return Range(list(lower), list(upper), interval.exponent)


def _steep(known: Range) -> list[bool]:
    """CROWN's choice: the lower slope is 1 where that leaves the smaller triangle."""
    return [high >= -low for low, high in zip(known.lower, known.upper)]


def _relu(state: State, index: int, node: ExactNode, certificate: Certificate) -> None:
    """The neurons of a ReLU, their bounds tightened by the lemmas; and its range."""
    known = state.ranges[node.inputs[0]]
    steep = state.steep.get(node.inputs[0]) or _steep(known)
    lower, upper, step = list(known.lower), list(known.upper), scaled(1, -known.exponent)
    for lemma in certificate.lemmas:
        if lemma.node != index:
            continue
        neurons, sides = lemma.neurons.values(), lemma.sides.values()
        for unit, side, own in zip(neurons, sides, _listed(lemma.slopes, len(neurons)), strict=True):
            proved = math.floor(_bound(state, node.inputs[0], ({unit: -1 if side else 1}, 0), own) * step)
            if side:
                upper[unit] = min(upper[unit], -proved)
            else:
                lower[unit] = max(lower[unit], proved)
    neurons_ = [_neuron(state.rule, low, high, one) for low, high, one in zip(lower, upper, steep)]
    state.layers[index] = neurons_, known.exponent
    below = [max(low, 0) for low in lower]
    if state.rule == "dual":  # the dual's own relaxation: relu(z) >= s z
        below = [n.lower * n.above >> SLOPE_BITS if n.lower < 0 < n.upper else b for n, b in zip(neurons_, below)]
    state.ranges.append(Range(below, [max(high, 0) for high in upper], known.exponent))


def _neuron(rule: str, low: int, high: int, steep: bool) -> Neuron:
    one = 1 << SLOPE_BITS
    if rule == "interval" or (high <= 0 and low < 0):
        return Neuron(low, high, 0, 0)
    if low >= 0:
        return Neuron(low, high, one, one)
    slope = high * one // (high - low)
    return Neuron(low, high, one * steep if rule == "crown" else slope, slope)


def _bound(state: State, index: int, row: Row, own: Listed) -> Fraction:
    """A lower bound of the row's inner product with the value of node ``index``: one backward pass."""
    bound, pending = Fraction(0), {index: row}
    while pending:
        at = max(pending)
        entries, exponent = pending.pop(at)
        node = state.network.nodes[at]
        if node.kind == "input":
            bound += _minimum(state, entries, exponent)
        elif node.kind == "relu":
            (entries, exponent), gain = _absorb(*state.layers[at], entries, exponent, own.get(at, {}))
            bound += gain
            _add(pending, node.inputs[0], entries, exponent)
        else:
            bound += scaled(sum(n * node.bias[unit] for unit, n in entries.items()), exponent + node.exponent)
            if state.float32 and at in state.errors:
                errors, unit_exponent = state.errors[at]
                loss = sum(abs(n) * errors[unit] for unit, n in entries.items())
                bound -= scaled(loss, exponent + unit_exponent)
            for source, matrix in zip(node.inputs, node.maps, strict=True):
                _add(pending, source, matrix.transpose(entries), exponent + matrix.exponent)
    return bound


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
    neurons: list[Neuron], unit: int, entries: dict[int, int], exponent: int, own: Mapping[int, int]
) -> tuple[Row, Fraction]:
    """Form v from w at a ReLU; returns v and the sum of phi(w_i, v_i; l_i, u_i)."""
    drop = max(0, max(map(abs, entries.values()), default=0).bit_length() - ROW_BITS)
    row, gain, fine = {}, 0, SLOPE_BITS + drop
    stored = (1 << SLOPE_BITS) // UNIT_SLOPE
    for i, a in entries.items():
        neuron = neurons[i]
        low, high = neuron.lower, neuron.upper
        if high <= 0 and not neuron.below:
            continue  # inactive: v = 0, and phi(w, 0) = 0
        slope = neuron.below if a > 0 else neuron.above
        if a > 0 and low < 0 < high and i in own:
            slope = own[i] * stored
        v = a * slope >> fine
        n = v << drop
        if low < 0 < high:
            gain += min(-n * low, (a - n) * high, 0)
        elif low >= 0:
            gain += min((a - n) * low, (a - n) * high)
        else:
            gain += min(-n * low, -n * high)
        if v:
            row[i] = v
    return (row, exponent + drop), scaled(gain, exponent + unit)


def _minimum(state: State, entries: dict[int, int], exponent: int) -> Fraction:
    """A lower bound of the row over the region: the box's minimum, and the ball's where that is better."""
    box = state.ranges[0]
    least = sum(n * (box.lower[i] if n > 0 else box.upper[i]) for i, n in entries.items())
    over_box = scaled(least, exponent + box.exponent)
    if state.ball is None:
        return over_box
    ball = state.ball
    middle = scaled(sum(n * ball.center[i] for i, n in entries.items()), exponent + ball.exponent)
    if ball.norm == "1":
        norm = scaled(max(map(abs, entries.values()), default=0), exponent)
    else:
        square = sum(map(mul, entries.values(), entries.values())) << 128
        root = math.isqrt(square)
        norm = scaled(root + (root * root < square), exponent - 64)
    return max(over_box, middle - ball.eps * norm)


def _nearest(value: Fraction) -> float:
    """The float64 nearest to a fraction; infinite beyond the range."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def main(argv: Sequence[str] | None = None) -> int:
    """Check every file of a run; prints a line each and a summary; returns 0, 2 for misuse, or 7."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m lpverify.certificate.exact RUN/", file=sys.stderr)
        return 2
    run, counts = Path(arguments[0]), {"lpcert": 0, "lpwit": 0}
    try:
        network = convert(read_network(run / "network.lpnet"))
        for path in [*sorted(run.glob("certificates/*.lpcert")), *sorted(run.glob("counterexamples/*.lpwit"))]:
            outcome = _check_file(network, path)
            print(f"{path.name}: {'accepted' if outcome.accepted else 'REJECTED'}: {outcome.message}", flush=True)
            if not outcome.accepted:
                raise CertificateError(f"{path}: {outcome.message}")
            counts[path.suffix[1:]] += 1
    except CertificateError as error:
        print(f"rejected: {error}", file=sys.stderr)
        return CertificateError.exit_code
    print(f"{counts['lpcert']} certificates and {counts['lpwit']} counterexamples accepted in exact arithmetic")
    return 0


def _check_file(network: ExactNetwork, path: Path) -> Outcome:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".lpcert":
        return check(network, decode(data, str(path)))
    return check_witness(network, decode_witness(data, str(path)))


if __name__ == "__main__":
    sys.exit(main())
