"""The batched backward pass: rows of a claim (or of single neurons) through the graph to the input.

Rows are dense, (B, m, n_k), or Patches; a node with several consumers sums their rows. The bound is the
dual network's (Wong & Kolter 2018, theorem 1; thesis algorithm 2 on graphs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lpverify.bounds import patches
from lpverify.bounds.patches import Patches
from lpverify.bounds.relaxation import Relaxation
from lpverify.linear import AbstractLinearMap, Conv2d, Dense, Diagonal
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Ball, Region, dual_norm, row_products

Rows = Tensor | Patches


def bias_is_folded(network: Network, node: int) -> bool:
    """Whether the bias of Affine ``node`` is counted in its only consumer's relaxation, a ReLU."""
    readers = network.consumers[node]
    return len(readers) == 1 and isinstance(network.nodes[readers[0]], ReLU)


def bound_claim(
    network: Network, relaxations: Mapping[int, Relaxation], region: Region, C: Tensor, d: Tensor
) -> Tensor:
    """Lower bounds of C f(x) + d over the region: C (B, m, n_K), d (B, m) -> (B, m)."""
    return _propagate(network, relaxations, region, {len(network.nodes) - 1: C}, d)[0]


def bound_claim_and_rows(
    network: Network, relaxations: Mapping[int, Relaxation], region: Region, C: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``bound_claim``, with w (B, m, n_0): C f(x) + d >= w.x + b on the region, which has this least value there."""
    final: list[Rows] = []
    margins, _ = _propagate(network, relaxations, region, {len(network.nodes) - 1: C}, d, final=final)
    return margins, _dense(final[0]) if final else margins.new_zeros(*margins.shape, network.input_size)


def bound_claim_and_point(
    network: Network, relaxations: Mapping[int, Relaxation], region: Region, C: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``bound_claim``, with the point of the region where each row's linear bound is least: (B, m, n_0)."""
    margins, rows = bound_claim_and_rows(network, relaxations, region, C, d)
    return margins, region.argmin(rows)


def bound_neurons(
    network: Network,
    relaxations: Mapping[int, Relaxation],
    region: Region,
    node: int,
    neurons: Tensor,
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the units ``neurons`` (B, m) of an Affine node: two (B, m).

    Args:
        symmetric: the relaxations have equal lower and upper slopes, so that one pass gives both sides.
    """
    pending, bias = _first_rows(network, node, neurons, None, windows=True)
    return _propagate(network, relaxations, region, pending, bias, sides="mirrored" if symmetric else "split")


def bound_rows(
    network: Network,
    relaxations: Mapping[int, Relaxation],
    region: Region,
    node: int,
    neurons: Tensor,
    signs: Tensor,
) -> Tensor:
    """Lower bounds of signs * z for units ``neurons`` (B, m) of an Affine node, each row with slopes of its own."""
    pending, bias = _first_rows(network, node, neurons, signs, windows=False)
    return _propagate(network, relaxations, region, pending, bias)[0]


def _first_rows(
    network: Network, node: int, neurons: Tensor, signs: Tensor | None, windows: bool
) -> tuple[dict[int, Rows], Tensor]:
    """The rows of an affine node's maps for the given units, times ``signs``, by source node; and their biases."""
    affine = network.nodes[node]
    assert isinstance(affine, Affine)
    image = next((m.out_shape for m in affine.maps if isinstance(m, Conv2d)), None)
    windows = windows and all(isinstance(m, Conv2d | Diagonal) and m.out_shape == image for m in affine.maps)
    signs = torch.ones_like(neurons) if signs is None else signs
    sign = signs.to(affine.bias.dtype)
    pending: dict[int, Rows] = {}
    for source, linear in zip(affine.inputs, affine.maps, strict=True):
        if windows and image is not None and isinstance(linear, Conv2d | Diagonal):
            rows: Rows = _thin(patches.select(image, neurons, sign).transpose(linear))
        elif isinstance(linear, Dense):
            rows = linear.weight[neurons] * sign.unsqueeze(2)
        else:
            unit = torch.nn.functional.one_hot(neurons, linear.out_size) * sign.unsqueeze(2)
            rows = linear.transpose(unit.flatten(0, 1)).view(*neurons.shape, -1)
        _add(pending, source, rows)
    return pending, affine.bias[neurons] * sign


def _propagate(
    network: Network,
    relaxations: Mapping[int, Relaxation],
    region: Region,
    pending: dict[int, Rows],
    score: Tensor,
    *,
    sides: str = "below",
    final: list[Rows] | None = None,
) -> tuple[Tensor, Tensor]:
    """Carry rows down to the input; returns the bound from below and, unless ``sides`` is "below", from above.

    Args:
        pending: rows by the node at which they wait.
        score: what the rows have collected so far, (B, m).
        sides: "below"; "mirrored": equal slopes serve both sides with the same rows; "split": the rows and
            their negatives part at the first ReLU, which both pass with the same products.
        final: receives the rows that arrive at the input.
    """
    split = False
    above = score
    while pending:
        index = max(pending)
        rows, node = pending.pop(index), network.nodes[index]
        if isinstance(node, Input):
            low, high = _at_input(rows, region)
            if final is not None:
                final.append(rows)
            score, above = score + low, above + high
        elif isinstance(node, ReLU):
            even, odd, straight, bent = _absorb(rows, relaxations[index], sides == "mirrored")
            if sides == "split" and not split:
                split = True
                pending = {k: _join(waiting, _negative(waiting)) for k, waiting in pending.items()}
                rows = _join(_plus(even, odd), _plus(_negative(even), odd))
                score = torch.cat([score + straight + bent, bent - straight - score], dim=1)
                above = score
            else:
                rows = _plus(even, odd)
                score, above = score + straight + bent, above + straight - bent
            if not relaxations[index].is_flat:
                _add(pending, node.input, rows)
        else:
            if not bias_is_folded(network, index):
                rows = rows.cropped() if isinstance(rows, Patches) else rows
                gain = _inner(rows, node.bias)
                score, above = score + gain, above + gain
            for source, linear in zip(node.inputs, node.maps, strict=True):
                _add(pending, source, _transpose(rows, linear))
    if split:
        low, high = score.chunk(2, dim=1)
        return low, -high
    return score, above


def _with_values(rows: Rows, values: Tensor) -> Rows:
    return replace(rows, values=values) if isinstance(rows, Patches) else values


def _values(rows: Rows) -> Tensor:
    return rows.values if isinstance(rows, Patches) else rows


def _negative(rows: Rows) -> Rows:
    return _with_values(rows, -_values(rows))


def _plus(rows: Rows, odd: Tensor | None) -> Rows:
    """The rows with a part of the same shape added, if there is one."""
    return rows if odd is None else _with_values(rows, _values(rows) + odd)


def _join(rows: Rows, others: Rows) -> Rows:
    """Two sets of m rows an example, at the same places, as one set of 2 m."""
    if not isinstance(rows, Patches):
        return torch.cat([rows, _dense(others)], dim=1)
    batch, window = rows.batch, rows.values.shape[1:]
    pair = [_values(r).view(batch, -1, *window) for r in (rows, others)]
    top, left = (torch.cat([t.view(batch, -1)] * 2, dim=1).flatten() for t in (rows.top, rows.left))
    return Patches(torch.cat(pair, dim=1).flatten(0, 1), top, left, rows.image, batch)


def _add(pending: dict[int, Rows], index: int, rows: Rows) -> None:
    """Add rows to what waits at node ``index``."""
    other = pending.get(index)
    if other is None:
        pending[index] = rows
    elif isinstance(rows, Patches) and isinstance(other, Patches) and rows.can_add(other):
        pending[index] = _thin(rows.add(other))
    else:
        pending[index] = _dense(rows) + _dense(other)


def _dense(rows: Rows) -> Tensor:
    return rows.dense() if isinstance(rows, Patches) else rows


def _thin(rows: Patches) -> Rows:
    """The rows as windows while these are clearly smaller than the image, else dense."""
    return rows if rows.worth_keeping else rows.dense()


def row_entries(network: Network, index: int) -> int:
    """Entries that one row of node ``index`` takes at its widest, its gathered tables included."""
    widest, pending = 1, dict[int, tuple[int, int] | None]({index: (1, 1)})
    while pending:
        node_index = max(pending)
        window, node = pending.pop(node_index), network.nodes[node_index]
        for source, linear in zip(network.sources(node_index), getattr(node, "maps", (None,)), strict=False):
            below = window
            if isinstance(linear, Conv2d) and window is not None:
                below = patches.grown(linear, *window)
                below = below if patches.worth_keeping(linear.in_shape, *below) else None
            elif linear is not None and not isinstance(linear, Diagonal):
                below = None
            size = network.sizes[source]
            shape = getattr(linear, "in_shape", ())
            widest = max(widest, size if below is None else min(size, 5 * below[0] * below[1] * (shape or (1,))[0]))
            pending[source] = below if pending.get(source, below) is not None else None
    return widest


def _transpose(rows: Rows, linear: AbstractLinearMap) -> Rows:
    """W^T applied to every row."""
    if isinstance(rows, Patches):
        if isinstance(linear, Conv2d | Diagonal) and rows.image == linear.out_shape:
            return _thin(rows.transpose(linear))
        rows = rows.dense()
    return linear.transpose(rows.flatten(0, 1)).view(*rows.shape[:2], -1)


def _inner(rows: Rows, table: Tensor) -> Tensor:
    """The inner product of every row with a table (n,) or (B, n): (B, m)."""
    if isinstance(rows, Patches):
        (window,) = rows.gather(table)
        return _row_sums(rows.values, window).view(rows.batch, -1)
    if table.ndim == 1:
        return rows @ table
    return row_products(rows, table)


def _absorb(rows: Rows, table: Relaxation, symmetric: bool) -> tuple[Rows, Tensor | None, Tensor, Tensor]:
    """Pass rows through a ReLU, in parts: v = even w + odd |w|, and what it adds, straight + bent.

    For the negated rows the straight parts change sign and the others do not; with ``symmetric`` slopes there is
    no odd part of v.
    """
    even, odd = (table.lower_slope + table.upper_slope) / 2, (table.lower_slope - table.upper_slope) / 2
    even_gain, odd_gain = (table.lower_gain + table.upper_gain) / 2, (table.lower_gain - table.upper_gain) / 2
    values = _values(rows)
    size = values.abs()
    if isinstance(rows, Patches):
        even, even_gain, odd_gain, *rest = rows.gather(even, even_gain, odd_gain, *(() if symmetric else (odd,)))
        straight = _row_sums(values, even_gain).view(rows.batch, -1)
        bent = _row_sums(size, odd_gain).view(rows.batch, -1)
        return replace(rows, values=values * even), size * rest[0] if rest else None, straight, bent
    if even.ndim == 3:
        straight, bent = (values * even_gain).sum(-1), (size * odd_gain).sum(-1)
        return values * even, size * odd, straight, bent
    straight, bent = row_products(values, even_gain), row_products(size, odd_gain)
    return values * even.unsqueeze(1), None if symmetric else size * odd.unsqueeze(1), straight, bent


def _row_sums(values: Tensor, table: Tensor) -> Tensor:
    """The inner products of windows (R, h, w, C) with gathered tables of that shape: (R,)."""
    sums: Tensor = torch.linalg.vecdot(values.flatten(1), table.flatten(1))
    return sums


def _at_input(rows: Rows, region: Region) -> tuple[Tensor, Tensor]:
    """The least and the greatest value of every row over the region: two (B, m)."""
    if isinstance(rows, Patches) and isinstance(region, Ball) and len(region.cut):
        rows = rows.dense()  # a clipped ball's multiplier needs whole rows
    if not isinstance(rows, Patches):
        return region.extremes(rows)
    box = region.box
    if isinstance(region, Ball):
        center, radius, point, inside = rows.gather(
            box.center, box.radius, region.point, torch.ones_like(region.point)
        )
        w = rows.values * inside
    else:
        center, radius = rows.gather(box.center, box.radius)
        w = rows.values
    middle = _row_sums(w, center).view(rows.batch, -1)
    spread = _row_sums(w.abs(), radius).view(rows.batch, -1)
    low, high = middle - spread, middle + spread
    if isinstance(region, Ball):
        middle = _row_sums(w, point).view(rows.batch, -1)
        spread = region.eps.unsqueeze(1) * dual_norm(w.flatten(1), region.norm).view(rows.batch, -1)
        low, high = torch.maximum(low, middle - spread), torch.minimum(high, middle + spread)
    return low, high
