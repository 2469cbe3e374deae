"""The exact side of a counterexample: what makes a proposed point a witness.

The claim's margins are evaluated over the rationals (weights and inputs are dyadic), the point is moved to
floats inside the exact input set, and the float32 forward pass is asked as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack.integers import Dyadic, apply, dyadic, matrix_product
from lpverify.attack.membership import inside, inside_intervals, into_exact_box, into_intervals
from lpverify.errors import DataError, ModelError, ShapeError
from lpverify.network import Affine, Network, ReLU, as_numpy
from lpverify.result import Counterexample

__all__ = [
    "exact_margins",
    "exact_outputs",
    "inside",
    "inside_intervals",
    "into_exact_box",
    "into_intervals",
    "make_counterexample",
    "nearest",
    "rational_outputs",
]


def exact_outputs(network: Network, x: NDArray[Any]) -> Dyadic:
    """f(x) without any rounding, for one input x (n_0,) of finite floats.

    Raises:
        ShapeError: if x has another size than the network's input.
        DataError: if x is not finite.
        ModelError: if a weight is not finite.
    """
    x = np.asarray(x, dtype=np.float64).ravel()
    if len(x) != network.input_size:
        raise ShapeError(f"point: {len(x)} values, expected {network.input_size} as the network's input")
    if not np.isfinite(x).all():
        raise DataError(f"point: input {int(np.flatnonzero(~np.isfinite(x))[0])} is not finite")
    return _outputs(network, dyadic(x), 1)


def rational_outputs(network: Network, x: Sequence[Fraction]) -> list[Fraction]:
    """f(x) without any rounding, for one input x (n_0,) of rationals.

    Raises:
        ShapeError, ModelError: as ``exact_outputs``.
    """
    if len(x) != network.input_size:
        raise ShapeError(f"point: {len(x)} values, expected {network.input_size} as the network's input")
    # Times the odd part of the common denominator, inputs are dyadic; outputs are then times the same.
    common = math.lcm(*(value.denominator for value in x))
    power = (common & -common).bit_length() - 1
    whole = np.array([value.numerator * (common // value.denominator) for value in x], dtype=object)
    outputs = _outputs(network, Dyadic(whole, -power), common >> power)
    return [value / (common >> power) for value in outputs.fractions()]


def _outputs(network: Network, start: Dyadic, scale: int) -> Dyadic:
    """``scale`` f(start / scale): biases are scaled, and a ReLU commutes with a positive factor."""
    values: list[Dyadic] = [start]
    for index, node in enumerate(network.nodes[1:], start=1):
        if isinstance(node, ReLU):
            values.append(values[node.input].relu())
        elif isinstance(node, Affine):
            _require_finite(node, index)
            bias = dyadic(as_numpy(node.bias))
            total = Dyadic(bias.ints * scale, bias.exponent)
            for source, linear in zip(node.inputs, node.maps, strict=True):
                total = total + apply(linear, values[source])
            values.append(total)
    return values[-1]


def exact_margins(network: Network, x: NDArray[Any], C: NDArray[Any], d: NDArray[Any]) -> list[Fraction]:
    """C f(x) + d over the rationals, for one input x (n_0,), C (m, n_K), d (m,), all finite floats.

    Raises:
        ShapeError, DataError, ModelError: as ``exact_outputs``, and for a claim of another shape.
    """
    C, d = np.asarray(C, dtype=np.float64), np.asarray(d, dtype=np.float64)
    if C.ndim != 2 or C.shape[1] != network.output_size or d.shape != C.shape[:1]:
        raise ShapeError(f"claim: C {C.shape} and d {d.shape}, expected (m, {network.output_size}) and (m,)")
    if not (np.isfinite(C).all() and np.isfinite(d).all()):
        raise DataError("claim: C or d has an entry that is not finite")
    return (matrix_product(C, exact_outputs(network, x)) + dyadic(d)).fractions()


def make_counterexample(
    network64: Network,
    network32: Network,
    x: NDArray[Any],
    C: NDArray[Any],
    d: NDArray[Any],
    *,
    misclassified: bool = False,
) -> Counterexample | None:
    """The witness at x (n_0,), or None if the claim holds there over the rationals.

    That x lies in the input set is the caller's part (``into_exact_box``, ``inside``).

    Args:
        network64: whose parameters define the real function; evaluated exactly.
        network32: the float32 network; its forward pass gives ``margin_float32``.
        x: the point.
        C, d: the claim of this example, (m, n_K) and (m,).
        misclassified: the point is the clean input; passed on.
    """
    margins = exact_margins(network64, x, C, d)
    if not margins:
        return None
    row = min(range(len(margins)), key=margins.__getitem__)
    if margins[row] > 0:
        return None
    point = np.asarray(x, dtype=np.float64).ravel().copy()
    single = _float32_margin(network32, point, C, d, row)
    return Counterexample(point, row, nearest(margins[row]), single, misclassified)


def _float32_margin(network: Network, x: NDArray[np.float64], C: NDArray[Any], d: NDArray[Any], row: int) -> float:
    """The row's margin by one forward pass in the network's own dtype."""
    with torch.no_grad():
        outputs = network.forward(torch.from_numpy(x).to(network.device, network.dtype).unsqueeze(0))
    weights = torch.as_tensor(np.asarray(C)[row]).to(outputs)
    return float(outputs[0] @ weights + float(np.asarray(d)[row]))


def nearest(value: Fraction) -> float:
    """The float64 nearest to a fraction; infinite beyond the range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _require_finite(node: Affine, index: int) -> None:
    tensors = [node.bias, *(t for linear in node.maps for t in vars(linear).values() if isinstance(t, torch.Tensor))]
    if not all(bool(torch.isfinite(t).all()) for t in tensors):
        raise ModelError(f"network: node {index} has a weight that is not finite")
