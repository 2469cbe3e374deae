"""The dual network computed forward, for networks with few inputs.

With equal slopes on both sides the relaxation of a ReLU is s z + [0, -s l], so every value is an affine form:
a center, one column for each input and one for each unstable neuron met so far. Its range is exactly the
dual's bound (Wong & Kolter 2018, algorithm 1 propagates the same columns), and a layer costs as many columns as
there are inputs and unstable neurons, instead of a row for every neuron through all layers before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.bounds.relaxation import relax
from lpverify.network import Affine, Input, Network
from lpverify.problem import Box, LayerBounds, Region

# With more inputs than this, rows of possibly unstable neurons are cheaper than columns.
MAX_INPUTS = 10
# With more columns than this in a batch larger than that, rows were measured to be cheaper again.
MAX_COLUMNS, SMALL_BATCH = 128, 8
# More entries than this in one layer's columns: the backward pass takes over.
MAX_ENTRIES = 2**26

Form = tuple[Tensor, Tensor]


def goes_forward(network: Network, region: Region) -> bool:
    """Whether the dual is computed forward for this network and region."""
    columns = network.input_size + sum(network.sizes[i] for i in network.relus)
    entries = columns * max(network.sizes) * region.lower.shape[0]
    return isinstance(region, Box) and network.input_size <= MAX_INPUTS and entries <= MAX_ENTRIES


def dual_forward(network: Network, box: Box, C: Tensor, d: Tensor) -> tuple[Tensor, dict[int, LayerBounds]] | None:
    """The dual's lower bounds of C f(x) + d, (B, m), and its pre-activation bounds by ReLU node.

    None if so many neurons are unstable that the backward pass is cheaper.

    Args:
        network: any graph.
        box: the input set, (B, n_0).
        C, d: the claim, (B, m, n_K) and (B, m).
    """
    batch, inputs = box.lower.shape
    forms: list[Form] = []
    layers: dict[int, LayerBounds] = {}
    # Columns have the same meaning in every node: a branch that lacks the later ones has zeros there.
    total = inputs
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            forms.append((box.center, torch.diag_embed(box.radius)))
        elif isinstance(node, Affine):
            center, columns = node.bias.expand(batch, -1), box.lower.new_zeros(batch, inputs, len(node.bias))
            for source, linear in zip(node.inputs, node.maps, strict=True):
                middle, parts = forms[source]
                center = center + linear.apply(middle)
                mapped = linear.apply(parts.flatten(0, 1)).view(batch, parts.shape[1], -1)
                columns = _sum(columns, mapped)
            forms.append((center, columns))
        else:
            center, columns = forms[node.input]
            reach = columns.abs().sum(1)
            layer = LayerBounds(center - reach, center + reach)
            layers[index] = layer
            slope = relax(layer, None, None).upper_slope
            half = torch.where(layer.unstable, -slope * layer.lower / 2, 0.0)
            scaled = F.pad(columns * slope.unsqueeze(1), (0, 0, 0, total - columns.shape[1]))
            fresh = _new_columns(half, layer.unstable)
            total += fresh.shape[1]
            if total > MAX_COLUMNS and batch > SMALL_BATCH:
                return None
            forms.append((slope * center + half, torch.cat([scaled, fresh], dim=1)))
    center, columns = forms[-1]
    margins = (C @ center.unsqueeze(-1)).squeeze(-1) + d - (C @ columns.transpose(1, 2)).abs().sum(-1)
    return margins, layers


def _sum(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two sets of columns (B, p, n) and (B, q, n)."""
    short, long = (one, other) if one.shape[1] <= other.shape[1] else (other, one)
    return F.pad(short, (0, 0, 0, long.shape[1] - short.shape[1])) + long


def _new_columns(half: Tensor, unstable: Tensor) -> Tensor:
    """A column (B, p, n) for each unstable neuron; every example numbers its own, p is the most that one has."""
    most = int(unstable.sum(1).max()) if len(unstable) else 0
    neurons = unstable.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most].unsqueeze(2)
    columns = half.new_zeros(half.shape[0], most, half.shape[1])
    return columns.scatter(2, neurons, half.unsqueeze(1).expand(-1, most, -1).gather(2, neurons))
