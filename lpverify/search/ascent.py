"""The dual bound of many nodes of one tree at once, and its gradient, written out.

A node is the root's relaxation with some neurons' phases fixed. Its bound is that of the certificate: a row w arrives
at a ReLU and goes on as v, with v = a w+ + s w- at a free unstable neuron (a in [0, 1], s the upper line's slope),
v = w - b at a neuron fixed active and v = b at one fixed inactive, b >= 0 (the multiplier of z >= 0 and of z <= 0:
Wang et al. 2021, arXiv 2103.06624, theorem 3.1). The point x where the bound's linear function is least, carried
forward through the lines that v chose, gives z at every neuron and with it the gradient: w+ z by a, z by b at an
inactive and -z at an active one. A step costs one pass down and one up, and keeps nothing in between but w.

Shapes: B nodes; K unstable neurons at the root (the columns, ReLU by ReLU); R rows a clause; n_K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Ball, LayerBounds, Region

# Decay rates of Adam's means, as for slopes alone (``bounds.alpha``).
BETAS = (0.7, 0.9)


@dataclass(frozen=True)
class Schedule:
    """Adam's steps, the size of the first one (slopes in [0, 1]), and by what it falls from one to the next."""

    steps: int
    rate: float
    decay: float


@dataclass(frozen=True, eq=False)
class Nodes:
    """The variables of B nodes and their bounds, each (B, K) but ``weights`` (B, R) and ``clause`` (B,).

    Attributes:
        signs: int8, +1 active, -1 inactive, 0 free.
        slopes: a in [0, 1] of free neurons.
        splits: b >= 0 of fixed neurons.
        weights: non-negative, each row summing to 1: how the clause's rows are combined.
        clause: which of the search's clauses each node is about.
        lower, upper: bounds of the pre-activations; a free neuron that they fix takes no part.
    """

    signs: Tensor
    slopes: Tensor
    splits: Tensor
    weights: Tensor
    clause: Tensor
    lower: Tensor
    upper: Tensor

    def __len__(self) -> int:
        return len(self.clause)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return self.signs, self.slopes, self.splits, self.weights, self.clause, self.lower, self.upper

    @property
    def free(self) -> Tensor:
        """(B, K) neurons that are unstable and not split."""
        return (self.signs == 0) & (self.lower < 0) & (self.upper > 0)

    def select(self, index: Tensor) -> Nodes:
        """Some of the nodes."""
        return Nodes(*(t[index] for t in self.parts))

    @staticmethod
    def join(batches: Sequence[Nodes]) -> Nodes:
        """Several batches as one."""
        return Nodes(*(torch.cat(same) for same in zip(*(b.parts for b in batches), strict=True)))


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass found.

    Attributes:
        bound: (B,).
        w, v: (B, K) the rows that arrive at the columns and what is handed on; 0 where no row comes.
        x: (B, n_0) where the linear function is least.
        z: (B, K) values at the columns, carried forward from x; empty without a gradient.
        outputs: (B, n_K), likewise.
    """

    bound: Tensor
    w: Tensor
    v: Tensor
    x: Tensor
    z: Tensor
    outputs: Tensor

    def select(self, index: Tensor) -> Pass:
        """What it found of some of the nodes."""
        return Pass(*(t[index] for t in (self.bound, self.w, self.v, self.x, self.z, self.outputs)))


@dataclass(frozen=True, eq=False)
class Lines:
    """What signs fix, each (B, K): the ``free`` mask, the upper line's slope and intercept, the sign as a float."""

    free: Tensor
    slope: Tensor
    intercept: Tensor
    sign: Tensor


class Relaxed:
    """One example's relaxed network, ready for batches of nodes.

    Args:
        network: any graph of Affine and ReLU nodes.
        region: of a single example, in the network's dtype.
        layers: bounds (1, n_k) of every ReLU's pre-activations at the root.
        C, d: (c, R, n_K) and (c, R), the rows of each clause, filled up with copies of its first one.
    """

    def __init__(
        self, network: Network, region: Region, layers: Mapping[int, LayerBounds], C: Tensor, d: Tensor
    ) -> None:
        self.network, self.region, self.C, self.d = network, region, C, d
        self.columns = {k: layers[k].unstable[0].nonzero().flatten() for k in network.relus}
        sides = ([getattr(layers[k], side)[0, at] for k, at in self.columns.items()] for side in ("lower", "upper"))
        self.lower, self.upper = (torch.cat([*side, d.new_zeros(0)]) for side in sides)
        self.spans: dict[int, slice] = {}
        for k, at in self.columns.items():
            start = max((s.stop for s in self.spans.values()), default=0)
            self.spans[k] = slice(start, start + len(at))
        self._active = {k: layers[k].active[0].to(d) for k in network.relus}
        self._box = None if isinstance(region, Ball) else (region.center[0], region.radius[0])

    @property
    def width(self) -> int:
        """All unstable neurons, K."""
        return len(self.lower)

    def lines(self, nodes: Nodes) -> Lines:
        """The lines for these signs."""
        free = nodes.free
        slope = nodes.upper / (nodes.upper - nodes.lower)
        active = (nodes.signs > 0) | ((nodes.signs == 0) & (nodes.lower >= 0))
        return Lines(
            free,
            torch.where(free, slope, active.to(slope)),
            torch.where(free, -slope * nodes.lower, 0.0),
            nodes.signs.to(slope),
        )

    def run(self, nodes: Nodes, lines: Lines | None = None, *, gradient: bool = True) -> Pass:
        """Bound the nodes; with ``gradient`` carry the point forward too."""
        net, lines = self.network, self.lines(nodes) if lines is None else lines
        rows = (nodes.weights.unsqueeze(1) @ self.C[nodes.clause]).squeeze(1)
        bound = (nodes.weights * self.d[nodes.clause]).sum(1)
        arriving, passed = torch.zeros_like(nodes.slopes), torch.zeros_like(nodes.slopes)
        lower_slope = torch.where(lines.free, nodes.slopes, lines.slope)
        pending: dict[int, Tensor] = {len(net.nodes) - 1: rows}
        x = self.region.lower.expand(len(nodes), -1)
        while pending:
            index = max(pending)
            rows, node = pending.pop(index), net.nodes[index]
            if isinstance(node, Input):
                gain, x = self._at_input(rows)
                bound = bound + gain
            elif isinstance(node, Affine):
                bound = bound + rows @ node.bias
                for source, linear in zip(node.inputs, node.maps, strict=True):
                    _add(pending, source, linear.transpose(rows))
            else:
                span, at = self.spans[index], self.columns[index]
                w = rows[:, at]
                below = w.clamp(max=0)
                v = lower_slope[:, span] * (w - below) + lines.slope[:, span] * below
                v -= lines.sign[:, span] * nodes.splits[:, span]
                bound = bound + (lines.intercept[:, span] * below).sum(1)
                handed = rows * self._active[index]
                handed[:, at] = v
                arriving[:, span], passed[:, span] = w, v
                _add(pending, node.input, handed)
        z, outputs = self._forward(x, lines, lower_slope, arriving) if gradient else (x[:, :0], x[:, :0])
        return Pass(bound, arriving, passed, x, z, outputs)

    def _at_input(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self._box is None:
            w = rows.unsqueeze(0)
            return self.region.extremes(w)[0][0], self.region.argmin(w)[0]
        center, radius = self._box
        return rows @ center - rows.abs() @ radius, center - rows.sign() * radius

    def _forward(self, x: Tensor, lines: Lines, lower_slope: Tensor, arriving: Tensor) -> tuple[Tensor, Tensor]:
        """Values at the point x along the lines that the rows chose: z at the columns, and the outputs."""
        slope = torch.where(arriving > 0, lower_slope, lines.slope)
        intercept = torch.where(arriving > 0, 0.0, lines.intercept)
        z = torch.zeros_like(arriving)
        values: list[Tensor] = []
        for index, node in enumerate(self.network.nodes):
            if isinstance(node, Input):
                values.append(x)
            elif isinstance(node, Affine):
                total = node.bias.expand(len(x), -1)
                for source, linear in zip(node.inputs, node.maps, strict=True):
                    total = total + linear.apply(values[source])
                values.append(total)
            else:
                assert isinstance(node, ReLU)
                before, span, at = values[node.input], self.spans[index], self.columns[index]
                z[:, span] = before[:, at]
                value = before * self._active[index]
                value[:, at] = slope[:, span] * z[:, span] + intercept[:, span]
                values.append(value)
        return z, values[-1]

    def row_values(self, clause: Tensor, outputs: Tensor) -> Tensor:
        """The values of each clause's rows at the outputs (B, n_K): (B, R)."""
        return (self.C[clause] @ outputs.unsqueeze(2)).squeeze(2) + self.d[clause]

    def ascend(self, nodes: Nodes, schedule: Schedule) -> tuple[Nodes, Pass]:
        """Maximise each node's bound by Adam over slopes, split multipliers and weights.

        Nodes leave as soon as their bound is positive.

        Returns:
            The best variables that were met, and the pass that they give, without gradient.
        """
        kept = replace(
            nodes, slopes=nodes.slopes.clone(), splits=nodes.splits.clone(), weights=nodes.weights.clone()
        )
        best = torch.full_like(nodes.slopes[:, 0] if self.width else nodes.weights[:, 0], -torch.inf)
        left = torch.arange(len(nodes), device=best.device)
        now = nodes.select(left)
        lines = self.lines(now)
        single = now.weights.shape[1] == 1
        variables = [now.slopes, now.splits] if single else [now.slopes, now.splits, now.weights]
        means = [(torch.zeros_like(t), torch.zeros_like(t)) for t in variables]
        scale = torch.zeros_like(now.slopes)
        for step in range(schedule.steps + 1):
            found = self.run(now, lines, gradient=step < schedule.steps)
            better = found.bound > best[left]
            places = left[better]
            best[places] = found.bound[better]
            for place, t in ((kept.slopes, now.slopes), (kept.splits, now.splits), (kept.weights, now.weights)):
                place[places] = t[better]
            if step == 0:
                scale = self._scale(found.w)
            open_ = (~(found.bound > 0)).nonzero().flatten()
            if step == schedule.steps or not len(open_):
                break
            gradients = [found.w.clamp(min=0) * found.z * lines.free, -lines.sign * found.z]
            if not single:
                # Relative to their mean: where all rows are negative the best of them still gains.
                values = self.row_values(now.clause, found.outputs)
                gradients.append(values - (now.weights * values).sum(1, keepdim=True))
            if len(open_) <= 0.8 * len(left):  # drop those that are done
                left, now, scale = left[open_], now.select(open_), scale[open_]
                lines = Lines(*(t[open_] for t in (lines.free, lines.slope, lines.intercept, lines.sign)))
                means = [(m1[open_], m2[open_]) for m1, m2 in means]
                gradients = [g[open_] for g in gradients]
                variables = [now.slopes, now.splits] if single else [now.slopes, now.splits, now.weights]
            sizes: list[Tensor | float] = [1.0, scale, 0.2]
            for t, g, (m1, m2), size in zip(variables, gradients, means, sizes, strict=False):
                m1.mul_(BETAS[0]).add_(g, alpha=1 - BETAS[0])
                m2.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
                move = (m2 / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(1e-30)
                move = (m1 / (1 - BETAS[0] ** (step + 1))).div_(move).mul_(size)
                t.add_(move, alpha=schedule.rate * schedule.decay**step)
            now.slopes.clamp_(0, 1)
            now.splits.clamp_(min=0)
            if not single:
                # No row at all would be a bound of nothing.
                total = now.weights.clamp_(min=0).sum(1, keepdim=True)
                now.weights.copy_(torch.where(total > 0, now.weights / total, 1 / now.weights.shape[1]))
        return kept, self.run(kept, gradient=False)

    def _scale(self, w: Tensor) -> Tensor:
        """The unit of a split multiplier: the row's size at its neuron, and in its layer or in all, (B, K).

        In all: a multiplier of 0 where no row arrives must be able to grow, or the node cannot be proved empty.
        """
        scale, overall = torch.empty_like(w), w.abs().mean(1, keepdim=True)
        for span in self.spans.values():
            size = w[:, span].abs()
            scale[:, span] = size + torch.maximum(size.mean(1, keepdim=True), overall) if size.shape[1] else size
        return scale

    @staticmethod
    def children(nodes: Nodes, found: Pass, column: Tensor) -> Nodes:
        """Both children of every node, split on column (B,): 2 B nodes, the first B those of z <= 0.

        They begin at their parents' multipliers, as far as these are allowed: at a neuron with w >= 0 wholly.
        """
        count = len(nodes)
        both = Nodes.join([nodes, nodes])
        first, second = torch.arange(count, device=column.device), torch.arange(count, 2 * count, device=column.device)
        w, v = (t.gather(1, column.unsqueeze(1)).squeeze(1) for t in (found.w, found.v))
        both.signs[first, column], both.signs[second, column] = -1, 1
        both.splits[first, column], both.splits[second, column] = v.clamp(min=0), (w - v).clamp(min=0)
        return both


def _add(pending: dict[int, Tensor], index: int, rows: Tensor) -> None:
    pending[index] = pending[index] + rows if index in pending else rows
