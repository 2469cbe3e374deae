"""The lowering of each ONNX operator. Values keep ONNX's own shapes, the batch of 1 being an ordinary axis.

A lowering takes the context, the node's label, its attributes and its inputs: a ``Value`` where the input depends
on the network's input, a numpy array where it is a constant, None where it is left out. Attributes that an
operator does not list are refused before it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.errors import ModelError, UnsupportedLayerError
from lpverify.lowering.builder import Builder, Value
from lpverify.lowering.pooling import Window, average_pool, max_pool

Array = np.ndarray[Any, Any]
Operand = Value | Array | None
Attributes = dict[str, Any]
Lowering = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """An operator's lowering, its attributes with their defaults, and the least and greatest number of inputs."""

    lower: Lowering
    attributes: Attributes
    inputs: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Context:
    """The builder and the version of the default operator set."""

    b: Builder
    opset: int


OPERATORS: dict[str, Operator] = {}


def _operator(name: str, least: int, most: int, **attributes: Any) -> Callable[[Lowering], Lowering]:
    def register(function: Lowering) -> Lowering:
        OPERATORS[name] = Operator(function, attributes, (least, most))
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


def _value(node: str, operand: Operand, what: str = "input") -> Value:
    if not isinstance(operand, Value):
        raise refuse(node, f"a constant {what}")
    return operand


def _axis(node: str, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ModelError(f"{node}: axis {axis} does not exist in {rank} axes")
    return axis % rank


def _image(c: Context, node: str, x: Value) -> Value:
    """An input (1, C, H, W) or (1, C, L) as an image (C, H, W), of height 1 in the second case."""
    if len(x.shape) not in (3, 4) or x.shape[0] != 1:
        raise refuse(node, f"an input of shape {x.shape} (expected a batch of 1 and one or two spatial axes)")
    return c.b.reshape(x, x.shape[1:] if len(x.shape) == 4 else (x.shape[1], 1, x.shape[2]))


def _like(c: Context, x: Value, image: Value) -> Value:
    """The image (C, H, W) with as many axes as ``x`` had."""
    channels, height, width = image.shape
    return c.b.reshape(image, (1, channels, height, width) if len(x.shape) == 4 else (1, channels, width))


# Linear layers ------------------------------------------------------------------------------------------------


@_operator("MatMul", 2, 2)
def _matmul(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        raise refuse(node, "a product of two values that depend on the input")
    if isinstance(a, Value):
        right = weight(node, b, "right factor")
        if right.ndim not in (1, 2):
            raise refuse(node, f"a right factor of shape {tuple(right.shape)}")
        out = c.b.linear(a, right.reshape(right.shape[0], -1).T, None, node)
        return out if right.ndim == 2 else c.b.reshape(out, out.shape[:-1])
    left, x = weight(node, a, "left factor"), _value(node, b)
    if left.ndim not in (1, 2):
        raise refuse(node, f"a left factor of shape {tuple(left.shape)}")
    axes = list(range(len(x.shape)))
    swapped = axes if len(axes) == 1 else [*axes[:-2], axes[-1], axes[-2]]
    out = c.b.permute(c.b.linear(c.b.permute(x, swapped), left.reshape(-1, left.shape[-1]), None, node), swapped)
    if left.ndim == 2:
        return out
    return c.b.reshape(out, out.shape[:-2] + out.shape[-1:] if len(axes) > 1 else ())


@_operator("Gemm", 2, 3, alpha=1.0, beta=1.0, transA=0, transB=0)
def _gemm(c: Context, node: str, at: Attributes, a: Operand, b: Operand, bias: Operand = None) -> Value:
    x, matrix = _value(node, a, "first factor"), weight(node, b, "second factor")
    if at["transA"]:
        raise refuse(node, "attribute transA")
    if len(x.shape) != 2 or matrix.ndim != 2:
        raise ModelError(f"{node}: factors of shapes {x.shape} and {tuple(matrix.shape)}, expected two matrices")
    matrix = (matrix if at["transB"] else matrix.T) * at["alpha"]
    out = c.b.linear(x, matrix, None, node)
    if bias is None:
        return out
    return _kept(node, out, c.b.scale_shift(out, None, weight(node, bias, "bias") * at["beta"], node))


def _kept(node: str, before: Value, after: Value) -> Value:
    if before.shape != after.shape:
        raise ModelError(f"{node}: a bias broadcasts {before.shape} to {after.shape}")
    return after


def _windows(node: str, x: Value, at: Attributes, kernel: Sequence[int]) -> Window:
    """The window of a convolution or pooling over an image (C, H, W); one-dimensional attributes get a height of 1."""
    flat = len(kernel) == 1
    numbers = {k: list(at.get(k) or d * len(kernel)) for k, d in (("strides", [1]), ("dilations", [1]))}
    pads = list(at.get("pads") or [0] * (2 * len(kernel)))
    if any(len(n) != len(kernel) for n in numbers.values()) or len(pads) != 2 * len(kernel) or len(kernel) > 2:
        raise refuse(node, f"a kernel {tuple(kernel)} with pads {pads} and {numbers}")
    if min([*kernel, *numbers["strides"], *numbers["dilations"]]) < 1 or min(pads) < 0:
        raise ModelError(f"{node}: kernel, strides and dilations must be positive and pads not negative")
    height, width = ((1, 1) if flat else (kernel[0], kernel[0])), (kernel[-1], kernel[-1])
    stride = (1 if flat else numbers["strides"][0], numbers["strides"][-1])
    dilation = (1 if flat else numbers["dilations"][0], numbers["dilations"][-1])
    size = (height[0], width[0])
    sides = (0, pads[0], 0, pads[1]) if flat else (pads[0], pads[1], pads[2], pads[3])
    mode = at.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = []
        for axis in (0, 1):
            length, span = x.shape[1 + axis], dilation[axis] * (size[axis] - 1) + 1
            total.append(max(0, (-(-length // stride[axis]) - 1) * stride[axis] + span - length))
        low = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
        sides = (low[0], low[1], total[0] - low[0], total[1] - low[1])
    elif mode not in ("NOTSET", "VALID"):
        raise refuse(node, f"auto_pad {mode!r}")
    if mode != "NOTSET" and any(pads):
        raise ModelError(f"{node}: auto_pad {mode} together with pads {pads}")
    if at.get("ceil_mode"):
        for axis in (0, 1):
            span = dilation[axis] * (size[axis] - 1) + 1
            if (x.shape[1 + axis] + sides[axis] + sides[axis + 2] - span) % stride[axis]:
                raise refuse(node, "ceil_mode with a last window that runs past the image")
    return Window(size, stride, sides, dilation)


_GEOMETRY: Attributes = {"auto_pad": "NOTSET", "dilations": None, "kernel_shape": None, "pads": None, "strides": None}


@_operator("Conv", 2, 3, group=1, **_GEOMETRY)
def _conv(c: Context, node: str, at: Attributes, a: Operand, w: Operand, bias: Operand = None) -> Value:
    x, kernel = _value(node, a), weight(node, w, "kernel")
    image = _image(c, node, x)
    if kernel.ndim != len(x.shape):
        raise ModelError(f"{node}: kernel {tuple(kernel.shape)} does not fit an input of shape {x.shape}")
    if at["kernel_shape"] not in (None, list(kernel.shape[2:])):
        raise ModelError(f"{node}: kernel_shape {at['kernel_shape']} but the kernel is {tuple(kernel.shape)}")
    window = _windows(node, image, at, list(kernel.shape[2:]))
    kernel = kernel if kernel.ndim == 4 else kernel.unsqueeze(2)
    shift = None if bias is None else weight(node, bias, "bias")
    if shift is not None and tuple(shift.shape) != (len(kernel),):
        raise ModelError(f"{node}: bias {tuple(shift.shape)}, expected ({len(kernel)},)")
    geometry = (window.stride, window.padding, window.dilation, int(at["group"]))
    return _like(c, x, c.b.conv(image, kernel, shift, *geometry, name=node))


@_operator("BatchNormalization", 5, 5, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1)
def _batch_norm(c: Context, node: str, at: Attributes, a: Operand, *rest: Operand) -> Value:
    x = _value(node, a)
    scale, bias, mean, var = (weight(node, t, what) for t, what in zip(rest, ("scale", "B", "mean", "var"), strict=True))
    if at["training_mode"] or not at["spatial"] or len(x.shape) < 2:
        raise refuse(node, "training_mode, or spatial = 0,")
    shape = (-1, *([1] * (len(x.shape) - 2)))
    factor = scale / torch.sqrt(var + float(at["epsilon"]))
    c.b.note(f"{node}: batch-norm with its running statistics, folded with a rounding")
    return c.b.scale_shift(x, factor.reshape(shape), (bias - mean * factor).reshape(shape), node)


# Arithmetic ---------------------------------------------------------------------------------------------------


@_operator("Add", 2, 2)
def _add(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return c.b.add([a, b], [1.0, 1.0], node)
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    return c.b.scale_shift(_value(node, value), None, weight(node, other, "summand"), node)


@_operator("Sub", 2, 2)
def _sub(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return c.b.add([a, b], [1.0, -1.0], node)
    if isinstance(a, Value):
        return c.b.scale_shift(a, None, -weight(node, b, "subtrahend"), node)
    minus = torch.tensor(-1.0, dtype=torch.float64)
    return c.b.scale_shift(_value(node, b), minus, weight(node, a, "minuend"), node)


@_operator("Neg", 1, 1)
def _neg(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.scale_shift(_value(node, a), torch.tensor(-1.0, dtype=torch.float64), None, node)


@_operator("Mul", 2, 2)
def _mul(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    return c.b.scale_shift(_value(node, value), weight(node, other, "factor"), None, node)


@_operator("Div", 2, 2)
def _div(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    divisor = weight(node, b, "divisor")
    if bool((divisor == 0).any()):
        raise ModelError(f"{node}: divides by 0")
    if not bool((torch.frexp(divisor).mantissa.abs() == 0.5).all()):
        c.b.note(f"{node}: the reciprocal of the divisor is rounded to float64")
    return c.b.scale_shift(_value(node, a), 1 / divisor, None, node)


# Piecewise-linear operators -----------------------------------------------------------------------------------


@_operator("Relu", 1, 1)
def _relu(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.relu(_value(node, a))


@_operator("LeakyRelu", 1, 1, alpha=float(np.float32(0.01)))
def _leaky(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    return c.b.leaky(_value(node, a), torch.tensor(at["alpha"], dtype=torch.float64), node)


@_operator("Clip", 1, 3, min=None, max=None)
def _clip(c: Context, node: str, at: Attributes, a: Operand, low: Operand = None, high: Operand = None) -> Value:
    limits = []
    for name, operand in (("min", low), ("max", high)):
        if operand is not None:
            limit = operand if isinstance(operand, Value) else np.asarray(operand)
            if isinstance(limit, Value) or limit.size != 1 or limit.dtype.kind not in "fV":
                raise refuse(node, f"a {name} that is not a constant number")
            limits.append(float(limit.astype(np.float64).reshape(())))
        else:
            limits.append(at[name])
    return c.b.clip(_value(node, a), limits[0], limits[1], node)


@_operator("Abs", 1, 1)
def _abs(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.absolute(_value(node, a), node)


@_operator("Max", 1, 2**31)
def _max(c: Context, node: str, _: Attributes, *operands: Operand) -> Value:
    out = _value(node, operands[0])
    for operand in operands[1:]:
        out = c.b.maximum(out, _value(node, operand), node)
    return out


@_operator("Min", 1, 2**31)
def _min(c: Context, node: str, _: Attributes, *operands: Operand) -> Value:
    out = _value(node, operands[0])
    for operand in operands[1:]:
        out = c.b.minimum(out, _value(node, operand), node)
    return out


# Pooling ------------------------------------------------------------------------------------------------------


def _pooling(c: Context, node: str, at: Attributes, a: Operand) -> tuple[Value, Value, Window]:
    x = _value(node, a)
    image = _image(c, node, x)
    kernel = at["kernel_shape"]
    if kernel is None or len(kernel) != len(x.shape) - 2:
        raise ModelError(f"{node}: kernel_shape {kernel} does not fit an input of shape {x.shape}")
    return x, image, _windows(node, image, at, kernel)


@_operator("MaxPool", 1, 1, ceil_mode=0, storage_order=0, **_GEOMETRY)
def _max_pool(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x, image, window = _pooling(c, node, at, a)
    return _like(c, x, max_pool(c.b, image, window, node))


@_operator("AveragePool", 1, 1, ceil_mode=0, count_include_pad=0, **_GEOMETRY)
def _average_pool(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x, image, window = _pooling(c, node, at, a)
    return _like(c, x, average_pool(c.b, image, window, bool(at["count_include_pad"]), node))


@_operator("GlobalAveragePool", 1, 1)
def _global_average_pool(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    x = _value(node, a)
    image = _image(c, node, x)
    size = (image.shape[1], image.shape[2])
    return _like(c, x, average_pool(c.b, image, Window(size, size), True, node))


# Shapes -------------------------------------------------------------------------------------------------------


@_operator("Flatten", 1, 1, axis=1)
def _flatten(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x = _value(node, a)
    rank = len(x.shape)
    axis = rank if at["axis"] == rank else _axis(node, at["axis"], max(rank, 1))
    return c.b.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@_operator("Reshape", 2, 2, allowzero=0)
def _reshape(c: Context, node: str, at: Attributes, a: Operand, shape: Operand) -> Value:
    x, sizes = _value(node, a), integers(node, shape, "shape")
    if not at["allowzero"]:
        sizes = [x.shape[i] if n == 0 and i < len(x.shape) else n for i, n in enumerate(sizes)]
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = x.size // known if known else 0
    if math.prod(sizes) != x.size or min(sizes, default=1) < 1:
        raise ModelError(f"{node}: cannot reshape {x.shape} to {sizes}")
    return c.b.reshape(x, tuple(sizes))


@_operator("Transpose", 1, 1, perm=None)
def _transpose(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x = _value(node, a)
    axes = list(range(len(x.shape)))
    perm = axes[::-1] if at["perm"] is None else list(at["perm"])
    if sorted(perm) != axes:
        raise ModelError(f"{node}: perm {perm} does not fit an input of shape {x.shape}")
    return c.b.permute(x, perm)


def _axes(c: Context, node: str, at: Attributes, operand: Operand, rank: int) -> list[int] | None:
    """The axes of Squeeze and Unsqueeze: an attribute before version 13, an input since."""
    given = at["axes"] if operand is None else integers(node, operand, "axes")
    return None if given is None else sorted(_axis(node, n, rank) for n in given)


@_operator("Squeeze", 1, 2, axes=None)
def _squeeze(c: Context, node: str, at: Attributes, a: Operand, axes: Operand = None) -> Value:
    x = _value(node, a)
    gone = _axes(c, node, at, axes, len(x.shape))
    gone = [i for i, n in enumerate(x.shape) if n == 1] if gone is None else gone
    if any(x.shape[i] != 1 for i in gone):
        raise ModelError(f"{node}: cannot squeeze axes {gone} of shape {x.shape}")
    return c.b.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


@_operator("Unsqueeze", 1, 2, axes=None)
def _unsqueeze(c: Context, node: str, at: Attributes, a: Operand, axes: Operand = None) -> Value:
    x = _value(node, a)
    count = len(at["axes"] or ()) if axes is None else len(integers(node, axes, "axes"))
    new = _axes(c, node, at, axes, len(x.shape) + count) or []
    if not new or len(set(new)) != len(new):
        raise ModelError(f"{node}: axes {new} cannot be inserted")
    shape = list(x.shape)
    for axis in new:
        shape.insert(axis, 1)
    return c.b.reshape(x, tuple(shape))


@_operator("Slice", 1, 5, starts=None, ends=None, axes=None)
def _slice(c: Context, node: str, at: Attributes, a: Operand, *operands: Operand) -> Value:
    x = _value(node, a)
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
        own, length = _axis(node, axis, len(x.shape)), x.shape[_axis(node, axis, len(x.shape))]
        # Python reads an end of -1 as "the last"; ONNX writes "before the first" as an end below -length.
        index[own] = slice(start, None if step < 0 and end < -length else end, step)
        positions = positions[tuple(index)]
    if not positions.size:
        raise ModelError(f"{node}: the slice is empty")
    return c.b.pick(x, torch.from_numpy(positions.copy()), node)


@_operator("Concat", 1, 2**31, axis=None)
def _concat(c: Context, node: str, at: Attributes, *operands: Operand) -> Value:
    values = [_value(node, operand) for operand in operands]
    if at["axis"] is None:
        raise ModelError(f"{node}: its axis is missing")
    axis = _axis(node, at["axis"], len(values[0].shape))
    shapes = {v.shape[:axis] + v.shape[axis + 1 :] for v in values}
    if len(shapes) != 1 or len({len(v.shape) for v in values}) != 1:
        raise ModelError(f"{node}: shapes {[v.shape for v in values]} cannot be joined along axis {axis}")
    return c.b.concat(values, axis, node)


@_operator("Pad", 1, 4, mode="constant", pads=None, value=0.0)
def _pad(c: Context, node: str, at: Attributes, a: Operand, *operands: Operand) -> Value:
    x = _value(node, a)
    pads, fill, axes = (*operands, None, None, None)[:3]
    rank = len(x.shape)
    if at["mode"] != "constant":
        raise refuse(node, f"mode {at['mode']!r}")
    numbers = at["pads"] if pads is None else integers(node, pads, "pads")
    over = list(range(rank)) if axes is None else [_axis(node, n, rank) for n in integers(node, axes, "axes")]
    if numbers is None or len(numbers) != 2 * len(over):
        raise ModelError(f"{node}: pads {numbers} do not fit an input of shape {x.shape}")
    constant = float(at["value"] if fill is None else weight(node, fill, "constant value").reshape(()))
    sides = {axis: (numbers[i], numbers[i + len(over)]) for i, axis in enumerate(over)}
    spatial = {axis: pair for axis, pair in sides.items() if any(pair)}
    if rank == 4 and x.shape[0] == 1 and set(spatial) <= {2, 3}:
        (top, bottom), (left, right) = (spatial.get(axis, (0, 0)) for axis in (2, 3))
        return _like(c, x, c.b.pad(_image(c, node, x), (top, left, bottom, right), constant, node))
    flat = [n for axis in reversed(range(rank)) for n in sides.get(axis, (0, 0))]
    positions = F.pad(c.b.positions(x), flat, value=-1)
    out = c.b.pick(x, positions, node)
    return c.b.scale_shift(out, None, (positions < 0).double() * constant, node) if constant else out


@_operator("Dropout", 1, 3, ratio=0.5, seed=0)
def _dropout(c: Context, node: str, at: Attributes, a: Operand, ratio: Operand = None, training: Operand = None) -> Value:
    if isinstance(training, Value) or (training is not None and bool(np.any(training))):
        raise refuse(node, "training_mode")
    return _value(node, a)


@_operator("Identity", 1, 1)
def _identity(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return _value(node, a)


@_operator("Shape", 1, 1, start=0, end=None)
def _shape(c: Context, node: str, at: Attributes, a: Operand) -> Array:
    shape = _value(node, a).shape
    return np.array(shape[at["start"] : at["end"]], dtype=np.int64)
