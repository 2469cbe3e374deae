"""The boxes that a search by input splits holds: a table that grows and shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lpverify.search.clip import Array, Flags, Index

FIELDS = ("lower", "upper", "node", "bound", "refused", "weights")


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes of n_0 inputs, for c clauses of at most q rows.

    Attributes:
        lower, upper: (N, n_0).
        node: (N,) their nodes in the tree.
        bound: (N, c) the best known bound of each clause: the parent's, until the box is bounded itself.
        refused: (N,) whether the checker refused the box as a leaf, so that it must be split.
        weights: (N, c, q) the combination of each clause's rows that is to prove it.
    """

    lower: Array
    upper: Array
    node: Index
    bound: Array
    refused: Flags
    weights: Array

    def __len__(self) -> int:
        return len(self.node)

    def take(self, at: Any) -> Boxes:
        """Some of the boxes."""
        return Boxes(*(getattr(self, name)[at] for name in FIELDS))


def join(parts: Sequence[Boxes]) -> Boxes:
    """Tables one below the other."""
    if len(parts) == 1:
        return parts[0]
    return Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


def first(boxes: Boxes, size: int, most: int) -> tuple[Boxes, Boxes]:
    """The next boxes to be bounded, and the others.

    Half of them are those with the worst bounds, which finds counterexamples; half are the latest, which keeps few
    open. With more than ``most`` boxes all are the latest: then no more than ``size`` are added on each level.
    """
    chosen = np.zeros(len(boxes), bool)
    if size < len(boxes) <= most:
        worst = boxes.bound.min(1)
        chosen[np.argpartition(worst, size // 2)[: size // 2]] = True
    rest = np.flatnonzero(~chosen)
    chosen[rest[max(0, len(rest) - (size - int(chosen.sum()))) :]] = True
    return boxes.take(chosen), boxes.take(~chosen)
