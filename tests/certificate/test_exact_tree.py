"""Split trees in the exact checker: complete where all phases are split, and never accepted for a false claim."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS
from small_certificates import affine_net, ball, box, certificate, duals, lemma, plain, positive, rows
from small_networks import random_network
from small_trees import (
    NOTHING,
    Cut,
    Node,
    Phase,
    Row,
    bisection,
    clauses,
    enumeration,
    raw,
    tree,
    tree_certificate,
)

from lpverify.attack.exact import exact_outputs
from lpverify.certificate.claim import Claim, ClauseRows, RationalBox
from lpverify.certificate.container import RawArray
from lpverify.certificate.exact import Outcome, check, check_witness, main
from lpverify.certificate.exact_claim import claim_forms, value
from lpverify.certificate.exact_region import region_ends
from lpverify.certificate.proof import Certificate, Witness, decode
from lpverify.certificate.tree import Tree
from lpverify.errors import CertificateError
from lpverify.network import Network
from lpverify.serialize import network_bytes, raw_array

NOT_BELOW = 1e-7  # what the linear programs' tolerance may cost a bound


def holds(network: Network, claim: Claim, x: np.ndarray) -> bool:
    """Whether the claim holds at the float point x of its region, in exact arithmetic."""
    outputs = exact_outputs(network, x).fractions()
    values, strict = [value(form, outputs) for form in claim_forms(claim)], itertools.repeat(True)
    if isinstance(claim.rows, ClauseRows):
        strict = iter([row.strict for clause in claim.rows.clauses for row in clause])
    fine = [v > 0 or (v == 0 and not above) for v, above in zip(values, strict, strict=False)]
    return all(any(fine[row] for row in clause) for clause in claim.clauses)


def points(claim: Claim, count: int, seed: int) -> Iterator[np.ndarray]:
    """Corners and inner float points of a box region."""
    draw, ends = random.Random(seed), region_ends(claim.region)
    for index in range(count):
        share = [Fraction(draw.randint(0, 1) if index % 2 else draw.random()) for _ in ends]
        point = np.array([float(low + s * (high - low)) for s, (low, high) in zip(share, ends, strict=True)])
        if all(low <= Fraction(v) <= high for v, (low, high) in zip(point, ends, strict=True)):
            yield point


def assert_sound(network: Network, proof: Certificate, extra: Sequence[np.ndarray] = ()) -> bool:
    """If the certificate is accepted, its claim holds at sampled points and at ``extra``; returns the verdict."""
    accepted = check(plain(network), proof).accepted
    if accepted:
        assert all(holds(network, proof.claim, x) for x in (*points(proof.claim, 30, 0), *extra))
    return accepted


def enumerated(seed: int, sizes: tuple[int, ...], bounds: str, slack: float) -> tuple[Network, Certificate, list]:
    """A net, the claim that its output is above its least value less ``slack``, a tree of all phases, and minima."""
    network = random_network(seed, sizes)
    lower, upper = np.full(sizes[0], -0.75), np.full(sizes[0], 1.0)
    c = np.array([1.0])
    _, cells = enumeration(network, lower, upper, c, 0.0)
    d = slack - min(found.least for found in cells if not found.empty)
    root, cells = enumeration(network, lower, upper, c, d)
    proof = tree_certificate(
        plain(network).sha256, box(lower.tolist(), upper.tolist()), rows([[1.0]], [d]), tree([0], root, 1, bounds)
    )
    found = [c.point.clip(lower, upper) for c in cells if c.point is not None and c.least <= slack + NOT_BELOW]
    return network, proof, found


SIZES = [(1, 2, 1), (2, 3, 1), (2, 2, 2, 1), (3, 4, 1), (2, 2, 3, 1)]


@pytest.mark.parametrize("bounds", ["root", "leaf"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_all_phases_prove_what_is_true_and_nothing_else(seed: int, sizes: tuple[int, ...], bounds: str) -> None:
    network, proof, _ = enumerated(seed, sizes, bounds, 1e-6)
    outcome = check(plain(network), decode(proof.encode()))
    leaves = 2 ** sum(sizes[1:-1])
    assert (outcome.accepted, outcome.message, outcome.leaves) == (True, f"{leaves} leaves", leaves)
    network, proof, worst = enumerated(seed, sizes, bounds, -1e-6)
    outcome = check(plain(network), proof)
    assert worst and not holds(network, proof.claim, worst[0])
    assert not outcome.accepted and "clause 0 is not proved (bound -" in outcome.message


def changed(stored: RawArray, change: Callable[[Any], object]) -> RawArray:
    values = np.array(stored.values(), stored.dtype)
    change(values)
    return raw(values.reshape(stored.shape), stored.dtype)


def mutations(network: Network, found: Tree, draw: random.Random) -> Iterator[Tree]:
    """The tree with another multiplier, neuron, threshold, bounds or row."""
    if found.phases.shape[0]:
        for factor in (-1.0, 0.0, 0.5, 1.5, 1e9):
            at = draw.randrange(found.phases.shape[0])
            yield replace(found, phases=changed(found.phases, lambda v, a=at, f=factor: v.put(a, v[a] * f)))
        yield replace(found, phases=changed(found.phases, lambda v: draw.shuffle(v)))
    for split, kind in enumerate(k for k in found.kinds.values() if k):
        places = np.array(found.places.values(), np.int32).reshape(-1, 2)
        if kind == 1:
            places[split] = draw.choice([(node, i) for node in network.relus for i in range(network.sizes[node])])
            yield replace(found, places=raw(places, "<i4"))
        else:
            places[split, 1] = draw.randrange(network.input_size)
            yield replace(found, places=raw(places, "<i4"))
            step = draw.choice([-1, 1]) * draw.random()
            moved = changed(found.points, lambda v, s=split, d=step: v.put(s, v[s] + d))
            yield replace(found, points=moved)
    swapped = changed(found.rows, lambda v: v.put(draw.randrange(len(v)), draw.choice([NOTHING, 0])))
    yield replace(found, rows=swapped)
    yield replace(found, bounds="leaf" if found.bounds == "root" else "root")


def flipped(node: Node, draw: random.Random, share: float) -> Node:
    """The nested splits with the children of some swapped."""
    if not isinstance(node, Phase | Cut):
        return node
    left, right = flipped(node.left, draw, share), flipped(node.right, draw, share)
    return replace(node, left=right, right=left) if draw.random() < share else replace(node, left=left, right=right)


@pytest.mark.parametrize("bounds", ["root", "leaf"])
@pytest.mark.parametrize("sizes", SIZES)
def test_changed_trees_never_prove_a_false_claim(sizes: tuple[int, ...], bounds: str) -> None:
    verdicts = []
    for seed, slack in itertools.product(range(3), (1e-6, -1e-6)):
        network, proof, worst = enumerated(seed, sizes, bounds, slack)
        for found in mutations(network, proof.trees[0], random.Random(seed)):
            try:
                verdicts.append(assert_sound(network, replace(proof, trees=(found,)), worst))
            except CertificateError:
                verdicts.append(False)
            assert slack > 0 or not verdicts[-1]
        d, lower, upper = proof.claim.rows.d.values()[0], np.full(sizes[0], -0.75), np.full(sizes[0], 1.0)
        root, _ = enumeration(network, lower, upper, np.array([1.0]), d)
        for number in range(4):
            other = tree([0], flipped(root, random.Random(number), 0.3), 1, bounds)
            verdicts.append(assert_sound(network, replace(proof, trees=(other,)), worst))
            assert slack > 0 or not verdicts[-1]
    assert True in verdicts and False in verdicts


def test_a_foreign_network_is_refused_and_under_its_name_judged_anew() -> None:
    _, proof, _ = enumerated(1, (2, 3, 1), "root", 1e-6)
    for seed in range(2, 12):
        other = random_network(seed, (2, 3, 1))
        outcome = check(plain(other), proof)
        assert not outcome.accepted and "made for network" in outcome.message
        assert_sound(other, replace(proof, network=plain(other).sha256))


# Random trees with random multipliers


def random_tree(draw: random.Random, network: Network, lower: list[float], upper: list[float], depth: int) -> Node:
    """Nested random splits, each neuron at most once a path, multipliers at random."""

    def grow(lower: list[float], upper: list[float], neurons: list[tuple[int, int]], depth: int) -> Node:
        free = [(k, i) for k in network.relus for i in range(network.sizes[k]) if (k, i) not in neurons]
        kind = draw.random()
        if depth and kind < 0.45 and free:
            chosen = draw.choice(free)
            return Phase(*chosen, *(grow(lower, upper, [*neurons, chosen], depth - 1) for _ in range(2)))
        if depth and kind < 0.9:
            unit = draw.randrange(len(lower))
            point = lower[unit] + draw.choice([0.0, 0.5, 1.0, draw.random()]) * (upper[unit] - lower[unit])
            point = min(max(point, lower[unit]), upper[unit])
            below, above = [*upper], [*lower]
            below[unit] = above[unit] = point
            return Cut(unit, point, grow(lower, below, neurons, depth - 1), grow(above, upper, neurons, depth - 1))
        v = [draw.choice([0.0, draw.gauss(0, 1)]) for _ in neurons]
        return [
            Row(0, v),
            Row([draw.random() + 0.1, draw.random(), 0.0], v),
            Row(NOTHING, [draw.gauss(0, 1) for _ in neurons]),
            Row(1, v, [draw.random() for _ in range(2)], [draw.gauss(0, 1) for _ in range(2)]),
            Row(2, v, [draw.random() for _ in range(2)]),
        ]

    return grow(lower, upper, [], depth)


@pytest.mark.parametrize("bounds", ["root", "leaf"])
@pytest.mark.parametrize("rule", ["interval", "dual", "dual-tight", "crown"])
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_no_random_tree_proves_what_a_point_refutes(bounds: str, rule: str, semantics: str) -> None:
    accepted = 0
    for seed in range(25):
        draw = random.Random(seed)
        network = random_network(seed, (2, 3, 3, 2), torch.float32)
        lower, upper = [-0.5, 0.25], [0.5, draw.choice([0.25, 0.75, 1.5])]
        slack = draw.choice([0.0, 0.1, 0.5])
        first = {0: "1/3", 1: "-1/2"}
        sampled = [
            exact_outputs(network, np.array(x)).fractions() for x in itertools.product(*zip(lower, upper, strict=True))
        ]
        reach = min(max(s[0] / 3 - s[1] / 2, s[1]) for s in sampled) - Fraction(slack)
        claim_rows = clauses(
            2,
            [(first, -reach, True), ({1: 1}, -reach, False)],
            [({0: 2}, -2 * min(s[0] for s in sampled) + Fraction(slack), True)],
        )
        grown = tree([0, 1], random_tree(draw, network, lower, upper, 4), 3, bounds, {network.relus[1]: [0, 2]})
        region = box(lower, upper)
        proof = tree_certificate(plain(network).sha256, region, claim_rows, grown, rule=rule, semantics=semantics)
        accepted += assert_sound(network, decode(proof.encode()))
    assert accepted


# Input splits


def test_halves_of_the_box_prove_what_the_box_does_not() -> None:
    # f = relu(x) + relu(-x) - 0.9 relu(x) ... = |x| / 10 + 0.01 by two hidden layers that the rule cannot see through.
    network = affine_net(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.01]))
    whole = certificate(plain(network), box([-1], [1]), positive(network), "interval")
    assert check(plain(network), whole).accepted  # a sum of ReLUs is easy; its negative is not
    hard = affine_net(([[1.0], [-1.0]], [0.0, 0.0]), ([[-1.0, -1.0]], [1.25]))
    lower, upper = np.array([-1.0]), np.array([1.0])
    verdicts = {}
    for bounds, depth in itertools.product(("root", "leaf"), range(4)):
        root = bisection(lower, upper, depth, [Row(0)])
        proof = tree_certificate(
            plain(hard).sha256, box([-1], [1]), rows([[1]], [0]), tree([0], root, 1, bounds), rule="interval"
        )
        verdicts[bounds, depth] = check(plain(hard), proof).accepted
    # Interval arithmetic gives 1.25 - 2 on the whole, and on [-1, 0] it gives 1.25 - 1.
    assert [verdicts["leaf", depth] for depth in range(4)] == [False, True, True, True]
    assert [verdicts["root", depth] for depth in range(4)] == [False] * 4


@pytest.mark.parametrize("rule", ["interval", "crown"])
def test_bisection_with_bounds_of_the_leaf_proves_any_true_margin(rule: str) -> None:
    network = random_network(3, (2, 6, 6, 1))
    lower, upper = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    grid = [np.array(p) for p in itertools.product(np.linspace(-1, 1, 41), repeat=2)]
    least = min(float(exact_outputs(network, x).fractions()[0]) for x in grid)
    for slack, expected in ((0.25, True), (-1e-3, False)):
        outcomes: list[Outcome] = []
        for depth in (0, 4, 8):
            grown = tree([0], bisection(lower, upper, depth, [Row(0)]), 1, "leaf")
            proof = tree_certificate(
                plain(network).sha256, box([-1, -1], [1, 1]), rows([[1]], [slack - least]), grown, rule=rule
            )
            outcomes.append(check(plain(network), proof))
        if expected:
            assert outcomes[-1].message == "256 leaves" and (rule == "crown" or not outcomes[0].accepted)
        else:
            assert not any(outcome.accepted for outcome in outcomes)


def test_a_threshold_outside_its_part_is_refused() -> None:
    network = affine_net(([[-1.0, -1.0]], [1.75]))  # above 0 unless both inputs are above 1/2

    def verdict(root: Node) -> str:
        proof = tree_certificate(plain(network).sha256, box([0, 0], [1, 1]), rows([[1]], [0]), tree([0], root, 1))
        return check(plain(network), proof).message

    for bad, where in (
        (Cut(0, 1.5, [Row(0)], [Row(0)]), "split 0"),
        (Cut(0, -0.5, [Row(0)], [Row(0)]), "split 0"),
        (Cut(0, 0.5, Cut(0, 0.75, [Row(0)], [Row(0)]), [Row(0)]), "split 1"),
        (Cut(1, 0.5, Cut(0, 0.5, [Row(0)], [Row(0)]), Cut(1, 0.25, [Row(0)], [Row(0)])), "split 2"),
    ):
        with pytest.raises(CertificateError, match=f"{where} of a tree: input"):
            verdict(bad)
    # An end is inside: one part is then a face.
    assert verdict(Cut(0, 0.0, [Row(0)], [Row(0)])) == "tree 0, leaf 1 (node 2): clause 0 is not proved (bound -0.25)"
    assert verdict(Cut(0, 1.0, [Row(0)], [Row(0)])) == "tree 0, leaf 0 (node 1): clause 0 is not proved (bound -0.25)"


@pytest.mark.parametrize("norm", ["2", "1"])
def test_inputs_of_round_balls_are_not_split_but_their_neurons_are(norm: str) -> None:
    network = affine_net(([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0]), ([[-1.0, -1.0]], [1.25]))
    region, parsed = ball([0, 0], "1", norm), plain(network)
    cut = tree([0], Cut(0, 0.0, [Row(0)], [Row(0)]), 1)
    with pytest.raises(CertificateError, match="input 0 is none of a box"):
        check(parsed, tree_certificate(parsed.sha256, region, rows([[1]], [0]), cut))
    # f = 1.25 - |x| is at least 0.25; the multipliers of z1 = x and z2 = -x, by cell:
    best = {(0, 0): [0.0, 0.0], (0, 1): [0.0, -1.0], (1, 0): [-1.0, 0.0], (1, 1): [-1.0, -1.0]}

    def verdict(multipliers: dict[tuple[int, int], list[float]]) -> Outcome:
        halves = [Phase(2, 1, *([Row(0, multipliers[a, b])] for b in (0, 1))) for a in (0, 1)]
        grown = tree([0], Phase(2, 0, *halves), 1)
        return check(parsed, tree_certificate(parsed.sha256, region, rows([[1]], [0]), grown, rule="interval"))

    assert verdict(best) == Outcome(True, verdict(best).margins, "4 leaves", 4)
    for a, b in best:
        if (a, b) != (0, 0):
            outcome = verdict(best | {(a, b): [float(a), float(b)]})
            place, node = 2 * a + b, [2, 3, 5, 6][2 * a + b]
            assert outcome.message.startswith(f"tree 0, leaf {place} (node {node}): clause 0 is not proved (bound ")


def test_a_leaf_that_no_input_reaches_is_proved() -> None:
    # z = x + 2 is in [1, 3], f = relu(z) - 10 is below 0: z <= 0 is void, and z >= 0 shows what is wrong.
    network = affine_net(([[1.0]], [2.0]), ([[1.0]], [-10.0]))
    for bounds, row in itertools.product(("root", "leaf"), (0, NOTHING)):
        grown = tree([0], Phase(2, 0, [Row(row, [5.0])], [Row(row, [1.0])]), 1, bounds)
        proof = tree_certificate(plain(network).sha256, box([-1], [1]), rows([[1]], [0]), grown)
        assert check(plain(network), proof).message.startswith("tree 0, leaf 1 (node 2): clause 0 is not proved")
    # f = 1/4 - relu(x): where x <= -1/2 the leaf's own bounds show that z >= 0 is void. The last leaf is false.
    network = affine_net(([[1.0]], [0.0]), ([[-1.0]], [0.25]))
    phases = Phase(2, 0, [Row(0, [0.0])], [Row(0, [0.0])])
    root = Cut(0, -0.5, phases, Cut(0, 0.125, [Row(0)], [Row(0)]))
    for bounds, where in (("root", "leaf 1 (node 3)"), ("leaf", "leaf 3 (node 6)")):
        grown = tree([0], root, 1, bounds)
        proof = tree_certificate(plain(network).sha256, box([-1], [1]), rows([[1]], [0]), grown, rule="interval")
        assert check(plain(network), proof).message.startswith(f"tree 0, {where}: clause 0 is not proved")


@pytest.mark.parametrize("bounds", ["root", "leaf"])
def test_an_empty_leaf_proves_every_clause(bounds: str) -> None:
    # f = 3/2 - relu(z1) - relu(z2) with z1 = x - 1/4 and z2 = -x, which are not both above 0.
    network = affine_net(([[1.0], [-1.0]], [-0.25, 0.0]), ([[-1.0, -1.0], [-1.0, -1.0]], [1.5, 1.5]))
    parsed, claim_rows = plain(network), clauses(2, [({0: 1}, 0, True)], [({1: 1}, 0, True)])

    def both(*v: float) -> list[Row]:
        return [Row(0, v), Row(1, v)]

    void = [Row(NOTHING, [-1.0, -1.0])]
    for last, expected in (
        (void, True), ([Row(NOTHING, [-1e-300, -1e-300])], True), ([Row(NOTHING, [1.0, 1.0])], False),
        ([Row(NOTHING, [0.0, 0.0])], False), ([Row(0, [0.0, 0.0]), *void], True), (both(0.0, 0.0), False),
    ):  # fmt: skip
        root = Phase(2, 0, Phase(2, 1, both(0, 0), both(0, -1)), Phase(2, 1, both(-1, 0), last))
        grown = tree([0, 1], root, 2, bounds)
        proof = tree_certificate(parsed.sha256, box([-1], [1]), claim_rows, grown, rule="interval")
        outcome = check(parsed, proof)
        assert outcome.accepted is expected
        assert expected or "leaf 3 (node 6): clause 0 is not proved" in outcome.message
    missing = Phase(2, 0, Phase(2, 1, both(0, 0), [Row(0, [0, -1])]), Phase(2, 1, both(-1, 0), void))
    outcome = check(parsed, replace(proof, trees=(tree([0, 1], missing, 2, bounds),)))
    assert outcome.message == "tree 0, leaf 1 (node 3): clause 1 is not proved (bound -inf)"


# Clauses and rational boxes


def test_clauses_hold_where_one_row_does() -> None:
    # f = (x, -x) + 1/8: on [-1, 1] neither output is positive everywhere, but always one of them is.
    network = affine_net(([[1.0], [-1.0]], [0.125, 0.125]))
    parsed = plain(network)
    region = RationalBox((Fraction(-1),), (Fraction(1),))
    either = clauses(2, [({0: 1}, 0, True), ({1: "1/3"}, 0, False)])
    whole = check(parsed, tree_certificate(parsed.sha256, region, either))
    assert not whole.accepted and whole.margins == (Fraction(-7, 8), Fraction(-7, 24))
    assert whole.message == f"clause 0: the bound {float(Fraction(-7, 24))!r} is not above 0"
    split = tree([0], Cut(0, 0.0, [Row(1)], [Row(0)]), 2)
    assert check(parsed, tree_certificate(parsed.sha256, region, either, split)).message == "2 leaves"
    mixed = tree([0], [Row([1.0, 1.0])], 2)  # x + 1/8 and (as a whole row) -x + 1/8 sum to 1/4
    assert check(parsed, tree_certificate(parsed.sha256, region, either, mixed)).message == "1 leaves"
    for weights in ([1.0, 0.75], [3.0, 1.0], [0.0, 1.0]):
        outcome = check(parsed, tree_certificate(parsed.sha256, region, either, tree([0], [Row(weights)], 2)))
        assert not outcome.accepted and "leaf 0 (node 0): clause 0 is not proved" in outcome.message
    apart = clauses(2, [({0: 1}, 0, True)], [({1: "1/3"}, 0, False)])
    with pytest.raises(CertificateError, match="combo 0 does not combine rows of one clause"):
        check(parsed, tree_certificate(parsed.sha256, region, apart, mixed))


def test_a_clause_without_rows_is_proved_by_emptiness_alone() -> None:
    network = affine_net(([[1.0]], [0.0]), ([[1.0]], [5.0]))
    parsed, region = plain(network), RationalBox((Fraction(1, 10),), (Fraction(1, 10),))
    nothing = ClauseRows(1, ((),))
    outcome = check(parsed, tree_certificate(parsed.sha256, region, nothing))
    assert (outcome.accepted, outcome.message) == (False, "clause 0: it has no rows")
    outcome = check(parsed, tree_certificate(parsed.sha256, region, nothing, tree([0], [Row(NOTHING)], 0)))
    assert outcome.message == "tree 0, leaf 0 (node 0): clause 0 is not proved (bound 0.0)"
    witness = Witness(parsed.sha256, Claim(region, nothing), raw_array(np.array([0.1])), 0, -np.inf, -np.inf)
    assert check_witness(parsed, witness).accepted


def test_rows_in_rationals_are_exact() -> None:
    # f(x) = x at x = 1/10 exactly: 3 f - 3/10 is 0, which is enough for >= and too little for >.
    network = affine_net(([[1.0]], [0.0]))
    parsed, region = plain(network), RationalBox((Fraction(1, 10),), (Fraction(1, 10),))
    for strict, constant, fails in ((True, "-3/10", True), (False, "-3/10", False), (False, "-4/10", True)):
        claim = Claim(region, clauses(1, [({0: 3}, constant, strict)]))
        margin = float(Fraction(3, 10) + Fraction(constant))
        witness = Witness(parsed.sha256, claim, raw_array(np.array([0.1])), 0, margin, margin)
        outcome = check_witness(parsed, witness)
        assert (outcome.accepted, outcome.margins) == (fails, (Fraction(3, 10) + Fraction(constant),))
        assert outcome.message.startswith(f"clause 0 {'fails' if fails else 'holds'} at the point")
        assert not check_witness(parsed, replace(witness, margin=margin + 1)).accepted
        assert check_witness(parsed, replace(witness, x=raw_array(np.array([7.0])))).accepted is fails  # clamped


def test_all_rows_of_a_witness_clause_fail() -> None:
    network = affine_net(([[1.0], [-1.0]], [0.0, 0.0]))
    parsed, region = plain(network), box([-1], [1])
    claim = Claim(region, clauses(2, [({0: 1}, -1, True), ({1: 1}, "-1/2", False)], [({0: 1}, -1, True)]))
    for x, clause, margin, expected in (
        (0.5, 0, -0.5, True), (0.5, 1, -0.5, True), (-0.5, 0, 0.0, False), (-0.25, 0, -0.25, True),
        (1.0, 1, 0.0, True), (-0.75, 0, 0.25, False),
    ):  # fmt: skip
        witness = Witness(parsed.sha256, claim, raw_array(np.array([x])), clause, margin, margin)
        outcome = check_witness(parsed, witness)
        assert (outcome.accepted, outcome.margins) == (expected, (Fraction(margin),))
    outside = Witness(parsed.sha256, claim, raw_array(np.array([1.5])), 1, 0.5, 0.5)
    assert check_witness(parsed, outside).message == "input 0 of the point lies outside the region"


# What a certificate may refer to


@pytest.mark.parametrize(
    ("root", "columns", "message"),
    [
        (Phase(1, 0, [Row(0, [0])], [Row(0, [0])]), {}, "neuron 0 of node 1 is not a ReLU"),
        (Phase(2, 3, [Row(0, [0])], [Row(0, [0])]), {}, "neuron 3 of node 2 is not a ReLU"),
        (Phase(99, 0, [Row(0, [0])], [Row(0, [0])]), {}, "neuron 0 of node 99"),
        (Cut(2, 0.0, [Row(0)], [Row(0)]), {}, "input 2 is none of a box"),
        ([Row(0)], {2: [1, 3]}, "columns of node 2"),
        ([Row(0)], {3: [0]}, "columns of node 3"),
        ([Row(0)], {77: [0]}, "columns of node 77"),
        ([Row(0)], {3: []}, "columns of node 3"),
    ],
)
def test_places_must_be_of_the_network(root: Node, columns: Any, message: str) -> None:
    network = random_network(0, (2, 3, 1))
    proof = tree_certificate(
        plain(network).sha256, box([-1, -1], [1, 1]), rows([[1]], [0]), tree([0], root, 1, columns=columns)
    )
    with pytest.raises(CertificateError, match=message):
        check(plain(network), decode(proof.encode()))


def test_the_command_checks_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, proof, _ = enumerated(0, (2, 2, 1), "leaf", 1e-6)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "network.lpnet").write_bytes(network_bytes(network))
    (tmp_path / "certificates" / "0.lpcert").write_bytes(proof.encode())
    assert main([str(tmp_path)]) == 0
    assert "0.lpcert: accepted: 4 leaves" in capsys.readouterr().out


def test_a_deep_tree_is_walked_without_recursion_or_a_state_for_each_leaf() -> None:
    # f = 5/4 - |x|, which interval arithmetic does not bound over both halves at once.
    network = affine_net(([[1.0], [-1.0]], [0.0, 0.0]), ([[-1.0, -1.0]], [1.25]))
    depth, root = 3_000, Cut(0, 0.0, [Row(0)], [Row(0)])
    for _ in range(depth - 1):
        root = Cut(0, 0.0, root, [Row(0)])
    grown = tree([0], root, 1, "leaf")
    proof = tree_certificate(plain(network).sha256, box([-1], [1]), rows([[1]], [0]), grown, rule="interval")
    assert check(plain(network), decode(proof.encode())).message == f"{depth + 1} leaves"
    lowered = replace(proof, claim=Claim(proof.claim.region, rows([[1]], [-0.5])))
    assert check(plain(network), lowered).message.startswith(f"tree 0, leaf 0 (node {depth}): clause 0 is not proved")


@pytest.mark.parametrize("bounds", ["root", "leaf"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "affine"])
def test_trees_are_sound_on_networks_of_every_shape(name: str, bounds: str) -> None:
    """Convolutions, residual sums, ReLUs of the input and at the output, ReLUs that share what they read."""
    accepted = 0
    for seed in range(6):
        draw = random.Random(seed)
        network = NETWORKS[name](seed)
        size = network.input_size
        lower = [draw.choice([-0.5, 0.25]) for _ in range(size)]
        upper = [low + draw.choice([0.0, 0.5, 1.0]) for low in lower]
        corners = [np.array([draw.choice(pair) for pair in zip(lower, upper, strict=True)]) for _ in range(8)]
        least = [min(column) for column in zip(*(exact_outputs(network, x).fractions() for x in corners), strict=True)]
        slack = Fraction(draw.choice([-0.01, 0.25, 1.0, 4.0]))
        claim_rows = clauses(
            3, [({0: 1}, slack - least[0], True), ({1: 3}, 3 * (slack - least[1]), False)],
            [({2: "1/2"}, (slack - least[2]) / 2, True)],
        )  # fmt: skip
        grown = tree([0, 1], random_tree(draw, network, lower, upper, 3), 3, bounds, {network.relus[-1]: [0, 1]})
        proof = tree_certificate(
            plain(network).sha256, box(lower, upper), claim_rows, grown,
            rule=draw.choice(["interval", "dual", "dual-tight", "crown"]), semantics=draw.choice(["real", "float32"]),
        )  # fmt: skip
        accepted += assert_sound(network, proof, corners)
    assert accepted


@pytest.mark.parametrize("bounds", ["root", "leaf"])
def test_lemmas_hold_in_every_leaf(bounds: str) -> None:
    # f = 7/4 - relu(z3) - relu(z4) with z3 = relu(x) - relu(x - 1) <= 1, by intervals 2, and z4 = |y| <= 1/2, by
    # intervals 1. Only a lemma shows the one and only splits show the other.
    network = affine_net(
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [0.0, -1.0, 0.0, 0.0]),
        ([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], [0.0, 0.0]),
        ([[-1.0, -1.0]], [1.75]),
    )
    parsed, region = plain(network), box([0, -0.5], [2, 0.5])
    below_one = lemma(4, [0], [1], [duals(2, [0, 1], [[-1.0, 1.0]])])
    cells = {(a, b): [Row(0, [-float(a), -float(b)], duals=[-1.0])] for a in (0, 1) for b in (0, 1)}
    phases = Phase(2, 2, *(Phase(2, 3, cells[a, 0], cells[a, 1]) for a in (0, 1)))
    trees = [tree([0], phases, 1, bounds, {4: [1]})]
    if bounds == "leaf":
        trees.append(tree([0], Cut(1, 0.0, [Row(0)], [Row(0)]), 1, bounds))
    for lemmas, used in itertools.product(((), (below_one,)), ((), *((grown,) for grown in trees))):
        proof = tree_certificate(parsed.sha256, region, rows([[1]], [0]), *used, rule="interval", lemmas=lemmas)
        assert check(parsed, proof).accepted is bool(lemmas and used)
