"""The dual network of Wong & Kolter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpverify.bounds.backward import bound_claim
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, Multipliers, count_unstable
from lpverify.bounds.forward import dual_forward, goes_forward
from lpverify.bounds.root import root_bounds
from lpverify.network import Network
from lpverify.problem import Box, Region, Specification


@dataclass(frozen=True)
class DualBound(AbstractBoundMethod):
    """The dual network with the fixed multipliers alpha = u / (u - l).

    Requires: any graph of Affine and ReLU nodes; an l-infinity, l2 or l1 region.
    Method: pre-activation bounds layer by layer by algorithm 1, then the dual objective of each row; with few
        inputs the same numbers are propagated forward (``forward``).
    Property: sound; differentiable; not ordered with interval bounds.
    Source: Wong & Kolter 2018 (arXiv 1711.00851), theorem 1 and algorithm 1; Wong 2020, algorithm 2.

    Attributes:
        tighten: also use interval bounds for the pre-activations (off: the algorithm as published).
    """

    name: ClassVar[str] = "dual"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    isolated: ClassVar[bool] = False
    tighten: bool = False

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        rule = "dual-tight" if self.tighten else "dual"
        forward = None
        if isinstance(region, Box) and not self.tighten and goes_forward(network, region):
            forward = dual_forward(network, region, spec.C, spec.d)
        if forward is not None:
            margins, layers = forward
        else:
            root = root_bounds(network, region, rule)
            margins, layers = bound_claim(network, root.relaxations, region, spec.C, spec.d), root.layers
        return BoundResult(margins, layers, Multipliers(rule), stats=count_unstable(layers))
