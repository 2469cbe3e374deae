"""Pre-activation bounds of nodes, computed anew under their phases: what the checker's "leaf" bounds are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lpverify.bounds.root import Root, root_bounds
from lpverify.problem import LayerBounds
from lpverify.search.ascent import Nodes, Relaxed


class Tightener:
    """Bounds nodes by CROWN inside the root's bounds, each ReLU cut to the node's phases before later ones build on it.

    Args:
        relaxed: gives network, region and columns.
        layers: the root's bounds (1, n_k) of every ReLU.
    """

    def __init__(self, relaxed: Relaxed, layers: Mapping[int, LayerBounds]) -> None:
        self.relaxed, self.layers = relaxed, layers

    def __call__(self, nodes: Nodes, split: Tensor) -> Nodes:
        """The nodes with their own bounds. Where phases leave a neuron no value, its bounds cross.

        Args:
            nodes: with their parents' bounds.
            split: (B,) the column that each was split on last; nothing changes before that column's ReLU.
        """
        lower, upper = nodes.lower.clone(), nodes.upper.clone()
        for index, span in self.relaxed.spans.items():
            at = ((split >= span.start) & (split < span.stop)).nonzero().flatten()
            if len(at):
                lower[at], upper[at] = self._bounds(nodes.select(at), index)
        return replace(nodes, lower=lower, upper=upper)

    def _bounds(self, nodes: Nodes, split: int) -> tuple[Tensor, Tensor]:
        """The bounds of nodes that were split at one ReLU."""
        relaxed, count = self.relaxed, len(nodes)
        lower, upper = nodes.lower.clone(), nodes.upper.clone()

        def cut(index: int, layer: LayerBounds, done: Root) -> LayerBounds:
            span, at, sign = relaxed.spans[index], relaxed.columns[index], nodes.signs[:, relaxed.spans[index]]
            if index > split:
                lower[:, span], upper[:, span] = layer.lower[:, at], layer.upper[:, at]
            lower[:, span] = torch.where(sign > 0, lower[:, span].clamp(min=0), lower[:, span])
            upper[:, span] = torch.where(sign < 0, upper[:, span].clamp(max=0), upper[:, span])
            whole = layer.lower.index_copy(1, at, lower[:, span]), layer.upper.index_copy(1, at, upper[:, span])
            return LayerBounds(torch.minimum(*whole), torch.maximum(*whole))

        known = {}
        for k, root in self.layers.items():
            sides = [side.repeat(count, 1) for side in (root.lower, root.upper)]
            if k <= split:
                for side, own in zip(sides, (nodes.lower, nodes.upper), strict=True):
                    side[:, relaxed.columns[k]] = own[:, relaxed.spans[k]]
            known[k] = LayerBounds(*sides)
        region = relaxed.region.select(torch.zeros(count, dtype=torch.int64, device=lower.device))
        root_bounds(relaxed.network, region, "crown", cut, known, [k for k in known if k <= split])
        return lower, upper
