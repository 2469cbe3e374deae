"""Part 5: relations between questions; verdicts must not contradict each other.

``verified`` of one and ``falsified`` of the other is wrong where both mean the same; an ``unknown`` is none. All
changes are exact: weights have few bits, and factors are powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from lpverify.result import Verdict
from soundness.judging import Case, ask, decimal_text, rational_forward
from soundness.layers import Array, Layers, network_of, random_layers, with_constant
from soundness.report import Given, Tally

VERIFIED, FALSIFIED = Verdict.VERIFIED, Verdict.FALSIFIED
ENGINES = ("auto", "crown", "lp", "milp")
SHAPES = ((2, 6, 5, 3), (3, 7, 4, 2), (2, 4, 4, 4, 2), (4, 8, 3))
Change = Callable[[Layers, np.random.Generator], Layers]


def total(given: Given) -> int:
    """Networks of the whole part."""
    return 120


def rescaled(layers: Layers, rng: np.random.Generator) -> Layers:
    """A hidden layer times 2^k, the next one's weights times 2^-k."""
    at, factor = int(rng.integers(len(layers) - 1)), 2.0 ** int(rng.choice([-40, -20, -10, 10, 20, 40]))
    changed = list(layers)
    changed[at] = (layers[at][0] * factor, layers[at][1] * factor)
    changed[at + 1] = (layers[at + 1][0] / factor, layers[at + 1][1])
    return changed


def permuted(layers: Layers, rng: np.random.Generator) -> Layers:
    """The neurons of every hidden layer in another order."""
    changed = list(layers)
    for at in range(len(layers) - 1):
        order = rng.permutation(len(changed[at][1]))
        changed[at] = (changed[at][0][order], changed[at][1][order])
        changed[at + 1] = (changed[at + 1][0][:, order], changed[at + 1][1])
    return changed


def doubled(layers: Layers, rng: np.random.Generator) -> Layers:
    """A hidden neuron twice, each with half of its outgoing weights."""
    at = int(rng.integers(len(layers) - 1))
    neuron = int(rng.integers(len(layers[at][1])))
    outgoing = layers[at + 1][0].copy()
    outgoing[:, neuron] /= 2
    return _added(layers, at, layers[at][0][neuron], layers[at][1][neuron], outgoing, outgoing[:, neuron])


def dead(layers: Layers, rng: np.random.Generator) -> Layers:
    """A hidden neuron more that is never above 0 on inputs of this size."""
    at = int(rng.integers(len(layers) - 1))
    weight, outgoing = layers[at][0], layers[at + 1][0]
    return _added(layers, at, np.ones(weight.shape[1]), -1e4, outgoing, np.full(len(outgoing), 3.0))


def _added(layers: Layers, at: int, row: Array, bias: float, outgoing: Array, column: Array) -> Layers:
    changed = list(layers)
    changed[at] = (np.vstack([layers[at][0], row]), np.append(layers[at][1], bias))
    changed[at + 1] = (np.column_stack([outgoing, column]), layers[at + 1][1])
    return changed


def with_identity(layers: Layers, rng: np.random.Generator) -> Layers:
    """A layer more before the last: t = relu(t) - relu(-t) of its outputs."""
    weight, bias = layers[-1]
    eye = np.eye(len(bias))
    return [*layers[:-1], (np.vstack([weight, -weight]), np.append(bias, -bias)), (np.hstack([eye, -eye]), 0 * bias)]


def reordered(layers: Layers, rng: np.random.Generator) -> Layers:
    """The outputs in another order."""
    order = rng.permutation(len(layers[-1][1]))
    return [*layers[:-1], (layers[-1][0][order], layers[-1][1][order])]


def mirrored(layers: Layers, rng: np.random.Generator) -> Layers:
    """For inputs of the opposite sign."""
    return [(-layers[0][0], layers[0][1]), *layers[1:]]


SAME: dict[str, Change] = {
    "rescaled": rescaled, "permuted": permuted, "doubled": doubled, "dead": dead, "identity": with_identity,
    "reordered": reordered, "mirrored": mirrored,
}  # fmt: skip


def run(tally: Tally, items: int, given: Given) -> None:
    """Every relation on every network, each with one of the engines."""
    for seed in range(items):
        if tally.over:
            return
        rng = np.random.default_rng(10_000 + seed)
        sizes = SHAPES[seed % len(SHAPES)]
        layers = random_layers(rng, sizes)
        x = (rng.normal(size=sizes[0]) * 16).round() / 16
        eps = str(rng.choice(["0.1", "0.2", "0.4"]))
        layers = _near_zero(layers, x, float(eps), rng)
        case = Case(f"metamorphic {seed}", network_of(layers), x, eps)
        semantics = ("real", "float32")[seed % 2]
        _compare(tally, case, layers, semantics, rng)
        _boxes(tally, case, semantics)
        _constant(tally, case, layers, semantics)
        tally.done += 1


def _near_zero(layers: Layers, x: Array, eps: float, rng: np.random.Generator) -> Layers:
    """A constant at the outputs, so that the least sampled one is near 0, on either side."""
    points = x + eps * rng.uniform(-1, 1, (500, len(x))).round(1)
    values = points
    for number, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        values = values.clip(min=0) if number < len(layers) - 1 else values
    low, high = values.min(), values.max()
    constant = rng.choice([0.3, 0.1, 0.02, -0.02]) * (high - low) - low
    return with_constant(layers, round(float(constant) * 1024) / 1024)


def _compare(tally: Tally, case: Case, layers: Layers, semantics: str, rng: np.random.Generator) -> None:
    """Networks that are the same function."""
    engines = ("auto", ENGINES[1 + rng.integers(len(ENGINES) - 1)])
    before = {engine: ask(tally, case, engine, semantics) for engine in engines}
    _agree(tally, case, "engines", list(before.values()))
    for name, change in SAME.items():
        sign = -1 if name == "mirrored" else 1
        twin = Case(f"{case.name} {name}", network_of(change(layers, rng)), sign * case.x, case.eps)
        for engine in engines:
            _agree(tally, twin, name, [*before.values(), ask(tally, twin, engine, semantics)])


def _agree(tally: Tally, case: Case, relation: str, verdicts: list[Verdict | None]) -> None:
    decided = {v for v in verdicts if v in (VERIFIED, FALSIFIED)}
    if len(decided) == 2:
        tally.accuse(case.network, f"{case.name}: {relation}: {[str(v) for v in verdicts]}")
    same = len(decided) == 1 and len(set(verdicts)) == 1
    tally.counts[f"relation {relation}: {'same verdict' if same else 'some unknown'}"] += 1


def _boxes(tally: Tally, case: Case, semantics: str) -> None:
    """Smaller and larger boxes, and both halves of the box; halves and whole are asked as properties."""
    whole = ask(tally, case, "auto", semantics)
    for share in ("0.5", "0.1", "0"):
        smaller = replace(case, name=f"{case.name} {share}", eps=decimal_text(Fraction(case.eps) * Fraction(share)))
        found = ask(tally, smaller, "auto", semantics)
        if whole is VERIFIED:
            _agree(tally, smaller, "smaller box", [whole, found])
    larger = replace(case, name=f"{case.name} larger", eps=decimal_text(Fraction(case.eps) * Fraction("1.5")))
    found = ask(tally, larger, "auto", semantics)
    if whole is FALSIFIED:
        _agree(tally, larger, "larger box", [whole, found])
    halves = [ask(tally, _Half(f"{case.name} half {side}", case.network, case.x, case.eps, side=side), "property",
                  semantics) for side in (0, 1)]  # fmt: skip
    if VERIFIED in halves and FALSIFIED not in halves and None not in halves:
        both: Verdict | None = VERIFIED if halves == [VERIFIED, VERIFIED] else Verdict.UNKNOWN
    else:
        both = FALSIFIED if FALSIFIED in halves else Verdict.UNKNOWN
    _agree(tally, case, "halves", [whole, both])


class _Half(Case):
    """Half of the box, cut in the first input: only for the engine ``property``."""

    def __init__(self, *given: object, side: int) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        object.__setattr__(self, "side", side)

    @property
    def ends(self) -> tuple[list[Fraction], list[Fraction]]:
        lower, upper = super().ends
        middle = (lower[0] + upper[0]) / 2
        if self.side:  # type: ignore[attr-defined]
            return [middle, *lower[1:]], upper
        return lower, [middle, *upper[1:]]


def _constant(tally: Tally, case: Case, layers: Layers, semantics: str) -> None:
    """A constant added to all outputs, asked for the label of the greatest one."""
    label = int(np.argmax([float(v) for v in rational_forward(case.network, [Fraction(v) for v in case.x.tolist()])]))
    verdicts = []
    for constant in (0.0, 64.0):
        moved = network_of(with_constant(layers, constant))
        verdicts.append(ask(tally, Case(f"{case.name} plus {constant}", moved, case.x, case.eps, label=label), "auto",
                            semantics))  # fmt: skip
    _agree(tally, case, "constant", verdicts)
