"""What the lowerings of ONNX operators share: the context, the table's entries, and checks of operands.

Values keep ONNX's own shapes, the batch of 1 being an ordinary axis. A lowering takes the context, the node's
label, its attributes and its inputs: a ``Value`` where the input depends on the network's input, a numpy array
where it is a constant, None where it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lpverify.errors import ModelError, UnsupportedLayerError
from lpverify.lowering.builder import Builder, Value

Array = np.ndarray[Any, Any]
Operand = Value | Array | None
Attributes = dict[str, Any]
Lowering = TypeVar("Lowering", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """An operator's lowering, its attributes with their defaults, and the least and greatest number of inputs."""

    lower: Callable[..., Any]
    attributes: Attributes
    inputs: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Context:
    """The builder and the version of the default operator set."""

    b: Builder
    opset: int


def operator(
    table: dict[str, Operator], name: str, least: int, most: int, **attributes: Any
) -> Callable[[Lowering], Lowering]:
    """Enter a lowering in ``table``: its least and greatest number of inputs, its attributes with defaults."""

    def register(function: Lowering) -> Lowering:
        table[name] = Operator(function, attributes, (least, most))
        return function

    return register


def refuse(node: str, what: str) -> UnsupportedLayerError:
    """The error for something at ``node`` that has no exact lowering."""
    return UnsupportedLayerError(f"{node}: {what} is not supported")


def weight(node: str, operand: Operand, what: str) -> Tensor:
    """A floating-point constant operand, widened exactly to float64.

    Raises:
        UnsupportedLayerError: if it depends on the input or is not floating point.
        ModelError: if it is missing or holds NaN or infinity.
    """
    if isinstance(operand, Value):
        raise refuse(node, f"a {what} that depends on the input")
    if operand is None:
        raise ModelError(f"{node}: its {what} is missing")
    if operand.dtype.kind not in "fV" or operand.dtype.names:
        raise refuse(node, f"a {what} of type {operand.dtype}")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = np.array(operand.astype(np.float64))
    if not np.isfinite(wide).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(wide))[0])
        raise ModelError(f"{node}: its {what} is {wide[index]} at index {index}")
    return torch.from_numpy(wide)


def integers(node: str, operand: Operand, what: str) -> list[int]:
    """A constant operand of integers, as a list."""
    if isinstance(operand, Value):
        raise refuse(node, f"a {what} that depends on the input's values")
    if operand is None or operand.dtype.kind not in "iu" or operand.ndim > 1:
        raise ModelError(f"{node}: its {what} must be a list of integers")
    return [int(n) for n in operand.reshape(-1)]


def as_value(node: str, operand: Operand, what: str = "input") -> Value:
    """An operand that must depend on the network's input."""
    if not isinstance(operand, Value):
        raise refuse(node, f"a constant {what}")
    return operand


def own_axis(node: str, axis: int, rank: int) -> int:
    """An axis of ``rank`` axes, counted from the front."""
    if not -rank <= axis < rank:
        raise ModelError(f"{node}: axis {axis} does not exist in {rank} axes")
    return axis % rank


def as_image(c: Context, node: str, x: Value) -> Value:
    """An input (1, C, H, W) or (1, C, L) as an image (C, H, W), of height 1 in the second case."""
    if len(x.shape) not in (3, 4) or x.shape[0] != 1:
        raise refuse(node, f"an input of shape {x.shape} (expected a batch of 1 and one or two spatial axes)")
    return c.b.reshape(x, x.shape[1:] if len(x.shape) == 4 else (x.shape[1], 1, x.shape[2]))


def as_before(c: Context, x: Value, image: Value) -> Value:
    """The image (C, H, W) with as many axes as ``x`` had."""
    channels, height, width = image.shape
    return c.b.reshape(image, (1, channels, height, width) if len(x.shape) == 4 else (1, channels, width))
