"""Formulas of comparisons, and the union of parts that one describes.

A formula is a truth value, a comparison (a Bound of an input, or the row that fails where outputs are compared),
or a Join of formulas. A part is a box of inputs and a conjunction of comparisons of outputs. Boxes are shared by
the parts that have the same, so that a file "inputs and (outputs or outputs)" needs its box only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from lpverify.certificate.claim import Inequality
from lpverify.vnnlib.work import Work


class Bound(NamedTuple):
    """Input ``input`` is <= ``value`` (``upper``) or >= ``value``; < or > where ``open``."""

    input: int
    upper: bool
    value: Fraction
    open: bool


class Join:
    """The conjunction of ``children``, or their disjunction (``union``)."""

    __slots__ = ("children", "union")

    def __init__(self, union: bool, children: Sequence[Formula]) -> None:
        self.union, self.children = union, children


Formula = bool | Bound | Inequality | Join


class Range(NamedTuple):
    """The values of one input: from ``lower`` to ``upper`` (None: unbounded), without them where ``*_open``."""

    lower: Fraction | None
    lower_open: bool
    upper: Fraction | None
    upper_open: bool

    @property
    def empty(self) -> bool:
        """Whether no value is left."""
        if self.lower is None or self.upper is None:
            return False
        return self.lower > self.upper or (self.lower == self.upper and (self.lower_open or self.upper_open))


Ranges = dict[int, Range]


class Crossed(Exception):
    """A conjunction states bounds of input ``index`` between which no value lies; the text says which."""

    def __init__(self, index: int, stated: Range) -> None:
        assert stated.lower is not None and stated.upper is not None
        above, below = ">" if stated.lower_open else ">=", "<" if stated.upper_open else "<="
        super().__init__(f"{above} {float(stated.lower)!r} and {below} {float(stated.upper)!r}")
        self.index = index


class Part(NamedTuple):
    """All inputs in ``box`` (inputs that it does not name are free) where each of ``rows`` fails."""

    box: Ranges
    rows: tuple[Inequality, ...]


ANYWHERE: Ranges = {}


def joined(union: bool, children: Sequence[Formula]) -> Formula:
    """A conjunction or disjunction, with its truth values folded in."""
    left: list[Formula] = []
    for child in children:
        if child is union:
            return union
        if not isinstance(child, bool):
            left.append(child)
    if not left:
        return not union
    return left[0] if len(left) == 1 else Join(union, left)


def parts(formula: Formula, work: Work) -> list[Part]:
    """The union of parts that ``formula`` describes, in order of appearance; parts with an empty box are left out.

    Raises:
        Crossed: if the bounds that one conjunction states of an input leave no value, be it by 1e-9.
        Refused: if it needs more entries than ``work`` allows.
    """
    stack = [_Open(Join(False, [formula]))]
    while True:
        top = stack[-1]
        if top.todo:
            child = top.todo.pop()
            if not isinstance(child, Join):
                top.take_comparison(child)
            elif child.union == top.union:
                top.todo.extend(reversed(child.children))
            else:
                stack.append(_Open(child))
            continue
        found = stack.pop().closed(work)
        if not stack:
            return found
        stack[-1].take_parts(found, work)


class _Open:
    """A join whose children are being read: a union lists parts, a conjunction one part and factors of it."""

    def __init__(self, join: Join) -> None:
        self.union = join.union
        self.todo: list[Formula] = list(reversed(join.children))
        self.found: list[Part] = []
        self.box: Ranges = {}
        self.rows: list[Inequality] = []
        self.factors: list[list[Part]] = []
        self.empty = False

    def take_comparison(self, child: Formula) -> None:
        if isinstance(child, bool):
            # Only the outermost conjunction holds one: inner ones were folded.
            if not child:
                self._drop()
        elif isinstance(child, Inequality):
            if self.union:
                self.found.append(Part(ANYWHERE, (child,)))
            else:
                self.rows.append(child)
        elif not isinstance(child, Join):
            if child.upper:
                limit = Range(None, False, child.value, child.open)
            else:
                limit = Range(child.value, child.open, None, False)
            if self.union:
                self.found.append(Part({child.input: limit}, ()))
            elif not _tighten(self.box, child.input, limit):
                raise Crossed(child.input, self.box[child.input])

    def take_parts(self, found: list[Part], work: Work) -> None:
        if self.union:
            self.found.extend(found)
        elif not found:
            self._drop()
        elif len(found) > 1:
            self.factors.append(found)
        else:
            work.spend(len(found[0].box) + len(found[0].rows))
            self.rows.extend(found[0].rows)
            if not all(_tighten(self.box, index, limit) for index, limit in found[0].box.items()):
                self._drop()

    def closed(self, work: Work) -> list[Part]:
        if self.union:
            return self.found
        if self.empty:
            return []
        result = [Part(self.box or ANYWHERE, tuple(self.rows))]
        for factor in self.factors:
            result = _product(result, factor, work)
        return result

    def _drop(self) -> None:
        self.empty = True
        self.todo.clear()


def _product(first: list[Part], second: list[Part], work: Work) -> list[Part]:
    """The parts of the conjunction of two unions; every pair of boxes is intersected once."""
    boxes: dict[tuple[int, int], Ranges | None] = {}
    result = []
    for one in first:
        for other in second:
            key = id(one.box), id(other.box)
            if key not in boxes:
                boxes[key] = _intersection(one.box, other.box, work)
            box = boxes[key]
            work.spend(1)
            if box is not None:
                work.spend(len(one.rows) + len(other.rows))
                result.append(Part(box, one.rows + other.rows))
    return result


def _intersection(one: Ranges, other: Ranges, work: Work) -> Ranges | None:
    """The box in both; None if it is empty."""
    if not one or not other:
        return one or other
    work.spend(len(one) + len(other))
    both = dict(one)
    return both if all(_tighten(both, index, limit) for index, limit in other.items()) else None


def _tighten(box: Ranges, index: int, limit: Range) -> bool:
    """Intersect the range of one input with ``limit``, in place; whether values are left."""
    old = box.get(index)
    if old is None:
        box[index] = limit
        return True
    lower, lower_open, upper, upper_open = old
    if limit.lower is not None and (lower is None or (limit.lower, limit.lower_open) > (lower, lower_open)):
        lower, lower_open = limit.lower, limit.lower_open
    if limit.upper is not None and (upper is None or (limit.upper, upper_open) < (upper, limit.upper_open)):
        upper, upper_open = limit.upper, limit.upper_open
    box[index] = new = Range(lower, lower_open, upper, upper_open)
    return not new.empty
