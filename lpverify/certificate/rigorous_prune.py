"""What the leaves of one root have in common, so that their own bounds take less work. numpy only.

Dead neurons: where z <= 0 on the whole region, relu(z) is 0 there, and what it adds to any sum is an exact zero, in
float32 too. A network without such neurons has the same values at every point of the region, and at every other point
nothing is claimed. They are left out between dense maps.

Twins: without boxes of their own, leaves with the same phases at the ReLUs before a node have the same range there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.container import RawArray
from lpverify.certificate.graph import PlainMap, PlainNetwork
from lpverify.certificate.rigorous_bounds import Network
from lpverify.certificate.rigorous_linear import Array, Index, stored

Entry = TypeVar("Entry", bound=np.generic)


def without_dead(network: Network, before: Mapping[int, tuple[Array, Array]]) -> tuple[Network, dict[int, Index]]:
    """The network over a region where each ReLU's pre-activations lie in ``before``, (1, n), (1, n).

    Returns:
        The network, whose nodes have the same numbers, and the units kept at the nodes that lost some.
    """
    kept: dict[int, Index] = {}
    for index, (_, upper) in before.items():
        source = network.nodes[index].inputs[0]
        live = np.flatnonzero(~(upper[0] <= 0))
        if 0 < len(live) < upper.shape[1] and network.readers[source] == [index] and _is_dense(network, source, index):
            kept[source] = kept[index] = live
    nodes = []
    for index, node in enumerate(network.nodes):
        own = kept.get(index, np.arange(node.size))
        maps = [
            _cut(plain, own, kept.get(source, np.arange(network.nodes[source].size)))
            if index in kept or source in kept else plain
            for plain, source in zip(node.maps, node.inputs, strict=False)
        ]  # fmt: skip
        bias = _raw(stored(node.bias)[own], node.bias.dtype) if node.bias is not None else None
        shape = (len(own),) if index in kept else node.shape
        nodes.append(replace(node, shape=shape, maps=tuple(maps), bias=bias))
    if not kept:
        return network, kept
    pruned = Network(PlainNetwork(tuple(nodes), network.sha256))
    pruned.fans = network.fans  # what is charged for float32 does not depend on what is dead
    return pruned, kept


def picked(tables: Mapping[int, NDArray[Entry]], kept: Mapping[int, Index]) -> dict[int, NDArray[Entry]]:
    """Tables (..., n) by node at the units that were kept of it."""
    return {node: table[..., kept[node]] if node in kept else table for node, table in tables.items()}


def twins(phases: Mapping[int, NDArray[np.int8]], count: int, nodes: int) -> dict[int, Index]:
    """For every node the first of the ``count`` leaves with the same phases at all ReLUs before it: (count,) each."""
    found: dict[int, Index] = {}
    alike = first = np.zeros(count, dtype=np.int64)
    for index in range(nodes):
        found[index] = first
        if index in phases:
            both = np.concatenate([alike[:, None], phases[index]], axis=1)
            _, places, alike = np.unique(both, axis=0, return_index=True, return_inverse=True)
            alike = alike.ravel()
            first = places[alike]
    return found


def _is_dense(network: Network, source: int, relu: int) -> bool:
    """Whether all that the ReLU and the affine node before it are connected to are dense maps."""
    readers = network.readers[relu]
    maps = [*network.nodes[source].maps, *(plain for reader in readers for plain in network.nodes[reader].maps)]
    affine = all(network.nodes[index].kind == "affine" for index in (source, *readers))
    return bool(readers) and affine and all(plain.kind == "dense" for plain in maps)


def _cut(plain: PlainMap, rows: Index, columns: Index) -> PlainMap:
    weight = plain.arrays["weight"]
    part = _raw(stored(weight)[np.ix_(rows, columns)], weight.dtype)
    return PlainMap("dense", (len(columns),), (len(rows),), {"weight": part})


def _raw(values: NDArray[np.generic], dtype: str) -> RawArray:
    return RawArray(dtype, values.shape, values.tobytes())
