"""Network: a graph of Affine and ReLU nodes over four kinds of linear map.

Every method of the package works on this one form. The maps hold torch tensors, which may be the live
parameters of a module, so gradients flow through a bound to the weights.

Shapes: ``B`` batch, ``n_in`` and ``n_out`` units of a map, ``n_k`` units of node k. Images are flattened
in the order channel, height, width.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from lpverify.errors import ModelError

Shape = tuple[int, ...]


class AbstractLinearMap(abc.ABC):
    """A linear map from ``n_in`` to ``n_out`` units, applied to batches of flat vectors."""

    in_shape: Shape
    out_shape: Shape

    @property
    def in_size(self) -> int:
        """Number of input units ``n_in``."""
        return math.prod(self.in_shape)

    @property
    def out_size(self) -> int:
        """Number of output units ``n_out``."""
        return math.prod(self.out_shape)

    @abc.abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """W x for each row: (B, n_in) -> (B, n_out)."""

    @abc.abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """W^T y for each row: (B, n_out) -> (B, n_in)."""

    @abc.abstractmethod
    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> AbstractLinearMap:
        """The same map with ``change`` applied to its real-valued tensors."""

    @abc.abstractmethod
    def fan(self) -> tuple[int, int]:
        """The greatest number of terms in one sum of ``apply`` and of ``transpose``."""

    def abs(self) -> AbstractLinearMap:
        """The map whose matrix is |W| entry by entry."""
        return self.map_tensors(torch.abs)

    def matrix(self) -> sparse.csr_array:
        """W as a scipy csr array (n_out, n_in) in float64."""
        exact = self.map_tensors(lambda t: t.detach().cpu().double())
        blocks = []
        step = max(1, 2**22 // max(1, self.out_size))
        for start in range(0, self.in_size, step):
            width = min(step, self.in_size - start)
            unit = torch.zeros(width, self.in_size, dtype=torch.float64)
            unit[torch.arange(width), start + torch.arange(width)] = 1.0
            blocks.append(sparse.csr_array(exact.apply(unit).numpy().T))
        return sparse.csr_array(sparse.hstack(blocks, format="csr"))


@dataclass(frozen=True, eq=False)
class Dense(AbstractLinearMap):
    """A full matrix: ``weight`` has shape (n_out, n_in)."""

    weight: Tensor

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        return (self.weight.shape[1],)

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        return (self.weight.shape[0],)

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def transpose(self, y: Tensor) -> Tensor:
        return y @ self.weight

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Dense:
        return Dense(change(self.weight))

    def fan(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Conv2d(AbstractLinearMap):
    """A convolution with zero padding; a 1-D convolution is one of height 1.

    Attributes:
        weight: (C_out, C_in / groups, k_h, k_w).
        in_shape: (C_in, H, W).
        stride, dilation: (vertical, horizontal), each >= 1.
        padding: (top, left, bottom, right), each >= 0.
        groups: number of channel groups.
    """

    weight: Tensor
    in_shape: Shape
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @cached_property
    def out_shape(self) -> Shape:  # type: ignore[override]
        top, left, bottom, right = self.padding
        span_h = self.dilation[0] * (self.weight.shape[2] - 1) + 1
        span_w = self.dilation[1] * (self.weight.shape[3] - 1) + 1
        height = (self.in_shape[1] + top + bottom - span_h) // self.stride[0] + 1
        width = (self.in_shape[2] + left + right - span_w) // self.stride[1] + 1
        return (self.weight.shape[0], height, width)

    def apply(self, x: Tensor) -> Tensor:
        top, left, bottom, right = self.padding
        image = x.reshape(-1, *self.in_shape)
        pad: tuple[int, int] = (top, left)
        if (top, left) != (bottom, right):
            image, pad = F.pad(image, (left, right, top, bottom)), (0, 0)
        y = F.conv2d(image, self.weight, None, self.stride, pad, self.dilation, self.groups)
        return y.flatten(1)

    def transpose(self, y: Tensor) -> Tensor:
        top, left, _, _ = self.padding
        _, height, width = self.in_shape
        full = self.spread(y.reshape(-1, *self.out_shape))
        # `full` starts `padding` before the image and may end before or after it.
        grown = F.pad(
            full, (-left, left + width - full.shape[3], -top, top + height - full.shape[2])
        )
        return grown.flatten(1)

    def spread(self, y: Tensor) -> Tensor:
        """The transposed convolution without cropping by the padding: (R, C_out, h, w) -> (R, C_in, h', w')."""
        kernel = self.weight.shape[2:]
        if self.in_shape[0] == 1 and y.device.type == "cpu":
            # One input channel: a matrix product and a fold take a quarter of the library call's time.
            high = self.stride[0] * (y.shape[2] - 1) + self.dilation[0] * (kernel[0] - 1) + 1
            wide = self.stride[1] * (y.shape[3] - 1) + self.dilation[1] * (kernel[1] - 1) + 1
            taps = self.weight.flatten(1).T @ y.flatten(2)
            return F.fold(taps, (high, wide), (kernel[0], kernel[1]), dilation=self.dilation, stride=self.stride)
        return F.conv_transpose2d(y, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Conv2d:
        return replace(self, weight=change(self.weight))

    def fan(self) -> tuple[int, int]:
        c_out, c_in, height, width = self.weight.shape
        return c_in * height * width, c_out // self.groups * height * width


@dataclass(frozen=True, eq=False)
class Diagonal(AbstractLinearMap):
    """Elementwise scaling: ``weight`` has shape (n,); all ones is the identity of a residual sum."""

    weight: Tensor
    shape: Shape

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        return self.shape

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        return self.shape

    def apply(self, x: Tensor) -> Tensor:
        return x * self.weight

    def transpose(self, y: Tensor) -> Tensor:
        return y * self.weight

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Diagonal:
        return Diagonal(change(self.weight), self.shape)

    def fan(self) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True, eq=False)
class Sparse(AbstractLinearMap):
    """A sparse matrix by its entries: selection, permutation, concatenation, pooling differences.

    Attributes:
        rows, cols: (nnz,) int64, the positions; each pair occurs once.
        values: (nnz,) the entries.
        in_shape, out_shape: shapes of the flat input and output.
    """

    rows: Tensor
    cols: Tensor
    values: Tensor
    in_shape: Shape
    out_shape: Shape

    def apply(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], self.out_size)
        return y.index_add(1, self.rows, x.index_select(1, self.cols) * self.values)

    def transpose(self, y: Tensor) -> Tensor:
        x = y.new_zeros(y.shape[0], self.in_size)
        return x.index_add(1, self.cols, y.index_select(1, self.rows) * self.values)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Sparse:
        values = change(self.values)
        rows, cols = self.rows.to(values.device), self.cols.to(values.device)
        return Sparse(rows, cols, values, self.in_shape, self.out_shape)

    def fan(self) -> tuple[int, int]:
        if not len(self.rows):
            return 0, 0
        return int(self.rows.bincount().max()), int(self.cols.bincount().max())


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
                values.append(values[node.input].clamp(min=0))
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
