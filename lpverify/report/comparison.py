"""Several runs side by side: what they were asked, where their verdicts differ, and where they contradict each other.

Two runs contradict each other where one proves a claim that the other refutes: about the same network, input, label,
norm, clip and semantics, one verified at a radius and the other falsified at that radius or a smaller one, whose ball
lies inside the first. Radii count as well: certified ones as verified, those of counterexamples as falsified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lpverify.certificate.claim import decimal
from lpverify.errors import CertificateError
from lpverify.report.fields import number
from lpverify.report.rows import Column, Row, Value
from lpverify.report.run import Kind, RunReport

PATTERNS = 8
# The question of an example: its own and its run's.
Asked = tuple[object, ...]


@dataclass(frozen=True)
class Contradiction:
    """Two runs, by their places, that cannot both be right about an example of the given index."""

    index: int
    verified_by: int
    verified_eps: str
    falsified_by: int
    falsified_eps: str


@dataclass(frozen=True)
class Comparison:
    """What the page says of several runs together.

    Attributes:
        columns, rows: the examples on which verdicts differ: index, then one column of verdicts for each run.
        compared: examples of which at least two runs about the same data have a verdict; those of ``detect``, whose
            claims are about predicted classes, are compared among themselves.
        patterns: what the runs say of examples where they differ, and how often so; the most frequent ones.
        contradictions: see above.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    compared: int
    patterns: tuple[tuple[str, int], ...]
    contradictions: tuple[Contradiction, ...]


@dataclass(frozen=True)
class _Known:
    """An end of what is known of an example's radius, and the place of the run that knows it."""

    eps: Fraction
    stated: str
    place: int


def compare(runs: Sequence[RunReport]) -> Comparison:
    """Compare runs, which are named by letters in their order."""
    verdicts: dict[tuple[str, int, bool], dict[int, str]] = {}
    for place, run in enumerate(runs):
        if run.question.data:
            # Claims about predicted classes are others than those about labels.
            is_detection = run.kind is Kind.DETECT
            for index, verdict in zip(run.values("index"), run.texts("verdict"), strict=True):
                if verdict and index is not None:
                    verdicts.setdefault((run.question.data, int(index), is_detection), {})[place] = verdict
    shared = {example: found for example, found in verdicts.items() if len(found) > 1}
    differing = [(example, found) for example, found in shared.items() if len(set(found.values())) > 1]
    sets = sorted({data for (data, _, _), _ in differing})
    places = [place for place, run in enumerate(runs) if run.kind is not Kind.RADIUS]
    columns = [Column("index", "example", "count")]
    if len(sets) > 1:
        columns.append(Column("data", "data", "text"))
    columns += [Column(f"verdict {letter(place)}", f"run {letter(place)}", "verdict") for place in places]
    rows = []
    for (data, index, _), found in sorted(differing, key=lambda entry: entry[0]):
        row: list[Value] = [index, *([data[:12]] if len(sets) > 1 else [])]
        rows.append((*row, *(found.get(place) for place in places)))
    patterns = Counter(
        ", ".join(f"run {letter(place)} {verdict}" for place, verdict in sorted(found.items()))
        for _, found in differing
    )
    return Comparison(
        tuple(columns), tuple(rows), len(shared), tuple(patterns.most_common(PATTERNS)), tuple(contradictions(runs))
    )


def letter(place: int) -> str:
    """A, B, ..., Z, AA, AB, ... of the places from 0."""
    head, last = divmod(place, 26)
    return (letter(head - 1) if head else "") + chr(ord("A") + last)


def contradictions(runs: Sequence[RunReport]) -> Iterator[Contradiction]:
    """At most one an example and question: the greatest radius verified against the least falsified."""
    verified: dict[Asked, _Known] = {}
    falsified: dict[Asked, _Known] = {}
    for place, run in enumerate(runs):
        about = _about(run)
        for asked, proved, refuted in () if about is None else _ends(run, about):
            if proved is not None:
                known = _Known(decimal(proved), proved, place)
                if asked not in verified or known.eps > verified[asked].eps:
                    verified[asked] = known
            if refuted is not None:
                known = _Known(decimal(refuted), refuted, place)
                if asked not in falsified or known.eps < falsified[asked].eps:
                    falsified[asked] = known
    for asked, proved_at in verified.items():
        refuted_at = falsified.get(asked)
        if refuted_at is not None and proved_at.eps >= refuted_at.eps:
            index = asked[-2]
            assert isinstance(index, int)
            yield Contradiction(index, proved_at.place, proved_at.stated, refuted_at.place, refuted_at.stated)


def _about(run: RunReport) -> Asked | None:
    """What a run's claims have in common besides the radius; None where too little is known to compare it."""
    question = run.question
    if not (question.model and question.data and question.semantics):
        return None
    kind = question.kind if question.kind in (Kind.CASCADE, Kind.PROPERTY) else "ball"
    try:
        clip = tuple(decimal(end) for end in question.clip)
        if kind != Kind.PROPERTY:
            decimal(question.eps)
    except CertificateError:
        return None
    return (kind, question.model, question.data, question.norm, clip, question.semantics)


def _ends(run: RunReport, about: Asked) -> Iterator[tuple[Asked, str | None, str | None]]:
    """Of each example its question, and the radii at which it is verified and falsified, if it is."""
    eps = "0" if run.kind is Kind.PROPERTY else run.question.eps
    names = ("label", "certified", "exact_upper", "attacked")
    lists = [run.values(name) for name in names]
    for index, verdict, label, certified, nearest, attacked in zip(
        run.values("index"), run.texts("verdict"), *lists, strict=True
    ):
        if index is None:
            continue
        asked = (*about, int(index), label)
        if run.kind is Kind.RADIUS:
            reached = attacked if nearest is None else nearest
            # No ball is certified where the certified radius is 0.
            yield asked, _decimal(certified) if certified else None, _decimal(reached)
        else:
            yield asked, eps if verdict == "verified" else None, eps if verdict == "falsified" else None


def _decimal(radius: float | None) -> str | None:
    return None if number(radius) is None else repr(radius)
