"""Norms from random projections, and by which factor an estimate must grow to be an upper bound with high probability.

k Cauchy numbers times a vector's l1 norm, or k normal numbers times its l2 norm, are what k random projections of the
vector are; the distribution of estimate / norm therefore does not depend on the vector.

Sources: Li, Hastie & Church 2007, "Nonlinear estimators and tail bounds for dimension reduction in l1 using Cauchy
random projections"; Wong 2020, section 3.4.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy import special
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from lpverify.errors import UsageError


def median_estimate(projections: Tensor) -> Tensor:
    """The l1 norms (B, n) from Cauchy projections (B, k, n): the median size, unbiased in the median for every k.

    An even k takes the lower of the two middle sizes, divided by the median of its distribution.
    """
    count = projections.shape[1]
    with torch.no_grad():
        place = projections.abs().median(dim=1, keepdim=True).indices
    return projections.gather(1, place).squeeze(1).abs() / _middle(count, 0.5)


def geometric_estimate(projections: Tensor) -> Tensor:
    """The l1 norms (B, n) from Cauchy projections (B, k, n): their geometric mean, unbiased in the mean; k >= 2."""
    count = projections.shape[1]
    logs = projections.abs().clamp(min=torch.finfo(projections.dtype).tiny).log()
    return logs.mean(1).exp() * math.cos(math.pi / 2 / count) ** count


def normal_estimate(projections: Tensor) -> Tensor:
    """The l2 norms (B, n) from normal projections (B, k, n): root mean squares, whose squares are unbiased."""
    norms: Tensor = torch.linalg.vector_norm(projections, dim=1)
    return norms / math.sqrt(projections.shape[1])


def median_factor(count: int, failure: float) -> float:
    """c with P(c * median_estimate < norm) = failure: the median's rank has a beta distribution."""
    return _middle(count, 0.5) / _middle(count, failure)


def geometric_factor(count: int, failure: float) -> float:
    """c with P(c * geometric_estimate < norm) = failure, failure < 1 / 2: by quadrature of the exact density."""
    correction = math.cos(math.pi / 2 / count) ** count
    wanted = math.log(failure)
    # The mean of k logarithms is <= -t with a probability that Chernoff's bound brackets from above.
    top = brentq(lambda t: _chernoff(count, t) - wanted, 0.0, 50.0 - 2 * wanted / count)
    shift = brentq(lambda t: log_mean_tail(count, t) - wanted, 0.0, top)
    return math.exp(shift) / correction


def normal_factor(count: int, failure: float) -> float:
    """c with P(c * normal_estimate < norm) = failure: the square has a chi-square distribution."""
    return math.sqrt(count / (2 * float(special.gammaincinv(count / 2, failure))))


def log_mean_tail(count: int, shift: float) -> float:
    """log P(the mean of log |C_i| over ``count`` Cauchy numbers is <= -shift), shift >= 0.

    log |C| has the density sech(t) / pi. The sum of k of them, times 2 / pi, has the characteristic function
    sech(w)^k, hence the density 2^(k-2) / (pi Gamma(k)) |Gamma((k + i x) / 2)|^2.
    """
    start = 2 / math.pi * count * shift

    def log_density(x: float) -> float:
        size = 2 * special.loggamma(complex(count, x) / 2).real
        return float((count - 2) * math.log(2) - math.log(math.pi) - math.lgamma(count) + size)

    level = log_density(start)
    area, _ = quad(lambda x: math.exp(log_density(start + x) - level), 0, math.inf, epsabs=0, epsrel=1e-10, limit=200)
    return level + math.log(area)


def _chernoff(count: int, shift: float) -> float:
    """Chernoff's bound of ``log_mean_tail``, from E exp(-a log |C|) = 1 / cos(pi a / 2), at its best a."""
    a = 2 / math.pi * math.atan(2 * shift / math.pi)
    return count * (-a * shift - math.log(math.cos(math.pi * a / 2)))


@lru_cache
def _middle(count: int, probability: float) -> float:
    """The quantile of the lower middle of ``count`` sizes of Cauchy numbers."""
    rank = (count + 1) // 2
    return math.tan(math.pi / 2 * float(special.betaincinv(rank, count - rank + 1, probability)))


@dataclass(frozen=True)
class Estimator:
    """An estimator of l1 norms.

    Attributes:
        estimate: (B, k, n) Cauchy projections -> (B, n).
        factor: of k and a failure probability; see ``median_factor``.
        least: the smallest k that it takes.
    """

    estimate: Callable[[Tensor], Tensor]
    factor: Callable[[int, float], float]
    least: int


ESTIMATORS = {
    "median": Estimator(median_estimate, median_factor, 1),
    "geometric": Estimator(geometric_estimate, geometric_factor, 2),
}


def find_estimator(name: str, count: int) -> Estimator:
    """The estimator of that name.

    Raises:
        UsageError: for an unknown name, or fewer projections than it takes.
    """
    if name not in ESTIMATORS:
        raise UsageError(f"projection_estimator: {name!r} is not one of {', '.join(ESTIMATORS)}")
    if count < ESTIMATORS[name].least:
        raise UsageError(f"projections: {count} must be >= {ESTIMATORS[name].least} for the {name} estimator")
    return ESTIMATORS[name]
