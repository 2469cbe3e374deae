"""Re-checking a cascade's run folder (``cascade_folder``) from its files alone: no model and no torch.

A line says ``verified`` rightly if the stage that it names has a certificate about the ball and the line's label, and
every other stage one about the label at the same input, which lies inside the clip; that this suffices is proved in
``cascade``. A ``falsified`` line needs the stage's certificate about another class, and the input as that stage's
witness. That no earlier stage was certified is a report, not a claim.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpverify.certificate.claim import BallRegion, LabelRows, decimal
from lpverify.errors import CertificateError
from lpverify.runs.audit import Run, judge_lines, open_run, read_results, read_summary
from lpverify.runs.folder import RESULTS, SUMMARY

if TYPE_CHECKING:
    from lpverify.data import Examples

STAGES, ANSWERS, POINTS = "stages", "answers", "points"


def is_cascade(path: Path) -> bool:
    """Whether a folder holds a run of a cascade."""
    return (path / STAGES).is_dir() and (path / RESULTS).is_file()


@dataclass(frozen=True)
class _Fact:
    """What the evidence of one line of a stage's run proved: the verdict, the label and the ball of the claim."""

    verdict: str
    label: int
    region: BallRegion
    semantics: str


@dataclass(frozen=True)
class _Facts:
    """What one of a stage's two runs proves, by index, and of which network."""

    sha256: str
    facts: dict[int, _Fact]


@dataclass(frozen=True)
class CascadeJudged:
    """What was found: lines by verdict, and the certificates, leaves and counterexamples of all stages together."""

    verdicts: dict[str, int]
    certificates: int
    leaves: int
    witnesses: int
    stages: int
    stopped: str | None


def judge_cascade(path: Path, *, exact: bool = False, examples: Examples | None = None) -> CascadeJudged:
    """Check the evidence of every stage, and that the cascade's verdicts follow from it.

    Raises:
        CertificateError: at the first piece that is missing, malformed, foreign or rejected, or a line that does not
            follow.
    """
    count = len(list((path / STAGES).iterdir()))
    for k in range(1, count + 1):
        for kind in (ANSWERS, POINTS):
            if not (path / STAGES / str(k) / kind / RESULTS).is_file():
                raise CertificateError(f"{path / STAGES}: has {count} entries, but nothing of stage {k}, {kind}")
    total: Counter[str] = Counter()
    facts: list[dict[str, _Facts]] = []
    for k in range(1, count + 1):
        runs = {kind: open_run(path / STAGES / str(k) / kind) for kind in (ANSWERS, POINTS)}
        found = {kind: _judge(run, exact, examples, total) for kind, run in runs.items()}
        if found[ANSWERS].sha256 != found[POINTS].sha256:
            raise CertificateError(f"{path / STAGES / str(k)}: its two runs are about different networks")
        facts.append(found)
    summary = read_summary(path / SUMMARY)
    asked = _asked_by(path, summary, [found[ANSWERS].sha256 for found in facts])
    verdicts: Counter[str] = Counter()
    for line in read_results(path):
        verdict = line.record.get("verdict", "unknown")
        verdicts[verdict] += 1
        if verdict != "unknown":
            _require_follows(line.where, line.record, facts, asked, examples)
    for verdict in ("verified", "falsified", "unknown") if summary is not None else ():
        if (summary or {}).get(verdict) != verdicts[verdict]:
            raise CertificateError(f"{path / SUMMARY}: the numbers of {verdict} are not those of {RESULTS}")
    stopped = (summary or {}).get("stopped", "no summary")
    return CascadeJudged(dict(verdicts), total["certificates"], total["leaves"], total["witnesses"], count, stopped)


def _judge(run: Run, exact: bool, examples: Examples | None, total: Counter[str]) -> _Facts:
    """What the lines of one stage's run prove."""
    facts = {}
    for line, judged in zip(run.lines, judge_lines(run, exact=exact, examples=examples), strict=True):
        total["certificates"] += judged.kind == "certificate"
        total["witnesses"] += judged.kind == "witness"
        total["leaves"] += judged.leaves
        if judged.claim is not None:
            region, rows = judged.claim.region, judged.claim.rows
            if not (isinstance(region, BallRegion) and isinstance(rows, LabelRows)):
                raise CertificateError(f"{line.where}: its evidence is about another kind of claim than a cascade's")
            facts[line.record["index"]] = _Fact(line.record["verdict"], rows.label, region, judged.semantics)
    return _Facts(run.network.sha256, facts)


def _asked_by(path: Path, summary: dict[str, Any] | None, networks: list[str]) -> set[Any]:
    """The question that the summary states, if there is one; its stages must be those of the folder."""
    if summary is None:
        return set()
    about, options = summary.get("network"), summary.get("options")
    if not isinstance(about, dict) or about.get("stages") != networks or not isinstance(options, dict):
        raise CertificateError(f"{path / SUMMARY}: its stages are not the {len(networks)} of the folder")
    clip = options.get("clip")
    stated = tuple(clip) if isinstance(clip, list) else None
    return {(options.get("eps"), options.get("norm"), stated, options.get("semantics"))}


def _require_follows(
    where: str,
    record: dict[str, Any],
    facts: list[dict[str, _Facts]],
    asked: set[Any],
    examples: Examples | None,
) -> None:
    """A line's verdict follows from what the stages' evidence proves."""
    index: int = record["index"]
    label, stage, verdict = (record.get(name) for name in ("label", "stage", "verdict"))
    if type(stage) is not int or not 1 <= stage <= len(facts) or type(label) is not int:
        raise CertificateError(f"{where}: {verdict} with stage {stage!r} and label {label!r}")
    if examples is not None and (examples.y is None or int(examples.y[index]) != label):
        raise CertificateError(f"{where}: label {label} is not that of {examples.source}")
    ball = facts[stage - 1][ANSWERS].facts.get(index)
    if ball is None or ball.verdict != "verified" or (ball.label == label) != (verdict == "verified"):
        raise CertificateError(f"{where}: {verdict}, but stage {stage} has no certificate that says so")
    asked.add((ball.region.eps, ball.region.norm, ball.region.clip, ball.semantics))
    if len(asked) > 1:
        raise CertificateError(f"{where}: the certificate of stage {stage} is about another ball than the run's")
    if not _is_inside(ball.region):
        raise CertificateError(f"{where}: the input lies outside the clip, where nothing follows about a cascade")
    others = [stage] if verdict == "falsified" else [k for k in range(1, len(facts) + 1) if k != stage]
    for k in others:
        point = facts[k - 1][POINTS].facts.get(index)
        if point is None or point.verdict != verdict or point.label != label:
            raise CertificateError(f"{where}: {verdict}, but nothing says so of stage {k} at the input")
        if not _is_point_of(point, ball):
            raise CertificateError(f"{where}: the evidence of stage {k} is about another input or another claim")


def _is_inside(region: BallRegion) -> bool:
    """Whether the center lies inside the clip, if there is one, exactly."""
    if region.clip is None:
        return True
    values = region.center.values()
    return Fraction(min(values)) >= decimal(region.clip[0]) and Fraction(max(values)) <= decimal(region.clip[1])


def _is_point_of(point: _Fact, ball: _Fact) -> bool:
    """Whether a claim is about the center of a ball alone, in the same semantics."""
    return (
        decimal(point.region.eps) == 0
        and point.region.center == ball.region.center
        and point.region.clip == ball.region.clip
        and (point.semantics == ball.semantics or point.verdict == "falsified")
    )
