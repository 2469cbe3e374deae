"""Probable certificates: how many examples the dual bound over random projections leaves without one.

For each example by itself, all of its estimated pre-activation bounds hold with a probability that is chosen
beforehand, over the random draws, and so then do the margins on top of them (``projection.probable_margins``: the
failures of all norms of all layers are added up, and each layer has draws of its own, so that several layers do no harm
to the argument). Drawn again, an example may come out otherwise. In floating point, and never a verdict: only a
certificate that was checked is one.

Source: Wong 2020, section 3.4.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.detect import predictions
from lpverify.errors import UsageError
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.settings import DTYPES, Settings, require_device
from lpverify.training.estimators import ESTIMATORS
from lpverify.training.projection import count_norms, enough_projections, failure_share, probable_margins

ESTIMATOR = "geometric"
# Without a number of projections, as many as need no norm to be taken for more than so many times its estimate.
FACTOR = 1.5
# Projected values of a batch at once.
ENTRIES = 2**25


@dataclass(frozen=True, eq=False)
class Probable:
    """What is found of N examples.

    Attributes:
        margins: (N, m), the engine's.
        open: (N,) bool: some margin is not > 0, or the network is wrong at the input itself.
        projections: for each layer.
        factor: by which every l1 norm's estimate is multiplied.
    """

    margins: NDArray[np.float64]
    open: NDArray[np.bool_]
    projections: int
    factor: float


def check_probable(norm: str, confidence: float, projections: int | None) -> None:
    """Refuse what cannot be asked, before anything is measured.

    Raises:
        UsageError: for an l1 ball, a confidence outside (0, 1), or too few projections.
    """
    if norm == "1":
        raise UsageError("norm: '1' has no random projections; leave confidence out, or take norm 'inf' or '2'")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence: {confidence!r} must be between 0 and 1, like 0.99")
    least = ESTIMATORS[ESTIMATOR].least
    if projections is not None and projections < least:
        raise UsageError(f"projections: {projections!r} must be >= {least}")


def probable(
    network: Network,
    x: NDArray[Any],
    y: NDArray[np.int64],
    settings: Settings,
    confidence: float,
    projections: int | None = None,
) -> Probable:
    """Bound the label claims of x (N, ...) with labels y (N,) so that an example's bounds hold with ``confidence``.

    Args:
        settings: ball, device, dtype and seed; ``batch_size`` does not count.
        projections: None: the least number for FACTOR.

    Raises:
        UsageError: as ``check_probable``.
    """
    check_probable(settings.norm, confidence, projections)
    require_device(settings.device)
    engine = network.detach().to(DTYPES[settings.dtype], settings.device)
    flat = torch.as_tensor(np.asarray(x).reshape(len(x), -1)).double()
    norms, delta = count_norms(engine, settings.region(flat[:1])), 1 - confidence
    count = projections or enough_projections(norms, delta, FACTOR, ESTIMATOR)
    factor = ESTIMATORS[ESTIMATOR].factor(count, failure_share(delta, norms))
    generator = torch.Generator().manual_seed(settings.seed)
    size = max(1, ENTRIES // (count * sum(engine.sizes)))
    found = []
    for start in range(0, len(flat), size):
        part = slice(start, start + size)
        region = settings.region(flat[part]).to(engine.dtype, engine.device)
        spec = Specification.label(torch.as_tensor(y[part]), engine.output_size).to(engine.dtype, engine.device)
        with torch.no_grad():
            margins, _ = probable_margins(engine, region, spec, count, delta, generator, ESTIMATOR)
        found.append(margins.double().cpu().numpy())
    table = np.concatenate(found)
    return Probable(table, ~(table > 0).all(1) | (predictions(network, x) != y), count, factor)
