"""Part 1: the adversarial families through every engine in both semantics."""

from __future__ import annotations

from lpverify.certificate.proof import SEMANTICS
from soundness.families import families
from soundness.judging import ENGINES, ask, ask_bounds
from soundness.report import Given, Tally


def total(given: Given) -> int:
    """Networks of the whole part."""
    return sum(map(len, families().values()))


def run(tally: Tally, items: int, given: Given) -> None:
    """Every engine on ``items`` networks, spread over the families."""
    cases = [case for family in families().values() for case in family]
    # Multiples of the golden ratio: any first part of the cases has its share of every family.
    spread = sorted(range(len(cases)), key=lambda i: i * 0.6180339887 % 1)
    for case in (cases[i] for i in spread[:items]):
        if tally.over:
            return
        ask_bounds(tally, case)
        for engine in ENGINES:
            for semantics in SEMANTICS:
                ask(tally, case, engine, semantics)
        tally.done += 1
