"""What a report says of one run: ``RunReport``, and the question that its examples were asked."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from lpverify.report.counts import MethodCount
from lpverify.report.evidence import Checked
from lpverify.report.fields import number, text
from lpverify.report.pictures import Picture
from lpverify.report.rows import Column, Row


class Kind(enum.StrEnum):
    """What wrote a run."""

    VERIFY = "verify"
    ATTACK = "attack"
    DETECT = "detect"
    RADIUS = "radius"
    CASCADE = "cascade"
    PROPERTY = "property"


@dataclass(frozen=True)
class Question:
    """What the examples of a run were asked, as far as it is known; empty strings where it is not.

    Attributes:
        model: SHA-256 of the lowered network; of a cascade, those of its stages.
        data: SHA-256 of the examples, or of the property.
        eps: in raw input units, a decimal; of radii the greatest that was tried.
        clip: two decimals, or none.
    """

    kind: Kind
    model: str
    data: str
    eps: str
    norm: str
    clip: tuple[str, ...]
    semantics: str


@dataclass(frozen=True)
class RunReport:
    """One run, as the page tells of it.

    Attributes:
        path: the run folder, as it was given.
        question, options: what was asked; the options by name, all that are known.
        source: where the data came from; empty if it is not known.
        normalisation: what was prepended to the model; empty if it is not known.
        ended: "finished", "stopped" or "unfinished"; ``stopped`` is the name of what stopped it.
        total: the examples or claims that were asked about; None if it is not known.
        verdicts: results by verdict; of radii there are none.
        misclassified: of the falsified; None where labels are not what the claims are about.
        uncertified: of the unknown, those for which a method claims a proof.
        outcome: of a property, the verdict about all of it.
        methods, reasons: how results came about, the most frequent first; reasons are those of unknown results.
        radii: the kinds of radius with their count and quartiles.
        facts: name and value of what else the summary says.
        columns, rows: the table of examples.
        checked: what the checker found now; None if it was not asked.
        pictures: of counterexamples.
        notes: of the network's lowering.
        faults: that the run met and went on after, such as memory that ran out.
    """

    path: str
    question: Question
    options: tuple[tuple[str, str], ...]
    source: str
    normalisation: str
    ended: str
    stopped: str
    total: int | None
    examples: int
    verdicts: Mapping[str, int]
    misclassified: int | None
    uncertified: int
    outcome: str
    methods: tuple[MethodCount, ...]
    reasons: tuple[tuple[str, int], ...]
    radii: tuple[tuple[str, int, Mapping[str, float | None]], ...]
    facts: tuple[tuple[str, str], ...]
    seconds: tuple[tuple[str, float], ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    checked: Checked | None
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """What wrote the run."""
        return self.question.kind

    def share(self, count: int) -> float | None:
        """A count as a share of the results; None if there are none."""
        return count / self.examples if self.examples else None

    @property
    def asked(self) -> int:
        """The examples or claims that were asked about, those without a result included, where that is known."""
        return max(self.total or 0, self.examples)

    @property
    def has_errors(self) -> bool:
        """Whether its verdicts say something of an error rate: not those of predicted classes or of a property."""
        return self.kind in (Kind.VERIFY, Kind.ATTACK, Kind.CASCADE)

    def values(self, name: str) -> list[float | None]:
        """A column of the table as numbers; of a column that the table lacks, None for each example."""
        places = [place for place, column in enumerate(self.columns) if column.name == name]
        return [number(row[places[0]]) if places else None for row in self.rows]

    def texts(self, name: str) -> list[str]:
        """The same as texts."""
        places = [place for place, column in enumerate(self.columns) if column.name == name]
        return [text(row[places[0]]) if places else "" for row in self.rows]
