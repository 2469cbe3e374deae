"""Linear terms in exact rationals, and the comparisons of two of them.

A term is a constant (Fraction), a variable (int: i for input i, -1 - j for output j) or a Sum of both. Every term
is an argument of one function only, so that a Sum may be changed in place: sums nested n deep take linear time.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction

from lpverify.certificate.claim import COMMON_BITS, Inequality
from lpverify.vnnlib.formula import Bound, Formula, joined
from lpverify.vnnlib.work import Refused, Work

DIGITS = 400
BITS = 1326  # below 10**400, the longest integer that a stored claim may hold
LARGEST, MAX_EXP = Fraction(sys.float_info.max), sys.float_info.max_exp
NUMBER = re.compile(r"([-+]?)([0-9]*)\.?([0-9]*)(?:[eE]([-+]?[0-9]{1,9}))?")
COMPARISONS = frozenset(["<=", "<", ">=", ">", "=", "==", "!="])


class Sum:
    """The sum of ``terms[v]`` times variable v, plus ``constant``; no coefficient is 0."""

    __slots__ = ("constant", "terms")

    def __init__(self, terms: dict[int, Fraction], constant: Fraction) -> None:
        self.terms, self.constant = terms, constant


Term = Fraction | int | Sum
ZERO, ONE = Fraction(0), Fraction(1)


def number(text: str) -> Fraction | None:
    """The exact value of a decimal; None if ``text`` is none. Raises Refused if it is too long or too large."""
    if len(text) > DIGITS:
        raise Refused(f"has {len(text)} characters; names and numbers of at most {DIGITS} are read")
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, part, power = found.groups()
    if not whole + part:
        return None
    exponent = (int(power) if power else 0) - len(part)
    digits = int(whole + part)
    if abs(exponent) > DIGITS:
        raise Refused(f"has an exponent beyond {DIGITS}; round it")
    value = Fraction(digits * 10**exponent) if exponent >= 0 else Fraction(digits, 10**-exponent)
    return checked(-value if sign == "-" else value)


def checked(value: Fraction) -> Fraction:
    """``value``; raises Refused if float64 has none so large, or if it takes more digits than a claim may."""
    above, below = value.numerator.bit_length(), value.denominator.bit_length()
    if above - below >= MAX_EXP - 1 and abs(value) > LARGEST:
        raise Refused("has a constant beyond the range of float64; use finite numbers")
    if above > BITS or below > BITS:
        raise Refused("has a constant of more than 399 digits; round the constants of the file")
    return value


def require_common(values: Iterable[Fraction]) -> None:
    """Raises Refused if the common denominator of ``values`` is longer than a claim may have."""
    common = 1
    for value in values:
        common = math.lcm(common, value.denominator)
        if common.bit_length() > COMMON_BITS:
            raise Refused(f"has constants whose common denominator takes over {COMMON_BITS} bits; round them")


def add(args: Sequence[Term], negative_from: int, work: Work) -> Term:
    """The sum of ``args``, those from index ``negative_from`` on subtracted."""
    sums = [index for index, arg in enumerate(args) if isinstance(arg, Sum)]
    place = max(sums, key=lambda index: len(_terms(args[index])), default=-1)
    total = args[place] if sums else Sum({}, ZERO)
    assert isinstance(total, Sum)
    if sums and place >= negative_from:
        total = _scaled(total, Fraction(-1), work)
    terms = total.terms
    for index, arg in enumerate(args):
        sign = -ONE if index >= negative_from else ONE
        if index == place:
            continue
        if isinstance(arg, Fraction):
            total.constant = checked(total.constant + sign * arg)
        elif isinstance(arg, int):
            _increase(terms, arg, sign)
        else:
            total.constant = checked(total.constant + sign * arg.constant)
            for variable, coefficient in arg.terms.items():
                _increase(terms, variable, sign * coefficient)
    return total if terms else total.constant


def multiply(args: Sequence[Term], work: Work) -> Term:
    """The product of ``args``, of which one may depend on variables."""
    factor, variable = ONE, None
    for arg in args:
        if isinstance(arg, Fraction):
            factor = checked(factor * arg)
        elif variable is not None:
            raise Refused("is a product of variables; only products with constants are linear")
        else:
            variable = arg
    return factor if variable is None else _simple(_scaled(_as_sum(variable), factor, work))


def divide(args: Sequence[Term], work: Work) -> Term:
    """The quotient of two terms, the second a constant."""
    if len(args) != 2 or not isinstance(args[1], Fraction):
        raise Refused("does not divide one term by one constant")
    if not args[1]:
        raise Refused("divides by 0")
    return multiply([args[0], checked(1 / args[1])], work)


def compare(operator: str, args: Sequence[Term], work: Work) -> Formula:
    """The formula ``args[0] operator args[1]``.

    A comparison of outputs becomes the row whose failure it is: c.y + k <= 0 holds where c.y + k > 0 fails.
    """
    if len(args) != 2:
        raise Refused(f"compares {len(args)} terms; write comparisons of two terms")
    if operator in ("=", "=="):
        low, high = _between(args, work)
        return joined(False, [low, high])
    if operator == "!=":
        low, high = _between(args, work, open_=True)
        return joined(True, [low, high])
    first, second = args if operator[0] == "<" else (args[1], args[0])
    open_ = len(operator) == 1
    # Nearly all comparisons of a file are such bounds: taken directly they are read twice as fast.
    if isinstance(first, int) and first >= 0 and isinstance(second, Fraction):
        return Bound(first, True, second, open_)
    if isinstance(second, int) and second >= 0 and isinstance(first, Fraction):
        return Bound(second, False, first, open_)
    return _below(_difference(first, second, work), open_)


def _between(args: Sequence[Term], work: Work, open_: bool = False) -> tuple[Formula, Formula]:
    """``args[0]`` below ``args[1]``, and above it."""
    difference = _difference(args[0], args[1], work)
    negative = Sum({v: -c for v, c in difference.terms.items()}, -difference.constant)
    return _below(difference, open_), _below(negative, open_)


def _below(difference: Sum, open_: bool) -> Formula:
    """The formula difference <= 0, or < 0 if ``open_``."""
    terms, constant = difference.terms, difference.constant
    if not terms:
        return constant < 0 if open_ else constant <= 0
    inputs = [variable for variable in terms if variable >= 0]
    if not inputs:
        units = sorted(-1 - variable for variable in terms)
        coefficients = tuple(terms[-1 - unit] for unit in units)
        require_common(coefficients)
        return Inequality(tuple(units), coefficients, constant, not open_)
    if len(inputs) < len(terms):
        raise Refused("mixes inputs and outputs; only bounds of inputs and linear constraints of outputs are read")
    if len(inputs) > 1:
        raise Refused("constrains several inputs together; the inputs must lie in boxes: bound each input by constants")
    coefficient = terms[inputs[0]]
    return Bound(inputs[0], coefficient > 0, checked(-constant / coefficient), open_)


def _difference(first: Term, second: Term, work: Work) -> Sum:
    return _as_sum(add([first, second], 1, work))


def _as_sum(term: Term) -> Sum:
    if isinstance(term, Sum):
        return term
    return Sum({}, term) if isinstance(term, Fraction) else Sum({term: ONE}, ZERO)


def _simple(total: Sum) -> Term:
    return total if total.terms else total.constant


def _terms(term: Term) -> dict[int, Fraction]:
    return term.terms if isinstance(term, Sum) else {}


def _scaled(total: Sum, factor: Fraction, work: Work) -> Sum:
    """``total`` times ``factor``, in place."""
    work.spend(len(total.terms) - 1)
    if not factor:
        total.terms.clear()
    for variable in total.terms:
        total.terms[variable] = checked(total.terms[variable] * factor)
    total.constant = checked(total.constant * factor)
    return total


def _increase(terms: dict[int, Fraction], variable: int, amount: Fraction) -> None:
    value = terms.get(variable, ZERO) + amount
    if value:
        terms[variable] = checked(value)
    else:
        del terms[variable]
