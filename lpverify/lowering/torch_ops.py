"""The lowering of ATen's linear, arithmetic, piecewise-linear and pooling operators, by their exported names.

A lowering takes the context, the node's name and the operator's own arguments; one it does not list is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lpverify.errors import ModelError
from lpverify.lowering.builder import Value
from lpverify.lowering.pooling import Window, average_pool, max_pool
from lpverify.lowering.torch_table import Context, Number, operator, own_axis, pair, refuse, without_batch

OPERATORS: dict[str, Callable[..., Any]] = {}


# Linear layers ------------------------------------------------------------------------------------------------


@operator(OPERATORS, "linear.default")
def _linear(c: Context, name: str, x: Any, weight: Any, bias: Any = None) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or isinstance(bias, Value):
        raise refuse(name, "a weight that depends on the input")
    return c.b.linear(x, weight, bias, name)


@operator(OPERATORS, "matmul.default", "mm.default")
def _matmul(c: Context, name: str, x: Any, weight: Any) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or weight.ndim != 2:
        raise refuse(name, "a product of two values, or by anything but a constant matrix on the right,")
    return c.b.linear(x, weight.T, None, name)


@operator(OPERATORS, "addmm.default")
def _addmm(c: Context, name: str, bias: Any, x: Any, weight: Any, *, beta: Number = 1, alpha: Number = 1) -> Value:
    if isinstance(bias, Value):
        raise refuse(name, "a bias that depends on the input")
    product = _matmul(c, name, x, weight * alpha)
    return c.b.scale_shift(product, None, without_batch(bias * beta, product, name), name)


@operator(OPERATORS, "conv2d.default", "conv2d.padding", "conv1d.default", "conv1d.padding")
def _conv(
    c: Context,
    name: str,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or isinstance(bias, Value):
        raise refuse(name, "a convolution by a kernel that depends on the input")
    if len(x.shape) != weight.ndim - 1:
        raise refuse(name, f"a convolution of an input of shape {x.shape} without its batch")
    flat = weight.ndim == 3
    kernel = weight.unsqueeze(2) if flat else weight
    spread = (1, pair(dilation)[1]) if flat else pair(dilation)
    step = (1, pair(stride)[1]) if flat else pair(stride)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(spread, kernel.shape[2:], strict=True)]
        top, left = total[0] // 2, total[1] // 2
        sides = (top, left, total[0] - top, total[1] - left)
    else:
        vertical, horizontal = (0, pair(padding)[1]) if flat else pair(padding)
        sides = (vertical, horizontal, vertical, horizontal)
    image = c.b.reshape(x, (x.shape[0], 1, x.shape[1])) if flat else x
    out = c.b.conv(image, kernel, bias, step, sides, spread, groups, name=name)
    return c.b.reshape(out, (out.shape[0], out.shape[2])) if flat else out


@operator(OPERATORS, "_native_batch_norm_legit_no_training.default")
def _batch_norm(
    c: Context, name: str, x: Value, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> list[Value]:
    # In the network's dtype: float64 unless the network itself is float32.
    scale = 1 / torch.sqrt(c.b.const(var) + eps)
    scale = scale if weight is None else c.b.const(weight) * scale
    shift = -c.b.const(mean) * scale
    shift = shift if bias is None else shift + c.b.const(bias)
    shape = (-1, *([1] * (len(x.shape) - 1)))
    c.b.note(f"{name}: batch-norm with its running statistics, folded with a rounding")
    return [c.b.scale_shift(x, scale.reshape(shape), shift.reshape(shape), name)]


@operator(OPERATORS, "batch_norm.default")
def _batch_norm_full(
    c: Context, name: str, x: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any
) -> Value:
    if training or mean is None or var is None:
        raise refuse(name, "batch-norm that uses the statistics of the batch")
    return _batch_norm(c, name, x, weight, bias, mean, var, rest[0], rest[1])[0]


# Arithmetic ---------------------------------------------------------------------------------------------------


def _sum(c: Context, name: str, a: Any, b: Any, factor_a: Number, factor_b: Number) -> Value:
    """factor_a * a + factor_b * b, where either may be a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) != len(b.shape):
            raise refuse(name, f"a sum of inputs of shapes {a.shape} and {b.shape}, which mixes the batch")
        factors = [float(c.number(f)) for f in (factor_a, factor_b)]
        return c.b.add([a, b], factors, name)
    value, factor, other, weight = (a, factor_a, b, factor_b) if isinstance(a, Value) else (b, factor_b, a, factor_a)
    shift = without_batch(c.number(other), value, name) * weight
    return c.b.scale_shift(value, None if factor == 1 else c.number(factor), shift, name)


@operator(OPERATORS, "add.Tensor", "add.Scalar")
def _add(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, a, b, 1, alpha)


@operator(OPERATORS, "sub.Tensor", "sub.Scalar")
def _sub(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, a, b, 1, -alpha)


@operator(OPERATORS, "rsub.Scalar", "rsub.Tensor")
def _rsub(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, b, a, 1, -alpha)


@operator(OPERATORS, "neg.default")
def _neg(c: Context, name: str, x: Value) -> Value:
    return c.b.scale_shift(x, c.number(-1), None, name)


@operator(OPERATORS, "mul.Tensor", "mul.Scalar")
def _mul(c: Context, name: str, a: Any, b: Any) -> Value:
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(other, Value):
        raise refuse(name, "a product of two values that depend on the input")
    return c.b.scale_shift(value, without_batch(c.number(other), value, name), None, name)


@operator(OPERATORS, "div.Tensor", "div.Scalar")
def _div(c: Context, name: str, a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise refuse(name, "a division by a value that depends on the input")
    divisor = c.b.const(without_batch(c.number(b), a, name))
    if bool((divisor == 0).any()):
        raise ModelError(f"node {name!r}: divides by 0")
    if not bool((torch.frexp(divisor.detach()).mantissa.abs() == 0.5).all()):
        c.b.note(f"{name}: the reciprocal of the divisor is rounded")
    return c.b.scale_shift(a, 1 / divisor, None, name)


# Piecewise-linear operators -----------------------------------------------------------------------------------


@operator(OPERATORS, "relu.default")
def _relu(c: Context, name: str, x: Value) -> Value:
    return c.b.relu(x)


@operator(OPERATORS, "leaky_relu.default")
def _leaky(c: Context, name: str, x: Value, slope: Number = 0.01) -> Value:
    return c.b.leaky(x, c.number(slope), name)


@operator(OPERATORS, "prelu.default")
def _prelu(c: Context, name: str, x: Any, slope: Any) -> Value:
    if not isinstance(x, Value) or isinstance(slope, Value):
        raise refuse(name, "a slope that depends on the input")
    return c.b.leaky(x, slope.reshape(-1, *([1] * (len(x.shape) - 1))), name)


@operator(OPERATORS, "clamp.default", "clip.default")
def _clamp(c: Context, name: str, x: Value, min: Any = None, max: Any = None) -> Value:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise refuse(name, "a clamp whose limits are tensors")
    low, high = (None if limit is None else float(c.number(limit)) for limit in (min, max))
    return c.b.clip(x, low, high, name)


@operator(OPERATORS, "hardtanh.default")
def _hardtanh(c: Context, name: str, x: Value, min_val: Number = -1.0, max_val: Number = 1.0) -> Value:
    return _clamp(c, name, x, min_val, max_val)


@operator(OPERATORS, "clamp_min.default")
def _clamp_min(c: Context, name: str, x: Value, min: Number) -> Value:
    return _clamp(c, name, x, min)


@operator(OPERATORS, "clamp_max.default")
def _clamp_max(c: Context, name: str, x: Value, max: Number) -> Value:
    return _clamp(c, name, x, None, max)


@operator(OPERATORS, "relu6.default")
def _relu6(c: Context, name: str, x: Value) -> Value:
    return c.b.clip(x, 0.0, 6.0, name)


@operator(OPERATORS, "abs.default")
def _abs(c: Context, name: str, x: Value) -> Value:
    return c.b.absolute(x, name)


def _against(c: Context, name: str, a: Any, b: Any) -> tuple[Value, Value]:
    """Both operands, which must be values of one rank."""
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) != len(b.shape):
            raise refuse(name, f"inputs of shapes {a.shape} and {b.shape}, which mixes the batch,")
        return a, b
    raise refuse(name, "max or min with a constant tensor (use clamp with a number)")


@operator(OPERATORS, "maximum.default", "max.other")
def _maximum(c: Context, name: str, a: Any, b: Any) -> Value:
    return c.b.maximum(*_against(c, name, a, b), name)


@operator(OPERATORS, "minimum.default", "min.other")
def _minimum(c: Context, name: str, a: Any, b: Any) -> Value:
    return c.b.minimum(*_against(c, name, a, b), name)


# Pooling ------------------------------------------------------------------------------------------------------


def _window(name: str, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Window:
    if len(x.shape) != 3:
        raise refuse(name, f"pooling of an input of shape {x.shape} without its batch")
    vertical, horizontal = pair(padding)
    steps = pair(stride) if stride or stride == 0 else pair(kernel)
    sides = (vertical, horizontal, vertical, horizontal)
    window = Window(pair(kernel), steps, sides, pair(dilation))
    if ceil:
        for axis in (0, 1):
            span = window.dilation[axis] * (window.kernel[axis] - 1) + 1
            if (x.shape[1 + axis] + 2 * sides[axis] - span) % window.stride[axis]:
                raise refuse(name, "ceil_mode with a last window that runs past the image")
    return window


@operator(OPERATORS, "max_pool2d.default")
def _max_pool(
    c: Context,
    name: str,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Value:
    return max_pool(c.b, x, _window(name, x, kernel, stride, padding, dilation, ceil), name)


@operator(OPERATORS, "max_pool2d_with_indices.default")
def _max_pool_indices(c: Context, name: str, x: Value, *args: Any) -> list[Value]:
    return [_max_pool(c, name, x, *args)]


@operator(OPERATORS, "avg_pool2d.default")
def _avg_pool(
    c: Context,
    name: str,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    window = _window(name, x, kernel, stride, padding, 1, ceil)
    return average_pool(c.b, x, window, count_padding, name, divisor)


@operator(OPERATORS, "adaptive_avg_pool2d.default")
def _adaptive_avg_pool(c: Context, name: str, x: Value, size: Any) -> Value:
    height, width = pair(size)
    if len(x.shape) != 3 or x.shape[1] % height or x.shape[2] % width:
        raise refuse(name, f"adaptive pooling of an input of shape {x.shape} to {height}x{width}")
    kernel = (x.shape[1] // height, x.shape[2] // width)
    return average_pool(c.b, x, Window(kernel, kernel), True, name)


@operator(OPERATORS, "mean.dim")
def _mean(c: Context, name: str, x: Value, axes: Sequence[int], keepdim: bool = False) -> Value:
    own = sorted(own_axis(x, a, name) for a in axes)
    rest = [a for a in range(len(x.shape)) if a not in own]
    moved = c.b.permute(x, [*rest, *own])
    kept = tuple(x.shape[a] for a in rest)
    count = math.prod(x.shape[a] for a in own)
    image = c.b.reshape(moved, (math.prod(kept), 1, count))
    out = average_pool(c.b, image, Window((1, count), (1, count)), True, name)
    return c.b.reshape(out, tuple(1 if a in own else n for a, n in enumerate(x.shape)) if keepdim else kept)
