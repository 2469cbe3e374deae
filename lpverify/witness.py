"""From a proposed point to a witness: moved into the exact input set, then evaluated exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.attack.exact import into_exact_box, make_counterexample
from lpverify.network import Network, as_numpy
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
