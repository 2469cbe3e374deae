"""Leaves in rigorous float64: no bound above a value in its leaf, whatever the multipliers; no false tree accepted."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from checking import checker_of, exactly_inside
from networks import CLASSES, NETWORKS, rescaled
from small_certificates import NO_ROWS, affine_net, ball, box, certificate, duals, lemma, plain, rows
from small_trees import Cut, Row, tree

from lpverify.attack.exact import exact_margins
from lpverify.certificate import exact, rigorous, rigorous_walk
from lpverify.certificate.claim import (
    BallRegion,
    BoxRegion,
    Claim,
    ClauseRows,
    Inequality,
    LabelRows,
    RationalBox,
)
from lpverify.certificate.container import RawArray
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.proof import RULES, SEMANTICS, Certificate, decode
from lpverify.certificate.rigorous_claim import claim_rows, combined
from lpverify.certificate.rigorous_tree import Leaves, Root
from lpverify.certificate.tree import Tree
from lpverify.errors import CertificateError, ShapeError, UsageError
from lpverify.network import Affine, Network, ReLU
from lpverify.search.tree import LeafProof, TreeBuilder
from lpverify.serialize import raw_array

Array = np.ndarray[Any, np.dtype[np.float64]]
MODES = ("root", "leaf")


def values_of(network: Network, x: Array) -> list[Array]:
    """Every node's value at points (p, n_0), in plain float64."""
    found = [torch.from_numpy(x)]
    for node in network.nodes[1:]:
        if isinstance(node, ReLU):
            found.append(torch.relu(found[node.input]))
        else:
            assert isinstance(node, Affine)
            sums = [m.apply(found[i]) for i, m in zip(node.inputs, node.maps, strict=True)]
            found.append(sum(sums, node.bias.expand(len(x), -1)))
    return [value.numpy() for value in found]


def claim_of(network: Network, generator: np.random.Generator, norm: str = "box", width: float = 0.5) -> Claim:
    center = generator.normal(size=network.input_size) * 0.5
    reach = generator.random(network.input_size) * width
    where: BallRegion | BoxRegion = box(center - reach, center + reach)  # type: ignore[arg-type]
    if norm != "box":
        where = ball(center, repr(width), norm)  # type: ignore[arg-type]
    return Claim(where, LabelRows(0, CLASSES))


def root_of(network: Network, claim: Claim, rule: str = "crown", semantics: str = "real") -> Root:
    checker = checker_of(network)
    return Root(checker, Certificate(checker.sha256, semantics, rule, claim, NO_ROWS))


@dataclass(frozen=True)
class Drawn:
    """Leaves, each with a point x (b, n_0) inside it."""

    leaves: Leaves
    x: Array


def draw(
    network: Network, root: Root, generator: np.random.Generator, count: int = 5, m: int = 3, boxes: bool = True
) -> Drawn:
    """Leaves about random points: some of the phases there, a box about the point, multipliers of every kind."""
    lower, upper = root.box
    x = lower + generator.random((count, len(lower))) * (upper - lower)
    if not root.is_box:
        claim = root.certificate.claim
        x = np.stack([exactly_inside(point, claim) for point in x])  # type: ignore[arg-type]
    values = values_of(network, x)
    ends: tuple[Array | None, Array | None] = (None, None)
    if boxes and root.is_box:
        ends = (x - generator.random(x.shape) * (x - lower), x + generator.random(x.shape) * (upper - x))
    phases, given, multipliers, slopes = {}, {}, {}, {}
    for node in root.ranges:
        z = values[network.nodes[node].input]  # type: ignore[union-attr]
        split = (generator.random(z.shape) < 0.4) & (np.abs(z) > 1e-9)
        phases[node] = (np.sign(z) * split).astype(np.int8)
        given[node] = split | (generator.random(z.shape) < 0.2)
        multipliers[node] = generator.normal(size=(count, m, z.shape[1])) * 0.5
        some = generator.random((count, m, z.shape[1]))
        slopes[node] = np.where(some < 0.5, 2 * some, np.nan)
    C, d = generator.normal(size=(count, m, CLASSES)), generator.normal(size=(count, m))
    C[:, -1], d[:, -1] = 0, 0
    return Drawn(Leaves(*ends, C, d, phases, multipliers, given, slopes), x)


def part(leaves: Leaves, index: Any) -> Leaves:
    """Some of the leaves."""
    tables = ({k: v[index] for k, v in t.items()}
              for t in (leaves.phases, leaves.values, leaves.explicit, leaves.slopes))  # fmt: skip
    ends = (None, None) if leaves.lower is None or leaves.upper is None else (leaves.lower[index], leaves.upper[index])
    return Leaves(*ends, leaves.C[index], leaves.d[index], *tables)  # type: ignore[arg-type]


def assert_sound(network: Network, drawn: Drawn, bounds: Array, message: object) -> None:
    """No bound is above its row's exact value at the leaf's point."""
    for x, C, d, own in zip(drawn.x, drawn.leaves.C, drawn.leaves.d, bounds, strict=True):
        for value, bound in zip(exact_margins(network, x, C, d), own, strict=True):
            assert not np.isnan(bound) and bound != np.inf, message
            assert bound == -np.inf or Fraction(float(bound)) <= value, (message, bound, float(value))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_bound_is_above_a_value_in_its_leaf(name: str) -> None:
    for seed, (rule, semantics) in enumerate(itertools.product(RULES, SEMANTICS)):
        generator = np.random.default_rng(seed)
        network = NETWORKS[name](seed).to(torch.float64)
        for norm in ("box", "inf", "2", "1"):
            root = root_of(network, claim_of(network, generator, norm), rule, semantics)
            drawn = draw(network, root, generator)
            for mode in MODES:
                bounds = root.bounds(drawn.leaves, mode)
                assert_sound(network, drawn, bounds, (rule, semantics, norm, mode))
                # A point lies in every leaf, so nothing proves one empty.
                assert bool((bounds[:, -1] <= 0).all())


def plain_bound(network: Network, root: Root, leaves: Leaves, leaf: int, row: int) -> float:
    """The bound of one row by multipliers at all neurons, in plain float64 from dense matrices."""
    pending = {len(network.nodes) - 1: leaves.C[leaf, row]}
    total = float(leaves.d[leaf, row])
    lower, upper = root.box
    if leaves.lower is not None and leaves.upper is not None:
        lower, upper = leaves.lower[leaf], leaves.upper[leaf]
    while pending:
        index = max(pending)
        w, node = pending.pop(index), network.nodes[index]
        if index == 0:
            return total + float(np.minimum(w * lower, w * upper).sum())
        if isinstance(node, ReLU):
            v, phase = leaves.values[index][leaf, row], leaves.phases[index][leaf]
            low, high = root.ranges[index]
            low, high = np.where(phase > 0, np.maximum(low, 0), low), np.where(phase < 0, np.minimum(high, 0), high)
            ends = np.stack([w * np.maximum(z, 0) - v * z for z in (low, high)])
            kink = np.where((low < 0) & (high > 0), 0.0, np.inf)
            total += float(np.minimum(ends.min(axis=0), kink).sum())
            handed = [(node.input, v)]
        else:
            assert isinstance(node, Affine)
            total += float(w @ node.bias.numpy())
            handed = [(i, np.asarray(m.matrix().T @ w)) for i, m in zip(node.inputs, node.maps, strict=True)]
        for source, more in handed:
            pending[source] = pending.get(source, 0) + more
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_multipliers_at_all_neurons_give_the_plain_bound_less_rounding(name: str) -> None:
    generator = np.random.default_rng(3)
    network = NETWORKS[name](5).to(torch.float64)
    root = root_of(network, claim_of(network, generator))
    drawn = draw(network, root, generator)
    leaves = replace(drawn.leaves, explicit={k: np.ones_like(e) for k, e in drawn.leaves.explicit.items()})
    bounds = root.bounds(leaves)
    for leaf, row in np.ndindex(bounds.shape):
        expected = plain_bound(network, root, leaves, leaf, row)
        assert expected - 1e-9 * (1 + abs(expected)) <= bounds[leaf, row] <= expected + 1e-12 * (1 + abs(expected))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_leaf_without_splits_has_the_margins_of_the_root(name: str) -> None:
    generator = np.random.default_rng(1)
    network = NETWORKS[name](2).to(torch.float64)
    for rule, semantics in itertools.product(RULES, SEMANTICS):
        root = root_of(network, claim_of(network, generator), rule, semantics)
        C, d = root.rows(np.arange(CLASSES - 1)[None])
        for mode in MODES:
            found = root.bounds(Leaves(None, None, C, d), mode)[0]
            np.testing.assert_allclose(found, root.margins, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_a_bound_does_not_depend_on_the_other_leaves(name: str, mode: str) -> None:
    generator = np.random.default_rng(2)
    network = NETWORKS[name](3).to(torch.float64)
    root = root_of(network, claim_of(network, generator))
    leaves = draw(network, root, generator, count=6).leaves
    bounds = root.bounds(leaves, mode)
    others = draw(network, root, generator, count=6).leaves
    # The other half is foreign, in part broken: NaN, infinity, phases that contradict each other.
    for table in (others.values, others.slopes):
        for node in table:
            table[node][3] = np.nan
            table[node][4] = 1e308
    for node in others.phases:
        others.phases[node][5] = 1 - 2 * (np.arange(others.phases[node].shape[1]) % 2)
    mixed = {name: {k: np.concatenate([v[:3], getattr(others, name)[k][3:]]) for k, v in getattr(leaves, name).items()}
             for name in ("phases", "values", "explicit", "slopes")}  # fmt: skip
    changed = replace(leaves, **mixed, C=np.concatenate([leaves.C[:3], others.C[3:]]))
    if mode == "root":
        np.testing.assert_array_equal(root.bounds(changed, mode)[:3], bounds[:3])
    # Products of another number of rows may be summed in another order.
    np.testing.assert_allclose(root.bounds(changed, mode)[:3], bounds[:3], rtol=1e-12, atol=1e-12)
    for index in range(6):
        alone = root.bounds(part(leaves, slice(index, index + 1)), mode)[0]
        np.testing.assert_allclose(alone, bounds[index], rtol=1e-12, atol=1e-12)


def test_a_contradiction_makes_a_leaf_empty_and_nothing_else_does() -> None:
    # relu(x + 2) - relu(-x - 3) on [-1, 1]: the first neuron is always active, the second never.
    network = affine_net(([[1.0], [-1.0]], [2.0, -3.0]), ([[1.0, -1.0]], [0.0]))
    checker = checker_of(network)
    claim = Claim(box([-1.0], [1.0]), rows([[1.0]], [0.0]))
    root = Root(checker, Certificate(checker.sha256, "real", "crown", claim, NO_ROWS))
    nothing = np.zeros((4, 1, 1)), np.zeros((4, 1))
    phases = {2: np.array([[-1, 0], [0, 1], [1, -1], [0, 0]], np.int8)}
    for mode in MODES:
        assert (root.bounds(Leaves(None, None, *nothing, phases), mode)[:, 0] == np.inf).tolist() == [
            True, True, False, False
        ]  # fmt: skip
        crossed = Leaves(np.array([[0.5], [-9.0]]), np.array([[0.25], [9.0]]), np.ones((2, 1, 1)), np.zeros((2, 1)))
        first, second = root.bounds(crossed, mode)[:, 0]
        assert first == np.inf and 1 - 1e-9 < second <= 1
    # In a part of the box where the phase cannot be, only the leaf's own ranges show it.
    network = affine_net(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    root = root_of_box(network, [-1.0], [1.0])
    cut = Leaves(np.array([[0.5]]), np.array([[1.0]]), np.zeros((1, 1, 1)), np.zeros((1, 1)),
                 {2: np.array([[-1]], np.int8)})  # fmt: skip
    assert root.bounds(cut, "leaf")[0, 0] == np.inf and root.bounds(cut, "root")[0, 0] <= 0


def root_of_box(network: Network, lower: list[float], upper: list[float], rule: str = "crown") -> Root:
    checker = checker_of(network)
    claim = Claim(box(lower, upper), rows(np.eye(network.output_size), np.zeros(network.output_size)))
    return Root(checker, Certificate(checker.sha256, "real", rule, claim, NO_ROWS))


def test_overflow_and_nan_prove_nothing() -> None:
    network = affine_net(*[([[2.0**1000]], [0.0])] * 3)
    root = root_of_box(network, [1.0], [2.0])
    ones = Leaves(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1)))
    for mode in MODES:
        for node, sign in itertools.product((2, 4), (1, -1)):
            leaves = replace(ones, phases={node: np.array([[sign]], np.int8)}, explicit={node: np.ones((1, 1), bool)})
            for v in (0.0, 1.0, np.nan, np.inf, -np.inf, 1e308):
                bound = root.bounds(replace(leaves, values={node: np.full((1, 1, 1), v)}), mode)[0, 0]
                assert bound == -np.inf or (node, sign) == (2, -1)  # z = 2^1000 x > 0 is known, so that z <= 0 is empty
    for value in (np.nan, np.inf, -np.inf):
        assert root.bounds(replace(ones, d=np.full((1, 1), value)))[0, 0] == -np.inf


def test_misuse_is_refused() -> None:
    generator = np.random.default_rng(0)
    network = NETWORKS["deep"](0).to(torch.float64)
    for norm in ("2", "1"):
        root = root_of(network, claim_of(network, generator, norm))
        lower, upper = root.box
        with pytest.raises(UsageError, match="only boxes"):
            root.bounds(Leaves(lower[None], upper[None], np.zeros((1, 1, CLASSES)), np.zeros((1, 1))))
    with pytest.raises(ShapeError, match="leaves"):
        root.bounds(Leaves(None, None, np.zeros((1, 1, CLASSES + 1)), np.zeros((1, 1))))
    with pytest.raises(CertificateError, match="another network"):
        Root(checker_of(NETWORKS["deep"](1).to(torch.float64)), root.certificate)


@pytest.mark.parametrize("k", [-40, -17, 17, 40])
def test_rescaled_networks_have_the_same_bounds(k: int) -> None:
    generator = np.random.default_rng(4)
    network = NETWORKS["deep"](1).to(torch.float64)
    other = rescaled(network, 1, k)
    claim = claim_of(network, generator)
    root, scaled = root_of(network, claim), root_of(other, claim)
    leaves = replace(draw(network, root, generator).leaves, slopes={})
    # The second hidden layer is 2^k times as large, and so its multipliers are 2^-k of what they were.
    values = {node: v * (2.0**-k if node == 4 else 1.0) for node, v in leaves.values.items()}
    for mode in MODES:
        np.testing.assert_allclose(
            scaled.bounds(replace(leaves, values=values), mode), root.bounds(leaves, mode), rtol=1e-11, atol=1e-11
        )


def grown(
    root: Root, network: Network, generator: random.Random, splits: int, clauses: list[int], bounds: str
) -> tuple[Tree, Array]:
    """A random tree for claims of single rows, and the least bound of each of its clauses over its leaves."""
    draws = np.random.default_rng(generator.randrange(2**32))
    m = len(root.margins)
    columns = [(node, np.arange(0, len(low), 2)) for node, (low, _) in root.ranges.items()]
    width = sum(len(neurons) for _, neurons in columns)
    builder, paths, open_nodes = TreeBuilder(), {0: []}, [0]  # type: ignore[var-annotated]
    neurons = [(relu, neuron) for relu, (low, _) in root.ranges.items() for neuron in range(len(low))]
    for _ in range(splits):
        node = open_nodes.pop(generator.randrange(len(open_nodes)))
        path = paths.pop(node)
        relu, neuron = generator.choice([n for n in neurons if n not in [place for _, place, _, _ in path]])
        low, high = root.box
        for kind, place, point, side in path:
            if kind == "input":
                (high if side < 0 else low)[place] = point
        if root.is_box and generator.random() < 0.5:
            unit = generator.randrange(len(low))
            point = float(low[unit] + generator.random() * (high[unit] - low[unit]))
            children = builder.split_input(node, unit, point)
            step = ("input", unit, point)
        else:
            children = builder.split_phase(node, relu, neuron)
            step = ("phase", (relu, neuron), 0.0)
        for child, side in zip(children, (-1, 1), strict=True):
            paths[child] = [*path, (*step, side)]
            open_nodes.append(child)
    for node, path in paths.items():
        phases = sum(step[0] == "phase" for step in path)
        builder.close(node, LeafProof(
            tuple(clauses),
            slopes=draws.integers(0, 32769, (m, width)).astype(np.uint16) if generator.random() < 0.4 else None,
            duals=(draws.normal(size=(m, width)) * 0.3).astype(np.float32) if generator.random() < 0.4 else None,
            phases=(draws.normal(size=(m, phases)) * 0.1).astype(np.float32) if phases else None,
        ))  # fmt: skip
    tree = builder.encode(clauses, bounds, columns)
    least, _ = rigorous_walk.judge(root, tree, clauses)
    return tree, np.array([least[clause] for clause in clauses])


def shifted(claim: Claim, margins: Array) -> Claim:
    """The label claim as rows whose constants are lowered by ``margins``."""
    C, d = claim_rows(claim)
    return Claim(claim.region, rows(C, d - margins))


TREE_CASES = ("deep", "dense", "conv", "residual", "shared-affine", "input-relu", "affine-affine", "dead-units")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TREE_CASES)
def test_both_checkers_find_the_same_bounds_in_random_trees(name: str, mode: str) -> None:
    for seed, rule in enumerate(RULES):
        generator = np.random.default_rng(seed)
        network = NETWORKS[name](seed).to(torch.float64)
        norm = ("box", "inf", "2")[seed % 3]
        claim = claim_of(network, generator, norm, width=0.3)
        root, integers = root_of(network, claim, rule), convert(plain(network))
        tree, least = grown(root, network, random.Random(seed), 7, list(range(CLASSES - 1)), mode)
        for sign in (1, -1):
            # The claim that every row is above its least bound, less or more a little.
            wanted = shifted(claim, least - sign * 1e-6 * (1 + np.abs(least)))
            proof = replace(root.certificate, claim=wanted, trees=(tree,))
            found = rigorous.check(checker_of(network), [decode(proof.encode())])[0]
            certain = exact.check(integers, decode(proof.encode()))
            at_root = bool((rigorous.check(checker_of(network), [replace(proof, trees=())])[0].margins > 0).all())
            assert found.accepted == certain.accepted == (sign > 0 or at_root), (rule, found, certain)
            if found.accepted:
                assert found.leaves == certain.leaves == 8 and found.message == certain.message == "8 leaves"
            else:
                # The same leaf, node and clause; and the bounds differ by rounding.
                words, others = found.message.split("(bound "), certain.message.split("(bound ")
                assert words[0] == others[0]
                ours, theirs = float(words[1][:-1]), float(others[1][:-1])
                assert theirs - 1e-9 * (1 + abs(theirs)) <= ours <= theirs + 1e-15


def true_and_false_claims(name: str, seed: int, mode: str) -> Iterator[tuple[Network, Certificate, bool]]:
    """A certificate that is accepted, and its tree with claims that are false at a point."""
    generator = np.random.default_rng(seed)
    network = NETWORKS[name](seed).to(torch.float64)
    claim = claim_of(network, generator, width=0.3)
    root = root_of(network, claim)
    tree, least = grown(root, network, random.Random(seed), 5, list(range(CLASSES - 1)), mode)
    yield network, replace(root.certificate, claim=shifted(claim, least - 1e-6), trees=(tree,)), True
    lower, upper = root.box
    x = lower + generator.random((200, len(lower))) * (upper - lower)
    C, d = claim_rows(claim)
    at_points = (values_of(network, x)[-1] @ C.T + d).min(axis=0)
    yield network, replace(root.certificate, claim=shifted(claim, at_points + 1e-9), trees=(tree,)), False


def stored(values: np.ndarray[Any, Any]) -> RawArray:
    """The array with its own dtype."""
    return RawArray(values.dtype.str, values.shape, values.tobytes())


def mutated(tree: Tree, generator: random.Random) -> Tree:
    """The tree with one entry of one array changed, dropped, doubled, or two swapped."""
    name = generator.choice(["kinds", "places", "points", "counts", "rows", "slopes", "slope_of", "duals", "dual_of",
                             "phases", "clauses", "bounds", "combos"])  # fmt: skip
    if name == "bounds":
        return replace(tree, bounds=generator.choice(["root", "leaf", "none"]))
    raw = getattr(tree, name)
    values = np.frombuffer(raw.data, raw.dtype).reshape(raw.shape).copy()
    kind = generator.randrange(5)
    if not values.size or kind == 0:
        values = np.concatenate([values, np.ones((1, *values.shape[1:]), values.dtype)])
    elif kind == 1:
        values = np.delete(values, generator.randrange(len(values)), axis=0)
    elif kind == 2:
        at = generator.randrange(values.size)
        values.flat[at] = generator.choice([np.int8(0), np.int8(1), np.int8(2), values.flat[at] + 1, values.flat[0]])
    elif kind == 3:
        values = -values if values.dtype.kind in "if" else values[::-1].copy()
    else:
        first, second = (generator.randrange(len(values)) for _ in range(2))
        values[[first, second]] = values[[second, first]]
    return replace(tree, **{name: stored(values)})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["deep", "shared-affine", "input-relu", "residual"])
def test_mutated_trees_are_never_accepted_for_false_claims(name: str, mode: str) -> None:
    for seed in range(3):
        for network, proof, holds in true_and_false_claims(name, seed, mode):
            checker = checker_of(network)
            assert rigorous.check(checker, [proof])[0].accepted == holds
            if holds:
                continue
            generator = random.Random(seed)
            for _ in range(60):
                tree = proof.trees[0]
                for _ in range(generator.randint(1, 3)):
                    tree = mutated(tree, generator)
                outcome = rigorous.check(checker, [replace(proof, trees=(tree,))])[0]
                assert not outcome.accepted and outcome.message and outcome.leaves == 0


def inequality(coefficients: list[Fraction | int], constant: Fraction | int, strict: bool = True) -> Inequality:
    units = tuple(i for i, c in enumerate(coefficients) if c)
    return Inequality(units, tuple(Fraction(c) for c in coefficients if c), Fraction(constant), strict)


def bump() -> Network:
    """One input; the outputs x and relu(x) + relu(-x) = |x|."""
    return affine_net(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, -1.0], [1.0, 1.0]], [0.0, 0.0]))


def thirds(lower: int, upper: int) -> RationalBox:
    return RationalBox((Fraction(lower, 3),), (Fraction(upper, 3),))


def judged(network: Network, claim: Claim, *trees: Tree, rule: str = "crown") -> rigorous.Outcome:
    """The rigorous checker's outcome, which the exact checker shares."""
    checker = checker_of(network)
    proof = decode(Certificate(checker.sha256, "real", rule, claim, NO_ROWS, (), trees).encode())
    found, certain = rigorous.check(checker, [proof])[0], exact.check(plain(network), proof)
    assert found.accepted == certain.accepted and found.leaves == certain.leaves
    return found


def test_clauses_need_one_row_each() -> None:
    # On [1/3, 2/3]: x > 0 or x < -1; |x| - 1/4 >= 0 or |x| > 9.
    first = (inequality([1, 0], 0), inequality([-1, 0], -1))
    second = (inequality([0, 1], Fraction(-1, 4), strict=False), inequality([0, 1], -9))
    assert judged(bump(), Claim(thirds(1, 2), ClauseRows(2, (first, second)))).accepted
    out = judged(bump(), Claim(thirds(1, 2), ClauseRows(2, (first, second[1:]))))
    assert not out.accepted and out.message == "clause 1 is not proved" and out.leaves == 0
    assert not judged(bump(), Claim(thirds(1, 2), ClauseRows(2, (first, ())))).accepted


def test_rows_in_rationals_are_scaled_to_integers_and_their_constants_rounded_down() -> None:
    row = inequality([Fraction(1, 10), Fraction(-1, 4)], Fraction(1, 3))
    C, d = claim_rows(Claim(thirds(0, 1), ClauseRows(2, ((row,),))))
    assert C.tolist() == [[2.0, -5.0]]
    assert Fraction(d[0]) < Fraction(20, 3) < Fraction(np.nextafter(d[0], np.inf))
    fine = inequality([Fraction(1, 3), Fraction(1, 2**60)], 0)
    with pytest.raises(CertificateError, match="row 0 of the claim"):
        claim_rows(Claim(thirds(0, 1), ClauseRows(2, ((inequality([2**53 + 1, 1], 0),),))))
    assert claim_rows(Claim(thirds(0, 1), ClauseRows(2, ((fine,),))))[0].tolist() == [[2.0**60, 3.0]]
    huge = Claim(thirds(0, 1), ClauseRows(2, ((inequality([10**400, 0], 0),),)))
    checker = checker_of(bump())
    outcome = rigorous.check(checker, [Certificate(checker.sha256, "real", "crown", huge, NO_ROWS)])[0]
    assert not outcome.accepted and "float64" in outcome.message


def test_a_box_in_rationals_is_rounded_outward() -> None:
    # x - 1/3 >= 0 on [1/3, 2/3] holds, but no float64 box shows it; x - 1/3 + 2^-50 > 0 shows.
    for constant, accepted in ((Fraction(-1, 3), False), (Fraction(-1, 3) + Fraction(1, 2**40), True)):
        claim = Claim(thirds(1, 2), ClauseRows(2, ((inequality([1, 0], constant, strict=False),),)))
        checker = checker_of(bump())
        outcome = rigorous.check(checker, [Certificate(checker.sha256, "real", "crown", claim, NO_ROWS)])[0]
        assert outcome.accepted == accepted
    root = Root(checker, Certificate(checker.sha256, "real", "crown", claim, NO_ROWS))
    lower, upper = root.box
    assert Fraction(lower[0]) < Fraction(1, 3) and Fraction(upper[0]) > Fraction(2, 3)


def split_bump(phases: float = 0.0) -> TreeBuilder:
    """x <= 0 and x >= 0, and the latter by phase of the first neuron: its left part is x = 0."""
    builder = TreeBuilder()
    left, right = builder.split_input(0, 0, 0.0)
    below, above = builder.split_phase(right, 2, 0)
    for node, row in ((left, (1,)), (below, (1,)), (above, (1,))):
        builder.close(node, LeafProof(row, phases=None if node == left else np.full((1, 1), phases, np.float32)))
    return builder


def bump_claim(constant: Fraction) -> Claim:
    """|x| + 1 > 0 and |x| + constant > 0 on [-1/3, 2/3]."""
    return Claim(thirds(-1, 2), ClauseRows(2, ((inequality([0, 1], 1),), (inequality([0, 1], constant),))))


@pytest.mark.parametrize("rule", RULES)
def test_input_and_phase_splits_prove_what_the_root_cannot(rule: str) -> None:
    # |x| + 1/1000 > 0 on [-1/3, 2/3]: both relu(x) and relu(-x) are bent, but not where x <= 0 or x >= 0.
    claim, tree = bump_claim(Fraction(1, 1000)), split_bump(1.0).encode([1], "leaf")
    assert judged(bump(), claim, rule=rule).accepted == (rule == "interval")
    outcome = judged(bump(), claim, tree, rule=rule)
    assert outcome.accepted and outcome.leaves == 3 and outcome.message == "3 leaves"
    assert 1 / 1000 - 1e-12 < outcome.margins[1] <= 1 / 1000
    false = bump_claim(Fraction(-1, 10**9))
    message = judged(bump(), false, tree, rule=rule).message
    assert message.startswith("tree 0, leaf 0 (node 1): clause 1 is not proved (bound -")
    assert judged(bump(), false).message == "clause 1 is not proved"
    other = replace(tree, clauses=raw_array(np.zeros(1, np.int32)))
    assert judged(bump(), false, other).message == "clause 1 is not proved, and no tree proves it"


def test_combinations_of_a_clause_prove_it_and_cost_their_rounding() -> None:
    # x > -1/8 or -x > -1/8: neither row holds on all of [-1/3, 1/3], but their sum is 1/4.
    clause = (inequality([1, 0], Fraction(1, 8)), inequality([-1, 0], Fraction(1, 8)))
    claim = Claim(thirds(-1, 1), ClauseRows(2, (clause,)))
    builder = TreeBuilder()
    builder.close(0, LeafProof((-2,), weights=np.array([[0.1, 0.1]])))
    assert judged(bump(), claim, builder.encode([0], "root")).accepted
    builder.close(0, LeafProof((-2,), weights=np.array([[0.1, 0.3]])))
    assert not judged(bump(), claim, builder.encode([0], "root")).accepted
    generator = np.random.default_rng(0)
    for _ in range(50):
        weights, C, d = generator.random((4, 6)), generator.normal(size=(6, 3)), generator.normal(size=6)
        reach = generator.random(3) * 10.0 ** generator.integers(-3, 6)
        sums, constants = combined(weights, C, d, reach)
        for row in range(4):
            f = [Fraction(reach[i]) * generator.choice([-1, 1]) for i in range(3)]
            meant = sum(Fraction(w) * (sum(Fraction(c) * y for c, y in zip(line, f, strict=True)) + Fraction(constant))
                        for w, line, constant in zip(weights[row], C, d, strict=True))  # fmt: skip
            given = sum(Fraction(c) * y for c, y in zip(sums[row], f, strict=True)) + Fraction(constants[row])
            assert given <= meant and float(meant - given) <= 1e-12 * (1 + float(reach.sum()))


def test_an_empty_leaf_proves_every_clause() -> None:
    # |x| + 1/10 > 0 on [-1, 2], split at x = 1/2 and then by the phase of z = x.
    claim = Claim(thirds(-3, 6), ClauseRows(2, ((inequality([0, 1], Fraction(1, 10)),),) * 2))
    for bounds, v in (("root", 1 / 3), ("leaf", 2 / 3)):  # the slope of the bound of relu(-x) where x <= 1/2
        builder = TreeBuilder()
        left, right = builder.split_input(0, 0, 0.5)
        below, above = builder.split_phase(right, 2, 0)
        lower, upper = builder.split_phase(left, 2, 0)
        # Where x >= 1/2 and z <= 0: v z - v z is 0 and above v / 2, the first by the box and the second by the phase.
        builder.close(below, LeafProof((-1,), phases=np.full((1, 1), v, np.float32)))
        for node in (above, upper, lower):
            builder.close(node, LeafProof((0, 1), phases=np.full((2, 1), v, np.float32)))
        outcome = judged(bump(), claim, builder.encode([0, 1], bounds), rule="dual-tight")
        assert outcome.accepted and outcome.leaves == 4
        builder.close(below, LeafProof((-1,), phases=np.full((1, 1), -0.5, np.float32)))
        outcome = judged(bump(), claim, builder.encode([0, 1], bounds), rule="dual-tight")
        assert outcome.accepted == (bounds == "leaf"), "by its own ranges a leaf is empty whatever the multiplier"
        if bounds == "root":
            assert outcome.message.startswith("tree 0, leaf 2 (node 5): clause 0 is not proved")


def bare(network: Network, claim: Claim) -> Certificate:
    return Certificate(checker_of(network).sha256, "real", "crown", claim, NO_ROWS)


def test_trees_that_do_not_fit_are_refused() -> None:
    claim, network, tree = bump_claim(Fraction(1, 1000)), bump(), split_bump(1.0).encode([1], "leaf")
    checker, good = checker_of(network), bare(network, claim)
    assert rigorous.check(checker, [replace(good, trees=(tree,))])[0].accepted

    def refused(message: str, where: Claim = claim, **changes: Any) -> None:
        wrong = replace(tree, **{k: stored(v) if isinstance(v, np.ndarray) else v for k, v in changes.items()})
        outcome = rigorous.check(checker, [replace(good, claim=where, trees=(wrong,))])[0]
        assert not outcome.accepted and message in outcome.message, outcome.message

    refused("lacks", kinds=np.array([2, 0, 1, 0], np.uint8))
    refused("after its end", kinds=np.array([2, 0, 1, 0, 0, 0], np.uint8))
    refused("kind 3", kinds=np.array([3, 0, 1, 0, 0], np.uint8))
    refused("not a ReLU", places=np.array([[0, 0], [1, 0]], np.int32))
    refused("not a ReLU", places=np.array([[0, 0], [2, 2]], np.int32))
    refused("input 1 is none", places=np.array([[0, 1], [2, 0]], np.int32))
    refused("input 0 has no 0.75", points=np.array([0.75, 0.0]))
    refused("not finite", points=np.array([np.nan, 0.0]))
    refused("multiplier", phases=np.array([1.0, np.inf], np.float32))
    refused("phase multipliers", phases=np.ones(3, np.float32))
    refused("counts", counts=np.array([1, 2, 0], np.int32))
    refused("rows", rows=np.array([1, 1, 2], np.int32))
    refused("clause 1 is not proved", rows=np.array([1, 0, 1], np.int32))
    refused("bounds", bounds="none")
    refused("rise", clauses=np.array([2], np.int32))
    refused("node 1 is not a ReLU", columns=((1, raw_array(np.array([0], np.int32))),))
    refused("no neuron", columns=((2, raw_array(np.array([2], np.int32))),))
    for norm in ("2", "1"):
        refused("none of a box", where=Claim(ball([0.0], "0.25", norm), claim.rows))
    outcome = rigorous.check(checker, [replace(good, trees=(tree, tree))])[0]
    assert not outcome.accepted and "two trees" in outcome.message


def test_batches_and_long_paths_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    network = NETWORKS["deep"](1).to(torch.float64)
    claim = claim_of(network, generator)
    root = root_of(network, claim)
    for mode in MODES:
        tree, least = grown(root, network, random.Random(1), 30, [0, 1], mode)
        for entries in (1, 100, 1000):
            monkeypatch.setattr(rigorous_walk, "BATCH_ENTRIES", entries)
            again, _ = rigorous_walk.judge(root, tree, [0, 1])
            np.testing.assert_allclose([again[0], again[1]], least, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()
    # A path of 3,000 splits of one input, far deeper than recursion goes.
    builder, node = TreeBuilder(), 0
    lower, upper = root.box
    for point in np.linspace(lower[0], upper[0], 3002)[1:-1]:
        left, node = builder.split_input(node, 0, float(point))
        builder.close(left, LeafProof((0, 1)))
    builder.close(node, LeafProof((0, 1)))
    least, _ = rigorous_walk.judge(root, builder.encode([0, 1], "root"), [0, 1])
    assert all(least[k] >= root.margins[k] - 1e-12 for k in (0, 1))


def test_lemmas_serve_the_leaves() -> None:
    # z = relu(x) - relu(x) on [0, 1] lies in [-1, 1] by intervals; a lemma of the slopes shows 0.
    network = affine_net(([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, -1.0]], [0.0]), ([[-1.0]], [0.5]))
    claim = Claim(box([0.0], [1.0]), rows([[1.0]], [0.0]))
    for mode in MODES:
        builder = TreeBuilder()
        for child in builder.split_input(0, 0, 0.5):
            builder.close(child, LeafProof((0,)))
        proof = replace(bare(network, claim), rule="interval", trees=(builder.encode([0], mode),))
        accepted = []
        for lemmas in ((), (lemma(4, [0], [1], [duals(2, [0, 1], [[-1.0, 1.0]])]),)):
            proof = replace(proof, lemmas=lemmas)
            accepted.append(rigorous.check(checker_of(network), [proof])[0].accepted)
            assert exact.check(plain(network), proof).accepted == accepted[-1]
        assert accepted == [False, True]


def test_a_combinations_bound_is_not_reported_as_its_rows() -> None:
    """f = relu(x) - relu(x) + 1/4, and a tree that proves a million times its only row."""
    network = affine_net(([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, -1.0]], [0.25]))
    stated = plain(network)
    proof = certificate(stated, box([-1.0], [1.0]), rows([[1.0]], [0.0]))
    grown = tree([0], Cut(0, 0.0, [Row([1e6])], [Row([1e6])]), 1, "leaf")
    (outcome,) = rigorous.check(rigorous.Network(stated), [replace(proof, trees=(grown,))])
    assert outcome.accepted and outcome.margins[0] <= 0.25
