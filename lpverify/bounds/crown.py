"""CROWN: the backward bound with adaptive lower slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.bounds.backward import bound_claim_and_point
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, Multipliers, count_unstable
from lpverify.bounds.root import Root, root_bounds
from lpverify.network import Network
from lpverify.problem import Region, Specification


@dataclass(frozen=True)
class CrownBound(AbstractBoundMethod):
    """Backward linear bounds with the lower slope 0 or 1 that leaves the smaller triangle.

    Requires: any graph of Affine and ReLU nodes; an l-infinity, l2 or l1 region.
    Method: as the dual network, but positive entries of a row follow slope 1 where u >= -l, else 0;
        pre-activation bounds are the better of the backward pass's and the interval's.
    Property: sound; differentiable almost everywhere.
    Source: Zhang et al. 2018 (arXiv 1811.00866), section 3.3.
    """

    name: ClassVar[str] = "crown"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    isolated: ClassVar[bool] = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        return self.claim(network, region, spec, root_bounds(network, region, "crown"))

    @staticmethod
    def claim(network: Network, region: Region, spec: Specification, root: Root) -> BoundResult:
        """The claim's margins from root bounds that are already there."""
        margins, points = bound_claim_and_point(network, root.relaxations, region, spec.C, spec.d)
        return BoundResult(margins, root.layers, Multipliers("crown"), points, count_unstable(root.layers))
