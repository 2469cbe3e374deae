"""Bounds made anew under a node's phases hold at every point that has them, and lie inside the root's.

Not always inside the parent's: the checker knows nothing of parents.
"""

from __future__ import annotations

import pytest
import torch
from networks import NETWORKS, samples
from relaxed_networks import network_of, node_values, random_nodes, region_of, relaxed_of

from lpverify.search.tighten import Tightener

DEPTH, POINTS = 5, 4000


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "affine"])
def test_bounds_hold_where_the_phases_do_and_cross_only_where_nothing_does(name: str, norm: str) -> None:
    network = network_of(name, 1)
    relaxed, layers = relaxed_of(network, region_of(norm, network.input_size, 1), 1)
    tight = Tightener(relaxed, layers)
    nodes, _ = random_nodes(relaxed, 4, 1, share=0.0)
    points = samples(relaxed.region, POINTS, 5)[:, 0]
    z, generator = node_values(relaxed, points), torch.Generator().manual_seed(1)
    narrowed = 0
    for _ in range(DEPTH):
        open_ = nodes.free.any(1).nonzero().flatten()
        if not len(open_):
            break
        nodes = nodes.select(open_[:8])
        column = torch.rand(nodes.free.shape, generator=generator).masked_fill(~nodes.free, -1.0).argmax(1)
        children = relaxed.children(nodes, relaxed.run(nodes), column)
        found = tight(children, column.repeat(2))
        assert bool((found.lower >= relaxed.lower - 1e-9).all() and (found.upper <= relaxed.upper + 1e-9).all())
        assert torch.equal(found.signs, children.signs)
        fits = (found.signs.unsqueeze(1) * z.unsqueeze(0) >= 0).all(2)
        for node in range(len(found)):
            inside = z[fits[node]]
            assert bool((inside >= found.lower[node] - 1e-9).all() and (inside <= found.upper[node] + 1e-9).all())
            if bool((found.lower[node] > found.upper[node] + 1e-9).any()):
                assert not len(inside)
        narrowed += int((found.upper - found.lower < children.upper - children.lower - 1e-9).sum())
        nodes = found
    assert narrowed


def test_contradictory_phases_cross() -> None:
    """Two neurons with the same weights, one fixed active and one inactive beyond a gap."""
    network = network_of("dense", 0)
    relaxed, layers = relaxed_of(network, region_of("inf", 5, 0), 0)
    span = relaxed.spans[4]
    assert span.stop > span.start
    nodes, _ = random_nodes(relaxed, 1, 0, share=0.0)
    first = relaxed.spans[2]
    nodes.signs[:, first] = -1
    found = Tightener(relaxed, layers)(nodes, torch.tensor([first.start]))
    # With the whole first layer inactive the second is constant where nothing else is active.
    width, before = (found.upper - found.lower)[0, span], (nodes.upper - nodes.lower)[0, span]
    assert bool((width <= before + 1e-9).all()) and float(width.clamp(min=0).sum()) < float(before.sum())
