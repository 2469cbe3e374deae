"""What every bound method takes and returns."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from lpverify.network import Network
from lpverify.problem import LayerBounds, Region, Specification


@dataclass(frozen=True, eq=False)
class LemmaRows:
    """Proofs of pre-activation bounds of one ReLU, for some examples of the batch.

    Attributes:
        node: the ReLU's node index.
        examples: (b,) indices into the batch.
        neurons, sides: (b, m) units, each bounded from below (side 0) or above (1).
        needed: (b, m) whether the unit was unstable before; the other rows only fill up the rectangle.
        slopes: lower slopes of the ReLUs before it, each (b, m, n_j).
        duals: multipliers of the ReLUs before it, each (b, m, n_j); see Multipliers. A row on side 1 bounds -z.
    """

    node: int
    examples: Tensor
    neurons: Tensor
    sides: Tensor
    needed: Tensor
    slopes: dict[int, Tensor]
    duals: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Multipliers:
    """What proves the margins: how the checker forms its dual variables.

    Attributes:
        rule: the rule of all pre-activation bounds and of every slope not listed: "interval", "dual",
            "dual-tight" or "crown".
        slopes: lower slopes by ReLU node, each (B, m, n_k) in [0, 1]; only unstable neurons' are used.
            Empty where the rule's own slopes prove the margins.
        lemmas: proofs of tighter pre-activation bounds, in the order in which they build on each other.
        duals: by ReLU node, each (B, m, n_k), the vector v that the lower bound of C f hands on at the
            pre-activations z, of any sign and size; only unstable neurons' are used, instead of slopes.
        own: (B, m) the rows that use ``slopes`` and ``duals``, the others follow the rule; None for all.
    """

    rule: str
    slopes: dict[int, Tensor] = field(default_factory=dict)
    lemmas: tuple[LemmaRows, ...] = ()
    duals: dict[int, Tensor] = field(default_factory=dict)
    own: Tensor | None = None


@dataclass(frozen=True, eq=False)
class BoundResult:
    """What a method returns.

    Attributes:
        margins: (B, m) lower bounds of C f(x) + d over the region (in the engine's arithmetic: not yet proved).
        layers: pre-activation bounds by ReLU node.
        multipliers: enough for the checker to recompute ``margins`` without the method.
        candidates: (B, m, n_0) points of the region where the rows' bounds are attained by the relaxation, worth
            evaluating as counterexamples; None where the method has none to offer.
        stats: counts worth reporting, such as the mean number of unstable neurons.
    """

    margins: Tensor
    layers: dict[int, LayerBounds]
    multipliers: Multipliers
    candidates: Tensor | None = None
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AbstractBoundMethod(abc.ABC):
    """A bound method: final subclasses carry their options as fields.

    Attributes:
        complete: its margins are the exact minima, if it is given the time.
        differentiable: gradients flow from margins to weights and radius.
        isolated: it calls solvers, so the pipeline runs it example by example in a process of its own.
    """

    name: ClassVar[str]
    complete: ClassVar[bool]
    differentiable: ClassVar[bool]
    isolated: ClassVar[bool]

    @abc.abstractmethod
    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        """Lower bounds of the claim's rows for every example; shapes as in BoundResult."""

    def require(self, network: Network, norm: str) -> None:
        """Refuse what this method cannot do at all, before a run begins; by default nothing.

        Raises:
            UsageError: for a network, norm or solver that it does not take.
        """
        return


def count_unstable(layers: dict[int, LayerBounds]) -> dict[str, float]:
    """The mean number of unstable neurons an example."""
    total = sum(float(layer.unstable.sum()) / layer.lower.shape[0] for layer in layers.values())
    return {"unstable": total}
