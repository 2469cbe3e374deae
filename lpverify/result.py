"""What comes out for one example: Verdict, Result and Counterexample, and their JSON form."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.claim import Claim
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import Witness


class Verdict(enum.StrEnum):
    """The three answers. VERIFIED carries a certificate, FALSIFIED a counterexample, UNKNOWN a reason."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"


# How the reason begins where a method claims a proof that the checker does not find.
UNCERTIFIED = "uncertified"
# So many crashes of solvers are kept of a run.
MOST_CRASHES = 20
# How the reason begins where an example was refused by itself and never looked at.
REFUSED = "refused"
# How the reason begins where the clean input itself is the counterexample.
MISCLASSIFIED = "misclassified"


@dataclass(frozen=True, eq=False)
class Counterexample:
    """A point of the exact input set where the claim fails.

    Attributes:
        x: (n_0,) float64 values of the point, each exactly a float32 where the input was float32.
        row: the claim's row that fails; in a claim of clauses, the clause all of whose rows fail.
        margin: that row's value C f(x) + d (a clause's: the greatest of its rows'), evaluated exactly and rounded to
            the nearest float64; <= 0.
        margin_float32: the same in the float32 forward pass.
        misclassified: the point is the clean input itself, which already violates the claim.
        outputs: (n_K,) of the float32 forward pass, where they are kept.
    """

    x: NDArray[np.float64]
    row: int
    margin: float
    margin_float32: float
    misclassified: bool = False
    outputs: NDArray[np.float32] | None = None

    def witness(self, claim: Claim, network_sha256: str) -> Witness:
        """The content of its file, about the network of this SHA-256."""
        point = np.ascontiguousarray(self.x, dtype="<f8")
        x = RawArray("<f8", point.shape, point.tobytes())
        return Witness(network_sha256, claim, x, self.row, self.margin, self.margin_float32)

    @property
    def agrees(self) -> bool:
        """Whether the float32 forward pass fails the claim as well."""
        return self.margin_float32 <= 0

    @property
    def note(self) -> str:
        """What a result must say where the two forward passes disagree; empty if they agree."""
        return "" if self.agrees else f"the float32 forward pass gives {self.margin_float32:.3g} at the witness"


@dataclass(frozen=True)
class Replay:
    """What is kept of a solver that crashed: a text for people, and its program's file (.mps.gz), empty without one."""

    text: str
    program: bytes


def noted(notes: Sequence[str]) -> dict[str, str]:
    """A line's entry for notes; without any there is none."""
    return {"notes": "; ".join(notes)} if notes else {}


def notes_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes of a line."""
    return tuple(filter(None, record.get("notes", "").split("; ")))


@dataclass(frozen=True, eq=False)
class Result:
    """The answer for one example.

    Attributes:
        index: the example's index in its data set.
        verdict: see Verdict.
        reason: why unknown, or what else must be said; empty otherwise.
        method: the method that decided (or the last one tried).
        semantics: "real" or "float32", see the certificate.
        margins: (m,) proved lower bounds of the claim's rows (the checker's where verified); NaN where none.
        seconds: time spent on this example (its share of the batches it was in).
        label, predicted: the classes, where the claim is a label.
        counterexample, certificate: the evidence; the certificate as the bytes of its file.
        claimed: (m,) lower bounds that engines and solvers claim, proved or not; NaN where none.
        leaves: of the certificate, where they were counted.
        nodes: that a search bounded, where there was one.
        replay: of the example's solver, where it crashed.
        notes: faults of the run that came between the result before and this one, such as memory that ran out. No
            note holds a semicolon.
    """

    index: int
    verdict: Verdict
    reason: str
    method: str
    semantics: str
    margins: NDArray[np.float64]
    seconds: float
    label: int | None = None
    predicted: int | None = None
    counterexample: Counterexample | None = None
    certificate: bytes | None = None
    claimed: NDArray[np.float64] | None = None
    leaves: int | None = None
    nodes: int | None = None
    notes: tuple[str, ...] = ()
    replay: Replay | None = None

    @classmethod
    def refused(cls, index: int, reason: str, label: int | None = None) -> Result:
        """The line of an example that cannot be used: unknown, without any claim."""
        return cls(index, Verdict.UNKNOWN, f"{REFUSED}: {reason}", "none", "", np.zeros(0), 0.0, label)

    @property
    def margin_lower(self) -> float:
        """The least proved lower bound over the claim's rows; NaN if some row has none."""
        return float(self.margins.min()) if self.margins.size else math.nan

    def record(self, certificate: str | None, counterexample: str | None) -> dict[str, Any]:
        """The line of ``results.jsonl``; the two arguments are the evidence files' paths in the run folder."""
        lower = self.margin_lower
        claimed = math.nan if self.claimed is None or not self.claimed.size else float(self.claimed.min())
        counted = {name: n for name, n in (("leaves", self.leaves), ("nodes", self.nodes)) if n is not None}
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "method": self.method,
            "margin_lower": lower if math.isfinite(lower) else None,
            "margin_claimed": claimed if math.isfinite(claimed) else None,
            "seconds": round(self.seconds, 6),
            **counted,
            **noted(self.notes),
            "certificate": certificate,
            "counterexample": counterexample,
        }


@dataclass(frozen=True, eq=False)
class RadiusResult:
    """What is known of one example's radius, in raw input units.

    Attributes:
        index: the example.
        certified: the largest radius with an accepted certificate, 0 if none (0 also if misclassified).
        attacked: the distance of the nearest counterexample that the attack found; infinite if none within the limit.
        exact_lower: the exact radius is at least this, a solver claims; NaN where none was asked or answered.
        exact_upper: the distance of the nearest counterexample known, the one at the solver's point included; NaN
            where no solver was asked or answered.
        seconds: its share of the batch's time, and the time of its own solves.
        method: the bound that certified.
        certificate: the file proving ``certified``, or None.
        counterexample: the file of the nearest counterexample known, or None.
        reason: why a solver's answer is missing or doubtful; empty otherwise.
        notes: as in ``Result``.
    """

    index: int
    certified: float
    attacked: float
    seconds: float
    certificate: bytes | None
    exact_lower: float = math.nan
    exact_upper: float = math.nan
    method: str = "crown"
    counterexample: bytes | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
