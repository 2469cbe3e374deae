"""From a run folder to all that its report says: ``read_run`` gives a ``RunReport``.

Counts are made from the run's lines, so that a run that was stopped or killed has them too; where there is a summary it
must say the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpverify.errors import CertificateError, UsageError
from lpverify.report.counts import SHOWN, VERDICTS, Record, methods, misclassified, radii, reasons
from lpverify.report.evidence import Checked, Watched, check_cascade, check_run
from lpverify.report.fields import mapping, number, text
from lpverify.report.pictures import Picture, pictures
from lpverify.report.rows import Columns, table_of
from lpverify.report.run import Kind, Question, RunReport
from lpverify.result import UNCERTIFIED
from lpverify.runs.audit import Run, open_run, read_results, read_summary
from lpverify.runs.cascade_audit import is_cascade
from lpverify.runs.folder import NETWORK, SUMMARY
from lpverify.runs.store import FINISHED, STORE, Stored, read_store


def read_run(path: Path, *, check: bool, images: int, watched: Watched) -> RunReport:
    """Read a run folder, finished or not, of any command that writes one.

    Args:
        check: judge its evidence again.
        images: how many counterexamples to show.
        watched: see ``evidence.Watched``.

    Raises:
        UsageError: if it is no run folder, or nothing has been written to it yet.
        CertificateError: if a file is malformed or a piece of evidence is rejected.
    """
    stored = read_store(path)
    if is_cascade(path):
        lines, summary = [line.record for line in read_results(path)], read_summary(path / SUMMARY)
        return _report(path, None, stored, lines, summary, check_cascade(path) if check else None, ())
    if stored is not None and not stored.records and not (path / NETWORK).is_file():
        raise UsageError(f"{path}: the run has no result yet; report on it when it has some")
    run = open_run(path)
    checked = check_run(run, watched) if check else None
    records = [line.record for line in run.lines]
    shown = pictures(path, records, run.network.nodes[0].shape, images)
    return _report(path, run, stored, records, run.summary, checked, shown)


def _report(
    path: Path,
    run: Run | None,
    stored: Stored | None,
    records: Sequence[Record],
    summary: Record | None,
    checked: Checked | None,
    shown: tuple[Picture, ...],
) -> RunReport:
    said = mapping(summary)
    asked = {} if stored is None else _asked(path, stored)
    options = mapping(said.get("options")) or asked
    kind = _kind(run, stored, options)
    question = _question(kind, run, stored, said, options)
    verdicts = Counter(str(record["verdict"]) for record in records if "verdict" in record)
    _agree(path, kind, summary, verdicts)
    columns, rows = table_of(records, _columns(kind))
    ended, stopped = _ended(stored, summary)
    unknown = [text(record.get("reason")) for record in records if record.get("verdict") == "unknown"]
    return RunReport(
        path=text(str(path)),
        question=question,
        options=tuple((name, text(value)) for name, value in options.items() if value is not None),
        source=_source(mapping(said.get("data")), asked),
        normalisation=_normalisation(options),
        ended=ended,
        stopped=stopped,
        total=_total(run, asked),
        examples=len(records),
        verdicts={} if kind is Kind.RADIUS else {name: verdicts[name] for name in VERDICTS},
        misclassified=misclassified(records) if kind in (Kind.VERIFY, Kind.ATTACK) else None,
        uncertified=sum(reason.startswith(UNCERTIFIED) for reason in unknown),
        outcome=run.verdict if run is not None and run.asked is not None else "",
        methods=methods(records, is_radius=kind is Kind.RADIUS),
        reasons=reasons(records if kind is Kind.RADIUS else [r for r in records if r.get("verdict") == "unknown"]),
        radii=radii(records) if kind is Kind.RADIUS else (),
        facts=_facts(run, said, records, kind),
        seconds=_numbers(said.get("seconds")),
        columns=columns,
        rows=rows,
        checked=checked,
        pictures=shown,
        notes=_notes(mapping(said.get("network")).get("notes")),
        faults=_notes(said.get("notes")),
    )


def _source(data: Record, asked: Record) -> str:
    """Where the examples came from, and which they were."""
    index = text(data.get("index") or asked.get("index"))
    return ", examples ".join(filter(None, (text(data.get("source")), index)))


def _asked(path: Path, stored: Stored) -> Record:
    try:
        return mapping(json.loads(stored.header.options))
    except (ValueError, RecursionError):
        raise CertificateError(f"{path / STORE}: its options are not JSON; it is damaged") from None


def _normalisation(options: Record) -> str:
    """Of a run without a summary it is not known."""
    if "mean" not in options:
        return ""
    mean, std = text(options["mean"]), text(options.get("std"))
    return f"mean {mean or '0'}, std {std or '1'}" if mean or std else "as the model file has it"


def _kind(run: Run | None, stored: Stored | None, options: Record) -> Kind:
    if run is None:
        return Kind.CASCADE
    if run.asked is not None:
        return Kind.PROPERTY
    if run.is_radius:
        return Kind.RADIUS
    if run.is_detection or (stored is not None and stored.header.command == "detect"):
        return Kind.DETECT
    attacked = stored.header.command == "attack" if stored is not None else "restarts" in options
    return Kind.ATTACK if attacked else Kind.VERIFY


def _question(kind: Kind, run: Run | None, stored: Stored | None, said: Record, options: Record) -> Question:
    stages = text(mapping(said.get("network")).get("stages"))
    model = stages if run is None else run.network.sha256
    if run is not None and run.asked is not None:
        data, eps, norm = run.asked.sha256, "", ""
    else:
        data = text(mapping(said.get("data")).get("sha256")) or ("" if stored is None else stored.header.data)
        eps, norm = text(options.get("eps")), text(options.get("norm"))
    clip = options.get("clip")
    ends = tuple(text(end) for end in clip) if isinstance(clip, list) else ()
    return Question(kind, model, data, eps, norm, ends, text(options.get("semantics")))


def _agree(path: Path, kind: Kind, summary: Record | None, verdicts: Counter[str]) -> None:
    """The summary counts what the lines say."""
    for name in VERDICTS if summary is not None and kind is not Kind.RADIUS else ():
        if summary is not None and summary.get(name) != verdicts[name]:
            raise CertificateError(
                f"{path / SUMMARY}: {text(summary.get(name))} {name}, but the results have {verdicts[name]}; "
                "make the run again"
            )


def _columns(kind: Kind) -> Columns:
    first = "claim" if kind is Kind.PROPERTY else "example"
    label = "predicted class" if kind is Kind.DETECT else "label"
    titles = {"index": first, "label": label, "true_label": "label", "margin_lower": "margin ≥"}
    if kind is Kind.DETECT:
        # It is the label of its claim, in every line.
        return Columns(titles, frozenset({"predicted"}))
    return Columns(titles, frozenset({"margin_lower"}) if kind is Kind.ATTACK else frozenset())


def _ended(stored: Stored | None, summary: Record | None) -> tuple[str, str]:
    if summary is None:
        return "unfinished", ""
    stopped = text(summary.get("stopped"))
    if stopped:
        return "stopped", stopped
    if stored is not None and stored.ended != FINISHED:
        return ("unfinished", "") if stored.ended is None else ("stopped", text(stored.ended))
    return "finished", ""


def _total(run: Run | None, asked: Record) -> int | None:
    """How many examples or claims a run is about; from its header, where examples are like 0:500,7."""
    if run is not None and run.asked is not None:
        return len(run.asked.claims)
    total = 0
    for part in str(asked.get("index", "")).split(","):
        ends = part.split(":")
        if not all(end.isdecimal() and len(end) < 16 for end in ends) or len(ends) > 2:
            return None
        total += 1 if len(ends) == 1 else int(ends[1]) - int(ends[0])
    return total


def _facts(run: Run | None, said: Record, records: Sequence[Record], kind: Kind) -> tuple[tuple[str, str], ...]:
    """What only some kinds of run have, and where the run was made."""
    facts = []
    if run is not None and run.asked is not None:
        facts.append(("property", run.asked.summary()))
    if kind is Kind.DETECT:
        flagged = sum(record.get("flagged") is True for record in records)
        facts.append(("flagged", f"{flagged} of {len(records)}"))
        right = [r for r in records if r.get("true_label") is not None and r["true_label"] == r.get("label")]
        if right:
            wrongly = sum(record.get("flagged") is True for record in right)
            facts.append(("false positives", f"{wrongly} flagged of {len(right)} that are classified rightly"))
    if kind is Kind.CASCADE:
        answers = Counter(stage for stage in (record.get("stage") for record in records) if type(stage) is int)
        facts.extend((f"answered by stage {k}", f"{n} of {len(records)}") for k, n in sorted(answers.items()))
        if (error := number(said.get("error"))) is not None:
            facts.append(("error of the cascade", f"{100 * error:.2f} % have no certificate or a wrong one"))
    if said.get("float32_disagrees"):
        facts.append(("not shown by the float32 forward pass", f"{text(said['float32_disagrees'])} counterexamples"))
    if said.get("trees"):
        facts.append(("proofs by split trees", f"{text(said['trees'])}, {text(said.get('leaves'))} leaves together"))
    facts.extend((name, text(said[name])) for name in ("device", "threads", "python") if said.get(name) is not None)
    versions = mapping(said.get("versions"))
    if versions:
        facts.append(("versions", ", ".join(f"{text(name)} {text(value)}" for name, value in versions.items())))
    return tuple(facts)


def _numbers(value: Any) -> tuple[tuple[str, float], ...]:
    found = ((text(name), number(seconds)) for name, seconds in mapping(value).items())
    return tuple((name, seconds) for name, seconds in found if seconds is not None)


def _notes(notes: Any) -> tuple[str, ...]:
    """What a summary says in a list, or in lists of it."""
    if not isinstance(notes, list):
        return ()
    flat = (note for entry in notes for note in (entry if isinstance(entry, list) else [entry]))
    return tuple(text(note) for note in flat)[:SHOWN]
