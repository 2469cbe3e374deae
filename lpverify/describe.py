"""A network in words: what ``lpverify info`` prints."""

from __future__ import annotations

import hashlib
import math

from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Diagonal, Sparse
from lpverify.network import Affine, Input, Network
from lpverify.serialize import network_bytes


def node_rows(network: Network) -> list[tuple[str, ...]]:
    """For each node its index, kind, sources, shape, maps and number of parameters."""
    rows: list[tuple[str, ...]] = []
    for index, node in enumerate(network.nodes):
        kind = "input" if isinstance(node, Input) else "affine" if isinstance(node, Affine) else "relu"
        maps = " + ".join(map_name(linear) for linear in node.maps) if isinstance(node, Affine) else ""
        if isinstance(node, Affine) and not node.maps:
            maps = "constant"
        count = parameters(node) if isinstance(node, Affine) else 0
        reads = ", ".join(str(source) for source in network.sources(index))
        shape = "x".join(str(n) for n in network.shapes[index])
        rows.append((str(index), kind, reads, shape, maps, str(count) if count else ""))
    return rows


def totals(network: Network) -> list[str]:
    """Sizes, the name of the network in certificates, and the notes of the lowering."""
    affine = [node for node in network.nodes if isinstance(node, Affine)]
    neurons = sum(network.sizes[index] for index in network.relus)
    return [
        f"inputs {network.input_size}, outputs {network.output_size}, "
        f"ReLU neurons {neurons} in {len(network.relus)} layers, parameters {sum(map(parameters, affine))}",
        f"sha256 {hashlib.sha256(network_bytes(network)).hexdigest()}",
        *(f"note: {note}" for note in network.notes),
    ]


def parameters(node: Affine) -> int:
    """Numbers stored for the node: its bias and the entries of its maps."""
    return node.bias.numel() + sum(_entries(linear) for linear in node.maps)


def map_name(linear: AbstractLinearMap) -> str:
    """A linear map in a few words, like "conv 16 4x4 stride 2"."""
    if isinstance(linear, Conv2d):
        channels, _, height, width = linear.weight.shape
        words = [f"conv {channels} {height}x{width}"]
        if linear.stride != (1, 1):
            words.append(f"stride {_pair(linear.stride)}")
        if any(linear.padding):
            words.append(f"pad {linear.padding[0] if len(set(linear.padding)) == 1 else linear.padding}")
        if linear.dilation != (1, 1):
            words.append(f"dilation {_pair(linear.dilation)}")
        if linear.groups != 1:
            words.append(f"groups {linear.groups}")
        return " ".join(words)
    if isinstance(linear, Dense):
        return f"dense {linear.out_size}x{linear.in_size}"
    if isinstance(linear, Diagonal):
        return "identity" if bool((linear.weight == 1).all()) else "scale"
    if isinstance(linear, Sparse):
        return f"sparse {linear.out_size}x{linear.in_size}, {len(linear.values)} entries"
    return type(linear).__name__.lower()


def _entries(linear: AbstractLinearMap) -> int:
    if isinstance(linear, Sparse):
        return len(linear.values)
    if isinstance(linear, Dense | Conv2d | Diagonal):
        return math.prod(linear.weight.shape)
    return 0


def _pair(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"
