"""Input splits decide: verdicts equal exact enumeration, and both checkers accept every proof."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from small_networks import dense_network

from lpverify.bounds.backward import bound_claim
from lpverify.bounds.root import root_bounds
from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import Claim, ClauseRows, Inequality, RationalBox
from lpverify.certificate.graph import PlainNetwork, parse_network
from lpverify.certificate.proof import Certificate, Leaf, decode
from lpverify.certificate.rigorous_tree import Root
from lpverify.evidence import NO_ROWS
from lpverify.network import Affine, Network, ReLU
from lpverify.problem import Box
from lpverify.search.boxes import Boxes, first
from lpverify.search.clip import Planes, clip, combine
from lpverify.search.input_branching import SLOPE_SHARE, influence
from lpverify.search.input_split import InputSplits, Search, split_inputs
from lpverify.search.task import Outcome, Task
from lpverify.serialize import network_bytes

Row = tuple[Sequence[float], float]


def small_net(seed: int, sizes: tuple[int, ...]) -> Network:
    """Weights and biases are multiples of 1/16, so that exact arithmetic stays short."""
    rng = np.random.default_rng(seed)
    layers = [(rng.integers(-24, 25, (b, a)) / 16, rng.integers(-16, 17, b) / 16) for a, b in itertools.pairwise(sizes)]
    return dense_network(*((torch.tensor(w), torch.tensor(b)) for w, b in layers))


def exact_outputs(network: Network, x: Sequence[Fraction]) -> list[Fraction]:
    values = list(x)
    for node in network.nodes[1:]:
        if isinstance(node, ReLU):
            values = [max(v, Fraction(0)) for v in values]
        elif isinstance(node, Affine):
            weight = node.maps[0].matrix().toarray().tolist()
            rows = zip(weight, node.bias.tolist(), strict=True)
            values = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)) for row, b in rows]
    return values


def exact_margin(network: Network, x: Sequence[Fraction], clauses: Sequence[Sequence[Row]]) -> Fraction:
    y = exact_outputs(network, x)
    return min(
        max(sum((Fraction(c) * v for c, v in zip(C, y, strict=True)), Fraction(d)) for C, d in clause)
        for clause in clauses
    )


def inequality(C: Sequence[float], d: float) -> Inequality:
    units = tuple(i for i, c in enumerate(C) if c)
    return Inequality(units, tuple(Fraction(C[i]) for i in units), Fraction(d), True)


class Case:
    """A claim about a network, ready to be searched."""

    def __init__(
        self,
        network: Network,
        lower: Sequence[float],
        upper: Sequence[float],
        clauses: Sequence[Sequence[Row]],
        dtype: torch.dtype = torch.float64,
        seconds: float = 60.0,
    ) -> None:
        self.network, self.clauses = network, clauses
        self.box = [Fraction(v) for v in lower], [Fraction(v) for v in upper]
        rows = tuple(tuple(inequality(C, d) for C, d in clause) for clause in clauses)
        self.claim = Claim(RationalBox(tuple(self.box[0]), tuple(self.box[1])), ClauseRows(network.output_size, rows))
        self.plain: PlainNetwork = parse_network(network_bytes(network))
        self.checker = rigorous.Network(self.plain)
        flat = [row for clause in clauses for row in clause]
        self.found: list[Fraction] = []
        self.task = Task(
            network=network.to(dtype),
            region=Box(torch.tensor([lower], dtype=dtype), torch.tensor([upper], dtype=dtype)),
            C=torch.tensor(np.array([C for C, _ in flat]), dtype=dtype),
            d=torch.tensor([d for _, d in flat], dtype=dtype),
            clauses=self.claim.clauses,
            witness=self.is_witness,
            isolated=lambda tasks, limit: iter(()),
            deadline=time.perf_counter() + seconds,
            root=Root(self.checker, self.certificate()),
        )

    def certificate(self, outcome: Outcome | None = None) -> Certificate:
        trees = outcome.trees if outcome is not None else ()
        return Certificate(self.plain.sha256, "real", "crown", self.claim, Leaf(NO_ROWS, ()), (), trees)

    def is_witness(self, x: Any) -> bool:
        point = [max(a, min(Fraction(float(v)), b)) for v, a, b in zip(x, *self.box, strict=True)]
        fails = exact_margin(self.network, point, self.clauses) <= 0
        self.found = point if fails else self.found
        return fails

    def search(self, options: InputSplits | None = None) -> Outcome:
        outcome = split_inputs(self.task, range(len(self.clauses)), options)
        assert not (outcome.proved and outcome.falsified)
        if outcome.proved:
            proof = decode(self.certificate(outcome).encode())
            (accepted,) = rigorous.check(self.checker, [proof])
            assert accepted.accepted, accepted.message
            again = exact.check(self.plain, proof)
            assert again.accepted, again.message
        if outcome.falsified:
            assert exact_margin(self.network, self.found, self.clauses) <= 0
            assert all(a <= x <= b for x, a, b in zip(self.found, *self.box, strict=True))
        return outcome


def least_on_line(network: Network, lower: float, upper: float, clauses: Sequence[Sequence[Row]]) -> Fraction:
    """The exact minimum over [lower, upper] of a claim's margin: at a kink, an end, or where two rows cross."""

    def crossings(points: list[Fraction], values: list[list[Fraction]]) -> list[Fraction]:
        found = set(points)
        for (a, b), (left, right) in zip(itertools.pairwise(points), itertools.pairwise(values), strict=True):
            for u, v in zip(left, right, strict=True):
                if u * v < 0:
                    found.add(a + (b - a) * u / (u - v))
        return sorted(found)

    points = [Fraction(lower), Fraction(upper)]
    for relu in network.relus:
        layer = Network(network.nodes[:relu])
        points = crossings(points, [exact_outputs(layer, [x]) for x in points])
    for clause in clauses:
        for (one, c), (two, d) in itertools.combinations(clause, 2):
            def gap(x: Fraction, one: Any = one, two: Any = two, c: float = c, d: float = d) -> list[Fraction]:
                y = exact_outputs(network, [x])
                terms = (Fraction(a - b) * v for a, b, v in zip(one, two, y, strict=True))
                return [sum(terms, Fraction(c) - Fraction(d))]
            points = crossings(points, [gap(x) for x in points])
    return min(exact_margin(network, [x], clauses) for x in points)


def random_clauses(seed: int, outputs: int) -> list[list[Row]]:
    rng = np.random.default_rng(seed + 10**6)
    return [
        [(rng.integers(-8, 9, outputs) / 8, float(rng.integers(0, 40) / 8)) for _ in range(rng.integers(1, 4))]
        for _ in range(rng.integers(1, 3))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_verdicts_on_a_line_are_those_of_enumeration(seed: int) -> None:
    network, clauses = small_net(seed, (1, 5, 4, 2)), random_clauses(seed, 2)
    least = least_on_line(network, -1.5, 2.0, clauses)
    assert least != 0
    outcome = Case(network, [-1.5], [2.0], clauses, [torch.float32, torch.float64][seed % 2]).search()
    assert (outcome.proved, outcome.falsified) == (least > 0, least < 0)


def test_both_verdicts_occur_on_the_line() -> None:
    least = [least_on_line(small_net(s, (1, 5, 4, 2)), -1.5, 2.0, random_clauses(s, 2)) for s in range(40)]
    assert 8 <= sum(value > 0 for value in least) <= 32


@pytest.mark.parametrize("seed", range(15))
def test_nets_of_several_inputs_are_decided_and_halves_agree_with_the_whole(seed: int) -> None:
    inputs = 2 + seed % 3
    network, clauses = small_net(seed, (inputs, 6, 5, 2)), random_clauses(seed, 2)
    lower, upper = [-1.0] * inputs, [1.0] * inputs
    whole = Case(network, lower, upper, clauses).search()
    assert whole.proved or whole.falsified
    halves = [
        Case(network, [0.25, *lower[1:]], upper, clauses).search(),
        Case(network, lower, [0.25, *upper[1:]], clauses).search(),
    ]
    assert whole.proved == all(half.proved for half in halves)
    assert whole.falsified == any(half.falsified for half in halves)


@pytest.mark.parametrize("seed", range(6))
def test_depth_first_in_small_batches_and_without_clipping_decides_the_same(seed: int) -> None:
    network, clauses = small_net(seed, (2, 6, 5, 2)), random_clauses(seed, 2)
    verdicts = {
        Case(network, [-1.0] * 2, [1.0] * 2, clauses).search(options).proved
        for options in (InputSplits(), InputSplits(batch=2, most_open=3), InputSplits(least_cut=2.0))
    }
    assert len(verdicts) == 1


def test_depth_first_keeps_few_boxes_open() -> None:
    case = Case(small_net(5, (4, 10, 10, 1)), [-1.0] * 4, [1.0] * 4, [[([1.0], 3.0)]])
    search = Search(case.task, [0], InputSplits(batch=2, most_open=0, least_cut=2.0))
    most, split = 0, search._split

    def watch(*args: Any) -> None:
        nonlocal most
        split(*args)
        most = max(most, len(search.open))

    search._split = watch  # type: ignore[method-assign]
    assert search.run().proved
    assert search.nodes > 200
    assert most <= 2 * 12  # two boxes a level


def distance(inputs: int, gap: float) -> Network:
    """|3 x_0 - 1| + ... + gap: least at 1/3, which is no float."""
    weight = torch.cat([torch.eye(inputs), -torch.eye(inputs)]).double() * 3
    bias = torch.cat([-torch.ones(inputs), torch.ones(inputs)]).double()
    return dense_network((weight, bias), (torch.ones(1, 2 * inputs).double(), torch.tensor([gap]).double()))


@pytest.mark.parametrize(("dtype", "power"), [(torch.float64, -40), (torch.float32, -16)])
@pytest.mark.parametrize("sign", [1, -1])
def test_thin_margins(dtype: torch.dtype, power: int, sign: int) -> None:
    outcome = Case(distance(1, sign * 2.0**power), [0.0], [1.0], [[([1.0], 0.0)]], dtype).search()
    assert (outcome.proved, outcome.falsified) == (sign > 0, sign < 0)


def test_margin_zero_between_floats_ends_unknown_with_a_reason() -> None:
    outcome = Case(distance(1, 0.0), [0.0], [1.0], [[([1.0], 0.0)]]).search()
    assert not outcome.proved
    assert not outcome.falsified
    assert "neighbouring floats" in outcome.reason
    assert outcome.bound.shape == (1,)
    assert outcome.bound[0] <= 0


def test_the_deadline_is_kept() -> None:
    # The second input never matters, so that its side can be halved almost forever.
    weight = torch.tensor([[3.0, 0.0], [-3.0, 0.0]]).double()
    network = dense_network(
        (weight, torch.tensor([-1.0, 1.0]).double()), (torch.ones(1, 2).double(), torch.zeros(1).double())
    )
    case = Case(network, [0.0, 0.0], [1.0, 1.0], [[([1.0], 0.0)]], seconds=0.7)
    started = time.perf_counter()
    outcome = case.search()
    assert time.perf_counter() - started < 3
    assert outcome.reason == "timeout"
    assert outcome.nodes > 0


@pytest.mark.parametrize("gap", [0.5, -0.5])
def test_a_point_as_the_box(gap: float) -> None:
    case = Case(distance(2, gap), [0.3125, 0.375], [0.3125, 0.375], [[([1.0], 0.0)]])
    value = exact_outputs(case.network, [Fraction(5, 16), Fraction(3, 8)])[0]
    outcome = case.search()
    assert (outcome.proved, outcome.falsified) == (value > 0, value <= 0)
    assert outcome.nodes == 1


def test_fixed_inputs_are_never_split() -> None:
    network, clauses = small_net(3, (3, 6, 5, 2)), [[([0.0, 1.0], 1.75)]]
    lower, upper = [-1.0, 0.1, -1.0], [1.0, 0.1, 1.0]
    outcome = Case(network, lower, upper, clauses).search(InputSplits(batch=4))
    assert outcome.proved or outcome.falsified
    for tree in outcome.trees:
        assert 1 not in tree.places.values()[1::2]


def test_a_clause_is_proved_by_a_combination_of_its_rows() -> None:
    # x > 0 or 1/2 - x > 0: neither holds everywhere, their sum is 1/2.
    network = dense_network((torch.eye(1).double(), torch.zeros(1).double()))
    outcome = Case(network, [-8.0], [8.0], [[([1.0], 0.0), ([-1.0], 0.5)]]).search()
    assert outcome.proved
    (tree,) = outcome.trees
    assert tree.num_leaves == 1
    assert list(tree.rows.values()) == [-2]
    assert sum(weight > 0 for weight in tree.combos.values()) == 2


def test_refused_leaves_are_split_on() -> None:
    case = Case(distance(1, 2.0**-6), [0.0], [1.0], [[([1.0], 0.0)]])
    bounds, asked = case.task.root.bounds, 0

    def strict(leaves: Any, bounds_of: str = "root", **more: Any) -> Any:
        nonlocal asked
        asked += 1
        found = bounds(leaves, more.get("bounds", bounds_of))
        return found if asked > 1 else found - 10

    case.task.root.bounds = strict  # type: ignore[method-assign]
    search = Search(case.task, [0], InputSplits())
    outcome = search.run()
    assert outcome.proved
    assert search.refusals > 0
    (accepted,) = rigorous.check(case.checker, [case.certificate(outcome)])
    assert accepted.accepted


def random_planes(seed: int, rows: int = 3) -> Planes:
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=(8, 4))
    upper = lower + rng.random((8, 4))
    slopes = rng.normal(size=(8, 2, rows, 4))
    offsets = rng.normal(size=(8, 2, rows)) - (slopes * (lower + upper)[:, None, None] / 2).sum(-1)
    bound = offsets + np.minimum(slopes * lower[:, None, None], slopes * upper[:, None, None]).sum(-1)
    unit = np.broadcast_to(np.eye(rows), (8, 2, rows, rows))
    return Planes(lower, upper, bound, slopes, unit)


def values_at(planes: Planes, points: Any) -> Any:
    """All linear bounds at points (p, B, n_0): (p, B, c, p)."""
    least = np.minimum(planes.slopes * planes.lower[:, None, None], planes.slopes * planes.upper[:, None, None]).sum(-1)
    return (planes.bound - least) + (planes.slopes * points[:, :, None, None]).sum(-1)


@pytest.mark.parametrize("seed", range(5))
def test_clipping_keeps_every_point_where_a_clause_may_fail(seed: int) -> None:
    planes = random_planes(seed).with_combinations()
    kept = clip(planes)
    points = planes.lower + np.random.default_rng(seed).random((2000, 8, 4)) * (planes.upper - planes.lower)
    fails = (values_at(planes, points) <= 0).all(-1).any(-1)
    assert fails.any()
    inside = ((kept.lower <= points) & (points <= kept.upper)).all(-1)
    assert inside[fails].all()
    assert not inside.all()
    # Beyond each end, the weights given there prove every clause.
    rows = values_at(random_planes(seed), points)
    for index in range(4):
        x = points[..., index]
        for beyond, weights in ((x < kept.lower[:, index], kept.below), (x > kept.upper[:, index], kept.above)):
            assert ((rows * weights[:, index]).sum(-1)[beyond] > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_combinations_are_what_they_say_and_near_the_linear_programs_optimum(seed: int) -> None:
    planes = random_planes(seed, rows=2)
    value, slopes, weights = combine(planes)
    assert (weights >= 0).all()
    assert weights.sum(-1) == pytest.approx(1.0)
    assert slopes == pytest.approx((weights[..., None] * planes.slopes).sum(2))
    center = (planes.lower + planes.upper)[:, None] / 2
    radius = (planes.upper - planes.lower)[:, None] / 2
    middles = (weights * values_at(planes, center[:, 0][None])[0]).sum(-1)
    assert value == pytest.approx(middles - (np.abs(slopes) * radius).sum(-1))
    assert (value >= planes.bound.max(2) - 1e-12).all()
    for box, clause in np.ndindex(value.shape):
        # least t with t >= each linear bound, over the box
        offsets = values_at(planes, np.zeros((1, 8, 4)))[0, box, clause]
        best = linprog(
            [0, 0, 0, 0, 1], np.c_[planes.slopes[box, clause], -np.ones(2)], -offsets,
            bounds=[*zip(planes.lower[box], planes.upper[box], strict=True), (None, None)],
        )  # fmt: skip
        assert value[box, clause] <= best.fun + 1e-9
        assert value[box, clause] >= best.fun - 0.02


def test_influence_is_nothing_beside_the_slope_where_no_neuron_is_unstable() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    network = dense_network(
        (weight, torch.tensor([5.0, 0.0]).double()), (torch.tensor([[2.0, 3.0]]).double(), torch.zeros(1).double())
    )
    region = Box(torch.tensor([[-1.0, -1.0]]).double(), torch.tensor([[1.0, 0.5]]).double())
    root, C = root_bounds(network, region, "crown"), torch.ones(1, 1).double()
    score, bound, slopes = influence(network, root, region, C)
    expected = bound_claim(network, root.relaxations, region, C.unsqueeze(1), torch.zeros(1, 1).double())
    assert bound == pytest.approx(expected[0])
    assert float(score[0, 0]) == SLOPE_SHARE * 2.0
    # Neuron 1 is unstable: its weight 3, times its derivative by input 1.
    assert float(score[0, 1]) == pytest.approx(SLOPE_SHARE * abs(float(slopes[0, 1])) + 3.0)


def test_next_boxes_are_the_worst_and_the_latest() -> None:
    bound = np.array([[5.0], [1.0], [4.0], [0.0], [3.0], [2.0]])
    zero = np.zeros((6, 1))
    boxes = Boxes(zero, zero, np.arange(6), bound, np.zeros(6, bool), np.ones((6, 1, 1)))
    assert sorted(first(boxes, 4, 100)[0].node) == [1, 3, 4, 5]
    assert sorted(first(boxes, 4, 5)[0].node) == [2, 3, 4, 5]
    taken, left = first(boxes, 10, 100)
    assert (len(taken), len(left)) == (6, 0)
