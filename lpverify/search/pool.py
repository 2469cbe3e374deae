"""The open nodes of a search, in bounded memory: some of the worst ones first, most of those nearest to their proof."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.search.ascent import Nodes

START_ROWS = 1024
# Counterexamples lie where bounds are worst; easy clauses and parts are done with where they are best.
WORST_SHARE = 0.25


class Pool:
    """Open nodes with their variables (slopes in half precision), kept on the CPU.

    Args:
        width, rows: K and R of the nodes.
        bounds: how many of a node's own bounds are kept: K, or 0 where all nodes have the root's.
        memory: bytes that the variables may take; above it only nodes nearest to their proof are taken, so that the
            pool grows by no more than a node's depth for each one taken.
    """

    def __init__(self, width: int, rows: int, bounds: int, memory: int) -> None:
        self.limit = max(START_ROWS, memory // (7 * width + 8 * bounds + 4 * rows + 32))
        self._signs = torch.zeros(START_ROWS, width, dtype=torch.int8)
        self._slopes = torch.zeros(START_ROWS, width, dtype=torch.float16)
        self._splits = torch.zeros(START_ROWS, width)
        self._weights = torch.zeros(START_ROWS, rows)
        self._clause = torch.zeros(START_ROWS, dtype=torch.int64)
        self._lower, self._upper = torch.zeros(START_ROWS, bounds), torch.zeros(START_ROWS, bounds)
        self._bound = np.full(START_ROWS, np.inf)
        self._node = np.zeros(START_ROWS, np.int64)
        self._free = list(range(START_ROWS))

    def __len__(self) -> int:
        return len(self._bound) - len(self._free)

    @property
    def is_full(self) -> bool:
        """Whether the memory is used up."""
        return len(self) >= self.limit

    @property
    def least(self) -> float:
        """The least bound of all open nodes; infinite without any."""
        return float(self._bound.min())

    def put(self, nodes: Nodes, bound: NDArray[np.float64], node: NDArray[np.int64]) -> None:
        """Add nodes with their bounds (B,) and their numbers in the tree (B,)."""
        while len(self._free) < len(nodes):
            self._grow()
        at = torch.as_tensor([self._free.pop() for _ in range(len(nodes))])
        for kept, t in zip(self._tensors, nodes.parts, strict=True):
            kept[at] = t[:, : kept.shape[1]].to("cpu", kept.dtype) if t.ndim == 2 else t.cpu()
        self._bound[at.numpy()], self._node[at.numpy()] = np.nan_to_num(bound, nan=-1e300), node

    def take(self, count: int) -> tuple[Nodes, NDArray[np.float64], NDArray[np.int64]]:
        """Remove up to ``count`` nodes: their variables (slopes in half precision), bounds and numbers."""
        order = np.argsort(self._bound, kind="stable")[: len(self)]
        worst = 0 if self.is_full else int(WORST_SHARE * count)
        at = order if count >= len(order) else np.concatenate([order[:worst], order[len(order) - count + worst :]])
        index = torch.as_tensor(at)
        nodes, bound = Nodes(*(t[index] for t in self._tensors)), self._bound[at].copy()
        self._bound[at] = np.inf
        self._free.extend(at.tolist())
        return nodes, bound, self._node[at].copy()

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self._signs, self._slopes, self._splits, self._weights, self._clause, self._lower, self._upper

    def _grow(self) -> None:
        old = len(self._bound)
        self._signs, self._slopes, self._splits, self._weights, self._clause, self._lower, self._upper = (
            torch.cat([t, torch.zeros_like(t)]) for t in self._tensors
        )
        self._bound = np.concatenate([self._bound, np.full(old, np.inf)])
        self._node = np.concatenate([self._node, np.zeros(old, np.int64)])
        self._free.extend(range(old, 2 * old))
