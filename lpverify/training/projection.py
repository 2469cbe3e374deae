"""Random projections of the dual network: estimated pre-activation bounds in time and memory linear in the width.

The dual's range of a neuron is a center and a half width: the l1 norm of the neuron's columns, one for every input and
one for every unstable neuron before it (``bounds.forward``). In the paper's terms the columns hold the input's
eps nu_1 and, as [nu]_+ = (|nu| + nu) / 2, a half of each intercept's l nu; the other halves are linear and make up the
center with the biases. Instead of the columns, k random combinations of them go forward through the network. With
Cauchy weights each equals the l1 norm times a Cauchy number; the columns of an l2 ball's input, whose l2 norm counts,
take normal weights. A median or a mean over the k gives the norm.

Such bounds are estimates and prove nothing: they are for losses, under which the last layer's rows are exact.

Sources: Wong, Schmidt, Metzen & Kolter 2018 (arXiv 1805.12514), section 3.2; Wong 2020, algorithm 3 and section 3.4.6.
The algorithm estimates each layer's l1 norm by k vectors of its own and adds the estimates up. Here all layers' columns
share the same k vectors: one norm to estimate, at the cost of a single layer's, and unbiased in the median, which a sum
of medians is not. At equal cost its error is never the greater one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lpverify.bounds.backward import bound_claim
from lpverify.bounds.relaxation import dual_range, relax
from lpverify.bounds.root import interval_step, relaxations_of
from lpverify.errors import UsageError
from lpverify.linear import Conv2d, Dense, Diagonal
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Ball, LayerBounds, Region, Specification
from lpverify.training.estimators import find_estimator, normal_estimate, normal_factor

# Projections of a node's columns, each (B, k, n): those whose l1 norm counts, and those of an l2 ball.
Columns = tuple[Tensor | None, Tensor | None]
# Norms (B, n) from projections (B, k, n).
Norm = Callable[[Tensor], Tensor]


def estimated_layers(
    network: Network, region: Region, count: int, generator: torch.Generator, estimator: str = "median"
) -> dict[int, LayerBounds]:
    """Estimates of the dual's pre-activation bounds by ReLU node; gradients flow to weights and radius.

    Bounds of layers that read the input alone are exact, and so are the stable neurons that intervals find. Every
    estimate is kept within these intervals, which contain the dual's own range.

    Args:
        region: boxes, or l2 balls, whose clip counts for the intervals only.
        count: k, the number of projections.
        generator: of the CPU; it seeds the draws, which are made on the region's device.
        estimator: a key of ``estimators.ESTIMATORS``.

    Raises:
        UsageError: for an unknown estimator, a count too small for it, or an l1 ball, whose dual norm is a maximum.
    """
    rule = find_estimator(estimator, count)
    return _layers(network, region, count, generator, (rule.estimate, normal_estimate))


def projected_margins(network: Network, region: Region, spec: Specification, layers: dict[int, LayerBounds]) -> Tensor:
    """The dual's margins (B, m) of the claim's rows, without estimates, on top of the given pre-activation bounds."""
    return bound_claim(network, relaxations_of(network, layers, "dual"), region, spec.C, spec.d)


def probable_margins(
    network: Network,
    region: Region,
    spec: Specification,
    count: int,
    delta: float,
    generator: torch.Generator,
    estimator: str = "geometric",
) -> tuple[Tensor, dict[int, LayerBounds]]:
    """Margins (B, m), and the pre-activation bounds beneath, that hold for an example with probability >= 1 - delta.

    Every estimate is multiplied by the factor with which it misses its norm with probability delta / N, N being the
    number of norms estimated for an example. Each layer has draws of its own: bounds that earlier draws decided would
    otherwise not be independent of the projections that measure the next layer. The probability is over the draws, in
    real arithmetic; it is no proof.

    Args:
        delta: in (0, 1).
        region, count, generator, estimator: as for ``estimated_layers``.

    Raises:
        UsageError: as ``estimated_layers``, and for another delta.
    """
    if not 0 < delta < 1:
        raise UsageError(f"delta: {delta!r} must be in (0, 1)")
    rule, failure = find_estimator(estimator, count), failure_share(delta, count_norms(network, region))
    l1, l2 = rule.factor(count, failure), normal_factor(count, failure)
    norms = (lambda columns: l1 * rule.estimate(columns), lambda columns: l2 * normal_estimate(columns))
    layers = _layers(network, region, count, generator, norms, fresh=True)
    return projected_margins(network, region, spec, layers), layers


def enough_projections(norms: int, delta: float, factor: float, estimator: str = "geometric") -> int:
    """The least k whose estimates, times ``factor``, all exceed their ``norms`` norms with probability 1 - delta.

    Raises:
        UsageError: for an unknown estimator, a delta outside (0, 1), or a factor that is not > 1.
    """
    if not (0 < delta < 1 and factor > 1):
        raise UsageError(f"delta: {delta!r} must be in (0, 1), and factor {factor!r} > 1")
    rule, failure = find_estimator(estimator, 2), failure_share(delta, norms)
    low, high = rule.least - 1, rule.least
    while rule.factor(high, failure) > factor:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rule.factor(middle, failure) > factor else (low, middle)
    return high


def count_norms(network: Network, region: Region) -> int:
    """How many norms ``estimated_layers`` estimates for an example: one a unit, for an l2 ball two."""
    separate = _separate(network)
    units = sum(size for index, size in enumerate(network.sizes) if _is_estimated(network, index, separate))
    return units * (2 if isinstance(region, Ball) else 1)


def failure_share(delta: float, norms: int) -> float:
    """The failure probability of one norm; the factors are for less than a half."""
    return min(delta / max(1, norms), 0.49)


def _layers(
    network: Network,
    region: Region,
    count: int,
    generator: torch.Generator,
    norms: tuple[Norm, Norm],
    fresh: bool = False,
) -> dict[int, LayerBounds]:
    """Pre-activation bounds by ReLU node, from the norms of Cauchy and of normal projections.

    Args:
        fresh: each layer is measured by draws of its own.
    """
    if isinstance(region, Ball) and region.norm != "2":
        raise UsageError(f"norm: {region.norm!r} has no random projections; take 'inf' or '2', or projections = 0")
    seed = int(torch.randint(2**62, (), generator=generator))
    draws = torch.Generator(region.lower.device).manual_seed(seed)
    absolute, separate = network.map_tensors(torch.abs), _separate(network)
    ranges: list[tuple[Tensor, Tensor]] = []
    centers: list[Tensor] = []
    columns: list[Columns] = []
    layers: dict[int, LayerBounds] = {}
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            centers.append(region.point if isinstance(region, Ball) else region.center)
            ranges.append((region.lower, region.upper))
        elif isinstance(node, ReLU):
            layer = layers[index] = LayerBounds(*ranges[node.input])
            slope, half = _line(layer)
            centers.append(slope * centers[node.input] + half)
            ranges.append(dual_range(layer))
        else:
            center = node.bias.expand(len(region.lower), -1)
            for source, linear in zip(node.inputs, node.maps, strict=True):
                center = center + linear.apply(centers[source])
            centers.append(center)
            bounds = interval_step(node, absolute.nodes[index], ranges)
            if _is_estimated(network, index, separate):
                columns = [] if fresh else columns
                while len(columns) <= index:
                    columns.append(_columns(network, region, layers, columns, count, draws))
                widths = [norm(part) for norm, part in zip(norms, columns[index], strict=True) if part is not None]
                bounds = _within(bounds, center, torch.stack(widths).sum(0))
            elif isinstance(region, Ball) and _feeds_relu(network, index) and node.maps:
                bounds = _within(bounds, center, _l2_width(network, index, region))
            ranges.append((bounds.lower, bounds.upper))
    return layers


def _columns(
    network: Network,
    region: Region,
    layers: dict[int, LayerBounds],
    before: list[Columns],
    count: int,
    draws: torch.Generator,
) -> Columns:
    """The projections of the columns of the next node, after those of the nodes ``before`` it."""
    index, batch = len(before), len(region.lower)
    node = network.nodes[index]
    if isinstance(node, Input):
        shape = (batch, count, network.input_size)
        if isinstance(region, Ball):
            return None, _normal(shape, region, draws) * region.eps.view(-1, 1, 1)
        return _cauchy(shape, region, draws) * region.radius.unsqueeze(1), None
    if isinstance(node, ReLU):
        slope, half = (table.unsqueeze(1) for table in _line(layers[index]))
        cauchy, normal = before[node.input]
        # A stable neuron adds no column: its half is 0.
        own = _cauchy((batch, count, network.sizes[index]), region, draws) * half
        return (own if cauchy is None else torch.addcmul(own, cauchy, slope)), (
            None if normal is None else normal * slope
        )
    parts = []
    for kind in range(2):
        total: Tensor | None = None
        for source, linear in zip(node.inputs, node.maps, strict=True):
            part = before[source][kind]
            if part is not None:
                mapped = linear.apply(part.flatten(0, 1)).view(batch, count, -1)
                total = mapped if total is None else total + mapped
        parts.append(total)
    return parts[0], parts[1]


def _line(layer: LayerBounds) -> tuple[Tensor, Tensor]:
    """Slope and half of the intercept of the dual's relaxation slope * z + [0, 2 half]: two (B, n)."""
    table = relax(layer, None, None)
    return table.upper_slope, table.upper_gain / 2


def _within(bounds: LayerBounds, center: Tensor, width: Tensor) -> LayerBounds:
    """Possibly unstable neurons' ranges, within the interval's; stable neurons keep the interval's."""
    lower, upper = torch.maximum(bounds.lower, center - width), torch.minimum(bounds.upper, center + width)
    open_ = bounds.unstable
    return LayerBounds(torch.where(open_, lower, bounds.lower), torch.where(open_, upper, bounds.upper))


def _l2_width(network: Network, index: int, ball: Ball) -> Tensor:
    """The exact half widths (B, n) of an affine node above units that each read one input."""
    node = network.nodes[index]
    assert isinstance(node, Affine)
    squares = node.maps[0].map_tensors(torch.square).apply(_scale(network, node.inputs[0], ball).square())
    return ball.eps.unsqueeze(1) * squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()


def _scale(network: Network, index: int, ball: Ball) -> Tensor:
    """By how much each unit of a node of ``_separate`` multiplies its input: (1, n)."""
    if index == 0:
        return torch.ones_like(ball.point[:1])
    node = network.nodes[index]
    assert isinstance(node, Affine)
    return node.maps[0].apply(_scale(network, node.inputs[0], ball))


def _separate(network: Network) -> set[int]:
    """The input and what scales and shifts it: nodes whose units each read one input of their own."""
    found = {0}
    for index, node in enumerate(network.nodes):
        if isinstance(node, Affine) and len(node.maps) == 1 and isinstance(node.maps[0], Diagonal):
            found |= {index} if node.inputs[0] in found else set()
    return found


def _is_estimated(network: Network, index: int, separate: set[int]) -> bool:
    """Whether a node feeds a ReLU and is not one of the first layers, whose ranges have a closed form."""
    node = network.nodes[index]
    if not isinstance(node, Affine) or not node.maps or not _feeds_relu(network, index):
        return False
    known = len(node.maps) == 1 and isinstance(node.maps[0], Dense | Conv2d | Diagonal)
    return not (known and node.inputs[0] in separate)


def _feeds_relu(network: Network, index: int) -> bool:
    return any(isinstance(network.nodes[reader], ReLU) for reader in network.consumers[index])


def _normal(shape: tuple[int, ...], region: Region, draws: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draws, dtype=region.lower.dtype, device=region.lower.device)


def _cauchy(shape: tuple[int, ...], region: Region, draws: torch.Generator) -> Tensor:
    """Cauchy numbers; the tangent of uniform angles takes a third of the time of ``Tensor.cauchy_``."""
    like = region.lower
    angles = torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-0.5, 0.5, generator=draws)
    return angles.mul_(math.pi).tan_()
