"""From a proposed point to a witness: moved into the exact input set, then evaluated exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack.exact import into_exact_box, make_counterexample
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import Specification
from lpverify.result import Counterexample
from lpverify.settings import Settings

Array = NDArray[Any]


def witness_at(
    exact: Network, single: Network, settings: Settings, x: Array, point: Array, spec: Specification, i: int
) -> Counterexample | None:
    """The counterexample at ``point`` (n_0,), or None if the exact input set or the claim excludes it.

    Args:
        exact, single: the network in float64 (its parameters define the real function) and in float32.
        settings: the decimal radius, norm and clip.
        x: the clean input (n_0,); a witness at x itself is flagged ``misclassified``.
        point: what an attack proposes.
        spec, i: the claims of a batch and the example's place in it.
    """
    inside = into_exact_box(point.astype(np.float64), x, settings.eps, settings.norm, settings.clip)
    if inside is None:
        return None
    C, d = as_numpy(spec.C[i]), as_numpy(spec.d[i])
    return make_counterexample(exact, single, inside, C, d, misclassified=bool((inside == x).all()))


def rounding_error(network: Network, values: list[torch.Tensor]) -> torch.Tensor:
    """A bound of the rounding error of the forward pass that gave ``values``, in the network's own dtype: (B, n_K).

    E_k = gamma_n (|W| |h| + |b|) + |W| E_(k-1), with n above the terms of any sum (Higham 2002, section 3.5).
    It only decides which points are worth exact arithmetic.
    """
    unit = torch.finfo(network.dtype).eps / 2
    absolute = network.map_tensors(torch.abs)
    with torch.no_grad():
        errors: list[torch.Tensor] = []
        for index, node in enumerate(absolute.nodes):
            if not isinstance(node, Affine):
                sources = network.sources(index)
                errors.append(errors[sources[0]] if sources else torch.zeros_like(values[0]))
                continue
            terms = sum(linear.fan()[0] for linear in node.maps) + 2
            gamma = terms * unit / (1 - terms * unit)
            error = gamma * node.bias.expand_as(values[index])
            for source, linear in zip(node.inputs, node.maps, strict=True):
                error = error + linear.apply(gamma * values[source].abs() + errors[source])
            errors.append(error)
    return errors[-1]
