"""The exact checker: sound on every net and multiplier, tight where the relaxation is, and on its own."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from small_certificates import (
    NO_ROWS,
    affine_net,
    ball,
    box,
    certificate,
    claim_matrix,
    duals,
    leaf,
    least_sampled,
    lemma,
    mixed_network,
    plain,
    positive,
    rows,
    slopes,
)
from small_networks import dense_network, mnist_conv_network, random_network, state_tensors

import lpverify
from lpverify.attack.exact import exact_outputs
from lpverify.bounds import CrownBound, DualBound, IntervalBound
from lpverify.certificate.claim import BallRegion, Claim, LabelRows
from lpverify.certificate.exact import Outcome, check, check_witness, main
from lpverify.certificate.exact_linear import convert, evaluate
from lpverify.certificate.proof import RULES, Certificate, Witness
from lpverify.data import load_data
from lpverify.errors import CertificateError
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Specification
from lpverify.problem import ball as torch_ball
from lpverify.serialize import network_bytes, raw_array

UNIT = ([0.0], [1.0])


def run(network: Network, *arguments: object, **options: object) -> Outcome:
    parsed = plain(network)
    return check(parsed, certificate(parsed, *arguments, **options))  # type: ignore[arg-type]


# The linear maps


def test_maps_and_evaluation_agree_with_the_package_definition() -> None:
    network = mixed_network()
    exact = convert(plain(network))
    generator = np.random.default_rng(1)
    for node, kept in zip(exact.nodes, network.nodes, strict=True):
        if isinstance(kept, Affine):
            for matrix, linear in zip(node.maps, kept.maps, strict=True):
                W = linear.matrix().toarray()
                v, x = generator.integers(-9, 9, linear.out_size), generator.integers(-9, 9, linear.in_size)
                back = matrix.transpose({i: int(n) for i, n in enumerate(v)})
                # Float64 sums of a few 24-bit weights times small integers are exact.
                assert [back.get(j, 0) * 2.0**matrix.exponent for j in range(linear.in_size)] == (W.T @ v).tolist()
                assert [n * 2.0**matrix.exponent for n in matrix.apply(x.tolist())] == (W @ x).tolist()
                sizes = matrix.apply(np.abs(x).tolist(), magnitude=True)
                assert [n * 2.0**matrix.exponent for n in sizes] == (np.abs(W) @ np.abs(x)).tolist()
                assert matrix.terms == np.count_nonzero(W, axis=1).max()
    point = generator.normal(size=network.input_size)
    assert evaluate(exact, [Fraction(v) for v in point]) == exact_outputs(network, point).fractions()


def test_evaluation_takes_any_rational() -> None:
    network = plain(affine_net(([[1.0], [-0.5]], [0.0, 0.25]), ([[3.0, 1.0]], [1.0])))
    assert evaluate(network, [Fraction(1, 3)]) == [Fraction(1) + 1 + Fraction(1, 4) - Fraction(1, 6)]
    with pytest.raises(CertificateError, match="2 inputs, the network 1"):
        evaluate(network, [Fraction(1), Fraction(2)])


# Bounds are sound


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bound_is_above_a_sampled_value(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 10**6), "seed")
    sizes = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4), "sizes"))
    network = random_network(seed, sizes, data.draw(st.sampled_from([torch.float32, torch.float64])))
    norm, clip = data.draw(st.sampled_from(["inf", "2", "1"])), data.draw(st.sampled_from([None, ("-0.5", "1")]))
    center = data.draw(st.lists(st.floats(-0.5, 1, width=32), min_size=sizes[0], max_size=sizes[0]))
    region = ball(center, data.draw(st.sampled_from(["0", "0.1", "0.7", "3"])), norm, clip)
    m = data.draw(st.integers(1, 3))
    number = st.floats(-2, 2, width=32)
    entries = data.draw(st.lists(number, min_size=m * sizes[-1], max_size=m * sizes[-1]))
    claim_rows = rows(np.array(entries).reshape(m, -1), data.draw(st.lists(number, min_size=m, max_size=m)))
    share = st.floats(0, 1)
    multiplier = st.floats(-2, 2, width=32) | st.floats(allow_nan=False, allow_infinity=False, width=32)

    def own(count: int) -> list:
        found: list = []
        for node in network.relus:
            width = network.sizes[node]
            values = data.draw(st.lists(share, min_size=count * width, max_size=count * width))
            found.append(slopes(node, range(width), np.array(values).reshape(count, -1)))
            listed = sorted(data.draw(st.sets(st.integers(0, width - 1)), "neurons"))
            values = data.draw(st.lists(multiplier, min_size=count * len(listed), max_size=count * len(listed)))
            found.append(duals(node, listed, np.reshape(values, (count, len(listed)))))
        return found

    lemmas = []
    for node in network.relus:
        width = network.sizes[node]
        lemmas.append(lemma(node, [*range(width)] * 2, [0] * width + [1] * width, tuple(own(2 * width))))
    parsed = plain(network)
    for rule in RULES:
        plainly = certificate(parsed, region, claim_rows, rule)
        free = replace(plainly, leaf=leaf(range(m), *own(m)), lemmas=tuple(lemmas))
        least = least_sampled(network, plainly.claim, 12, seed)
        assume(least is not None)  # a clipped l1 ball may hold no float that is tried
        for outcome in (check(parsed, plainly), check(parsed, free)):
            assert all(bound <= value for bound, value in zip(outcome.margins, least or [], strict=True))
            assert outcome.accepted == all(bound > 0 for bound in outcome.margins)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_bounds_on_a_graph_with_every_kind_of_map(rule: str, semantics: str) -> None:
    network = mixed_network(3)
    single = network.to(torch.float32)
    for eps in ("0", "0.01", "0.3"):
        claim_rows = rows([[1, -1, 0], [0, 1, 0.5]], [0.25, -0.125])
        parsed = plain(network)
        proof = certificate(parsed, ball([0.1] * network.input_size, eps), claim_rows, rule, semantics)
        margins = check(parsed, proof).margins
        least = least_sampled(network, proof.claim, 30)
        assert least is not None and all(a <= b for a, b in zip(margins, least, strict=True))
        if eps == "0" and semantics == "real" and rule in ("crown", "dual-tight"):
            assert float(max(b - a for a, b in zip(margins, least, strict=True))) < 1e-9
        if semantics == "float32":
            C, d = claim_matrix(proof.claim)
            x = 0.1 + 0.99 * float(eps) * (2 * torch.rand(100, network.input_size) - 1)
            values = single.forward(x.float()).double().numpy() @ C.T + d
            assert eps == "0" or all(float(bound) <= value for bound, value in zip(margins, values.min(0), strict=True))


def minimum_by_patterns(network: Network, lower: np.ndarray, upper: np.ndarray, c: np.ndarray) -> float:
    """min c.f over a box: an LP for every activation pattern of a dense net (Dense, ReLU, Dense, ...)."""
    affine = [n for n in network.nodes if isinstance(n, Affine)]
    layers = [(n.maps[0].weight.numpy(), n.bias.numpy()) for n in affine]  # type: ignore[attr-defined]
    hidden, best = sum(len(b) for _, b in layers[:-1]), np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=hidden):
        W, b, at = np.eye(len(lower)), np.zeros(len(lower)), 0
        sides, limits = [], []
        for weight, bias in layers[:-1]:
            W, b = weight @ W, weight @ b + bias
            on = np.array(pattern[at : at + len(b)])
            sides.append(np.where(on[:, None] > 0, -W, W))
            limits.append(np.where(on > 0, b, -b))
            W, b, at = on[:, None] * W, on * b, at + len(b)
        W, b = c @ layers[-1][0] @ W, c @ (layers[-1][0] @ b + layers[-1][1])
        found = linprog(W, np.vstack(sides), np.hstack(limits), bounds=list(zip(lower, upper, strict=True)))
        best = min(best, found.fun + b if found.status == 0 else np.inf)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_below_the_enumerated_minimum(seed: int) -> None:
    network = random_network(seed, (2, 3, 3, 1))
    lower, upper = np.array([-0.5, 0.25]), np.array([0.5, 0.75])
    least = minimum_by_patterns(network, lower, upper, np.ones(1))
    found = {rule: run(network, box(lower, upper), positive(network), rule).margins[0] for rule in RULES}
    assert all(float(bound) <= least + 1e-7 for bound in found.values())
    # A box of one point leaves nothing unstable: no gap.
    point = run(network, box(lower, lower), positive(network)).margins[0]
    assert abs(float(point) - minimum_by_patterns(network, lower, lower, np.ones(1))) < 1e-9


def test_two_neurons_by_hand() -> None:
    """f = relu(x) + relu(-x) - 1/4 on [-1, 3]: l, u = (-1, 3), (-3, 1).

    CROWN: u >= -l gives slope 1, then 0: x - 1/4 >= -5/4. Dual: slopes 3/4 and 1/4: x/2 - 1/4 >= -3/4.
    Slopes 1/2 and 1/2, stored: 0 - 1/4. Interval: both ReLUs are >= 0, so -1/4.
    """
    network, region = affine_net(([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0]], [-0.25])), box([-1], [3])
    expected = {"crown": "-5/4", "dual": "-3/4", "dual-tight": "-3/4", "interval": "-1/4"}
    for rule, bound in expected.items():
        assert run(network, region, positive(network), rule).margins == (Fraction(bound),)
    stored = leaf([0], slopes(2, [0, 1], [0.5, 0.5]))
    assert run(network, region, positive(network), leaf=stored).margins == (Fraction(-1, 4),)


# Networks that fool floating point: never a false claim accepted, the true ones proved


def path_absorber(w: int, k: float, m: float) -> Network:
    up, rest = 2.0 ** (w // 2), 2.0 ** (w - w // 2)
    return affine_net(
        ([[up], [1.0], [up]], [0.0] * 3),
        ([[rest, 0, 0], [0, 1, 0], [0, 0, rest]], [0.0] * 3),
        ([[-k, -k, k]], [m]),
    )


def absorber(w: int, k: float, m: float) -> Network:
    return affine_net(([[1.0], [0.0]], [2.0**w, 2.0**w]), ([[-k, k]], [m]))


def tiny_weight(m: float, shift: int) -> Network:
    return affine_net(([[2.0**shift]], [0.0]), ([[-10.0 * 2.0**-shift]], [m]))


def plateau(n: int, eta: float) -> Network:
    return affine_net(((np.eye(n) * 2.0**30).tolist(), [0.0] * n), ([[-eta] * n], [n / 2 * eta * 2.0**30]))


def valley(delta: float) -> Network:
    return affine_net(([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, 1.0]], [-delta]))


HARD = [
    *((f"path_absorber_w{w}_m{m}", path_absorber(w, 5, m), m - 5) for w in (26, 52, 53, 54, 55, 56) for m in (4, 5, 6)),
    *((f"absorber_w{w}_m{m}", absorber(w, 2, m), m - 2) for w in (24, 53, 54, 60) for m in (1, 2, 3)),
    *((f"tiny_weight_{s}_m{m}", tiny_weight(m, s), m - 10) for s in (30, 34, 44, -34) for m in (5, 10, 11)),
    *((f"plateau_{n}_{k}", plateau(n, 2.0**-k), -n / 2 * 2.0 ** (30 - k)) for n in (1, 7) for k in (27, 40)),
    *((f"valley_{d}", valley(d), -d) for d in (2.0**-28, -(2.0**-28), 2.0**-60, -(2.0**-60), 0.0)),
]


@pytest.mark.parametrize(("network", "least"), [h[1:] for h in HARD], ids=[h[0] for h in HARD])
@pytest.mark.parametrize("rule", ["crown", "dual", "dual-tight"])
def test_hand_made_nets_that_fool_solvers(network: Network, least: float, rule: str) -> None:
    n = network.input_size
    outcome = run(network, box([0.0] * n, [1.0] * n), positive(network), rule)
    assert outcome.margins == (Fraction(least),)  # none of these has a relaxation gap
    assert outcome.accepted == (least > 0)


@pytest.mark.parametrize("w", [24, 25, 40, 60])
def test_reverse_absorber_holds_really_but_not_in_float32(w: int) -> None:
    """m - k relu(relu(x) + relu(2^w) - relu(x + 2^w)) is m; float32 rounds x + 2^w to 2^w and gives m - k."""
    network = affine_net(
        ([[1.0], [0.0], [1.0]], [0.0, 2.0**w, 2.0**w]), ([[1.0, 1.0, -1.0]], [0.0]), ([[-10.0]], [1.0])
    )
    assert run(network, box(*UNIT), positive(network)).margins == (Fraction(1),)
    assert not run(network, box(*UNIT), positive(network), semantics="float32").accepted


@pytest.mark.parametrize("k", range(-44, 45, 4))
def test_a_layer_pair_rescaled_by_a_power_of_two_changes_nothing(k: int) -> None:
    network = random_network(7, (4, 6, 5, 3))
    nodes = list(network.nodes)
    for index, scale in ((1, 2.0**k), (3, 2.0**-k)):
        node = nodes[index]
        assert isinstance(node, Affine) and isinstance(node.maps[0], Dense)
        bias = node.bias * (scale if index == 1 else 1)
        nodes[index] = replace(node, maps=(Dense(node.maps[0].weight * scale),), bias=bias)
    twin = Network(tuple(nodes))
    region = ball([0.25, -0.5, 0.125, 0.75], "0.2")
    for rule in RULES:
        want = run(network, region, LabelRows(0, 3), rule).margins
        assert run(twin, region, LabelRows(0, 3), rule).margins == want


# float32 semantics


def test_float32_bounds_hold_for_sums_in_any_order() -> None:
    network = random_network(11, (6, 8, 8, 1), torch.float32)
    region = ball(np.linspace(-1, 1, 6), "0.25")
    parsed = plain(network)
    proof = certificate(parsed, region, positive(network), semantics="float32")
    bound = float(check(parsed, proof).margins[0])
    real = float(check(parsed, replace(proof, semantics="real")).margins[0])
    assert real - 1e-4 < bound < real
    draw = np.random.default_rng(0)
    affine = [n for n in network.nodes if isinstance(n, Affine)]
    layers = [(n.maps[0].weight.numpy(), n.bias.numpy()) for n in affine]  # type: ignore[attr-defined]
    for _ in range(200):
        h = (np.linspace(-1, 1, 6) + draw.uniform(-0.2499, 0.2499, 6)).astype(np.float32)
        for depth, (W, b) in enumerate(layers):
            h = np.maximum(h, 0) if depth else h
            out = []
            for row, start in zip(W, b, strict=True):
                terms = draw.permutation(np.append(row * h, start))
                value = terms[0]
                for term in terms[1:]:
                    value = np.float32(value + term)
                out.append(value)
            h = np.array(out, np.float32)
        assert bound <= h[0]


def test_float32_error_by_hand() -> None:
    """f = x/2 on [1, 1]: one product, so E = 2u/(1-2u) (1/2) + 2 2^-149."""
    network = affine_net(([[0.5]], [0.0]))
    u = Fraction(1, 2**24)
    want = Fraction(1, 2) - (2 * u / (1 - 2 * u) / 2 + Fraction(2, 2**149))
    (margin,) = run(network, box([1], [1]), positive(network), semantics="float32").margins
    assert 0 <= want - margin < Fraction(1, 2**140)


def test_float32_overflow_has_no_bound() -> None:
    network = affine_net(([[2.0**120], [2.0**120]], [0, 0]), ([[2.0**20, -(2.0**20)]], [1.0]))
    assert run(network, box(*UNIT), positive(network)).margins[0] <= 1
    outcome = run(network, box(*UNIT), positive(network), semantics="float32")
    assert not outcome.accepted and outcome.margins == ()
    assert "node 3: float32 evaluation may overflow" in outcome.message


def test_float32_needs_float32_parameters() -> None:
    network = affine_net(([[0.1]], [1.0]))
    assert run(network, box(*UNIT), positive(network)).accepted
    assert "not float32" in run(network, box(*UNIT), positive(network), semantics="float32").message


# Regions, lemmas, refusals


@pytest.mark.parametrize(("norm", "least"), [("inf", 1 - 0.7), ("2", 1 - 0.5), ("1", 1 - 0.4)])
def test_a_ball_around_a_linear_net(norm: str, least: float) -> None:
    """1 + 3x - 4y at radius 0.1: the dual norms of (3, -4) are 7, 5 and 4."""
    (margin,) = run(affine_net(([[3.0, -4.0]], [1.0])), ball([0, 0], "0.1", norm), rows([[1]], [0])).margins
    assert 0 <= Fraction(str(round(least, 3))) - margin < Fraction(1, 10**15)


def test_a_ball_also_uses_its_clipped_box() -> None:
    network = affine_net(([[-1.0, 0.0]], [0.125]))
    for norm in ("inf", "2", "1"):
        (margin,) = run(network, ball([0, 0], "0.2", norm, ("-1", "0.1")), rows([[1]], [0])).margins
        assert Fraction(25, 1000) - Fraction(1, 2**70) <= margin <= Fraction(25, 1000)


def test_a_first_layer_over_a_ball_is_refined() -> None:
    """relu(x + y - 1.2) with |(x, y)|_1 <= 1 never opens; over the enclosing box it may."""
    network = affine_net(([[1.0, 1.0]], [-1.25]), ([[-1.0]], [0.5]))
    assert run(network, ball([0, 0], "1", "1"), positive(network)).margins == (Fraction(1, 2),)
    assert run(network, ball([0, 0], "1"), positive(network)).margins[0] < Fraction(1, 2)


def test_an_empty_region_is_refused() -> None:
    network = affine_net(([[1.0]], [1.0]))
    outcome = run(network, ball([2], "0.5", "inf", ("0", "1")), positive(network))
    assert not outcome.accepted and "input 0: the region is empty" in outcome.message


def test_a_relu_may_read_the_input() -> None:
    both = (Dense(torch.eye(2)), Dense(-torch.eye(2)))
    network = Network((Input((2,)), ReLU(0), Affine((1, 0), both, torch.ones(2), (2,))))
    assert run(network, box([-1, 0.5], [-0.5, 2]), positive(network)).margins == (Fraction(3, 2), Fraction(1))


def test_a_lemma_proves_what_the_rule_does_not() -> None:
    """g = relu(x) + relu(-x) on [-1, 3], t = relu(-g): CROWN leaves -g <= 1 open; with slopes 1/2 it is <= 0."""
    network = affine_net(([[1.0], [-1.0]], [0, 0]), ([[-1.0, -1.0], [1.0, 0.5]], [0.0, 0.0]), ([[-1.0, 0.0]], [0.125]))
    region, own = box([-1], [3]), (slopes(2, [0, 1], [0.5, 0.5]),)
    parsed = plain(network)
    proof = certificate(parsed, region, positive(network))
    # The interval proves t = 0 at once, so take the rule whose bounds are the backward pass's own.
    dual = check(parsed, replace(proof, rule="dual"))
    assert not dual.accepted
    tightened = check(parsed, replace(proof, rule="dual", lemmas=(lemma(4, [0], [1], own),)))
    assert tightened.accepted and tightened.margins == (Fraction(1, 8),)


def test_a_lemma_only_ever_tightens() -> None:
    """For g = relu(x) + relu(-x) on [-1, 3] slopes (1, 0) prove g >= -1; the interval knew g >= 0."""
    network = affine_net(([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0]], [0.0]), ([[-1.0]], [8.0]))
    poor = lemma(4, [0], [0], (slopes(2, [0, 1], [1.0, 0.0]),))
    without = run(network, box([-1], [3]), positive(network)).margins
    assert run(network, box([-1], [3]), positive(network), lemmas=(poor,)).margins == without


def test_unknown_nodes_and_neurons_are_named() -> None:
    network = random_network(0, (2, 3, 1))
    for bad, message in (
        ({"lemmas": (lemma(9, [0], [0]),)}, "node 9 is not a ReLU"),
        ({"lemmas": (lemma(1, [0], [0]),)}, "node 1 is not a ReLU"),
        ({"lemmas": (lemma(2, [3], [0]),)}, "a neuron of node 2 is not in 0..2"),
        ({"lemmas": (lemma(2, [0], [0], (slopes(3, [0], [1.0]),)),)}, "node 3 is not a ReLU"),
        ({"leaf": leaf([0], slopes(2, [4], [1.0]))}, "a neuron of node 2 is not in 0..2"),
    ):
        with pytest.raises(CertificateError, match=message):
            run(network, box([0, 0], [1, 1]), positive(network), **bad)


def test_foreign_and_misfit_certificates_are_refused() -> None:
    network, other = plain(random_network(0, (2, 3, 2))), plain(random_network(1, (2, 3, 2)))
    proof = certificate(network, box([0, 0], [1, 1]), LabelRows(0, 2))
    assert "made for network" in check(other, proof).message
    for region, claim_rows in ((box([0], [1]), LabelRows(0, 2)), (box([0, 0], [1, 1]), LabelRows(0, 3))):
        outcome = check(network, certificate(network, region, claim_rows))
        assert not outcome.accepted and "(inputs, outputs)" in outcome.message


# Witnesses and the command


def witness(network: Network, x: list[float], margin: float) -> Witness:
    parsed = plain(network)
    claim = certificate(parsed, ball([0.5], "0.1"), positive(network)).claim
    return Witness(parsed.sha256, claim, raw_array(np.array(x, np.float64)), 0, margin, margin)


def test_witnesses() -> None:
    network = valley(0.0)
    parsed = plain(network)
    good = witness(network, [0.5], 0.0)
    assert check_witness(parsed, good) == Outcome(True, (Fraction(0),), "row 0 fails at the point: its value is 0.0")
    for bad, message in (
        (witness(network, [0.6], 0.1), "row 0 holds"),
        (witness(network, [float(np.nextafter(0.4, 0))], 0.0), "input 0 of the point lies outside"),
        (witness(network, [float("nan")], 0.0), "not finite"),
        (witness(network, [0.5], -1e-300), "recorded is -1e-300"),
        (replace(good, network="0" * 64), "made for network"),
    ):
        outcome = check_witness(parsed, bad)
        assert not outcome.accepted and message in outcome.message


@pytest.mark.parametrize(("norm", "inside"), [("inf", True), ("2", False), ("1", False)])
def test_a_witness_lies_in_its_own_ball(norm: str, inside: bool) -> None:
    network = affine_net(([[-1.0, -1.0]], [0.0]))
    parsed = plain(network)
    claim = certificate(parsed, ball([0, 0], "0.5", norm), positive(network)).claim
    for x, expected in (([0.5, 0.5], inside), ([0.25, 0.25], True)):
        found = Witness(parsed.sha256, claim, raw_array(np.array(x)), 0, -sum(x), -sum(x))
        assert check_witness(parsed, found).accepted == expected


def run_folder(folder: Path) -> Path:
    network = valley(-0.125)
    parsed = plain(network)
    (folder / "certificates").mkdir(parents=True)
    (folder / "counterexamples").mkdir()
    (folder / "network.lpnet").write_bytes(network_bytes(network))
    good = certificate(parsed, ball([0.5], "0.1"), positive(network))
    (folder / "certificates" / "0.lpcert").write_bytes(good.encode())
    false = replace(good.claim, rows=rows([[1]], [-0.125]))
    found = Witness(parsed.sha256, false, raw_array(np.array([0.5])), 0, 0.0, 0.0)
    (folder / "counterexamples" / "1.lpwit").write_bytes(found.encode())
    (folder / "certificates" / "false").write_bytes(replace(good, claim=false).encode())
    return folder


def test_command_needs_nothing_but_python(tmp_path: Path) -> None:
    folder, root = run_folder(tmp_path / "run"), Path(lpverify.__file__).parent.parent
    command = [sys.executable, "-S", "-E", "-m", "lpverify.certificate.exact", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "0.lpcert: accepted: all 1 rows proved, the least bound 0.125",
        "1.lpwit: accepted: row 0 fails at the point: its value is 0.0",
        "1 certificates and 1 counterexamples accepted in exact arithmetic",
    ]


def test_command_stops_at_the_first_rejection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run")
    shutil.copy(folder / "certificates" / "false", folder / "certificates" / "2.lpcert")
    assert main([str(folder)]) == 7
    printed = capsys.readouterr()
    assert "2.lpcert: REJECTED: row 0: the bound 0.0 is not above 0" in printed.out
    assert "1.lpwit" not in printed.out and "2.lpcert: row 0" in printed.err
    (folder / "certificates" / "2.lpcert").write_bytes(b"LPVERIFY")
    assert main([str(folder)]) == 7
    assert "2.lpcert: not an lpverify file" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 7
    assert main([]) == 2


# Published networks


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_published_networks_agree_with_the_engine(shared_data: Path, name: str) -> None:
    if name == "dense":
        tensors = state_tensors(shared_data / "torch/eran/mnist_6_100_nat.pth")
        network, eps = dense_network(*zip(tensors[::2], tensors[1::2], strict=True)), "0.015"
    else:
        network, eps = mnist_conv_network(shared_data / "torch/convex_adversarial/mnist.pth"), "0.1"
    data = load_data("mnist", data_dir=shared_data / "datasets/mnist")
    image, label = np.asarray(data.x[0], np.float32).ravel(), int(data.y[0])
    exact = convert(plain(network))
    region = BallRegion(raw_array(image), eps, "inf", ("0", "1"))
    x = torch.from_numpy(image)[None].double()
    spec = Specification.label(torch.tensor([label]), 10)
    proof = Certificate(exact.sha256, "real", "crown", Claim(region, LabelRows(label, 10)), NO_ROWS)
    for rule, method in (("crown", CrownBound()), ("dual", DualBound()), ("interval", IntervalBound())):
        wanted = method.bound(network.to(torch.float64), torch_ball(x, float(eps), clip=(0, 1)), spec).margins[0]
        margins = np.array([float(m) for m in check(exact, replace(proof, rule=rule)).margins])
        assert np.abs(margins - wanted.numpy()).max() < 1e-9
    single = check(exact, replace(proof, semantics="float32"))
    assert single.accepted
