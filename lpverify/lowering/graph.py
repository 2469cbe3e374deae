"""The graph while it is being lowered, and its simplification: folding, dead code, the final Network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lpverify.linear import AbstractLinearMap, Dense, Shape
from lpverify.lowering.maps import Gather, add, applies_exactly, compose, sums_exact
from lpverify.network import Affine, Input, Network, Node, ReLU

Term = tuple[int, AbstractLinearMap]


@dataclass(frozen=True, eq=False)
class Step:
    """An affine node: bias + sum of map(value of step) over ``terms``; ``bias`` None is exactly zero."""

    terms: tuple[Term, ...]
    bias: Tensor | None
    shape: Shape
    name: str


Item = Input | Step | ReLU


def simplify(items: list[Item], output: int, dtype: torch.dtype, device: torch.device) -> tuple[tuple[Node, ...], str]:
    """The final nodes, ending in ``output``, and a sentence on folds that rounded ("" if none did).

    An affine node that reads another one absorbs it where the maps compose: always if it is the only reader,
    and also if the other one merely selects, scales and shifts a single node.
    """
    like = torch.zeros((), dtype=dtype, device=device)
    folder = _Folder(list(items), output, like)
    for index, item in enumerate(folder.items):
        if isinstance(item, Step) and folder.readers[index]:
            folder.items[index] = folder.fold(item, index)
    return _number(folder.items, output, like), _sentence(folder.rounded, dtype)


class _Folder:
    """Working state of ``simplify``: the items and how many times each is read by live ones."""

    def __init__(self, items: list[Item], output: int, like: Tensor) -> None:
        self.like = like
        self.items = items
        self.readers = [0] * len(items)
        self.readers[output] = 1
        self.rounded: list[str] = []
        for index in reversed(range(len(items))):
            if self.readers[index]:
                for source in _sources(items[index]):
                    self.readers[source] += 1

    def fold(self, step: Step, index: int) -> Step:
        """``step`` after absorbing every affine step among its sources that it can."""
        changed = True
        while changed:
            changed = False
            for position, (source, _) in enumerate(step.terms):
                inner = self.items[source]
                if isinstance(inner, Step) and (self.readers[source] == 1 or _is_trivial(inner)):
                    folded = self._absorb(step, position, inner)
                    if folded is not None:
                        self._recount(source, inner)
                        step, changed = folded, True
                        break
        return self._merged(step)

    def _absorb(self, step: Step, position: int, inner: Step) -> Step | None:
        outer = step.terms[position][1]
        terms: list[Term] = []
        exact = True
        for source, linear in inner.terms:
            composed = compose(outer, linear)
            if composed is None:
                return None
            terms.append((source, composed.linear))
            exact &= composed.exact
        bias = step.bias
        if inner.bias is not None:
            moved = outer.apply(inner.bias.unsqueeze(0)).squeeze(0)
            exact &= applies_exactly(outer, inner.bias) and (bias is None or sums_exact(bias, moved))
            bias = moved if bias is None else bias + moved
        if not exact and isinstance(outer, Dense) and all(isinstance(linear, Dense) for _, linear in inner.terms):
            return None  # two layers of weights stay two rather than being rounded into one
        if not exact:
            self.rounded.append(f"{inner.name} into {step.name}")
        rest = step.terms[:position], step.terms[position + 1 :]
        # The layer keeps its own name; a mere shift or scale takes the name of what it joins.
        name = inner.name if isinstance(outer, Gather) else step.name
        return replace(step, terms=(*rest[0], *terms, *rest[1]), bias=bias, name=name)

    def _recount(self, source: int, inner: Step) -> None:
        self.readers[source] -= 1
        if self.readers[source] > 0:
            for below, _ in inner.terms:
                self.readers[below] += 1

    def _merged(self, step: Step) -> Step:
        """``step`` with terms on the same source added up where the maps are alike."""
        merged: list[Term] = []
        for source, linear in step.terms:
            for k, (other, known) in enumerate(merged):
                total = add(known, linear, self.like) if other == source else None
                if total is not None:
                    merged[k] = (source, total.linear)
                    self.readers[source] -= 1
                    if not total.exact:
                        self.rounded.append(f"two terms of {step.name}")
                    break
            else:
                merged.append((source, linear))
        return replace(step, terms=tuple(merged))


def _is_trivial(step: Step) -> bool:
    return len(step.terms) == 1 and isinstance(step.terms[0][1], Gather)


def _is_identity(item: Item) -> bool:
    if not isinstance(item, Step) or len(item.terms) != 1 or item.bias is not None:
        return False
    linear = item.terms[0][1]
    return isinstance(linear, Gather) and linear.is_identity


def _sources(item: Item) -> tuple[int, ...]:
    if isinstance(item, Step):
        return tuple(source for source, _ in item.terms)
    return (item.input,) if isinstance(item, ReLU) else ()


def _number(items: list[Item], output: int, like: Tensor) -> tuple[Node, ...]:
    """The nodes that lead to ``output``, renumbered, as the network's own kinds; identities vanish."""
    live = {0, output}
    for index in range(output, 0, -1):
        if index in live:
            live.update(_sources(items[index]))
    nodes: list[Node] = []
    place: dict[int, int] = {}
    for index in sorted(live):
        item = items[index]
        if _is_identity(item):
            place[index] = place[_sources(item)[0]]
            continue
        place[index] = len(nodes)
        if isinstance(item, Step):
            maps = tuple(m.final(like) if isinstance(m, Gather) else m for _, m in item.terms)
            bias = like.new_zeros(math.prod(item.shape)) if item.bias is None else item.bias
            nodes.append(Affine(tuple(place[s] for s, _ in item.terms), maps, bias, item.shape))
        elif isinstance(item, ReLU) and isinstance(nodes[place[item.input]], ReLU):
            place[index] = place[item.input]
        else:
            nodes.append(ReLU(place[item.input]) if isinstance(item, ReLU) else item)
    return tuple(nodes)


def _sentence(rounded: list[str], dtype: torch.dtype) -> str:
    if not rounded:
        return ""
    names = list(dict.fromkeys(rounded))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"folded with a rounding in {str(dtype).removeprefix('torch.')}: {', '.join(names[:6])}{more}"


def network(items: list[Item], output: int, dtype: torch.dtype, device: torch.device, notes: list[str]) -> Network:
    """The simplified Network with its notes."""
    nodes, sentence = simplify(items, output, dtype, device)
    return Network(nodes, tuple(dict.fromkeys([*notes, sentence] if sentence else notes)))
