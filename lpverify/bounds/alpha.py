"""CROWN with optimised lower slopes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lpverify.bounds.backward import bound_claim, bound_rows
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, LemmaRows, Multipliers, count_unstable
from lpverify.bounds.relaxation import Relaxation, relax
from lpverify.bounds.root import Root, chunks, folded_bias, root_bounds
from lpverify.network import Affine, Network, ReLU
from lpverify.problem import LayerBounds, Region, Specification

Slopes = dict[int, Tensor]

# Decay rates of Adam's means of gradients and of their squares: short memories, for the bound has kinks.
BETAS = (0.7, 0.9)
# Entries of all slope tensors that one optimisation holds (Adam keeps about eight times as much).
CHUNK_ENTRIES = {"cpu": 2**21, "cuda": 2**27}


@dataclass(frozen=True)
class AlphaBound(AbstractBoundMethod):
    """The dual bound maximised over the lower slopes of every row by Adam.

    Requires: any graph of Affine and ReLU nodes; an l-infinity, l2 or l1 region.
    Method: pre-activation bounds by CROWN; then each row's slopes in [0, 1] at unstable neurons are ascended.
        With ``intermediate``, the pre-activation bounds of unstable neurons are maximised so as well, layer
        by layer, each by slopes of its own.
    Property: sound; with fixed intermediate bounds never below CROWN's margins, and its limit is the LP
        relaxation's optimum (strong duality, Salman et al. 2019, theorem 4.2).
    Source: Wong & Kolter 2018, eq. 5 (the maximisation over alpha); Xu et al. 2021 (arXiv 2011.13824).

    Attributes:
        steps: Adam steps.
        rate: first step size; multiplied by ``decay`` after each step.
        intermediate: optimise pre-activation bounds too.
        seconds: time limit; what was reached by then is returned.
        stop_at_zero: leave a batch once every margin is positive (for verdicts; not for tight values).
    """

    name: ClassVar[str] = "alpha"
    complete: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False
    isolated: ClassVar[bool] = False
    steps: int = 20
    rate: float = 0.25
    decay: float = 0.9
    intermediate: bool = False
    stop_at_zero: bool = False
    seconds: float = math.inf

    def bound(self, network: Network, region: Region, spec: Specification) -> BoundResult:
        with torch.no_grad():
            root = root_bounds(network, region, "crown")
        return self.improve(network, region, spec, root)

    def improve(self, network: Network, region: Region, spec: Specification, root: Root) -> BoundResult:
        """As ``bound``, from the root bounds that CROWN already computed for these examples."""
        network, deadline = network.detach(), time.perf_counter() + self.seconds
        lemmas: list[LemmaRows] = []
        if self.intermediate:
            root, lemmas = self.tightened_root(network, region, deadline)
        width = sum(layer.lower.shape[1] for layer in root.layers.values()) * spec.C.shape[1]
        each = max(1, CHUNK_ENTRIES.get(spec.C.device.type, 2**21) // max(1, width))
        margins, parts = [], []
        for start in range(0, spec.C.shape[0], each):
            examples = torch.arange(start, min(start + each, spec.C.shape[0]), device=spec.C.device)
            local, part = root.select(examples), spec.select(examples)
            found, slopes = self._ascend(
                local.layers,
                part.C.shape[1],
                lambda r, p=part, e=examples: bound_claim(network, r, region.select(e), p.C, p.d),  # type: ignore[misc]
                network,
                local.slopes,
                deadline,
            )
            margins.append(found)
            parts.append(slopes)
        joined = {k: torch.cat([p[k] for p in parts]) for k in root.layers}
        multipliers = Multipliers("crown", joined, tuple(lemmas))
        return BoundResult(torch.cat(margins), root.layers, multipliers, stats=count_unstable(root.layers))

    def _ascend(
        self,
        layers: dict[int, LayerBounds],
        rows: int,
        evaluate: Callable[[dict[int, Relaxation]], Tensor],
        network: Network,
        start: Slopes,
        deadline: float,
    ) -> tuple[Tensor, Slopes]:
        """Maximise every row of ``evaluate`` over the slopes; returns the best values and their slopes."""
        if not layers:
            return evaluate({}), {}
        slopes = {k: start[k].unsqueeze(1).repeat(1, rows, 1).requires_grad_() for k in layers}
        best, best_slopes = None, {k: s.detach().clone() for k, s in slopes.items()}
        first = {k: torch.zeros_like(s) for k, s in slopes.items()}
        second = {k: torch.zeros_like(s) for k, s in slopes.items()}
        for step in range(self.steps + 1):
            relaxations = {k: self._relax(network, k, layer, slopes[k]) for k, layer in layers.items()}
            value = evaluate(relaxations)
            with torch.no_grad():
                if best is None:
                    best = value.clone()
                else:
                    better = value > best
                    best = torch.where(better, value, best)
                    for k, s in slopes.items():
                        best_slopes[k] = torch.where(better.unsqueeze(2), s, best_slopes[k])
            settled = self.stop_at_zero and bool((best > 0).all())
            if step == self.steps or settled or time.perf_counter() > deadline:
                break
            if not value.requires_grad:
                break
            gradients = torch.autograd.grad(value.sum(), list(slopes.values()), allow_unused=True)
            with torch.no_grad():
                for k, gradient in zip(slopes, gradients, strict=True):
                    if gradient is not None:
                        _adam_step(slopes[k], gradient, first[k], second[k], step + 1, self.rate * self.decay**step)
        assert best is not None
        return best, best_slopes

    @staticmethod
    def _relax(network: Network, index: int, layer: LayerBounds, slopes: Tensor | None) -> Relaxation:
        node = network.nodes[index]
        assert isinstance(node, ReLU)
        return relax(layer, folded_bias(network, node), slopes)

    def tightened_root(self, network: Network, region: Region, deadline: float) -> tuple[Root, list[LemmaRows]]:
        """CROWN's root with the bounds of unstable neurons optimised; each improvement is a lemma.

        Args:
            deadline: when to stop optimising (``time.perf_counter``); later layers then keep CROWN's bounds.
        """
        lemmas: list[LemmaRows] = []

        def tighten(index: int, layer: LayerBounds, done: Root) -> LayerBounds:
            node = network.nodes[index]
            assert isinstance(node, ReLU)
            if not isinstance(network.nodes[node.input], Affine) or not has_relus_below(network, node.input):
                return layer
            width = max(sum(x.lower.shape[1] for x in done.layers.values()), max(network.sizes[: node.input]))
            unstable = layer.unstable
            for examples, neurons in chunks(unstable, width):
                if time.perf_counter() > deadline:
                    break
                rows = torch.cat([neurons, neurons], dim=1)
                sides = torch.cat([torch.zeros_like(neurons), torch.ones_like(neurons)], dim=1)
                local, part = done.select(examples), region.select(examples)
                with torch.enable_grad():
                    low, slopes = self._ascend(
                        local.layers,
                        rows.shape[1],
                        lambda r, p=part, n=rows, s=sides: bound_rows(  # type: ignore[misc]
                            network, r, p, node.input, n, 1 - 2 * s
                        ),
                        network,
                        local.slopes,
                        deadline,
                    )
                layer = _apply(layer, unstable, examples, neurons, low)
                needed = unstable[examples.unsqueeze(1), rows]
                lemmas.append(LemmaRows(index, examples, rows, sides, needed, slopes))
            return layer

        with torch.no_grad():
            root = root_bounds(network, region, "crown", tighten)
        return root, lemmas


def has_relus_below(network: Network, index: int) -> bool:
    """Whether a ReLU lies on some way from the input to node ``index``: else CROWN's bounds are exact."""
    return any(
        isinstance(network.nodes[source], ReLU) or has_relus_below(network, source) for source in network.sources(index)
    )


def _adam_step(slope: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float) -> None:
    """One ascent step of Adam (Kingma & Ba 2015, algorithm 1), kept inside [0, 1]; all in place.

    torch.optim takes seconds to import, as long as a short run. The eps of the quotient is tiny, for a step
    must not depend on the scale of a layer.
    """
    first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
    slope.addcdiv_(mean, square.sqrt_().add_(1e-30), value=rate).clamp_(0, 1)


def _apply(layer: LayerBounds, unstable: Tensor, examples: Tensor, neurons: Tensor, low: Tensor) -> LayerBounds:
    """The bounds of ``unstable`` units with the better ones of ``low`` (b, 2m): lower bounds of z, then of -z."""
    below, above = low.chunk(2, dim=1)
    place = (examples.unsqueeze(1).expand_as(neurons), neurons)
    lower = layer.lower.index_put(place, torch.maximum(below, layer.lower[place]))
    upper = layer.upper.index_put(place, torch.minimum(-above, layer.upper[place]))
    lower, upper = torch.where(unstable, lower, layer.lower), torch.where(unstable, upper, layer.upper)
    return replace(layer, lower=torch.minimum(lower, upper), upper=torch.maximum(lower, upper))
