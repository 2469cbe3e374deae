"""Counts over the lines of a run: by method, by reason, and the quartiles of radii."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpverify.report.fields import number, text
from lpverify.result import MISCLASSIFIED, UNCERTIFIED
from lpverify.runs.summary import quartiles

Record = Mapping[str, Any]
VERDICTS = ("verified", "falsified", "unknown")
RADII = ("certified", "exact_lower", "exact_upper", "attacked")
# Reasons and methods that are shown; further ones, of which only a strange run has any, are counted together.
SHOWN = 12


@dataclass(frozen=True)
class MethodCount:
    """The examples that a method decided (or tried last), by verdict, and their seconds together.

    In a run of radii, ``verified`` are those with a certificate, ``falsified`` those with a counterexample.
    """

    name: str
    verified: int
    falsified: int
    unknown: int
    examples: int
    seconds: float


def misclassified(records: Sequence[Record]) -> int:
    """The falsified whose clean input is the counterexample."""
    return sum(
        record.get("verdict") == "falsified" and text(record.get("reason")).startswith(MISCLASSIFIED)
        for record in records
    )


def methods(records: Sequence[Record], *, is_radius: bool) -> tuple[MethodCount, ...]:
    """By what decided, the most frequent first; in a cascade, by the stage that answered."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        stage = record.get("stage")
        name = text(record.get("method")) or ("none" if stage is None else f"stage {text(stage)}")
        found = counts.setdefault(name, Counter())
        found["examples"] += 1
        # The lines have microseconds, whose sum depends on no order.
        found["microseconds"] += round(1e6 * (number(record.get("seconds")) or 0))
        if is_radius:
            found["verified"] += record.get("certificate") is not None
            found["falsified"] += record.get("counterexample") is not None
        else:
            found[str(record.get("verdict"))] += 1
    order = sorted(counts, key=lambda name: (-counts[name]["examples"], name))
    if len(order) > SHOWN:
        rest = order[SHOWN - 1 :]
        order = [*order[: SHOWN - 1], f"{len(rest)} others"]
        counts[order[-1]] = sum((counts[name] for name in rest), Counter())
    return tuple(_count(name, counts[name]) for name in order)


def _count(name: str, found: Counter[str]) -> MethodCount:
    return MethodCount(
        name, found["verified"], found["falsified"], found["unknown"], found["examples"], found["microseconds"] / 1e6
    )


def reasons(records: Sequence[Record]) -> tuple[tuple[str, int], ...]:
    """Reasons and how often each was given; the uncertified ones, each with its own words, are one."""
    counts: Counter[str] = Counter()
    for record in records:
        reason = text(record.get("reason"))
        if reason or "verdict" in record:
            counts[UNCERTIFIED if reason.startswith(UNCERTIFIED) else reason or "no reason given"] += 1
    found = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    if len(found) > SHOWN:
        rest = found[SHOWN - 1 :]
        found = [*found[: SHOWN - 1], (f"{len(rest)} other reasons", sum(count for _, count in rest))]
    return tuple(found)


def radii(records: Sequence[Record]) -> tuple[tuple[str, int, Mapping[str, float | None]], ...]:
    """Each kind of radius that some line has, how many have it, and the quartiles."""
    found = []
    for name in RADII:
        known = [record for record in records if name != "certified" or record.get("certificate") is not None]
        radii = [value for value in (number(record.get(name)) for record in known) if value is not None]
        if radii or name in ("certified", "attacked"):
            found.append((name, len(radii), quartiles(radii)))
    return tuple(found)
