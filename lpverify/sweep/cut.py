"""Batches of labelled examples, cut by place, whatever has a result already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.network import Network
from lpverify.session import batch_size
from lpverify.settings import Settings

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cut:
    """One batch: x (B, n_0), labels y (B,).

    Attributes:
        indices: what each example is called.
        finished: the indices of those that have a result; they take part in what the batch shares, and in nothing else.
    """

    indices: Sequence[int]
    x: Array
    y: NDArray[np.int64]
    finished: frozenset[int] = frozenset()

    @property
    def wanted(self) -> list[int]:
        """The positions of the examples that have no result."""
        return [i for i, index in enumerate(self.indices) if index not in self.finished]

    def singles(self) -> list[Cut]:
        """A batch of each example that has no result; none if there is one example only."""
        if len(self.x) == 1:
            return []
        return [self.part([i]) for i in self.wanted]

    def part(self, places: Sequence[int]) -> Cut:
        """A batch of the examples at these positions alone."""
        return Cut([self.indices[i] for i in places], self.x[places], self.y[places], self.finished)


def cuts(
    network: Network,
    settings: Settings,
    x: Array,
    y: NDArray[np.int64],
    indices: Sequence[int],
    finished: Collection[int] = (),
) -> Iterator[Cut]:
    """The batches in which something is left to do, of the size that the settings ask for."""
    size, done = batch_size(network, settings), frozenset(finished)
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        cut = Cut(list(indices[part]), x[part], y[part], done.intersection(indices[part]))
        if len(cut.finished) < len(cut.indices):
            yield cut
