"""The lowering of ATen operators that move values about: reshapes, transposes, slices, padding, identities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lpverify.lowering.builder import Value
from lpverify.lowering.torch_table import BATCH, Context, operator, own_axis, refuse

OPERATORS: dict[str, Callable[..., Any]] = {}


@operator(OPERATORS, "view.default", "reshape.default", "_unsafe_view.default")
def _view(c: Context, name: str, x: Value, shape: Sequence[int]) -> Value:
    sizes = list(shape)
    batch = sizes[0]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = x.size * BATCH // known
    if batch not in (-1, BATCH) or sizes[0] != BATCH:
        raise refuse(name, f"a reshape to {tuple(shape)}, which mixes or fixes the batch (write x.flatten(1)),")
    return c.b.reshape(x, tuple(sizes[1:]))


@operator(OPERATORS, "flatten.using_ints")
def _flatten(c: Context, name: str, x: Value, start: int = 0, end: int = -1) -> Value:
    first, last = own_axis(x, start, name), own_axis(x, end, name)
    return c.b.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@operator(OPERATORS, "unsqueeze.default")
def _unsqueeze(c: Context, name: str, x: Value, axis: int) -> Value:
    own = axis % (len(x.shape) + 2) - 1
    if own < 0:
        raise refuse(name, "a new axis before the batch")
    return c.b.reshape(x, (*x.shape[:own], 1, *x.shape[own:]))


@operator(OPERATORS, "squeeze.dim", "squeeze.dims")
def _squeeze(c: Context, name: str, x: Value, axes: Any) -> Value:
    own = {own_axis(x, a, name) for a in ([axes] if isinstance(axes, int) else axes)}
    return c.b.reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in own or n != 1))


@operator(OPERATORS, "squeeze.default")
def _squeeze_all(c: Context, name: str, x: Value) -> Value:
    return c.b.reshape(x, tuple(n for n in x.shape if n != 1))


@operator(OPERATORS, "permute.default")
def _permute(c: Context, name: str, x: Value, axes: Sequence[int]) -> Value:
    if axes[0] % len(axes) != 0:
        raise refuse(name, "a transpose that moves the batch axis")
    return c.b.permute(x, [own_axis(x, a, name) for a in axes[1:]])


@operator(OPERATORS, "transpose.int")
def _transpose(c: Context, name: str, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    a, b = own_axis(x, first, name), own_axis(x, second, name)
    axes[a], axes[b] = b, a
    return c.b.permute(x, axes)


@operator(OPERATORS, "slice.Tensor")
def _slice(
    c: Context, name: str, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    if axis % (len(x.shape) + 1) == 0 and not start and (end is None or end >= BATCH) and step == 1:
        return x
    index = [slice(None)] * len(x.shape)
    index[own_axis(x, axis, name)] = slice(start, end, step)
    return c.b.pick(x, c.b.positions(x)[tuple(index)], name)


@operator(OPERATORS, "select.int")
def _select(c: Context, name: str, x: Value, axis: int, index: int) -> Value:
    return c.b.pick(x, c.b.positions(x).select(own_axis(x, axis, name), index), name)


@operator(OPERATORS, "split.Tensor", "split_with_sizes.default")
def _split(c: Context, name: str, x: Value, sizes: Any, axis: int = 0) -> list[Value]:
    parts = torch.split(c.b.positions(x), sizes, own_axis(x, axis, name))
    return [c.b.pick(x, part, name) for part in parts]


@operator(OPERATORS, "cat.default")
def _cat(c: Context, name: str, values: Sequence[Any], axis: int = 0) -> Value:
    if not all(isinstance(v, Value) for v in values):
        raise refuse(name, "a concatenation with a constant")
    return c.b.concat(values, own_axis(values[0], axis, name), name)


@operator(OPERATORS, "pad.default", "constant_pad_nd.default")
def _pad(c: Context, name: str, x: Value, sides: Sequence[int], mode: Any = "constant", fill: Any = None) -> Value:
    if not isinstance(mode, str):  # constant_pad_nd has no mode
        mode, fill = "constant", mode
    if mode != "constant" or len(sides) > 4 or len(x.shape) != 3:
        raise refuse(name, f"padding of mode {mode!r} by {tuple(sides)} of an input of shape {x.shape}")
    left, right, top, bottom = (*sides, 0, 0)[:4]
    return c.b.pad(x, (top, left, bottom, right), float(c.number(fill or 0.0)), name)


@operator(OPERATORS, "dropout.default")
def _dropout(c: Context, name: str, x: Value, p: float, train: bool) -> Value:
    if train:
        raise refuse(name, "dropout that is active in eval mode")
    return x


@operator(
    OPERATORS, "clone.default", "alias.default", "contiguous.default", "detach.default", "lift_fresh_copy.default"
)
def _same(c: Context, name: str, x: Value, *, memory_format: Any = None) -> Value:
    return x


@operator(OPERATORS, "_assert_tensor_metadata.default")
def _assert_metadata(c: Context, name: str, x: Value, *args: Any, **kwargs: Any) -> None:
    """The export's note that a tensor has the dtype it was traced with; it computes nothing."""


@operator(OPERATORS, "to.dtype", "_to_copy.default")
def _to(c: Context, name: str, x: Value, dtype: Any = None, *args: Any, **kwargs: Any) -> Value:
    if dtype not in (None, c.dtype):
        raise refuse(name, f"a cast to {dtype} inside the network")
    return x
