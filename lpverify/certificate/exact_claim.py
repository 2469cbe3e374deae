"""The claim's rows as integers, and combinations of them. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from lpverify.certificate.claim import Claim, LabelRows, LinearRows
from lpverify.certificate.exact_linear import integers, scaled

Row = tuple[dict[int, int], int]  # {unit: integer} without most zeros, and their common exponent


class Form(NamedTuple):
    """``row``.f(x) + ``constant``, which is a row of the claim times the whole number ``multiple`` >= 1."""

    row: Row
    constant: Fraction
    multiple: int = 1


NO_FORM = Form(({}, 0), Fraction(0))


def claim_forms(claim: Claim) -> Iterator[Form]:
    """The claim's rows; those of clauses times the least common multiple of their coefficients' denominators."""
    if isinstance(claim.rows, LabelRows):
        label = claim.rows.label
        for other in range(claim.rows.classes):
            if other != label:
                yield Form(({label: 1, other: -1}, 0), Fraction(0))
    elif isinstance(claim.rows, LinearRows):
        entries, width = claim.rows.C.values(), claim.rows.C.shape[1]
        for index, constant in enumerate(claim.rows.d.values()):
            whole, exponent = integers(entries[index * width : (index + 1) * width])
            yield Form(({unit: n for unit, n in enumerate(whole) if n}, exponent), Fraction(constant))
    else:
        for row in (row for clause in claim.rows.clauses for row in clause):
            multiple = math.lcm(*(c.denominator for c in row.coefficients))
            whole = [int(c * multiple) for c in row.coefficients]
            yield Form((dict(zip(row.units, whole, strict=True)), 0), row.constant * multiple, multiple)


def value(form: Form, outputs: Sequence[Fraction]) -> Fraction:
    """The value of the claim's row at exact ``outputs`` (n_K,)."""
    whole, exponent = form.row
    found = form.constant + sum((scaled(n, exponent) * outputs[unit] for unit, n in whole.items()), Fraction(0))
    return found / form.multiple


def combined(forms: Sequence[Form], weights: Sequence[float]) -> Form:
    """The sum of weights[r] times forms[r]."""
    used = [r for r, weight in enumerate(weights) if weight]
    factors, unit = integers([weights[r] for r in used])
    least = min(forms[r].row[1] for r in used)
    entries, constant = dict[int, int](), Fraction(0)
    for r, factor in zip(used, factors, strict=True):
        whole, exponent = forms[r].row
        for output, n in whole.items():
            entries[output] = entries.get(output, 0) + (factor * n << exponent - least)
        constant += factor * forms[r].constant
    return Form((entries, least + unit), constant * scaled(1, unit))
