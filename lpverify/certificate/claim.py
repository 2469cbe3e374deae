"""The exact statement that a proof or a witness is about. Standard library only.

    region   all x with |x - center| <= eps in the norm "inf", "2" or "1" (and clip[0] <= x <= clip[1]), where
             eps and clip are decimals taken exactly and center is the stored array; or lower <= x <= upper, where
             lower and upper are stored arrays ("box") or exact rationals ("rational box")
    rows     every row of C f(x) + d is > 0; a label claim has the rows e_label - e_j, j != label, j rising
    clauses  in every clause some row c.f(x) + constant is > 0 (or >= 0, if the row is not strict), all in exact
             rationals; a clause without rows holds nowhere, so that only an empty region proves it

In a header: {"kind": "ball", "norm": "inf", "eps": "0.1", "clip": ["0", "1"] or null, "center": array} or
{"kind": "box", "lower": array, "upper": array} or {"kind": "rational box", "lower": ["1/10", ...], "upper": [...]};
{"label": 7, "classes": 10} or {"C": array, "d": array} or {"outputs": 5, "clauses": [[{"units": [0, 3],
"coefficients": ["1", "-1"], "constant": "-7/2", "strict": true}, ...], ...]}. Rationals are in lowest terms.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

from lpverify.certificate.container import Packed, RawArray
from lpverify.errors import CertificateError

DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?")
RATIONAL = re.compile(r"-?[0-9]{1,400}(/[1-9][0-9]{0,399})?")
COMMON_BITS = 4096
REAL = ("<f4", "<f8")


def decimal(text: Any) -> Fraction:
    """The exact value of a decimal like "0.1" or "-1e-05"; raises CertificateError for anything else."""
    if not isinstance(text, str) or not DECIMAL.fullmatch(text):
        raise CertificateError(f"{text!r} is not a decimal number")
    return Fraction(text)


def rational(text: Any) -> Fraction:
    """The value of a rational in lowest terms, as ``str`` writes a Fraction; raises CertificateError otherwise."""
    if isinstance(text, str) and RATIONAL.fullmatch(text):
        found = Fraction(text)
        if str(found) == text:
            return found
    raise CertificateError(f"{str(text)[:60]!r} is not a rational number in lowest terms of at most 400 digits")


@dataclass(frozen=True)
class BallRegion:
    """The ball about ``center`` (n_0,) of decimal radius ``eps`` in ``norm``, inside ``clip`` (two decimals)."""

    center: RawArray
    eps: str
    norm: str
    clip: tuple[str, str] | None


@dataclass(frozen=True)
class BoxRegion:
    """All x with lower <= x <= upper, both (n_0,)."""

    lower: RawArray
    upper: RawArray


@dataclass(frozen=True)
class RationalBox:
    """All x with lower <= x <= upper in exact rationals, both of length n_0."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]


@dataclass(frozen=True)
class LabelRows:
    """The claim that class ``label`` of ``classes`` has strictly the largest output."""

    label: int
    classes: int


@dataclass(frozen=True)
class LinearRows:
    """The claim C f(x) + d > 0: ``C`` (m, n_K), ``d`` (m,)."""

    C: RawArray
    d: RawArray


@dataclass(frozen=True)
class Inequality:
    """One row: the sum of ``coefficients`` times the outputs ``units`` (rising), plus ``constant``, > 0 or >= 0."""

    units: tuple[int, ...]
    coefficients: tuple[Fraction, ...]
    constant: Fraction
    strict: bool


@dataclass(frozen=True)
class ClauseRows:
    """The claim that in each of ``clauses`` some row holds, for a network of ``outputs`` outputs."""

    outputs: int
    clauses: tuple[tuple[Inequality, ...], ...]


Region = BallRegion | BoxRegion | RationalBox
Rows = LabelRows | LinearRows | ClauseRows


@dataclass(frozen=True)
class Claim:
    """A region and the rows that are to hold on all of it."""

    region: Region
    rows: Rows

    @property
    def inputs(self) -> int:
        """Number of inputs n_0."""
        if isinstance(self.region, RationalBox):
            return len(self.region.lower)
        return (self.region.center if isinstance(self.region, BallRegion) else self.region.lower).shape[0]

    @property
    def num_rows(self) -> int:
        """Number of rows m, in all clauses together."""
        if isinstance(self.rows, ClauseRows):
            return sum(map(len, self.rows.clauses))
        return self.rows.classes - 1 if isinstance(self.rows, LabelRows) else self.rows.C.shape[0]

    @property
    def outputs(self) -> int:
        """Number of outputs n_K."""
        if isinstance(self.rows, ClauseRows):
            return self.rows.outputs
        return self.rows.classes if isinstance(self.rows, LabelRows) else self.rows.C.shape[1]

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """The row numbers of each clause; of a label or linear claim every row is a clause of its own."""
        if not isinstance(self.rows, ClauseRows):
            return tuple((row,) for row in range(self.num_rows))
        ends = [0, *accumulate(map(len, self.rows.clauses))]
        return tuple(tuple(range(start, end)) for start, end in pairwise(ends))


def encode_claim(claim: Claim, arrays: list[RawArray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header's "region" and "claim" entries; appends their arrays to ``arrays``."""

    def store(raw: RawArray) -> dict[str, int]:
        arrays.append(raw)
        return {"array": len(arrays) - 1}

    region, rows = claim.region, claim.rows
    if isinstance(region, BallRegion):
        clip = list(region.clip) if region.clip is not None else None
        where: dict[str, Any] = {
            "kind": "ball", "norm": region.norm, "eps": region.eps, "clip": clip, "center": store(region.center)
        }
    elif isinstance(region, RationalBox):
        where = {"kind": "rational box", "lower": list(map(str, region.lower)), "upper": list(map(str, region.upper))}
    else:
        where = {"kind": "box", "lower": store(region.lower), "upper": store(region.upper)}
    if isinstance(rows, LabelRows):
        return where, {"label": rows.label, "classes": rows.classes}
    if isinstance(rows, ClauseRows):
        listed = [[_written(row) for row in clause] for clause in rows.clauses]
        return where, {"outputs": rows.outputs, "clauses": listed}
    return where, {"C": store(rows.C), "d": store(rows.d)}


def _written(row: Inequality) -> dict[str, Any]:
    return {
        "units": list(row.units), "coefficients": list(map(str, row.coefficients)),
        "constant": str(row.constant), "strict": row.strict,
    }  # fmt: skip


def decode_claim(packed: Packed) -> Claim:
    """Read a claim from a container's header; raises CertificateError if it is not well-formed."""
    where, what = packed.header.get("region"), packed.header.get("claim")
    if not isinstance(where, dict) or not isinstance(what, dict):
        raise CertificateError(f"{packed.name}: the header has no region or no claim")
    return Claim(_region(packed, where), _rows(packed, what))


def _region(packed: Packed, where: dict[str, Any]) -> Region:
    if where.get("kind") == "rational box":
        return _rational_box(packed, where)
    if where.get("kind") == "box":
        lower, upper = _vector(packed, where.get("lower")), _vector(packed, where.get("upper"))
        if lower.shape != upper.shape or not all(a <= b for a, b in zip(lower.values(), upper.values(), strict=True)):
            raise CertificateError(f"{packed.name}: the box has lower above upper, or of another length")
        return BoxRegion(lower, upper)
    clip = where.get("clip")
    if where.get("kind") != "ball" or where.get("norm") not in ("inf", "2", "1"):
        raise CertificateError(f"{packed.name}: unknown region {where.get('kind')!r}, norm {where.get('norm')!r}")
    if clip is not None and (not isinstance(clip, list) or len(clip) != 2 or decimal(clip[0]) > decimal(clip[1])):
        raise CertificateError(f"{packed.name}: clip {clip!r} is not two rising decimals")
    if decimal(where.get("eps")) < 0:
        raise CertificateError(f"{packed.name}: eps {where.get('eps')!r} is negative")
    center = _vector(packed, where.get("center"))
    return BallRegion(center, where["eps"], where["norm"], (clip[0], clip[1]) if clip is not None else None)


def _rational_box(packed: Packed, where: dict[str, Any]) -> RationalBox:
    lower, upper = _rationals(packed, where.get("lower")), _rationals(packed, where.get("upper"))
    if set(where) != {"kind", "lower", "upper"} or not lower or len(lower) != len(upper):
        raise CertificateError(f"{packed.name}: the rational box has {len(lower)} lower and {len(upper)} upper ends")
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if low > high:
            raise CertificateError(f"{packed.name}: input {index} of the rational box has lower {low} above {high}")
    _require_common(packed, lower + upper)
    return RationalBox(lower, upper)


def _rows(packed: Packed, what: dict[str, Any]) -> Rows:
    if "clauses" in what:
        return _clauses(packed, what)
    if "label" in what:
        label, classes = what["label"], what.get("classes")
        if type(label) is not int or type(classes) is not int or not 0 <= label < classes or not 2 <= classes <= 10**4:
            raise CertificateError(f"{packed.name}: label {label!r} of {classes!r} classes")
        return LabelRows(label, classes)
    C, d = packed.array(what.get("C"), ndim=2), _vector(packed, what.get("d"))
    if C.dtype not in REAL or C.shape[0] != d.shape[0] or not C.shape[0] or not all(map(math.isfinite, C.values())):
        raise CertificateError(f"{packed.name}: the claim's C {C.dtype} {C.shape} and d {d.shape} do not fit")
    return LinearRows(C, d)


def _vector(packed: Packed, reference: Any) -> RawArray:
    found = packed.array(reference, ndim=1)
    if found.dtype not in REAL or not all(map(math.isfinite, found.values())):
        raise CertificateError(f"{packed.name}: a vector is {found.dtype} or holds NaN or infinity")
    return found


def _clauses(packed: Packed, what: dict[str, Any]) -> ClauseRows:
    outputs, clauses = what.get("outputs"), what["clauses"]
    if set(what) != {"outputs", "clauses"} or type(outputs) is not int or not 1 <= outputs < 2**31:
        raise CertificateError(f"{packed.name}: a claim of clauses with {outputs!r} outputs or unknown fields")
    if not isinstance(clauses, list) or not clauses or not all(isinstance(clause, list) for clause in clauses):
        raise CertificateError(f"{packed.name}: the clauses are not lists of rows, or there are none")
    return ClauseRows(outputs, tuple(tuple(_inequality(packed, row, outputs) for row in clause) for clause in clauses))


def _inequality(packed: Packed, row: Any, outputs: int) -> Inequality:
    if not isinstance(row, dict) or set(row) != {"units", "coefficients", "constant", "strict"}:
        raise CertificateError(f"{packed.name}: a row has unknown or missing fields")
    units, coefficients, strict = row["units"], _rationals(packed, row["coefficients"]), row["strict"]
    if not isinstance(units, list) or not all(type(unit) is int and 0 <= unit < outputs for unit in units):
        raise CertificateError(f"{packed.name}: the units of a row are not outputs in 0..{outputs - 1}")
    if any(a >= b for a, b in pairwise(units)) or len(units) != len(coefficients) or type(strict) is not bool:
        raise CertificateError(f"{packed.name}: the units of a row do not rise, or it has other coefficients")
    _require_common(packed, coefficients)
    return Inequality(tuple(units), coefficients, rational(row["constant"]), strict)


def _rationals(packed: Packed, texts: Any) -> tuple[Fraction, ...]:
    if not isinstance(texts, list):
        raise CertificateError(f"{packed.name}: expected a list of rationals")
    return tuple(map(rational, texts))


def _require_common(packed: Packed, values: tuple[Fraction, ...]) -> None:
    """Refuse rationals whose common denominator is so long that exact arithmetic with it would crawl."""
    common = 1
    for value in values:
        common = math.lcm(common, value.denominator)
        if common.bit_length() > COMMON_BITS:
            raise CertificateError(f"{packed.name}: the common denominator of rationals has over {COMMON_BITS} bits")
