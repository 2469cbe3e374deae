"""Stored multipliers: both checkers take any of them, prove no more than is true, and all that an LP's duals prove."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from checking import assert_below, exactly_inside, sampled_least
from hand_made import absorber, long_path, path_absorber, plateau, reverse_absorber
from hypothesis import given, settings
from hypothesis import strategies as st
from lp_certificates import case, checked_bounds, ends, lp_leaf, lp_lemmas, margins, proof_of
from networks import NETWORKS, TINY, Array, enumerate_minimum, permuted
from small_certificates import (
    affine_net,
    ball,
    box,
    certificate,
    duals,
    leaf,
    lemma,
    plain,
    positive,
    rows,
    slopes,
    table_values,
)

from lpverify.attack.exact import exact_margins
from lpverify.certificate import rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.exact_bounds import root_state
from lpverify.certificate.exact_linear import convert, scaled
from lpverify.certificate.proof import RULES, SEMANTICS, Certificate, Duals, decode
from lpverify.errors import CertificateError
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU

CASES = list(itertools.product(NETWORKS, range(5)))


# The duals of an LP


@pytest.mark.parametrize(("name", "seed"), CASES)
@pytest.mark.parametrize("cuts", [False, True])
def test_the_duals_of_an_lp_prove_its_optimum(name: str, seed: int, cuts: bool) -> None:
    network, claim = case(name, seed)
    bare = proof_of(network, claim, leaf([]))
    bounds, least = checked_bounds(network, bare), sampled_least(network, claim)
    for dtype, loss in ((np.float32, 1e-6), (np.float64, 1e-7)):
        own, optimum = lp_leaf(network, claim, bounds, dtype, cuts)
        proved, exactly = margins(network, replace(bare, leaf=own))
        assert_below(proved, least)
        assert all(bound <= value for bound, value in zip(exactly, least, strict=True))
        for found in (proved, np.array(exactly, float)):
            np.testing.assert_allclose(found, optimum, rtol=loss, atol=loss)
        assert bool((proved >= margins(network, bare)[0] - 1e-6).all())


HELD = {
    "unstable": ([0], [[-3.0]], 1.0),
    "unread": ([0], [[-3.0]], 0.0),
    "active": ([1], [[0.0]], 0.0),
    "both": ([0, 1], [[-2.0, 2.0]], 1.0),
}


@pytest.mark.parametrize("name", HELD)
def test_a_bound_of_z_as_a_cut(name: str) -> None:
    """f = 3 x + y1 + ... + y4 - 20 + weight relu(x) on the l2 ball of radius 1 about (0, 5, 5, 5, 5) where x >= -1/10.

    Slopes give at most the least value over the ball and the clip at once, at x = -1/10: -3/10 - 2 sqrt(99/100).
    With x >= -1/10 taken off three times (through relu(x), or relu(x + 1), which is active) the row is
    (0, 1, 1, 1, 1): -3/10 - 2.
    """
    neurons, values, weight = HELD[name]
    first = np.eye(5)[[0, 0, 1, 2, 3, 4]].tolist()
    network = affine_net((first, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), ([[weight, 3.0, 1.0, 1.0, 1.0, 1.0]], [-23.0]))
    region = ball([0.0, 5.0, 5.0, 5.0, 5.0], "1", "2", ("-0.1", "10"))
    parsed, claim_rows = plain(network), rows([[1.0]], [2.5])
    leaves = [leaf([0], slopes(2, [0], [[share]])) for share in np.linspace(0, 1, 9)]
    sloped = [margins(network, certificate(parsed, region, claim_rows, leaf=own)) for own in leaves]
    for checker in (0, 1):
        assert max(float(found[checker][0]) for found in sloped) == pytest.approx(2.2 - 2 * 0.99**0.5, abs=1e-10)
    held = certificate(parsed, region, claim_rows, leaf=leaf([0], duals(2, neurons, values)))
    for (bound,) in margins(network, held):
        assert float(bound) == pytest.approx(0.2, abs=1e-10)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("affine", "dead-units")])
def test_lemmas_take_multipliers(name: str) -> None:
    network, claim = case(name, 2, 0.3)
    proof, optima = lp_lemmas(network, claim)
    assert optima
    proof = decode(proof.encode())
    bounds, state = checked_bounds(network, proof), root_state(convert(plain(network)), proof)
    for node, (low, high) in optima.items():
        neurons, exponent = state.layers[node]
        found = np.array([[float(scaled(n.lower, exponent)), float(scaled(n.upper, exponent))] for n in neurons]).T
        np.testing.assert_allclose(bounds[node], (low, high), atol=1e-6)
        np.testing.assert_allclose(found, (low, high), atol=1e-6)
    own, optimum = lp_leaf(network, claim, bounds, np.float32)
    proved, exactly = margins(network, replace(proof, leaf=own))
    np.testing.assert_allclose(proved, optimum, atol=2e-6)
    np.testing.assert_allclose(np.array(exactly, float), optimum, atol=2e-6)
    assert_below(proved, sampled_least(network, claim))


# Any multipliers whatever

KINDS: dict[str, tuple[Any, Callable[[np.random.Generator, tuple[int, int]], Array]]] = {
    "benign": (np.float32, lambda rng, shape: rng.normal(size=shape)),
    "mixed": (np.float32, lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-6, 7, shape)),
    "small": (np.float64, lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-320, -30, shape)),
    "large": (np.float32, lambda rng, shape: rng.uniform(-1, 1, shape) * 10.0 ** rng.integers(0, 38, shape)),
    "largest": (np.float64, lambda rng, shape: rng.choice([-1, 0, 1, 0.5], shape) * np.finfo(float).max),
}


def random_tables(network: Network, count: int, kind: str, rng: np.random.Generator) -> list[Duals]:
    """Multipliers of some neurons of some ReLUs, one in ten of them 0."""
    dtype, draw = KINDS[kind]
    tables = []
    for node in network.relus:
        if rng.random() < 0.8:
            neurons = np.flatnonzero(rng.random(network.sizes[node]) < rng.choice([0.2, 0.7, 1.0]))
            values = draw(rng, (count, len(neurons))) * (rng.random((count, len(neurons))) < 0.9)
            tables.append(duals(node, neurons, values, dtype))
    return tables


def random_proofs(network: Network, claim: Claim, kind: str, seed: int, count: int) -> Iterator[Certificate]:
    """Certificates with random multipliers in the leaf and in a lemma, and slopes beside them."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        lemmas = []
        for node in network.relus[-1:]:
            neurons = np.flatnonzero(rng.random(network.sizes[node]) < 0.5)
            sides = rng.integers(0, 2, len(neurons))
            lemmas.append(lemma(node, neurons, sides, random_tables(network, len(neurons), kind, rng)))
        rule = RULES[(seed + number) % 4]
        # The rigorous checker leaves slopes aside where the rule is "interval".
        shares = [slopes(k, range(network.sizes[k]), rng.random((claim.num_rows, network.sizes[k])))
                  for k in network.relus if rng.random() < 0.5 and rule != "interval"]  # fmt: skip
        own = leaf(range(claim.num_rows), *random_tables(network, claim.num_rows, kind, rng), *shares)
        made = proof_of(network, claim, own, rule, SEMANTICS[number % 2])
        yield replace(made, lemmas=tuple(lemmas[: number % 3]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_multipliers_prove_too_much(name: str, kind: str) -> None:
    finite = 0
    regions_ = [("inf", 0.2, None), ("2", 0.3, (0.0, 1.0)), ("1", 0.7, None)]
    for seed, (norm, eps, clip) in enumerate(regions_):
        network, claim = case(name, seed, eps, norm, clip)
        least = sampled_least(network, claim)
        for proof in random_proofs(network, claim, kind, seed, 4):
            proved, exactly = margins(network, proof)
            assert_below(proved, least, proof.rule)
            assert all(bound <= value for bound, value in zip(exactly, least, strict=True))
            for bound, value in zip(proved, exactly, strict=True):
                if not np.isfinite(bound) or kind == "largest":
                    continue
                finite += 1
                # The exact checker rounds a ReLU's multipliers to 56 bits of the largest.
                largest = max((np.abs(table_values(t)).max(initial=0) for t in proof.leaf.duals), default=0)
                size = 1 + abs(bound) + largest
                assert float(value) >= bound - 1e-9 * size
                # The float32 error of the rigorous checker counts the terms of padding too.
                loss = 1e-6 if proof.semantics == "real" else 1e-4
                assert kind != "benign" or float(value) <= bound + loss * size
    assert finite or kind == "largest"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_at_a_point_multipliers_cost_rounding_only(name: str, kind: str) -> None:
    """There l = u = z up to rounding and every v gives the value: what is off is rounding, which must be charged."""
    network, claim = case(name, 3, 0.0)
    C, d = rigorous.claim_rows(claim)
    x = ends(claim)[0]
    least = exact_margins(network, x, C, d)
    for number, proof in enumerate(random_proofs(network, claim, kind, 5, 8)):
        proved, exactly = margins(network, replace(proof, semantics="real"))
        assert_below(proved, least, number)
        assert all(bound <= value for bound, value in zip(exactly, least, strict=True))
        if kind in ("benign", "small"):
            np.testing.assert_allclose(proved, np.array(least, float), atol=1e-9)
            np.testing.assert_allclose(np.array(exactly, float), np.array(least, float), atol=1e-9)


@pytest.mark.parametrize("name", ["affine", "dense", "deep", "conv"])
def test_float32_bounds_hold_for_float32_values(name: str) -> None:
    """At a point, where only rounding separates a bound from the values, and with the LP's duals on a ball."""
    for eps, kind in ((0.0, "benign"), (0.0, "mixed"), (0.1, "lp")):
        network, claim = case(name, 2, eps)
        single, (C, d), (low, high) = network.to(torch.float32), rigorous.claim_rows(claim), ends(claim)
        draws = torch.rand(200, network.input_size, generator=torch.Generator().manual_seed(0)).double()
        # Shrunk a little, so that points rounded to float32 stay inside; the center itself is a float32 point.
        inner = 0.999 * draws + 0.0005 if eps else draws * 0
        x = (torch.from_numpy(low) + inner * torch.from_numpy(high - low)).float()
        values = np.stack([net.forward(x).double().numpy() @ C.T + d
                           for net in (single, *(permuted(single, i) for i in range(4)))])  # fmt: skip
        bare = proof_of(network, claim, leaf([]), semantics="float32")
        if kind == "lp":
            proofs = [replace(bare, leaf=lp_leaf(network, claim, checked_bounds(network, bare), np.float32)[0])]
        else:
            proofs = [replace(p, semantics="float32", lemmas=()) for p in random_proofs(network, claim, kind, 1, 10)]
        for proof in proofs:
            proved, exactly = margins(network, proof)
            assert bool((proved <= values.min((0, 1))).all())
            assert bool((np.array(exactly, float) <= values.min((0, 1))).all())
            real = margins(network, replace(proof, semantics="real"))[0]
            assert bool((proved < real).all()) and (kind == "mixed" or bool((proved > real - 1e-3).all()))


HARD: dict[str, Callable[[], Network]] = {
    **{f"path-absorber-{w}": lambda w=w: path_absorber(w, 10.0, 5.0) for w in (20, 40, 54, 60)},
    **{f"absorber-{w}": lambda w=w: absorber(w, 10.0, 5.0) for w in (20, 52, 60)},
    **{f"reverse-absorber-{w}": lambda w=w: reverse_absorber(w, 10.0, -5.0) for w in (25, 54)},
    "plateau": lambda: plateau(10, 2.0**-27),
    "overflow": lambda: long_path(2.0**1000, 2.0**500, 10.0, 5.0),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kind", KINDS)
def test_false_claims_of_hand_made_networks_are_not_accepted(name: str, kind: str) -> None:
    """The output is <= 0 at the upper corner; near it the bounds cancel large numbers."""
    network, rng = HARD[name](), np.random.default_rng(0)
    n = network.input_size
    value = exact_margins(network, np.ones(n), np.ones((1, 1)), np.zeros(1))
    assert value[0] <= 0
    for start, scale in itertools.product((0.0, 0.25, 1.0), (1.0, 2.0**20, 2.0**54)):
        tables = [duals(t.node, t.neurons.values(), table_values(t) * (scale if kind != "largest" else 1.0), np.float64)
                  for t in random_tables(network, 1, kind, rng)]  # fmt: skip
        proof = certificate(plain(network), box([start] * n, [1.0] * n), positive(network), leaf=leaf([0], *tables))
        proved, exactly = margins(network, proof)
        assert_below(proved, value)
        assert exactly[0] <= value[0]


def test_multipliers_that_cancel_cost_their_rounding() -> None:
    """f = a + b + c, three ReLUs of the same input x = 1, which have no error of their own to hide behind.

    Whatever v, the bound is 3; float64 gives 256 for v = (-2^60, 129, 2^60).
    """
    nodes = (Input((1,)), ReLU(0), ReLU(0), ReLU(0))
    ones = Dense(torch.ones(1, 1).double())
    network = Network((*nodes, Affine((1, 2, 3), (ones, ones, ones), torch.zeros(1).double(), (1,))))
    for values in itertools.product((0.0, 1.0, 129.0, 2.0**60, -(2.0**60)), repeat=3):
        tables = [duals(node, [0], [[v]], np.float64) for node, v in enumerate(values, 1)]
        proof = certificate(plain(network), box([1.0], [1.0]), rows([[1.0]], [0.0]), leaf=leaf([0], *tables))
        proved, exactly = margins(network, proof)
        assert exactly == [3] and proved[0] <= 3


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_neuron_against_its_definition(data: st.DataObject) -> None:
    """w relu(b + x) - c x, l = b + lo, u = b + hi: the bound is v b + min (v - c) x + phi(w, v; l, u)."""
    number = st.integers(-(2**20), 2**20).map(lambda n: n / 2**10)
    w, v, b, c, lo = (data.draw(number, name) for name in "wvbcl")
    hi = lo + abs(data.draw(number, "width"))
    network = affine_net(([[1.0], [1.0]], [b, 2.0**12]), ([[w, -c]], [c * 2.0**12]))
    proof = certificate(plain(network), box([lo], [hi]), positive(network), leaf=leaf([0], duals(2, [0], [[v]])))
    low, high = b + lo, b + hi
    gain = [w * max(z, 0) - v * z for z in (low, high, *([0.0] if low < 0 < high else []))]
    want = v * b + min((v - c) * lo, (v - c) * hi) + min(gain)  # exact: 40 bits suffice
    (rigorously,), (exactly,) = margins(network, proof)
    assert exactly == Fraction(want)
    assert want - 1e-5 <= rigorously <= want


# Changed files


def changed_values(table: Duals, rng: random.Random) -> Duals:
    data = bytearray(table.values.data)
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return replace(table, values=replace(table.values, data=bytes(data)))


def changed_neurons(table: Duals, rng: random.Random, size: int) -> Duals:
    neurons = sorted(rng.sample(range(size), table.neurons.shape[0]))
    return duals(table.node, neurons, table_values(table), np.dtype(table.values.dtype))


@pytest.mark.parametrize("name", [n for n in TINY if n != "affine"])
def test_changed_multipliers_never_prove_too_much(name: str) -> None:
    network, claim = case(name, 4, 0.1)
    proof, _ = lp_lemmas(network, claim)
    own, optimum = lp_leaf(network, claim, checked_bounds(network, proof), np.float32)
    C, d = rigorous.claim_rows(claim)
    least = []
    for row in range(len(d)):
        x = exactly_inside(enumerate_minimum(network, *ends(claim), C[row], d[row])[1], claim)
        assert x is not None
        least.append(exact_margins(network, x, C, d)[row])
    rng, refused, near = random.Random(0), 0, 0

    def change(owner: Any) -> Any:
        """One table dropped, at other neurons, at another node, or with a changed bit."""
        tables = list(owner.duals)
        at, how = rng.randrange(len(tables)), rng.randrange(6)
        if how == 0:
            del tables[at]
        elif how == 1:
            fewer = tables[at].neurons.shape[0] - rng.randrange(2)
            values = table_values(tables[at])[:, :fewer]
            less = duals(tables[at].node, range(fewer), values)
            tables[at] = changed_neurons(less, rng, network.sizes[tables[at].node])
        elif how == 2:
            tables[at] = replace(tables[at], node=rng.choice(network.relus))
        else:
            tables[at] = changed_values(tables[at], rng)
        return replace(owner, duals=tuple(tables))

    for _ in range(150):
        changed = replace(proof, leaf=own)
        if not changed.lemmas or rng.random() < 0.6:
            changed = replace(changed, leaf=change(own))
        else:
            at = rng.randrange(len(changed.lemmas))
            lemmas = [change(x) if i == at else x for i, x in enumerate(changed.lemmas)]
            changed = replace(changed, lemmas=tuple(lemmas))
        try:
            proved, exactly = margins(network, changed)
        except CertificateError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert_below(proved, least)
        assert all(bound <= value for bound, value in zip(exactly, least, strict=True))
        near += bool((proved > optimum - 0.1).any())
    assert near > 30 and refused < 100
