"""Pre-activation bounds of every ReLU, layer by layer: the incremental part of every backward method.

Algorithm 1 of Wong & Kolter 2018 on a graph: each layer's bounds come from the relaxations of the layers
before it. Only neurons that a cheap interval leaves possibly unstable get a row of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lpverify.bounds.backward import bias_is_folded, bound_neurons, row_entries
from lpverify.bounds.relaxation import Relaxation, adaptive_slope, dual_range, flat, relax
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Box, LayerBounds, Region

# Entries of one chunk of rows (rows times the widest layer they pass): fits a CPU's caches, fills a GPU.
CHUNK_ENTRIES = {"cpu": 2**21, "cuda": 2**27}


@dataclass(frozen=True, eq=False)
class Root:
    """What the root knows of every ReLU, keyed by its node index.

    Attributes:
        layers: bounds on its pre-activations.
        relaxations: its relaxation by the rule.
        slopes: CROWN's lower slopes (B, n_k), chosen from the backward pass's own bounds.
    """

    layers: dict[int, LayerBounds]
    relaxations: dict[int, Relaxation]
    slopes: dict[int, Tensor]

    def select(self, examples: Tensor) -> Root:
        """What is known of some of the examples."""
        return Root(
            {k: v.select(examples) for k, v in self.layers.items()},
            {k: v.select(examples) for k, v in self.relaxations.items()},
            {k: v[examples] for k, v in self.slopes.items()},
        )


# Given a ReLU's node, its pre-activations' bounds so far and what is known of the ReLUs before: tighter bounds.
Tighten = Callable[[int, LayerBounds, "Root"], LayerBounds]


def root_bounds(
    network: Network,
    region: Region,
    rule: str,
    tighten: Tighten | None = None,
    known: Mapping[int, LayerBounds] | None = None,
    final: Collection[int] = (),
) -> Root:
    """Bounds of all ReLUs' pre-activations over the region, with their relaxations.

    Args:
        rule: "interval"; "dual" (Wong & Kolter as published: a neuron's bound is the backward pass's own);
            "dual-tight" and "crown" (the better of the backward pass's bound and the interval's). CROWN
            chooses its lower slopes from the backward pass's bounds alone: choosing them from the tightened
            bounds was seen to loosen margins.
        tighten: improves each ReLU's bounds before later nodes build on them.
        known: by ReLU node, bounds (B, n_k) that hold anyway; neurons that they fix need no backward pass.
        final: those of ``known`` that are taken as they are.
    """
    absolute = network.map_tensors(torch.abs)
    ranges: list[tuple[Tensor, Tensor]] = []
    slopes: dict[int, Tensor] = {}
    root = Root({}, {}, {})
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            ranges.append((region.lower, region.upper))
        elif isinstance(node, Affine):
            bounds = interval_step(node, absolute.nodes[index], ranges)
            readers = [r for r in network.consumers[index] if r in known] if known else []
            for reader in readers:
                bounds = _better(bounds, known[reader]) if known else bounds
            slopes[index] = adaptive_slope(bounds.lower, bounds.upper)
            feeds_relu = any(isinstance(network.nodes[c], ReLU) for c in network.consumers[index])
            is_final = bool(readers) and all(r in final for r in readers)
            if feeds_relu and rule != "interval" and not is_final and not _interval_is_exact(node, region):
                raw = _refine(network, root.relaxations, region, index, bounds, rule)
                slopes[index] = adaptive_slope(raw.lower, raw.upper)
                bounds = raw if rule == "dual" else _better(raw, bounds)
            ranges.append((bounds.lower, bounds.upper))
        else:
            layer = LayerBounds(*ranges[node.input])
            if tighten is not None:
                layer = tighten(index, layer, root)
                ranges[node.input] = (layer.lower, layer.upper)
            root.layers[index] = layer
            root.slopes[index] = slopes.get(node.input, adaptive_slope(layer.lower, layer.upper))
            root.relaxations[index] = _relaxation(network, node, layer, rule, root.slopes[index])
            ranges.append(dual_range(layer) if rule == "dual" else (layer.lower.clamp(min=0), layer.upper.clamp(min=0)))
    return root


def relaxations_of(network: Network, layers: Mapping[int, LayerBounds], rule: str) -> dict[int, Relaxation]:
    """The relaxations, by ReLU node, that a rule makes of the given bounds of all ReLUs' pre-activations."""
    relaxations: dict[int, Relaxation] = {}
    for index, layer in layers.items():
        node = network.nodes[index]
        assert isinstance(node, ReLU)
        slope = adaptive_slope(layer.lower, layer.upper)
        relaxations[index] = _relaxation(network, node, layer, rule, slope)
    return relaxations


def _relaxation(network: Network, relu: ReLU, layer: LayerBounds, rule: str, slope: Tensor) -> Relaxation:
    if rule == "interval":
        return flat(layer)
    return relax(layer, folded_bias(network, relu), slope if rule == "crown" else None)


def folded_bias(network: Network, relu: ReLU) -> Tensor | None:
    """The bias that a ReLU's relaxation counts for the affine node that it reads, if it does."""
    source = network.nodes[relu.input]
    return source.bias if isinstance(source, Affine) and bias_is_folded(network, relu.input) else None


def interval_step(node: Affine, absolute: object, ranges: list[tuple[Tensor, Tensor]]) -> LayerBounds:
    """Interval arithmetic through one affine node: bias + W c -+ |W| r (Gowal et al. 2018)."""
    assert isinstance(absolute, Affine)
    batch = ranges[0][0].shape[0]
    center, radius = node.bias.expand(batch, -1), torch.zeros_like(node.bias).expand(batch, -1)
    for source, linear, magnitude in zip(node.inputs, node.maps, absolute.maps, strict=True):
        lower, upper = ranges[source]
        center = center + linear.apply((lower + upper) / 2)
        radius = radius + magnitude.apply((upper - lower) / 2)
    return LayerBounds(center - radius, center + radius)


def _interval_is_exact(node: Affine, region: Region) -> bool:
    """Whether interval arithmetic already gives the exact range: one map straight from a box."""
    return isinstance(region, Box) and all(source == 0 for source in node.inputs) and len(node.inputs) <= 1


def _refine(
    network: Network,
    relaxations: dict[int, Relaxation],
    region: Region,
    index: int,
    bounds: LayerBounds,
    rule: str,
) -> LayerBounds:
    """The backward pass's own bounds of the possibly unstable neurons; the others keep the interval's."""
    lower, upper = bounds.lower, bounds.upper
    symmetric = rule != "crown"
    for examples, neurons in chunks(bounds.unstable, row_entries(network, index)):
        local = {k: r.select(examples) for k, r in relaxations.items()}
        low, high = bound_neurons(network, local, region.select(examples), index, neurons, symmetric)
        place = (examples.unsqueeze(1).expand_as(neurons), neurons)
        lower, upper = lower.index_put(place, low), upper.index_put(place, high)
    # Units that only filled up a rectangle keep the interval's bounds: an example's result must not depend on
    # what else is in its batch.
    return LayerBounds(
        torch.where(bounds.unstable, lower, bounds.lower), torch.where(bounds.unstable, upper, bounds.upper)
    )


def _better(one: LayerBounds, other: LayerBounds) -> LayerBounds:
    """The tighter of two sound bounds; where rounding lets them cross by an ulp, ordered."""
    lower, upper = torch.maximum(one.lower, other.lower), torch.minimum(one.upper, other.upper)
    return LayerBounds(torch.minimum(lower, upper), torch.maximum(lower, upper))


def chunks(mask: Tensor, widest: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut the true entries of a mask (B, n) into rectangular pieces of bounded size.

    Yields:
        Example indices (b,) and unit indices (b, m). Examples with similar counts go together; a shorter
        one is filled up with further units (which costs time, never soundness).
    """
    counts = mask.sum(1)
    order = counts.argsort()
    order = order[counts[order] > 0]
    ranked = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    limit = max(1, CHUNK_ENTRIES.get(mask.device.type, 2**22) // widest)
    at = 0
    sizes = counts[order].tolist()
    while at < len(sizes):
        end = at + 1
        while end < len(sizes) and (end + 1 - at) * sizes[end] <= limit and sizes[end] <= 1.25 * sizes[at] + 8:
            end += 1
        examples, most = order[at:end], int(sizes[end - 1])
        for start in range(0, most, limit):
            yield examples, ranked[examples, start : min(most, start + limit)]
        at = end
