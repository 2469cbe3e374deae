"""What is compared: a network, labelled examples, radii, and which methods on how many of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.bounds import METHODS
from lpverify.comparison.rows import ATTACK
from lpverify.errors import UsageError
from lpverify.network import Network
from lpverify.verify import checked_inputs, checked_labels

QUICK = (ATTACK, "interval", "dual", "crown", "alpha")


@dataclass(frozen=True)
class Limit:
    """How much of a case a costly method is given.

    Attributes:
        examples: only the first so many.
        seconds: for all rows of one example; each of its m MILPs or LPs has the m-th part.
    """

    examples: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Case:
    """One problem of a comparison.

    Attributes:
        name: in the CSV.
        network: the lowered network.
        x: (N, ...) inputs; ``y`` (N,) labels; ``indices`` (N,) what to call the examples.
        radii: exact decimals in raw input units.
        norm, clip: as in Settings.
        methods: of every example, in the order in which they run.
        costly: further methods and what they are given.

    Raises:
        UsageError: for a method that is neither in METHODS nor the attack, or without examples.
        ShapeError, DataError: for inputs or labels that do not fit the network.
    """

    name: str
    network: Network
    x: NDArray[Any]
    y: NDArray[np.int64]
    indices: NDArray[np.int64]
    radii: tuple[str, ...]
    norm: str = "inf"
    clip: tuple[str, str] | None = None
    methods: tuple[str, ...] = QUICK
    costly: Mapping[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.x):
            raise UsageError(f"{self.name}: no examples; give at least one")
        for method in (*self.methods, *self.costly):
            if method != ATTACK and method not in METHODS:
                raise UsageError(f"{self.name}: method {method!r} is not one of {', '.join((ATTACK, *METHODS))}")
        object.__setattr__(self, "x", checked_inputs(self.network, self.x))
        object.__setattr__(self, "y", checked_labels(self.network, self.x, self.y))

    def methods_of(self, position: int) -> tuple[str, ...]:
        """The methods of the example at a position, each once."""
        more = (name for name, limit in self.costly.items() if position < limit.examples)
        return tuple(dict.fromkeys((*self.methods, *more)))
