"""The lowering of ONNX operators that move values about: reshapes, transposes, slices, padding, identities."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from lpverify.errors import ModelError
from lpverify.lowering.builder import Value, require_units
from lpverify.lowering.onnx_table import (
    Array,
    Attributes,
    Context,
    Operand,
    Operator,
    as_before,
    as_image,
    as_value,
    integers,
    operator,
    own_axis,
    refuse,
    weight,
)

OPERATORS: dict[str, Operator] = {}


@operator(OPERATORS, "Flatten", 1, 1, axis=1)
def _flatten(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x = as_value(node, a)
    rank = len(x.shape)
    axis = rank if at["axis"] == rank else own_axis(node, at["axis"], max(rank, 1))
    return c.b.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator(OPERATORS, "Reshape", 2, 2, allowzero=0)
def _reshape(c: Context, node: str, at: Attributes, a: Operand, shape: Operand) -> Value:
    x, sizes = as_value(node, a), integers(node, shape, "shape")
    if not at["allowzero"]:
        sizes = [x.shape[i] if n == 0 and i < len(x.shape) else n for i, n in enumerate(sizes)]
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = x.size // known if known else 0
    if math.prod(sizes) != x.size or min(sizes, default=1) < 1:
        raise ModelError(f"{node}: cannot reshape {x.shape} to {sizes}")
    return c.b.reshape(x, tuple(sizes))


@operator(OPERATORS, "Transpose", 1, 1, perm=None)
def _transpose(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x = as_value(node, a)
    axes = list(range(len(x.shape)))
    perm = axes[::-1] if at["perm"] is None else list(at["perm"])
    if sorted(perm) != axes:
        raise ModelError(f"{node}: perm {perm} does not fit an input of shape {x.shape}")
    return c.b.permute(x, perm)


def _axes(c: Context, node: str, at: Attributes, operand: Operand, rank: int) -> list[int] | None:
    """The axes of Squeeze and Unsqueeze: an attribute before version 13, an input since."""
    given = at["axes"] if operand is None else integers(node, operand, "axes")
    return None if given is None else sorted(own_axis(node, n, rank) for n in given)


@operator(OPERATORS, "Squeeze", 1, 2, axes=None)
def _squeeze(c: Context, node: str, at: Attributes, a: Operand, axes: Operand = None) -> Value:
    x = as_value(node, a)
    gone = _axes(c, node, at, axes, len(x.shape))
    gone = [i for i, n in enumerate(x.shape) if n == 1] if gone is None else gone
    if any(x.shape[i] != 1 for i in gone):
        raise ModelError(f"{node}: cannot squeeze axes {gone} of shape {x.shape}")
    return c.b.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


@operator(OPERATORS, "Unsqueeze", 1, 2, axes=None)
def _unsqueeze(c: Context, node: str, at: Attributes, a: Operand, axes: Operand = None) -> Value:
    x = as_value(node, a)
    count = len(at["axes"] or ()) if axes is None else len(integers(node, axes, "axes"))
    new = _axes(c, node, at, axes, len(x.shape) + count) or []
    if not new or len(set(new)) != len(new):
        raise ModelError(f"{node}: axes {new} cannot be inserted")
    shape = list(x.shape)
    for axis in new:
        shape.insert(axis, 1)
    return c.b.reshape(x, tuple(shape))


@operator(OPERATORS, "Slice", 1, 5, starts=None, ends=None, axes=None)
def _slice(c: Context, node: str, at: Attributes, a: Operand, *operands: Operand) -> Value:
    x = as_value(node, a)
    given = dict(zip(("starts", "ends", "axes", "steps"), operands, strict=False))
    lists = {k: at.get(k) if given.get(k) is None else integers(node, given[k], k) for k in ("starts", "ends", "axes")}
    if lists["starts"] is None or lists["ends"] is None:
        raise ModelError(f"{node}: starts or ends are missing")
    axes = lists["axes"] or list(range(len(lists["starts"])))
    steps = [1] * len(axes) if given.get("steps") is None else integers(node, given["steps"], "steps")
    if not len(axes) == len(steps) == len(lists["starts"]) == len(lists["ends"]) or min(steps, default=1) == 0:
        raise ModelError(f"{node}: starts, ends, axes and steps do not fit together")
    positions = np.arange(x.size).reshape(x.shape)
    for start, end, axis, step in zip(lists["starts"], lists["ends"], axes, steps, strict=True):
        index = [slice(None)] * len(x.shape)
        own, length = own_axis(node, axis, len(x.shape)), x.shape[own_axis(node, axis, len(x.shape))]
        # Python reads an end of -1 as "the last"; ONNX writes "before the first" as an end below -length.
        index[own] = slice(start, None if step < 0 and end < -length else end, step)
        positions = positions[tuple(index)]
    if not positions.size:
        raise ModelError(f"{node}: the slice is empty")
    return c.b.pick(x, torch.from_numpy(positions.copy()), node)


@operator(OPERATORS, "Concat", 1, 2**31, axis=None)
def _concat(c: Context, node: str, at: Attributes, *operands: Operand) -> Value:
    values = [as_value(node, operand) for operand in operands]
    if at["axis"] is None:
        raise ModelError(f"{node}: its axis is missing")
    axis = own_axis(node, at["axis"], len(values[0].shape))
    shapes = {v.shape[:axis] + v.shape[axis + 1 :] for v in values}
    if len(shapes) != 1 or len({len(v.shape) for v in values}) != 1:
        raise ModelError(f"{node}: shapes {[v.shape for v in values]} cannot be joined along axis {axis}")
    return c.b.concat(values, axis, node)


@operator(OPERATORS, "Pad", 1, 4, mode="constant", pads=None, value=0.0)
def _pad(c: Context, node: str, at: Attributes, a: Operand, *operands: Operand) -> Value:
    x = as_value(node, a)
    pads, fill, axes = (*operands, None, None, None)[:3]
    rank = len(x.shape)
    if at["mode"] != "constant":
        raise refuse(node, f"mode {at['mode']!r}")
    numbers = at["pads"] if pads is None else integers(node, pads, "pads")
    over = list(range(rank)) if axes is None else [own_axis(node, n, rank) for n in integers(node, axes, "axes")]
    if numbers is None or len(numbers) != 2 * len(over):
        raise ModelError(f"{node}: pads {numbers} do not fit an input of shape {x.shape}")
    constant = float(at["value"] if fill is None else weight(node, fill, "constant value").reshape(()))
    sides = {axis: (numbers[i], numbers[i + len(over)]) for i, axis in enumerate(over)}
    spatial = {axis: pair for axis, pair in sides.items() if any(pair)}
    if rank == 4 and x.shape[0] == 1 and set(spatial) <= {2, 3}:
        (top, bottom), (left, right) = (spatial.get(axis, (0, 0)) for axis in (2, 3))
        return as_before(c, x, c.b.pad(as_image(c, node, x), (top, left, bottom, right), constant, node))
    require_units(tuple(n + sum(sides.get(axis, (0, 0))) for axis, n in enumerate(x.shape)), node)
    flat = [n for axis in reversed(range(rank)) for n in sides.get(axis, (0, 0))]
    positions = F.pad(c.b.positions(x), flat, value=-1)
    out = c.b.pick(x, positions, node)
    return c.b.scale_shift(out, None, (positions < 0).double() * constant, node) if constant else out


@operator(OPERATORS, "Dropout", 1, 3, ratio=0.5, seed=0)
def _dropout(
    c: Context, node: str, at: Attributes, a: Operand, ratio: Operand = None, training: Operand = None
) -> Value:
    if isinstance(training, Value) or (training is not None and bool(np.any(training))):
        raise refuse(node, "training_mode")
    return as_value(node, a)


@operator(OPERATORS, "Identity", 1, 1)
def _identity(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return as_value(node, a)


@operator(OPERATORS, "Shape", 1, 1, start=0, end=None)
def _shape(c: Context, node: str, at: Attributes, a: Operand) -> Array:
    shape = as_value(node, a).shape
    return np.array(shape[at["start"] : at["end"]], dtype=np.int64)
