"""The network without the neurons that the root's bounds prove inactive: the same function on the region, smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lpverify.linear import Dense
from lpverify.network import Affine, Network, Node, ReLU
from lpverify.problem import LayerBounds


def prune(network: Network, layers: Mapping[int, LayerBounds]) -> tuple[Network, dict[int, Tensor]]:
    """Leave out inactive neurons between dense maps; a network with other maps stays whole.

    Args:
        layers: bounds (1, n_k) of every ReLU's pre-activations on the region.

    Returns:
        The network, and by ReLU node the neurons (n_k',) that are left, in order.
    """
    every = {k: torch.arange(network.sizes[k], device=network.device) for k in network.relus}
    maps = [linear for node in network.nodes if isinstance(node, Affine) for linear in node.maps]
    if not all(isinstance(linear, Dense) for linear in maps):
        return network, every
    kept = [torch.arange(n, device=network.device) for n in network.sizes]
    for index in network.relus:
        live = (layers[index].upper[0] > 0).nonzero().flatten()
        (source,) = network.sources(index)
        around = [source, *network.consumers[index]]
        between = len(around) > 1 and all(isinstance(network.nodes[k], Affine) for k in around)
        if len(network.consumers[source]) == 1 and between and len(live):
            kept[index] = kept[source] = live
    nodes: list[Node] = []
    for index, node in enumerate(network.nodes):
        if isinstance(node, Affine):
            dense = tuple(
                Dense(linear.weight[kept[index]][:, kept[source]].contiguous())
                for source, linear in zip(node.inputs, node.maps, strict=True)
                if isinstance(linear, Dense)
            )
            shape = node.shape if len(kept[index]) == network.sizes[index] else (len(kept[index]),)
            node = replace(node, maps=dense, bias=node.bias[kept[index]], shape=shape)
        elif isinstance(node, ReLU):
            every[index] = kept[index]
        nodes.append(node)
    return Network(tuple(nodes), network.notes), every
