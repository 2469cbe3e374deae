"""Dead neurons and twins: leaves' own bounds take less work and are as good, and never above a value in the leaf."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS
from test_rigorous_tree import Drawn, assert_sound, claim_of, draw, part, root_of

from lpverify.certificate.proof import RULES, SEMANTICS
from lpverify.certificate.rigorous_prune import picked, twins, without_dead
from lpverify.certificate.rigorous_tree import Leaves, Root
from lpverify.network import Network

PRUNED = ("dense", "deep", "dead-units", "affine-affine", "shared-affine")


def narrow(name: str, seed: int, rule: str = "crown", semantics: str = "real") -> tuple[Network, Root, Drawn]:
    """Leaves about points of a small box, where some neurons are dead; nothing is given of these."""
    generator = np.random.default_rng(seed)
    network = NETWORKS[name](seed).to(torch.float64)
    root = root_of(network, claim_of(network, generator, width=0.3), rule, semantics)
    drawn = draw(network, root, generator, count=8, boxes=seed % 2 == 0)
    alive = {node: upper > 0 for node, (_, upper) in root.ranges.items()}
    leaves = replace(
        drawn.leaves,
        phases={node: (x * alive[node]).astype(np.int8) for node, x in drawn.leaves.phases.items()},
        explicit={node: x & alive[node] for node, x in drawn.leaves.explicit.items()},
    )
    return network, root, replace(drawn, leaves=leaves)


def whole(root: Root, leaves: Leaves, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The leaves' bounds by the whole network, each leaf on its own."""
    with monkeypatch.context() as patch:
        patch.setattr(root, "_live", (root.network, {}))
        return np.concatenate([root.bounds(part(leaves, slice(i, i + 1)), "leaf") for i in range(len(leaves.d))])


@pytest.mark.parametrize("name", PRUNED)
def test_bounds_without_dead_neurons_are_those_of_the_whole_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = 0
    for seed, (rule, semantics) in enumerate([*itertools.product(RULES, SEMANTICS)] * 2):
        network, root, drawn = narrow(name, seed, rule, semantics)
        small, kept = root._live
        cut += len(kept)
        for node, own in kept.items():
            assert small.nodes[node].size == len(own) < root.network.nodes[node].size
        found = root.bounds(drawn.leaves, "leaf")
        assert_sound(network, drawn, found, (rule, semantics))
        np.testing.assert_allclose(found, whole(root, drawn.leaves, monkeypatch), rtol=1e-9, atol=1e-9)
    assert cut > 0 or name == "shared-affine"


@pytest.mark.parametrize("name", PRUNED)
def test_what_is_given_of_a_dead_neuron_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6):
        network, root, drawn = narrow(name, seed)
        _, kept = root._live
        for node in kept.keys() & root.ranges.keys():
            dead = np.setdiff1d(np.arange(root.network.nodes[node].size), kept[node])
            phases = drawn.leaves.phases[node].copy()
            phases[:4, dead[0]] = 1  # no point of the region has z >= 0 there, unless z is exactly 0
            leaves = replace(drawn.leaves, phases=drawn.leaves.phases | {node: phases})
            found = root.bounds(leaves, "leaf")
            assert (found[:4] == np.inf).all() or root.ranges[node][1][dead[0]] == 0
            np.testing.assert_allclose(found, whole(root, leaves, monkeypatch), rtol=1e-12, atol=1e-12)
            given = drawn.leaves.explicit[node].copy()
            given[..., dead] = True
            leaves = replace(drawn.leaves, explicit=drawn.leaves.explicit | {node: given})
            found = root.bounds(leaves, "leaf")
            assert_sound(network, drawn, found, node)
            np.testing.assert_allclose(found, whole(root, leaves, monkeypatch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_leaves_with_the_same_phases_share_their_bounds_rightly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(1, 7, 2):
        _, root, drawn = narrow(name, seed)
        # Pairs that part at one ReLU after the other, in an order that puts twins apart.
        random, nodes = np.random.default_rng(seed), sorted(drawn.leaves.phases)
        phases = {k: x[random.integers(0, 2, 8) * (seed + at) % 8] for at, (k, x) in enumerate(
            sorted(drawn.leaves.phases.items()))}  # fmt: skip
        assert any(len(np.unique(phases[k], axis=0)) < 8 for k in nodes) or not nodes
        leaves = replace(drawn.leaves, phases=phases)
        found = root.bounds(leaves, "leaf")
        np.testing.assert_allclose(found, whole(root, leaves, monkeypatch), rtol=1e-9, atol=1e-9)


def test_twins_are_the_first_leaves_with_the_same_phases_before_a_node() -> None:
    phases = {2: np.array([[0, 1], [0, 1], [0, -1], [0, 1]], np.int8), 4: np.array([[1], [0], [1], [1]], np.int8)}
    found = twins(phases, 4, 6)
    assert [found[node].tolist() for node in range(6)] == [[0, 0, 0, 0]] * 3 + [[0, 0, 2, 0]] * 2 + [[0, 1, 2, 0]]
    assert all((own[own] == own).all() for own in found.values())


def test_a_layer_without_live_neurons_and_one_without_dead_ones_stay() -> None:
    network, root, _ = narrow("dense", 0)
    sizes = {node: root.network.nodes[node].size for node in root.ranges}
    for upper in (-1.0, 1.0, np.nan):
        before = {node: (np.full((1, n), -2.0), np.full((1, n), upper)) for node, n in sizes.items()}
        assert without_dead(root.network, before) == (root.network, {})
    assert picked({1: np.arange(3), 2: np.arange(3)}, {2: np.array([0, 2])})[2].tolist() == [0, 2]
    assert len(network.nodes) == len(root.network.nodes)
