"""The lowering of ONNX's linear, arithmetic, piecewise-linear and pooling operators (see onnx_table)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lpverify.errors import ModelError
from lpverify.lowering.builder import Value
from lpverify.lowering.onnx_table import (
    Attributes,
    Context,
    Operand,
    Operator,
    as_before,
    as_image,
    as_value,
    operator,
    refuse,
    weight,
)
from lpverify.lowering.pooling import Window, average_pool, max_pool

OPERATORS: dict[str, Operator] = {}


# Linear layers ------------------------------------------------------------------------------------------------


@operator(OPERATORS, "MatMul", 2, 2)
def _matmul(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        raise refuse(node, "a product of two values that depend on the input")
    if isinstance(a, Value):
        right = weight(node, b, "right factor")
        if right.ndim not in (1, 2):
            raise refuse(node, f"a right factor of shape {tuple(right.shape)}")
        out = c.b.linear(a, right.reshape(right.shape[0], -1).T, None, node)
        return out if right.ndim == 2 else c.b.reshape(out, out.shape[:-1])
    left, x = weight(node, a, "left factor"), as_value(node, b)
    if left.ndim not in (1, 2):
        raise refuse(node, f"a left factor of shape {tuple(left.shape)}")
    axes = list(range(len(x.shape)))
    swapped = axes if len(axes) == 1 else [*axes[:-2], axes[-1], axes[-2]]
    out = c.b.permute(c.b.linear(c.b.permute(x, swapped), left.reshape(-1, left.shape[-1]), None, node), swapped)
    if left.ndim == 2:
        return out
    return c.b.reshape(out, out.shape[:-2] + out.shape[-1:] if len(axes) > 1 else ())


@operator(OPERATORS, "Gemm", 2, 3, alpha=1.0, beta=1.0, transA=0, transB=0)
def _gemm(c: Context, node: str, at: Attributes, a: Operand, b: Operand, bias: Operand = None) -> Value:
    x, matrix = as_value(node, a, "first factor"), weight(node, b, "second factor")
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


@operator(OPERATORS, "Conv", 2, 3, group=1, **_GEOMETRY)
def _conv(c: Context, node: str, at: Attributes, a: Operand, w: Operand, bias: Operand = None) -> Value:
    x, kernel = as_value(node, a), weight(node, w, "kernel")
    image = as_image(c, node, x)
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
    return as_before(c, x, c.b.conv(image, kernel, shift, *geometry, name=node))


@operator(OPERATORS, "BatchNormalization", 5, 5, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1)
def _batch_norm(c: Context, node: str, at: Attributes, a: Operand, *rest: Operand) -> Value:
    x = as_value(node, a)
    names = ("scale", "B", "mean", "var")
    scale, bias, mean, var = (weight(node, t, what) for t, what in zip(rest, names, strict=True))
    if at["training_mode"] or not at["spatial"] or len(x.shape) < 2:
        raise refuse(node, "training_mode, or spatial = 0,")
    shape = (-1, *([1] * (len(x.shape) - 2)))
    factor = scale / torch.sqrt(var + float(at["epsilon"]))
    c.b.note(f"{node}: batch-norm with its running statistics, folded with a rounding")
    return c.b.scale_shift(x, factor.reshape(shape), (bias - mean * factor).reshape(shape), node)


# Arithmetic ---------------------------------------------------------------------------------------------------


@operator(OPERATORS, "Add", 2, 2)
def _add(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return c.b.add([a, b], [1.0, 1.0], node)
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    return c.b.scale_shift(as_value(node, value), None, weight(node, other, "summand"), node)


@operator(OPERATORS, "Sub", 2, 2)
def _sub(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return c.b.add([a, b], [1.0, -1.0], node)
    if isinstance(a, Value):
        return c.b.scale_shift(a, None, -weight(node, b, "subtrahend"), node)
    minus = torch.tensor(-1.0, dtype=torch.float64)
    return c.b.scale_shift(as_value(node, b), minus, weight(node, a, "minuend"), node)


@operator(OPERATORS, "Neg", 1, 1)
def _neg(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.scale_shift(as_value(node, a), torch.tensor(-1.0, dtype=torch.float64), None, node)


@operator(OPERATORS, "Mul", 2, 2)
def _mul(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    return c.b.scale_shift(as_value(node, value), weight(node, other, "factor"), None, node)


@operator(OPERATORS, "Div", 2, 2)
def _div(c: Context, node: str, _: Attributes, a: Operand, b: Operand) -> Value:
    divisor = weight(node, b, "divisor")
    if bool((divisor == 0).any()):
        raise ModelError(f"{node}: divides by 0")
    if not bool((torch.frexp(divisor).mantissa.abs() == 0.5).all()):
        c.b.note(f"{node}: the reciprocal of the divisor is rounded to float64")
    return c.b.scale_shift(as_value(node, a), 1 / divisor, None, node)


# Piecewise-linear operators -----------------------------------------------------------------------------------


@operator(OPERATORS, "Relu", 1, 1)
def _relu(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.relu(as_value(node, a))


@operator(OPERATORS, "LeakyRelu", 1, 1, alpha=float(np.float32(0.01)))
def _leaky(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    return c.b.leaky(as_value(node, a), torch.tensor(at["alpha"], dtype=torch.float64), node)


@operator(OPERATORS, "Clip", 1, 3, min=None, max=None)
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
    return c.b.clip(as_value(node, a), limits[0], limits[1], node)


@operator(OPERATORS, "Abs", 1, 1)
def _abs(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    return c.b.absolute(as_value(node, a), node)


@operator(OPERATORS, "Max", 1, 2**31)
def _max(c: Context, node: str, _: Attributes, *operands: Operand) -> Value:
    out = as_value(node, operands[0])
    for operand in operands[1:]:
        out = c.b.maximum(out, as_value(node, operand), node)
    return out


@operator(OPERATORS, "Min", 1, 2**31)
def _min(c: Context, node: str, _: Attributes, *operands: Operand) -> Value:
    out = as_value(node, operands[0])
    for operand in operands[1:]:
        out = c.b.minimum(out, as_value(node, operand), node)
    return out


# Pooling ------------------------------------------------------------------------------------------------------


def _pooling(c: Context, node: str, at: Attributes, a: Operand) -> tuple[Value, Value, Window]:
    x = as_value(node, a)
    image = as_image(c, node, x)
    kernel = at["kernel_shape"]
    if kernel is None or len(kernel) != len(x.shape) - 2:
        raise ModelError(f"{node}: kernel_shape {kernel} does not fit an input of shape {x.shape}")
    return x, image, _windows(node, image, at, kernel)


@operator(OPERATORS, "MaxPool", 1, 1, ceil_mode=0, storage_order=0, **_GEOMETRY)
def _max_pool(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x, image, window = _pooling(c, node, at, a)
    return as_before(c, x, max_pool(c.b, image, window, node))


@operator(OPERATORS, "AveragePool", 1, 1, ceil_mode=0, count_include_pad=0, **_GEOMETRY)
def _average_pool(c: Context, node: str, at: Attributes, a: Operand) -> Value:
    x, image, window = _pooling(c, node, at, a)
    return as_before(c, x, average_pool(c.b, image, window, bool(at["count_include_pad"]), node))


@operator(OPERATORS, "GlobalAveragePool", 1, 1)
def _global_average_pool(c: Context, node: str, _: Attributes, a: Operand) -> Value:
    x = as_value(node, a)
    image = as_image(c, node, x)
    size = (image.shape[1], image.shape[2])
    return as_before(c, x, average_pool(c.b, image, Window(size, size), True, node))
