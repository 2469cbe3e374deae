"""Naive interval bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.bounds.backward import bound_claim
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, Multipliers, count_unstable
from lpverify.bounds.root import root_bounds
from lpverify.network import Network
from lpverify.problem import Region, Specification


@dataclass(frozen=True)
class IntervalBound(AbstractBoundMethod):
    """Interval arithmetic layer by layer, the claim's rows composed with the last affine layer.

    Requires: any region (a ball is replaced by its enclosing box).
    Method: bias + W c -+ |W| r through every node; relu keeps [max(l, 0), max(u, 0)].
    Property: sound; loosest and cheapest; differentiable.
    Source: Gowal et al. 2018 (arXiv 1810.12715), section 3.
    """

    name: ClassVar[str] = "interval"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    isolated: ClassVar[bool] = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        root = root_bounds(network, region, "interval")
        margins = bound_claim(network, root.relaxations, region.box, spec.C, spec.d)
        return BoundResult(margins, root.layers, Multipliers("interval"), stats=count_unstable(root.layers))
