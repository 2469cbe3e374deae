"""Pruned networks are the same function on the region that their bounds are about, and smaller."""

from __future__ import annotations

import pytest
import torch
from networks import NETWORKS, samples
from relaxed_networks import network_of, region_of

from lpverify.bounds.root import root_bounds
from lpverify.problem import Box
from lpverify.search.prune import prune


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_the_function_and_the_kept_pre_activations_are_the_same_on_the_region(name: str, norm: str) -> None:
    for seed in range(3):
        network = network_of(name, seed)
        region = region_of(norm, network.input_size, seed)
        layers = root_bounds(network, region, "crown").layers
        small, kept = prune(network, layers)
        points = samples(region, 100, seed)[:, 0]
        torch.testing.assert_close(small.forward(points), network.forward(points), rtol=1e-12, atol=1e-12)
        assert set(kept) == set(network.relus) == set(small.relus)
        before, after = network.values(points), small.values(points)
        for relu, neurons in kept.items():
            torch.testing.assert_close(after[relu], before[relu][:, neurons], rtol=1e-12, atol=1e-12)
            dropped = torch.ones(network.sizes[relu], dtype=torch.bool)
            dropped[neurons] = False
            assert bool((layers[relu].upper[0][dropped] <= 0).all())


def test_inactive_neurons_of_dense_layers_are_left_out() -> None:
    for network in (network_of("dead-units", 0), network_of("dense", 1)):
        region = Box.linf(torch.zeros(1, network.input_size, dtype=torch.float64), 0.05)
        layers = root_bounds(network, region, "crown").layers
        inactive = sum(int((layer.upper <= 0).sum()) for layer in layers.values())
        small, kept = prune(network, layers)
        assert inactive and sum(small.sizes) < sum(network.sizes)
        assert sum(map(len, kept.values())) >= sum(network.sizes[k] for k in network.relus) - inactive


def test_where_all_are_inactive_the_network_still_runs() -> None:
    network = network_of("dense", 0)
    region = Box.linf(torch.zeros(1, 5, dtype=torch.float64), 0.1)
    layers = {k: type(layer)(layer.lower.clamp(max=-1), layer.upper.clamp(max=0) - 0.5)
              for k, layer in root_bounds(network, region, "crown").layers.items()}  # fmt: skip
    small, _ = prune(network, layers)
    assert small.forward(torch.zeros(2, 5, dtype=torch.float64)).shape == (2, 3)
