"""Counting a run: the numbers of ``summary.json`` and of the closing table, from the results as they pass."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lpverify.result import UNCERTIFIED, RadiusResult, Result, Verdict

T = TypeVar("T")


@dataclass
class Tally:
    """Counts over results that are not kept: evidence would fill the memory of a long run.

    Attributes:
        verdicts: results by verdict.
        misclassified: examples whose clean input already violates the claim; they are falsified as well.
        disagree: counterexamples that hold exactly but not in the float32 forward pass.
        methods: for every deciding method, its results by verdict.
        seconds: for every deciding method, the time of its examples.
        reasons: the unknown results by reason; the uncertified ones, each with its own words, are one.
        notes: faults of the run, each once, in the order of the results.
        trees, leaves: proofs by a split tree of several leaves, and the leaves of all of these.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    misclassified: int = 0
    disagree: int = 0
    methods: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    reasons: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    trees: int = 0
    leaves: int = 0

    def add(self, result: Result) -> None:
        """Count one result."""
        self.verdicts[result.verdict.value] += 1
        self.methods[result.method][result.verdict.value] += 1
        self.seconds[result.method] += result.seconds
        self.notes.update(dict.fromkeys(result.notes))
        if (result.leaves or 0) > 1:
            self.trees += 1
            self.leaves += result.leaves or 0
        if result.verdict is Verdict.UNKNOWN:
            self.reasons[UNCERTIFIED if result.reason.startswith(UNCERTIFIED) else result.reason] += 1
        if result.counterexample is not None:
            self.misclassified += result.counterexample.misclassified
            self.disagree += not result.counterexample.agrees

    @property
    def examples(self) -> int:
        """Number of results counted."""
        return self.verdicts.total()

    def share(self, count: int) -> float:
        """A count as a share of all results; 0 if there are none."""
        return count / self.examples if self.examples else 0.0

    @property
    def uncertified(self) -> int:
        """Number of unknown results for which a method claims a proof."""
        return self.reasons[UNCERTIFIED]

    @property
    def clean_error(self) -> float:
        """Share of examples whose clean input already violates the claim."""
        return self.share(self.misclassified)


def summary(tally: Tally, *, missing: int = 0, **parts: Any) -> dict[str, Any]:
    """The content of ``summary.json``; ``parts`` (options, network, data, seconds, ...) are passed through.

    Args:
        missing: examples that were asked about and have no result, because the run was stopped: the easy ones may come
            first, so that the others say nothing of them.
    """
    asked = tally.examples + missing
    return {
        "examples": tally.examples,
        "verified": tally.verdicts[Verdict.VERIFIED],
        "falsified": tally.verdicts[Verdict.FALSIFIED],
        "unknown": tally.verdicts[Verdict.UNKNOWN],
        "uncertified": tally.uncertified,
        "misclassified": tally.misclassified,
        "float32_disagrees": tally.disagree,
        "trees": tally.trees,
        "leaves": tally.leaves,
        # Of no examples nothing is known, least of all an error of 0.
        "clean_error": tally.clean_error if tally.examples and not missing else None,
        "robust_error_lower": tally.verdicts[Verdict.FALSIFIED] / asked if asked else None,
        "robust_error_upper": (asked - tally.verdicts[Verdict.VERIFIED]) / asked if asked else None,
        "methods": {
            name: {**{v.value: counts[v.value] for v in Verdict}, "seconds": round(tally.seconds[name], 6)}
            for name, counts in tally.methods.items()
        },
        "unknown_reasons": dict(tally.reasons),
        "notes": list(tally.notes),
        **parts,
    }


@dataclass
class RadiusTally:
    """Counts over the results of ``radius``: what each kind of radius is known for, and the reasons of what is missing.

    Attributes:
        certified, attacked: see ``RadiusResult``; finite ones only, and certified ones with a certificate.
        claimed, nearest: its exact radii from below and from above, where a solver was asked and answered.
        notes: as in ``Tally``.
    """

    certified: list[float] = field(default_factory=list)
    attacked: list[float] = field(default_factory=list)
    claimed: list[float] = field(default_factory=list)
    nearest: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    examples: int = 0

    def add(self, found: RadiusResult) -> None:
        """Count one result."""
        self.examples += 1
        if found.certificate is not None:
            self.certified.append(found.certified)
        known = ((found.attacked, self.attacked), (found.exact_lower, self.claimed), (found.exact_upper, self.nearest))
        for radius, radii in known:
            if math.isfinite(radius):
                radii.append(radius)
        if found.reason:
            self.reasons[found.reason] += 1
        self.notes.update(dict.fromkeys(found.notes))

    def summary(self, **parts: Any) -> dict[str, Any]:
        """How many examples have each kind of radius, and the quartiles; ``parts`` are passed through."""
        kinds = {name: getattr(self, name) for name in ("certified", "claimed", "nearest", "attacked")}
        return {
            "examples": self.examples,
            **{name: {"count": len(radii), **quartiles(radii)} for name, radii in kinds.items()},
            "reasons": dict(self.reasons),
            "notes": list(self.notes),
            **parts,
        }


def quartiles(values: list[float]) -> dict[str, float | None]:
    """The least value, the quartiles and the greatest (inclusive method); null without values."""
    names = ("least", "quarter", "median", "three_quarters", "greatest")
    if not values:
        return dict.fromkeys(names)
    ordered = sorted(values)
    inner = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return dict(zip(names, (ordered[0], *inner, ordered[-1]), strict=True))


class Stopwatch:
    """Seconds by stage: ``with watch("load"): ...``, or around the items of an iterator."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.stages: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to ``stage``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage] += time.perf_counter() - begin

    def iterate(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Pass the items on; the time that each takes to come is added to ``stage``."""
        source = iter(items)
        while True:
            try:
                with self(stage):
                    item = next(source)
            except StopIteration:
                return
            yield item

    def seconds(self) -> dict[str, float]:
        """The stages and the total so far, rounded for a file."""
        stages = {**self.stages, "total": time.perf_counter() - self.start}
        return {name: round(value, 6) for name, value in stages.items()}
