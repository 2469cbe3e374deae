"""A Network as the bytes of the network file that the checkers read (see ``certificate.graph``)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpverify.certificate.container import RawArray, pack
from lpverify.certificate.graph import FORMAT, VERSION
from lpverify.errors import ModelError
from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Diagonal, Sparse
from lpverify.network import Affine, Input, Network, as_numpy


def raw_array(values: NDArray[Any]) -> RawArray:
    """An array of any shape as little-endian bytes; reals are stored as float32 where that loses nothing."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float32)
        array = narrow if np.array_equal(narrow.astype(array.dtype), array) else array.astype(np.float64)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return RawArray(array.dtype.str, array.shape, array.tobytes())


def network_bytes(network: Network) -> bytes:
    """The network file; its SHA-256 names the network in certificates.

    Raises:
        ModelError: if a parameter is NaN or infinite (the node is named).
    """
    arrays: list[RawArray] = []

    def store(tensor: Tensor, index: int) -> dict[str, int]:
        values = as_numpy(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ModelError(f"network: node {index} has a NaN or infinite parameter")
        arrays.append(raw_array(values))
        return {"array": len(arrays) - 1}

    nodes: list[dict[str, Any]] = []
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            nodes.append({"kind": "input", "shape": list(node.shape)})
        elif isinstance(node, Affine):
            maps = [_map(linear, lambda t, i=index: store(t, i)) for linear in node.maps]
            nodes.append(
                {"kind": "affine", "inputs": list(node.inputs), "shape": list(node.shape), "maps": maps,
                 "bias": store(node.bias, index)}
            )  # fmt: skip
        else:
            nodes.append({"kind": "relu", "input": node.input})
    return pack({"format": FORMAT, "version": VERSION, "nodes": nodes}, arrays)


def _map(linear: AbstractLinearMap, store: Any) -> dict[str, Any]:
    if isinstance(linear, Dense):
        return {"kind": "dense", "weight": store(linear.weight)}
    if isinstance(linear, Diagonal):
        return {"kind": "diagonal", "weight": store(linear.weight), "shape": list(linear.shape)}
    if isinstance(linear, Conv2d):
        return {
            "kind": "conv2d", "weight": store(linear.weight), "in_shape": list(linear.in_shape),
            "stride": list(linear.stride), "padding": list(linear.padding), "dilation": list(linear.dilation),
            "groups": linear.groups,
        }  # fmt: skip
    if isinstance(linear, Sparse):
        return {
            "kind": "sparse", "rows": store(linear.rows), "cols": store(linear.cols), "values": store(linear.values),
            "in_shape": list(linear.in_shape), "out_shape": list(linear.out_shape),
        }  # fmt: skip
    raise ModelError(f"network: {type(linear).__name__} has no place in the network file")


def network_file(network: Network) -> tuple[bytes, str]:
    """The network file's bytes and the SHA-256 by which certificates name the network."""
    data = network_bytes(network)
    return data, hashlib.sha256(data).hexdigest()
