"""Cascades of networks (Wong, Schmidt, Metzen & Kolter 2018, "Scaling provable adversarial defenses", section 3.3).

A cascade is a list of stages, networks f_1, ..., f_K of the same inputs and classes. Asked at an input x', the first
stage that is certified on the ball about x' for the class that it predicts at x' answers with that class; if there is
none, the answer is "no certificate". The ball B(x') is that of radius eps in a norm, inside the clip if there is one.

What ``verified`` means for an input x, inside the clip, and a class y: asked at x, the cascade answers y; and asked
anywhere in B(x), it answers y or gives no certificate, whatever sound method certifies the stages there, and with
however much time. What proves it: a certificate of the stage that answers at x, about B(x) and y, and of every other
stage j a certificate that f_j(x) is y, which is the claim about the ball of radius 0.

Proof. Let x' be in B(x), and let stage j answer c there. Its certificate is sound: f_j is c on all of B(x'). Distances
are symmetric and x is inside the clip, so x is in B(x'), and f_j(x) is c. But f_j(x) is y, so c is y. The same with
x' = x says that whichever stage answers at x answers y, and the stage with the certificate does, if none before it.

A certificate at x alone proves less. If another stage predicts c at x, it may be certified at some x' in B(x) where
those before it are not, and the cascade answers c there. Such an x is ``unknown``, "stages disagree", though the thesis
counts it as certified. So is an x where no stage is certified. ``falsified`` is an x with a certified answer that is
wrong: the stage's own certificate proves it for all of B(x), and x is the witness. A missing answer falsifies nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.detect import predictions
from lpverify.errors import DataError, ModelError
from lpverify.network import Network
from lpverify.result import Result, Verdict
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.verify import checked_inputs, checked_labels, verify_in

Array = NDArray[Any]
SUFFIX = ".toml"
# Why a result is unknown; a disagreement is followed by what the stages say.
NO_CERTIFICATE, DISAGREE = "no certificate", "stages disagree"
# Claims about points need no more.
POINT_METHOD = "interval"


@dataclass(frozen=True, eq=False)
class Answer:
    """What a cascade answers at one input.

    Attributes:
        index: what the input is called.
        stage: the stage that answers, counted from 1; None: no certificate.
        label: its class.
        predicted: the class that every stage predicts, certified or not.
        tried: the results of the stages up to the one that answers, about their predicted classes.
    """

    index: int
    stage: int | None
    label: int | None
    predicted: tuple[int, ...]
    tried: tuple[Result, ...]


@dataclass(frozen=True, eq=False)
class CascadeResult:
    """The answer of a cascade about one input and its label; see the module for what the verdicts mean.

    Attributes:
        verdict, reason, label: as in ``Result``.
        answer: what the cascade answers at the input.
        points: by stage, counted from 1, the result about the label at the input alone.
        seconds: of all its results.
    """

    verdict: Verdict
    reason: str
    label: int
    answer: Answer
    points: dict[int, Result] = field(default_factory=dict)

    @property
    def index(self) -> int:
        """What the input is called."""
        return self.answer.index

    @property
    def seconds(self) -> float:
        """Time spent on all of its claims."""
        return sum(result.seconds for result in (*self.answer.tried, *self.points.values()))

    def record(self) -> dict[str, Any]:
        """The line of ``results.jsonl``."""
        return {
            "index": self.index,
            "label": self.label,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "stage": self.answer.stage,
            "answer": self.answer.label,
            "predicted": list(self.answer.predicted),
            "seconds": round(self.seconds, 6),
        }


def read_cascade(path: Path, load: Callable[[Path], Network]) -> tuple[Network, ...]:
    """The stages of a cascade file: TOML with ``stages``, a list of model files, as paths from its own folder.

    Args:
        load: reads a model file.

    Raises:
        ModelError: if the file cannot be read or says anything else, or the stages do not fit each other.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ModelError(f"{path}: not a readable cascade file ({reason})") from None
    files = given.get("stages")
    if set(given) != {"stages"} or not isinstance(files, list) or not files or not all(type(f) is str for f in files):
        raise ModelError(f'{path}: expected the one key stages, like stages = ["first.safetensors", "second.onnx"]')
    stages = tuple(load(path.parent / file) for file in files)
    for file, stage in zip(files, stages, strict=True):
        got, want = ((n.shapes[0], n.output_size) for n in (stage, stages[0]))
        if got != want:
            raise ModelError(f"{path}: {file} has (inputs, classes) {got}, but {files[0]} {want}; stages must agree")
    return stages


class Cascade:
    """Stages made ready for questions; a context manager, as it holds the stages' sessions."""

    def __init__(self, stages: Sequence[Network], settings: Settings) -> None:
        """Open the stages.

        Args:
            stages: at least one network; of the same inputs and classes.
            settings: the ball, and how stages are certified.
        """
        self.stages, self.settings, self._stack = tuple(stages), settings, ExitStack()
        at_point = replace(settings, eps="0", method=POINT_METHOD)
        self.balls = [self._stack.enter_context(Session(stage, settings)) for stage in stages]
        self.points = [self._stack.enter_context(Session(stage, at_point)) for stage in stages]

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def predict(self, x: Array, indices: Sequence[int] | None = None) -> Iterator[Answer]:
        """What the cascade answers at inputs x (N, ...), in order.

        Raises:
            ShapeError, DataError: for inputs that do not fit, are not finite or lie outside the clip.
        """
        for part, names in self._chunks(x, indices):
            yield from self._answers(part, names)

    def verify(
        self, x: Array, y: NDArray[np.int64], indices: Sequence[int] | None = None
    ) -> Iterator[CascadeResult]:
        """Decide label claims of inputs x (N, ...) with labels y (N,), in order.

        Raises:
            ShapeError, DataError: as ``predict``, and for labels out of range.
        """
        labels, done = checked_labels(self.stages[0], x, y), 0
        for part, names in self._chunks(x, indices):
            chosen = labels[done : done + len(part)]
            answers, done = self._answers(part, names), done + len(part)
            points = self._points(part, chosen, answers)
            for label, answer, proved in zip(chosen.tolist(), answers, points, strict=True):
                yield _conclude(label, answer, proved)

    def _chunks(self, x: Array, indices: Sequence[int] | None) -> Iterator[tuple[Array, Sequence[int]]]:
        flat = self._checked(x)
        names = range(len(flat)) if indices is None else indices
        size = min(session.batch_size for session in self.balls)
        for start in range(0, len(flat), size):
            yield flat[start : start + size], names[start : start + size]

    def _points(self, x: Array, y: NDArray[np.int64], answers: Sequence[Answer]) -> list[dict[int, Result]]:
        """By stage, counted from 1, whether it gives the label at the input: the answers' other stages are asked, or
        the one whose answer is wrong."""
        found: list[dict[int, Result]] = [{} for _ in answers]
        for k, session in enumerate(self.points, start=1):
            asked = [i for i, a in enumerate(answers) if a.stage is not None and (a.label == y[i]) == (a.stage != k)]
            names = [answers[i].index for i in asked]
            for i, result in zip(asked, verify_in(session, x[asked], y[asked], names), strict=True):
                found[i][k] = result
        return found

    def _answers(self, x: Array, indices: Sequence[int]) -> list[Answer]:
        predicted = np.stack([predictions(stage, x) for stage in self.stages], 1)
        tried: list[list[Result]] = [[] for _ in x]
        waiting = list(range(len(x)))
        for k, session in enumerate(self.balls):
            if not waiting:
                break
            names = [indices[i] for i in waiting]
            for i, result in zip(waiting, verify_in(session, x[waiting], predicted[waiting, k], names), strict=True):
                tried[i].append(result)
            waiting = [i for i in waiting if tried[i][-1].verdict is not Verdict.VERIFIED]
        missing = set(waiting)
        return [
            Answer(
                indices[i],
                None if i in missing else len(results),
                None if i in missing else results[-1].label,
                tuple(predicted[i].tolist()),
                tuple(results),
            )
            for i, results in enumerate(tried)
        ]

    def _checked(self, x: Array) -> Array:
        """x as (N, n_0), refused where the clip leaves an input out: its own ball would not hold it."""
        flat = checked_inputs(self.stages[0], x)
        if self.settings.clip is not None and flat.size:
            low, high = map(Fraction, self.settings.clip)
            for i, row in enumerate(flat):
                if Fraction(float(row.min())) < low or Fraction(float(row.max())) > high:
                    raise DataError(
                        f"x: example {i} has values from {row.min():g} to {row.max():g}, but what is proved of a "
                        f"cascade needs inputs inside --clip {' '.join(self.settings.clip)}"
                    )
        return flat


def _conclude(label: int, answer: Answer, points: dict[int, Result]) -> CascadeResult:
    """The verdict from the evidence alone."""
    if answer.stage is None:
        return CascadeResult(Verdict.UNKNOWN, NO_CERTIFICATE, label, answer, points)
    if answer.label != label:
        if points[answer.stage].verdict is Verdict.FALSIFIED:
            reason = f"stage {answer.stage} is certified for class {answer.label}"
            return CascadeResult(Verdict.FALSIFIED, reason, label, answer, points)
        return CascadeResult(Verdict.UNKNOWN, points[answer.stage].reason, label, answer, points)
    if all(point.verdict is Verdict.VERIFIED for point in points.values()):
        return CascadeResult(Verdict.VERIFIED, "", label, answer, points)
    return CascadeResult(Verdict.UNKNOWN, DISAGREE, label, answer, points)


@dataclass
class CascadeTally:
    """Counts over the results of a cascade.

    Attributes:
        verdicts: results by verdict; ``reasons`` of the unknown ones.
        right, wrong: answers at the inputs themselves that are certified for the label, and for another class.
        stages: the answers of each stage, right or wrong, of ``count`` stages.
    """

    count: int
    verdicts: dict[str, int] = field(default_factory=lambda: {verdict.value: 0 for verdict in Verdict})
    reasons: dict[str, int] = field(default_factory=dict)
    right: int = 0
    wrong: int = 0
    stages: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stages = [0] * self.count

    def add(self, result: CascadeResult) -> None:
        """Count one result."""
        self.verdicts[result.verdict.value] += 1
        if result.verdict is Verdict.UNKNOWN:
            self.reasons[result.reason] = self.reasons.get(result.reason, 0) + 1
        if result.answer.stage is not None:
            self.stages[result.answer.stage - 1] += 1
            self.right += result.answer.label == result.label
            self.wrong += result.answer.label != result.label

    @property
    def examples(self) -> int:
        """Number of results counted."""
        return sum(self.verdicts.values())

    def summary(self, **parts: Any) -> dict[str, Any]:
        """The content of ``summary.json``. ``error`` is the thesis's robust error of a cascade: the share of inputs
        without a certificate or with a wrong one; ``robust_error_upper`` the share that is not verified."""
        n, missing = self.examples, self.examples - self.right - self.wrong
        return {
            "examples": n,
            **self.verdicts,
            "unknown_reasons": self.reasons,
            "certified_right": self.right,
            "certified_wrong": self.wrong,
            "no_certificate": missing,
            "error": (missing + self.wrong) / n if n else None,
            "robust_error_upper": (n - self.verdicts["verified"]) / n if n else None,
            "answers_by_stage": self.stages,
            **parts,
        }
