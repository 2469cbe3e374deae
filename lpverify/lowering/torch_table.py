"""What the lowerings of ATen operators share: the context, the table's decorator, and checks of arguments.

Values carry no batch axis; torch's axis 0 is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lpverify.errors import UnsupportedLayerError
from lpverify.lowering.builder import Builder, Value

Number = int | float
Lowering = TypeVar("Lowering", bound=Callable[..., Any])
# The export runs with this batch; every operator is then checked to leave the batch axis alone.
BATCH = 2


@dataclass(frozen=True, eq=False)
class Context:
    """The builder, and the module's own dtype, to which torch rounds the numbers written in its code."""

    b: Builder
    dtype: torch.dtype

    def number(self, value: Number | Tensor) -> Tensor:
        """A constant operand as a tensor."""
        if isinstance(value, Tensor):
            return value
        return torch.tensor(value, dtype=self.dtype, device=self.b.device)


def operator(table: dict[str, Callable[..., Any]], *names: str) -> Callable[[Lowering], Lowering]:
    """Enter a lowering in ``table`` under the names of its ATen operators."""

    def register(function: Lowering) -> Lowering:
        table.update({f"aten.{name}": function for name in names})
        return function

    return register


def refuse(name: str, what: str) -> UnsupportedLayerError:
    """The error for something at node ``name`` that has no exact lowering."""
    return UnsupportedLayerError(f"node {name!r}: {what} is not supported")


def own_axis(value: Value, axis: int, name: str) -> int:
    """A torch axis as one of the value's own; the batch axis is refused."""
    own = axis % (len(value.shape) + 1) - 1
    if own < 0:
        raise refuse(name, "an operation along the batch axis")
    return own


def without_batch(tensor: Tensor, value: Value, name: str) -> Tensor:
    """A constant operand without the batch axis it may carry, whose rows must then be equal."""
    if tensor.ndim <= len(value.shape):
        return tensor
    if tensor.ndim > len(value.shape) + 1 or not bool((tensor == tensor[:1]).all()):
        raise refuse(name, f"a constant of shape {tuple(tensor.shape)} that differs along the batch")
    return tensor[0]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(vertical, horizontal) of a number or a list of one or two."""
    both = [value, value] if isinstance(value, int) else list(value)
    return (int(both[0]), int(both[-1]))


def constant(target: Any, args: Any, kwargs: Any, name: str) -> Any:
    """The result of an operator whose arguments are all constants; gradients flow through it.

    Raises:
        UnsupportedLayerError: if the operator draws random numbers.
    """
    if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
        raise UnsupportedLayerError(f"operator {target} at node {name!r} is random")
    return target(*args, **kwargs)
