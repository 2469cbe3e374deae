"""Which input to split: the one whose width feeds most of what a bound loses.

A linear bound loses at every unstable ReLU, by its weight there times a gap that grows with the width of the
pre-activation. To first order that width is the sum over inputs of |dz/dx_j| times the width of x_j, so that

    score_j = width_j (sum over unstable neurons i of weight_i |dz_i/dx_j|, and a share of |w_j|)

estimates what splitting input j wins in both halves, whereas |w_j| width_j alone is what it wins in the better one.
The weights are the bound's derivatives by the gaps, and come from one backward pass of the combined row.

Shapes: ``B`` boxes, ``n_0`` inputs, ``n_K`` outputs, ``n_k`` units of node k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lpverify.bounds.backward import bound_claim_and_rows
from lpverify.bounds.relaxation import Relaxation
from lpverify.bounds.root import Root
from lpverify.network import Affine, Input, Network
from lpverify.problem import Box

# How much a unit of the linear bound's own slope counts beside a unit lost at a neuron.
SLOPE_SHARE = 0.3


def influence(
    network: Network, root: Root, region: Box, C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a row's bound loses for a unit of each input's width, to first order, and that bound.

    Args:
        root: bounds over the boxes ``region``.
        C: (B, n_K), one row of outputs for each box.

    Returns:
        (B, n_0) the losses; (B,) the row's least value by its linear bound, which has the slopes (B, n_0).
    """
    bound, slopes, weights = _bound_and_weights(network, root.relaxations, region, C)
    batch, inputs = region.lower.shape
    score = SLOPE_SHARE * slopes.abs()
    with torch.no_grad():
        tangents: list[Tensor] = []
        for index, node in enumerate(network.nodes):
            if isinstance(node, Input):
                unit = torch.eye(inputs, dtype=region.lower.dtype, device=region.lower.device)
                tangents.append(unit.repeat(batch, 1))
            elif isinstance(node, Affine):
                total = region.lower.new_zeros(batch * inputs, len(node.bias))
                for source, linear in zip(node.inputs, node.maps, strict=True):
                    total = total + linear.apply(tangents[source])
                tangents.append(total)
            else:
                tangent = tangents[node.input].view(batch, inputs, -1)
                score = score + (tangent.abs() @ weights[index].unsqueeze(2)).squeeze(2)
                tangents.append((tangent * root.relaxations[index].upper_slope.unsqueeze(1)).flatten(0, 1))
    return score, bound, slopes


def _bound_and_weights(
    network: Network, relaxations: Mapping[int, Relaxation], region: Box, C: Tensor
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """The bound of one row (B,), its slopes (B, n_0), and by ReLU how fast it falls with the neurons' gaps (B, n_k)."""
    with torch.enable_grad():
        tables = {
            k: replace(
                r, lower_gain=r.lower_gain.detach().requires_grad_(), upper_gain=r.upper_gain.detach().requires_grad_()
            )
            for k, r in relaxations.items()
        }
        bound, slopes = bound_claim_and_rows(network, tables, region, C.unsqueeze(1), C.new_zeros(len(C), 1))
        gains = [t for r in tables.values() for t in (r.lower_gain, r.upper_gain)]
        found = torch.autograd.grad(bound.sum(), gains, allow_unused=True) if bound.requires_grad else gains[:0]
    weights = {}
    for place, (index, table) in enumerate(tables.items()):
        sides = [s.abs() for s in found[2 * place : 2 * place + 2] if s is not None]
        weight = torch.stack(sides).sum(0) if sides else torch.zeros_like(table.lower_slope)
        weights[index] = torch.where(table.lower_slope != table.upper_slope, weight, 0.0)
    return bound[:, 0].detach(), slopes[:, 0].detach(), weights
