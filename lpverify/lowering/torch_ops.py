"""The lowering of each ATen operator, by its exported name. Values carry no batch axis; torch's axis 0 is the batch.

A lowering takes the context, the node's name, and the operator's own arguments; an argument it does not list is
thereby refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lpverify.errors import ModelError, UnsupportedLayerError
from lpverify.lowering.builder import Builder, Value
from lpverify.lowering.pooling import Window, average_pool, max_pool

Lowering = Callable[..., Any]
OPERATORS: dict[str, Lowering] = {}
# The export runs with this batch; every operator is then checked to leave the batch axis alone.
BATCH = 2
Number = int | float


@dataclass(frozen=True, eq=False)
class Context:
    """The builder, and the module's own dtype, to which torch rounds the numbers written in its code."""

    b: Builder
    dtype: torch.dtype

    def number(self, value: Number | Tensor) -> Tensor:
        """A constant operand as a tensor without the batch axis."""
        if isinstance(value, Tensor):
            return value
        return torch.tensor(value, dtype=self.dtype, device=self.b.device)


def constant(target: Any, args: Any, kwargs: Any, name: str) -> Any:
    """The result of an operator whose arguments are all constants; gradients flow through it.

    Raises:
        UnsupportedLayerError: if the operator draws random numbers.
    """
    tags = getattr(target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        raise UnsupportedLayerError(f"operator {target} at node {name!r} is random")
    return target(*args, **kwargs)


def _operator(*names: str) -> Callable[[Lowering], Lowering]:
    def register(function: Lowering) -> Lowering:
        for name in names:
            OPERATORS[f"aten.{name}"] = function
        return function

    return register


def _refuse(name: str, what: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(f"node {name!r}: {what} is not supported")


def _axis(value: Value, axis: int, name: str) -> int:
    """A torch axis as one of the value's own; the batch axis is refused."""
    own = axis % (len(value.shape) + 1) - 1
    if own < 0:
        raise _refuse(name, "an operation along the batch axis")
    return own


def _without_batch(tensor: Tensor, value: Value, name: str) -> Tensor:
    """A constant operand without the batch axis it may carry, whose rows must then be equal."""
    if tensor.ndim <= len(value.shape):
        return tensor
    if tensor.ndim > len(value.shape) + 1 or not bool((tensor == tensor[:1]).all()):
        raise _refuse(name, f"a constant of shape {tuple(tensor.shape)} that differs along the batch")
    return tensor[0]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    both = [value, value] if isinstance(value, int) else list(value)
    return (int(both[0]), int(both[-1]))


# Linear layers ------------------------------------------------------------------------------------------------


@_operator("linear.default")
def _linear(c: Context, name: str, x: Any, weight: Any, bias: Any = None) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or isinstance(bias, Value):
        raise _refuse(name, "a weight that depends on the input")
    return c.b.linear(x, weight, bias, name)


@_operator("matmul.default", "mm.default")
def _matmul(c: Context, name: str, x: Any, weight: Any) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or weight.ndim != 2:
        raise _refuse(name, "a product of two values, or by anything but a constant matrix on the right,")
    return c.b.linear(x, weight.T, None, name)


@_operator("addmm.default")
def _addmm(c: Context, name: str, bias: Any, x: Any, weight: Any, *, beta: Number = 1, alpha: Number = 1) -> Value:
    if isinstance(bias, Value):
        raise _refuse(name, "a bias that depends on the input")
    product = _matmul(c, name, x, weight * alpha)
    return c.b.scale_shift(product, None, _without_batch(bias * beta, product, name), name)


@_operator("conv2d.default", "conv2d.padding", "conv1d.default", "conv1d.padding")
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
        raise _refuse(name, "a convolution by a kernel that depends on the input")
    if len(x.shape) != weight.ndim - 1:
        raise _refuse(name, f"a convolution of an input of shape {x.shape} without its batch")
    flat = weight.ndim == 3
    kernel = weight.unsqueeze(2) if flat else weight
    spread = (1, _pair(dilation)[1]) if flat else _pair(dilation)
    step = (1, _pair(stride)[1]) if flat else _pair(stride)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(spread, kernel.shape[2:], strict=True)]
        top, left = total[0] // 2, total[1] // 2
        sides = (top, left, total[0] - top, total[1] - left)
    else:
        vertical, horizontal = (0, _pair(padding)[1]) if flat else _pair(padding)
        sides = (vertical, horizontal, vertical, horizontal)
    image = c.b.reshape(x, (x.shape[0], 1, x.shape[1])) if flat else x
    out = c.b.conv(image, kernel, bias, step, sides, spread, groups, name=name)
    return c.b.reshape(out, (out.shape[0], out.shape[2])) if flat else out


@_operator("_native_batch_norm_legit_no_training.default")
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


@_operator("batch_norm.default")
def _batch_norm_full(
    c: Context, name: str, x: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any
) -> Value:
    if training or mean is None or var is None:
        raise _refuse(name, "batch-norm that uses the statistics of the batch")
    return _batch_norm(c, name, x, weight, bias, mean, var, rest[0], rest[1])[0]


# Arithmetic ---------------------------------------------------------------------------------------------------


def _sum(c: Context, name: str, a: Any, b: Any, factor_a: Number, factor_b: Number) -> Value:
    """factor_a * a + factor_b * b, where either may be a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) != len(b.shape):
            raise _refuse(name, f"a sum of inputs of shapes {a.shape} and {b.shape}, which mixes the batch")
        factors = [float(c.number(f)) for f in (factor_a, factor_b)]
        return c.b.add([a, b], factors, name)
    value, factor, other, weight = (a, factor_a, b, factor_b) if isinstance(a, Value) else (b, factor_b, a, factor_a)
    shift = _without_batch(c.number(other), value, name) * weight
    return c.b.scale_shift(value, None if factor == 1 else c.number(factor), shift, name)


@_operator("add.Tensor", "add.Scalar")
def _add(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, a, b, 1, alpha)


@_operator("sub.Tensor", "sub.Scalar")
def _sub(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, a, b, 1, -alpha)


@_operator("rsub.Scalar", "rsub.Tensor")
def _rsub(c: Context, name: str, a: Any, b: Any, alpha: Number = 1) -> Value:
    return _sum(c, name, b, a, 1, -alpha)


@_operator("neg.default")
def _neg(c: Context, name: str, x: Value) -> Value:
    return c.b.scale_shift(x, c.number(-1), None, name)


@_operator("mul.Tensor", "mul.Scalar")
def _mul(c: Context, name: str, a: Any, b: Any) -> Value:
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(other, Value):
        raise _refuse(name, "a product of two values that depend on the input")
    return c.b.scale_shift(value, _without_batch(c.number(other), value, name), None, name)


@_operator("div.Tensor", "div.Scalar")
def _div(c: Context, name: str, a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise _refuse(name, "a division by a value that depends on the input")
    divisor = c.b.const(_without_batch(c.number(b), a, name))
    if bool((divisor == 0).any()):
        raise ModelError(f"node {name!r}: divides by 0")
    if not bool((torch.frexp(divisor.detach()).mantissa.abs() == 0.5).all()):
        c.b.note(f"{name}: the reciprocal of the divisor is rounded")
    return c.b.scale_shift(a, 1 / divisor, None, name)


# Piecewise-linear operators -----------------------------------------------------------------------------------


@_operator("relu.default")
def _relu(c: Context, name: str, x: Value) -> Value:
    return c.b.relu(x)


@_operator("leaky_relu.default")
def _leaky(c: Context, name: str, x: Value, slope: Number = 0.01) -> Value:
    return c.b.leaky(x, c.number(slope), name)


@_operator("prelu.default")
def _prelu(c: Context, name: str, x: Any, slope: Any) -> Value:
    if not isinstance(x, Value) or isinstance(slope, Value):
        raise _refuse(name, "a slope that depends on the input")
    return c.b.leaky(x, slope.reshape(-1, *([1] * (len(x.shape) - 1))), name)


@_operator("clamp.default", "clip.default")
def _clamp(c: Context, name: str, x: Value, min: Any = None, max: Any = None) -> Value:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise _refuse(name, "a clamp whose limits are tensors")
    low, high = (None if limit is None else float(c.number(limit)) for limit in (min, max))
    return c.b.clip(x, low, high, name)


@_operator("hardtanh.default")
def _hardtanh(c: Context, name: str, x: Value, min_val: Number = -1.0, max_val: Number = 1.0) -> Value:
    return _clamp(c, name, x, min_val, max_val)


@_operator("clamp_min.default")
def _clamp_min(c: Context, name: str, x: Value, min: Number) -> Value:
    return _clamp(c, name, x, min)


@_operator("clamp_max.default")
def _clamp_max(c: Context, name: str, x: Value, max: Number) -> Value:
    return _clamp(c, name, x, None, max)


@_operator("relu6.default")
def _relu6(c: Context, name: str, x: Value) -> Value:
    return c.b.clip(x, 0.0, 6.0, name)


@_operator("abs.default")
def _abs(c: Context, name: str, x: Value) -> Value:
    return c.b.absolute(x, name)


def _against(c: Context, name: str, a: Any, b: Any) -> tuple[Value, Value]:
    """Both operands, which must be values of one rank."""
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) != len(b.shape):
            raise _refuse(name, f"inputs of shapes {a.shape} and {b.shape}, which mixes the batch,")
        return a, b
    raise _refuse(name, "max or min with a constant tensor (use clamp with a number)")


@_operator("maximum.default", "max.other")
def _maximum(c: Context, name: str, a: Any, b: Any) -> Value:
    return c.b.maximum(*_against(c, name, a, b), name)


@_operator("minimum.default", "min.other")
def _minimum(c: Context, name: str, a: Any, b: Any) -> Value:
    return c.b.minimum(*_against(c, name, a, b), name)


# Pooling ------------------------------------------------------------------------------------------------------


def _window(name: str, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Window:
    if len(x.shape) != 3:
        raise _refuse(name, f"pooling of an input of shape {x.shape} without its batch")
    vertical, horizontal = _pair(padding)
    steps = _pair(stride) if stride or stride == 0 else _pair(kernel)
    sides = (vertical, horizontal, vertical, horizontal)
    window = Window(_pair(kernel), steps, sides, _pair(dilation))
    if ceil:
        for axis in (0, 1):
            span = window.dilation[axis] * (window.kernel[axis] - 1) + 1
            if (x.shape[1 + axis] + 2 * sides[axis] - span) % window.stride[axis]:
                raise _refuse(name, "ceil_mode with a last window that runs past the image")
    return window


@_operator("max_pool2d.default")
def _max_pool(
    c: Context, name: str, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Value:
    return max_pool(c.b, x, _window(name, x, kernel, stride, padding, dilation, ceil), name)


@_operator("max_pool2d_with_indices.default")
def _max_pool_indices(c: Context, name: str, x: Value, *args: Any) -> list[Value]:
    return [_max_pool(c, name, x, *args)]


@_operator("avg_pool2d.default")
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


@_operator("adaptive_avg_pool2d.default")
def _adaptive_avg_pool(c: Context, name: str, x: Value, size: Any) -> Value:
    height, width = _pair(size)
    if len(x.shape) != 3 or x.shape[1] % height or x.shape[2] % width:
        raise _refuse(name, f"adaptive pooling of an input of shape {x.shape} to {height}x{width}")
    kernel = (x.shape[1] // height, x.shape[2] // width)
    return average_pool(c.b, x, Window(kernel, kernel), True, name)


@_operator("mean.dim")
def _mean(c: Context, name: str, x: Value, axes: Sequence[int], keepdim: bool = False) -> Value:
    own = sorted(_axis(x, a, name) for a in axes)
    rest = [a for a in range(len(x.shape)) if a not in own]
    moved = c.b.permute(x, [*rest, *own])
    kept = tuple(x.shape[a] for a in rest)
    count = math.prod(x.shape[a] for a in own)
    image = c.b.reshape(moved, (math.prod(kept), 1, count))
    out = average_pool(c.b, image, Window((1, count), (1, count)), True, name)
    return c.b.reshape(out, tuple(1 if a in own else n for a, n in enumerate(x.shape)) if keepdim else kept)


# Shapes -------------------------------------------------------------------------------------------------------


@_operator("view.default", "reshape.default", "_unsafe_view.default")
def _view(c: Context, name: str, x: Value, shape: Sequence[int]) -> Value:
    sizes = list(shape)
    batch = sizes[0]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = x.size * BATCH // known
    if batch not in (-1, BATCH) or sizes[0] != BATCH:
        raise _refuse(name, f"a reshape to {tuple(shape)}, which mixes or fixes the batch (write x.flatten(1)),")
    return c.b.reshape(x, tuple(sizes[1:]))


@_operator("flatten.using_ints")
def _flatten(c: Context, name: str, x: Value, start: int = 0, end: int = -1) -> Value:
    first, last = _axis(x, start, name), _axis(x, end, name)
    return c.b.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@_operator("unsqueeze.default")
def _unsqueeze(c: Context, name: str, x: Value, axis: int) -> Value:
    own = axis % (len(x.shape) + 2) - 1
    if own < 0:
        raise _refuse(name, "a new axis before the batch")
    return c.b.reshape(x, (*x.shape[:own], 1, *x.shape[own:]))


@_operator("squeeze.dim", "squeeze.dims")
def _squeeze(c: Context, name: str, x: Value, axes: Any) -> Value:
    own = {_axis(x, a, name) for a in ([axes] if isinstance(axes, int) else axes)}
    return c.b.reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in own or n != 1))


@_operator("squeeze.default")
def _squeeze_all(c: Context, name: str, x: Value) -> Value:
    return c.b.reshape(x, tuple(n for n in x.shape if n != 1))


@_operator("permute.default")
def _permute(c: Context, name: str, x: Value, axes: Sequence[int]) -> Value:
    if axes[0] % len(axes) != 0:
        raise _refuse(name, "a transpose that moves the batch axis")
    return c.b.permute(x, [_axis(x, a, name) for a in axes[1:]])


@_operator("transpose.int")
def _transpose(c: Context, name: str, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    a, b = _axis(x, first, name), _axis(x, second, name)
    axes[a], axes[b] = b, a
    return c.b.permute(x, axes)


@_operator("slice.Tensor")
def _slice(
    c: Context, name: str, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    if axis % (len(x.shape) + 1) == 0 and not start and (end is None or end >= BATCH) and step == 1:
        return x
    index = [slice(None)] * len(x.shape)
    index[_axis(x, axis, name)] = slice(start, end, step)
    return c.b.pick(x, c.b.positions(x)[tuple(index)], name)


@_operator("select.int")
def _select(c: Context, name: str, x: Value, axis: int, index: int) -> Value:
    return c.b.pick(x, c.b.positions(x).select(_axis(x, axis, name), index), name)


@_operator("split.Tensor", "split_with_sizes.default")
def _split(c: Context, name: str, x: Value, sizes: Any, axis: int = 0) -> list[Value]:
    parts = c.b.positions(x).split(sizes, _axis(x, axis, name))
    return [c.b.pick(x, part, name) for part in parts]


@_operator("cat.default")
def _cat(c: Context, name: str, values: Sequence[Any], axis: int = 0) -> Value:
    if not all(isinstance(v, Value) for v in values):
        raise _refuse(name, "a concatenation with a constant")
    return c.b.concat(values, _axis(values[0], axis, name), name)


@_operator("pad.default", "constant_pad_nd.default")
def _pad(c: Context, name: str, x: Value, sides: Sequence[int], mode: Any = "constant", fill: Any = None) -> Value:
    if not isinstance(mode, str):  # constant_pad_nd has no mode
        mode, fill = "constant", mode
    if mode != "constant" or len(sides) > 4 or len(x.shape) != 3:
        raise _refuse(name, f"padding of mode {mode!r} by {tuple(sides)} of an input of shape {x.shape}")
    left, right, top, bottom = (*sides, 0, 0)[:4]
    return c.b.pad(x, (top, left, bottom, right), float(c.number(fill or 0.0)), name)


@_operator("dropout.default")
def _dropout(c: Context, name: str, x: Value, p: float, train: bool) -> Value:
    if train:
        raise _refuse(name, "dropout that is active in eval mode")
    return x


@_operator("clone.default", "alias.default", "contiguous.default", "detach.default", "lift_fresh_copy.default")
def _same(c: Context, name: str, x: Value, *, memory_format: Any = None) -> Value:
    return x


@_operator("to.dtype", "_to_copy.default")
def _to(c: Context, name: str, x: Value, dtype: Any = None, *args: Any, **kwargs: Any) -> Value:
    if dtype not in (None, c.dtype):
        raise _refuse(name, f"a cast to {dtype} inside the network")
    return x
