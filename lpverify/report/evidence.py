"""What the checker finds of a run's evidence at this moment, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lpverify.runs.audit import Judged, Run, judge_lines
from lpverify.runs.cascade_audit import judge_cascade

# Passes on what comes from an iterator, whose length is given, while a bar counts it.
Watched = Callable[[Iterator[Judged], int], Iterator[Judged]]
ARITHMETIC = "rigorous float64"


@dataclass(frozen=True)
class Checked:
    """Evidence that was accepted, all that there is: anything else is a CertificateError.

    Attributes:
        certificates: accepted by the checker, in ``arithmetic``; ``leaves`` of all of them together.
        counterexamples: accepted by exact evaluation.
        without: lines that claim nothing.
    """

    certificates: int
    counterexamples: int
    leaves: int
    without: int
    arithmetic: str = ARITHMETIC


def check_run(run: Run, watched: Watched) -> Checked:
    """Check every line's evidence.

    Raises:
        CertificateError: at the first piece that is missing, malformed, foreign or rejected.
    """
    certificates = counterexamples = leaves = without = 0
    for judged in watched(judge_lines(run), len(run.lines)):
        certificates += judged.kind in ("certificate", "both")
        counterexamples += judged.kind in ("witness", "both")
        without += judged.kind == "nothing"
        leaves += judged.leaves
    return Checked(certificates, counterexamples, leaves, without)


def check_cascade(path: Path) -> Checked:
    """The same of a cascade's run: the certificates and counterexamples of all its stages."""
    found = judge_cascade(path)
    return Checked(found.certificates, found.witnesses, found.leaves, found.verdicts.get("unknown", 0))
