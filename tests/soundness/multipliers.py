"""Part 4: random multipliers; what the two checkers make of them, and the bound's own formula.

Networks and boxes have few bits, so the exact checker's interval bounds are exact and the rigorous checker's contain
them; and every neuron has a multiplier of few bits, so both use the same. Then the rigorous bound is at most the exact
one, the exact one is the formula's value, and neither is above an output anywhere. Under the other rules intermediate
bounds differ between the checkers: there only the last holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from small_certificates import box, certificate, duals, leaf, rows

from lpverify.certificate import exact, rigorous
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import RULES
from lpverify.serialize import network_bytes
from soundness.layers import Array, Layers, network_of, random_layers
from soundness.report import Given, Tally

ROWS = 100
SHAPES = ((2, 6, 1), (2, 5, 5, 1), (3, 8, 4, 1), (2, 3, 3, 3, 1), (4, 10, 1))
# Of the vectors of a certificate so many are also put into the formula.
BY_FORMULA = 5


def total(given: Given) -> int:
    """Multiplier vectors of the whole part."""
    return 100_000


def run(tally: Tally, items: int, given: Given) -> None:
    """Certificates of ``ROWS`` vectors each: three of four under the interval rule."""
    for seed in range(-(-items // ROWS)):
        if tally.over:
            return
        rule = "interval" if seed % 4 else RULES[1 + (seed // 4) % 3]
        _one(tally, seed, rule)
        tally.done += ROWS


def _one(tally: Tally, seed: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, SHAPES[seed % len(SHAPES)])
    network = network_of(layers)
    inputs = network.input_size
    center, half = (rng.normal(size=inputs) * 8).round() / 8, (1 + rng.integers(0, 8, inputs)) / 8
    lower, upper = center - half, center + half
    scale = rng.choice([0.25, 1.0, 4.0], size=(ROWS, 1))
    tables = [(rng.normal(size=(ROWS, len(bias))) * scale * 8).round() / 8 for _, bias in layers[:-1]]
    plain = parse_network(network_bytes(network))
    own = leaf(range(ROWS), *(duals(2 * k + 2, range(t.shape[1]), t) for k, t in enumerate(tables)))
    proof = certificate(plain, box(lower, upper), rows(np.ones((ROWS, 1)), np.zeros(ROWS)), rule, "real", own)
    rigorously = rigorous.check(rigorous.Network(plain), [proof])[0].margins.tolist()
    exactly = exact.check(convert(plain), proof).margins
    lowest = Fraction(_least_sampled(layers, rng, lower, upper))
    for row, (low, bound) in enumerate(zip(rigorously, exactly, strict=True)):
        where = f"seed {seed}, rule {rule}, row {row}: "
        if not np.isfinite(low):
            tally.counts[f"{rule}: no finite bound"] += 1
            continue
        if Fraction(low) > lowest or bound > lowest:
            tally.accuse(network, f"{where}bounds {low!r} and {float(bound)!r}, but an output is {float(lowest)!r}")
        if rule == "interval" and Fraction(low) > bound:
            tally.accuse(network, f"{where}the rigorous bound {low!r} is above the exact one {float(bound)!r}")
        if rule == "interval" and row < BY_FORMULA:
            if formula(layers, lower, upper, [t[row] for t in tables]) != bound:
                tally.accuse(network, f"{where}the exact checker's {float(bound)!r} is not the formula's value")
            tally.counts[f"{rule}: equal to the formula"] += 1
        tally.counts[f"{rule}: bounds"] += 1


def _least_sampled(layers: Layers, rng: np.random.Generator, lower: Array, upper: Array) -> float:
    """The least output at corners and points between; so few bits that no float64 sum rounds."""
    share = rng.integers(0, 17, (200, len(lower))) / 16
    share[:100] = share[:100].round()
    values = lower + share * (upper - lower)
    for number, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        values = values.clip(min=0) if number < len(layers) - 1 else values
    return float(values.min())


def formula(layers: Layers, lower: Array, upper: Array, v: Sequence[Array]) -> Fraction:
    """B(v) of the one output, by exact interval bounds: the sum of all v.b, of the input's term and of every phi."""
    low, high = _fractions(lower), _fractions(upper)
    ranges = []
    for weight, bias in layers[:-1]:
        matrix, shift = [_fractions(row) for row in weight], _fractions(bias)
        ends = [[b + sum(side(w * p, w * q) for w, p, q in zip(row, low, high, strict=True))
                 for row, b in zip(matrix, shift, strict=True)] for side in (min, max)]  # fmt: skip
        ranges.append(ends)
        low, high = ([max(e, Fraction(0)) for e in end] for end in ends)
    total, following = Fraction(0), [Fraction(1)]
    for k in reversed(range(len(layers))):
        matrix, shift = [_fractions(row) for row in layers[k][0]], _fractions(layers[k][1])
        total += sum(n * b for n, b in zip(following, shift, strict=True))
        w = [sum(n * row[i] for n, row in zip(following, matrix, strict=True)) for i in range(len(matrix[0]))]
        if k == 0:
            return total + sum(min(a * Fraction(p), a * Fraction(q)) for a, p, q in zip(w, lower, upper, strict=True))
        following = _fractions(v[k - 1])
        total += sum(map(_phi, w, following, *ranges[k - 1]))
    raise AssertionError("a network without layers")


def _phi(a: Fraction, n: Fraction, low: Fraction, high: Fraction) -> Fraction:
    ends = [low, high] + ([Fraction(0)] if low < 0 < high else [])
    return min(a * max(z, Fraction(0)) - n * z for z in ends)


def _fractions(values: Array) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]
