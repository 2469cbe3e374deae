"""Claims that mean the same get the same verdict: rescaled, permuted, doubled and dead neurons, other orders, halves.

The least margin is 2 % of the spread of margins above or below 0, near enough that bounds alone seldom decide.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from deciding import decide
from enumeration import least
from networks import permuted, rescaled
from tiny_claims import KINDS, SHAPES, Tiny, settled, tiny

from lpverify.certificate.claim import Claim, ClauseRows, LabelRows, LinearRows, RationalBox, Rows
from lpverify.linear import Dense
from lpverify.network import Affine, Network
from lpverify.result import Verdict
from lpverify.search.route import Route
from lpverify.serialize import raw_array

CHAINS = ("line", "plane", "deep", "space")
ROUTES = (None, Route.PHASES)
SEEDS = range(6)


def given(shape: str, seed: int, region: str = "box") -> tuple[Tiny, Verdict]:
    """A claim and its verdict, which is also that of enumeration."""
    asked = tiny(shape, KINDS[seed % 3], region, 500 + seed, 0.02 * (-1) ** (seed // 2))
    verdict = Verdict.VERIFIED if asked.least > 0 else Verdict.FALSIFIED
    assert decide(asked.network, asked.claim).verdict is verdict
    return asked, verdict


def dense_layers(network: Network) -> list[int]:
    return [i for i, node in enumerate(network.nodes) if isinstance(node, Affine)]


def changed(network: Network, layer: int, weight: torch.Tensor, bias: torch.Tensor) -> Network:
    """The chain with other numbers in affine node ``layer``; the ReLU that follows takes its size."""
    nodes = list(network.nodes)
    node = nodes[layer]
    assert isinstance(node, Affine)
    nodes[layer] = replace(node, maps=(Dense(weight),), bias=bias, shape=(len(bias),))
    return Network(tuple(nodes))


def numbers(network: Network, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    node = network.nodes[layer]
    assert isinstance(node, Affine) and isinstance(node.maps[0], Dense)
    return node.maps[0].weight, node.bias


def with_double(network: Network, at: int, neuron: int) -> Network:
    """A neuron of hidden affine node ``at`` twice, each with half of its outgoing weights."""
    layers = dense_layers(network)
    after = layers[layers.index(at) + 1]
    weight, bias = numbers(network, at)
    outgoing, constant = numbers(network, after)
    half = outgoing.clone()
    half[:, neuron] /= 2
    nodes = list(network.nodes)
    for layer, matrix, vector in (
        (at, torch.cat([weight, weight[[neuron]]]), torch.cat([bias, bias[[neuron]]])),
        (after, torch.cat([half, half[:, [neuron]]], 1), constant),
    ):
        node = nodes[layer]
        assert isinstance(node, Affine)
        nodes[layer] = replace(node, maps=(Dense(matrix),), bias=vector, shape=(len(vector),))
    return Network(tuple(nodes))


def with_dead(network: Network, at: int) -> Network:
    """A neuron more in hidden affine node ``at``, which is never above 0 on points of moderate size."""
    layers = dense_layers(network)
    after = layers[layers.index(at) + 1]
    weight, bias = numbers(network, at)
    outgoing, constant = numbers(network, after)
    nodes = list(network.nodes)
    row, column = torch.ones_like(weight[:1]), torch.full_like(outgoing[:, :1], 3.0)
    for layer, matrix, vector in (
        (at, torch.cat([weight, row]), torch.cat([bias, bias.new_tensor([-1e4])])),
        (after, torch.cat([outgoing, column], 1), constant),
    ):
        node = nodes[layer]
        assert isinstance(node, Affine)
        nodes[layer] = replace(node, maps=(Dense(matrix),), bias=vector, shape=(len(vector),))
    return Network(tuple(nodes))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", CHAINS)
def test_the_same_function_has_the_same_verdict(shape: str, seed: int) -> None:
    asked, verdict = given(shape, seed)
    network, layers = asked.network, dense_layers(asked.network)
    at = layers[seed % (len(layers) - 1)]
    twins = {
        "up": rescaled(network, seed % (len(layers) - 1), 20),
        "down": rescaled(network, seed % (len(layers) - 1), -20),
        "permuted": permuted(network, seed),
        "double": with_double(network, at, seed % 3),
        "dead": with_dead(network, at),
    }
    x = torch.rand(50, network.input_size, dtype=torch.float64)
    for number, (name, twin) in enumerate(twins.items()):
        torch.testing.assert_close(twin.forward(x), network.forward(x), rtol=1e-12, atol=1e-12)
        route = ROUTES[(seed + number) % 2]
        assert decide(twin, asked.claim, route=route, attack_first=seed % 2 == 0).verdict is verdict, name


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", ["plane", "residual", "space"])
def test_a_box_is_verified_where_both_halves_are(shape: str, seed: int) -> None:
    asked, verdict = given(shape, seed, "rational box")
    box = asked.claim.region
    assert isinstance(box, RationalBox)
    at = seed % len(box.lower)
    middle = box.lower[at] + Fraction(3, 7) * (box.upper[at] - box.lower[at])
    lower = RationalBox(box.lower, (*box.upper[:at], middle, *box.upper[at + 1 :]))
    upper = RationalBox((*box.lower[:at], middle, *box.lower[at + 1 :]), box.upper)
    halves = [decide(asked.network, Claim(half, asked.claim.rows)).verdict for half in (lower, upper)]
    assert (halves == [Verdict.VERIFIED] * 2) == (verdict is Verdict.VERIFIED)
    assert (Verdict.FALSIFIED in halves) == (verdict is Verdict.FALSIFIED)


@pytest.mark.parametrize("seed", range(9))
def test_the_order_of_rows_clauses_and_classes_is_nothing(seed: int) -> None:
    asked, verdict = given("plane", seed)
    order = np.random.default_rng(seed).permutation(3)
    network, rows = asked.network, asked.claim.rows
    if isinstance(rows, LabelRows):
        # Class order[i] is now number i.
        weight, bias = numbers(network, len(network.nodes) - 1)
        network = changed(network, len(network.nodes) - 1, weight[order], bias[order])
        other: Rows = LabelRows(int(np.flatnonzero(order == rows.label)[0]), 3)
    elif isinstance(rows, LinearRows):
        C, d = np.array(rows.C.values()).reshape(rows.C.shape), np.array(rows.d.values())
        other = LinearRows(raw_array(C[::-1].copy()), raw_array(d[::-1].copy()))
    else:
        assert isinstance(rows, ClauseRows)
        other = ClauseRows(3, tuple(clause[::-1] for clause in rows.clauses[::-1]))
    for route in (None, Route.PHASES, Route.INPUTS):
        assert decide(network, Claim(asked.claim.region, other), route=route).verdict is verdict


@pytest.mark.parametrize("shape", SHAPES)
def test_a_smaller_box_is_verified_where_the_whole_is(shape: str) -> None:
    asked = tiny(shape, "linear", "rational box", 77, 0.02)
    box = asked.claim.region
    assert isinstance(box, RationalBox)
    for share in (Fraction(1), Fraction(1, 2), Fraction(1, 100), Fraction(0)):
        low = tuple((1 - share) * (a + b) / 2 + share * a for a, b in zip(box.lower, box.upper, strict=True))
        high = tuple((1 - share) * (a + b) / 2 + share * b for a, b in zip(box.lower, box.upper, strict=True))
        assert decide(asked.network, Claim(RationalBox(low, high), asked.claim.rows)).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clause_holds_where_one_of_its_rows_does(seed: int) -> None:
    """A row more makes a clause weaker, a clause more makes a claim stronger."""
    asked = tiny("plane", "clauses", "box", 600 + seed, 0.02)
    rows = asked.claim.rows
    assert isinstance(rows, ClauseRows)
    row = rows.clauses[0][0]
    never = replace(row, constant=row.constant - 10**4)
    weaker = ClauseRows(3, tuple((never, *clause, never) for clause in rows.clauses))
    assert decide(asked.network, Claim(asked.claim.region, weaker)).verdict is Verdict.VERIFIED
    stronger = ClauseRows(3, (*rows.clauses, (never,)))
    assert decide(asked.network, Claim(asked.claim.region, stronger)).verdict is Verdict.FALSIFIED


def test_scaling_a_row_changes_nothing() -> None:
    asked = tiny("plane", "linear", "box", 3, 0.02)
    assert isinstance(asked.claim.rows, LinearRows)
    C = np.array(asked.claim.rows.C.values()).reshape(asked.claim.rows.C.shape)
    for power in (-40, -10, 10, 40):
        for sign in (1, -1):
            network, claim = settled(asked.network, asked.claim, 0.02 * sign)
            assert isinstance(claim.rows, LinearRows)
            d = np.array(claim.rows.d.values())
            rows = LinearRows(raw_array(C * 2.0**power), raw_array(d * 2.0**power))
            scaled = Claim(claim.region, rows)
            assert np.sign(least(network, scaled).value) == sign
            found = decide(network, scaled, route=Route.PHASES)
            assert found.verdict is (Verdict.VERIFIED if sign > 0 else Verdict.FALSIFIED), (power, found.reason)
