"""Network: a graph of Affine and ReLU nodes over four kinds of linear map.

Every method of the package works on this one form. The maps hold torch tensors, which may be the live
parameters of a module, so gradients flow through a bound to the weights.

Shapes: ``B`` batch, ``n_in`` and ``n_out`` units of a map, ``n_k`` units of node k. Images are flattened
in the order channel, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lpverify.errors import ModelError
from lpverify.linear import AbstractLinearMap, Shape


@dataclass(frozen=True, eq=False)
class Input:
    """Node 0: the network's input, of the given shape (flattened)."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Affine:
    """value = bias + sum over i of maps[i] applied to the value of node inputs[i].

    Several inputs are a residual sum; no input is a constant. ``bias`` has shape (n_k,).
    """

    inputs: tuple[int, ...]
    maps: tuple[AbstractLinearMap, ...]
    bias: Tensor
    shape: Shape


@dataclass(frozen=True, eq=False)
class ReLU:
    """value = max(value of node ``input``, 0); ``input`` is an Affine node or the network's input."""

    input: int


Node = Input | Affine | ReLU


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in topological order: node 0 is the Input, the last node is the output.

    Attributes:
        nodes: the graph.
        notes: what the reader of a result should know of the lowering, for example which layers were
            folded with a rounding; one short sentence each.
    """

    nodes: tuple[Node, ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0], Input):
            raise ModelError("network: node 0 must be the Input")
        for index, node in enumerate(self.nodes[1:], start=1):
            if isinstance(node, Input):
                raise ModelError(f"network: node {index} is a second Input; only node 0 may be one")
            for source in self.sources(index):
                if not 0 <= source < index:
                    raise ModelError(f"network: node {index} reads node {source}, which does not precede it")
            if isinstance(node, Affine):
                size = math.prod(node.shape)
                if tuple(node.bias.shape) != (size,):
                    raise ModelError(f"network: node {index} has bias {tuple(node.bias.shape)}, expected ({size},)")
                for source, linear in zip(node.inputs, node.maps, strict=True):
                    got, want = (linear.out_size, linear.in_size), (size, self.sizes[source])
                    if got != want:
                        raise ModelError(
                            f"network: node {index} maps {got[1]} to {got[0]} units, expected {want[1]} to {want[0]}"
                        )

    def sources(self, index: int) -> tuple[int, ...]:
        """The nodes that node ``index`` reads."""
        node = self.nodes[index]
        if isinstance(node, Affine):
            return node.inputs
        return (node.input,) if isinstance(node, ReLU) else ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of every node's value, without the batch."""
        shapes: list[Shape] = []
        for node in self.nodes:
            shapes.append(shapes[node.input] if isinstance(node, ReLU) else node.shape)
        return tuple(shapes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of units of every node."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def input_size(self) -> int:
        """Number of inputs n_0."""
        return self.sizes[0]

    @property
    def output_size(self) -> int:
        """Number of outputs n_K."""
        return self.sizes[-1]

    @cached_property
    def relus(self) -> tuple[int, ...]:
        """Indices of the ReLU nodes, in order."""
        return tuple(i for i, node in enumerate(self.nodes) if isinstance(node, ReLU))

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every node, the nodes that read it (once for each time they read it)."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index in range(len(self.nodes)):
            for source in self.sources(index):
                readers[source].append(index)
        return tuple(tuple(r) for r in readers)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters (float64 for a network without any)."""
        return next((n.bias.dtype for n in self.nodes if isinstance(n, Affine)), torch.float64)

    @cached_property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((n.bias.device for n in self.nodes if isinstance(n, Affine)), torch.device("cpu"))

    def matrices(self, index: int) -> list[sparse.csr_array]:
        """The maps of Affine node ``index`` as csr arrays (n_k, n_i), kept until a parameter changes in place."""
        node = self.nodes[index]
        assert isinstance(node, Affine)
        tensors: list[Tensor] = []
        for linear in node.maps:
            linear.map_tensors(lambda t: tensors.append(t) or t)  # type: ignore[func-returns-value]
        # Tensors of inference mode never change and count no versions.
        versions = [0 if t.is_inference() else t._version for t in tensors]
        kept = self._matrices.get(index)
        if kept is None or kept[0] != versions:
            kept = self._matrices[index] = (versions, [linear.matrix() for linear in node.maps])
        return kept[1]

    @cached_property
    def _matrices(self) -> dict[int, tuple[list[int], list[sparse.csr_array]]]:
        return {}

    def values(self, x: Tensor) -> list[Tensor]:
        """The value of every node: (B, n_0) -> a list of (B, n_k)."""
        values: list[Tensor] = []
        for node in self.nodes:
            if isinstance(node, Input):
                values.append(x.reshape(x.shape[0], -1))
            elif isinstance(node, ReLU):
                values.append(values[node.input].relu())
            else:
                total = node.bias.expand(x.shape[0], -1)
                for source, linear in zip(node.inputs, node.maps, strict=True):
                    total = total + linear.apply(values[source])
                values.append(total)
        return values

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs: (B, n_0) or (B, *input shape) -> (B, n_K)."""
        return self.values(x)[-1]

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Network:
        """The same graph with ``change`` applied to every real-valued tensor."""
        nodes: list[Node] = []
        for node in self.nodes:
            if isinstance(node, Affine):
                maps = tuple(linear.map_tensors(change) for linear in node.maps)
                node = replace(node, maps=maps, bias=change(node.bias))
            nodes.append(node)
        return Network(tuple(nodes), self.notes)

    def to(self, dtype: torch.dtype | None = None, device: Any = None) -> Network:
        """The network in another dtype or on another device; gradients still flow."""
        return self.map_tensors(lambda t: t.to(device=device, dtype=dtype))

    def detach(self) -> Network:
        """The network cut off from any gradient."""
        return self.map_tensors(torch.Tensor.detach)


def as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values on the CPU as a numpy array of the same dtype."""
    return np.asarray(tensor.detach().cpu().numpy())
