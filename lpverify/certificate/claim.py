"""The exact statement that a proof or a witness is about. Standard library only.

    region   all x with |x - center| <= eps in the norm "inf", "2" or "1" (and clip[0] <= x <= clip[1]), where
             eps and clip are decimals taken exactly and center is the stored array; or lower <= x <= upper
    rows     every row of C f(x) + d is > 0; a label claim has the rows e_label - e_j, j != label, j rising

In a header: {"kind": "ball", "norm": "inf", "eps": "0.1", "clip": ["0", "1"] or null, "center": array} or
{"kind": "box", "lower": array, "upper": array}; {"label": 7, "classes": 10} or {"C": array, "d": array}.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lpverify.certificate.container import Packed, RawArray
from lpverify.errors import CertificateError

DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?")
REAL = ("<f4", "<f8")


def decimal(text: Any) -> Fraction:
    """The exact value of a decimal like "0.1" or "-1e-05"; raises CertificateError for anything else."""
    if not isinstance(text, str) or not DECIMAL.fullmatch(text):
        raise CertificateError(f"{text!r} is not a decimal number")
    return Fraction(text)


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
class Claim:
    """A region and the rows that are to hold on all of it."""

    region: BallRegion | BoxRegion
    rows: LabelRows | LinearRows

    @property
    def inputs(self) -> int:
        """Number of inputs n_0."""
        return (self.region.center if isinstance(self.region, BallRegion) else self.region.lower).shape[0]

    @property
    def num_rows(self) -> int:
        """Number of rows m."""
        return self.rows.classes - 1 if isinstance(self.rows, LabelRows) else self.rows.C.shape[0]

    @property
    def outputs(self) -> int:
        """Number of outputs n_K."""
        return self.rows.classes if isinstance(self.rows, LabelRows) else self.rows.C.shape[1]


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
    else:
        where = {"kind": "box", "lower": store(region.lower), "upper": store(region.upper)}
    if isinstance(rows, LabelRows):
        return where, {"label": rows.label, "classes": rows.classes}
    return where, {"C": store(rows.C), "d": store(rows.d)}


def decode_claim(packed: Packed) -> Claim:
    """Read a claim from a container's header; raises CertificateError if it is not well-formed."""
    where, what = packed.header.get("region"), packed.header.get("claim")
    if not isinstance(where, dict) or not isinstance(what, dict):
        raise CertificateError(f"{packed.name}: the header has no region or no claim")
    return Claim(_region(packed, where), _rows(packed, what))


def _region(packed: Packed, where: dict[str, Any]) -> BallRegion | BoxRegion:
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


def _rows(packed: Packed, what: dict[str, Any]) -> LabelRows | LinearRows:
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
