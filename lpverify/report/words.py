"""What the page says in words: the question, the settings, what verdicts and radii mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpverify.report.counts import VERDICTS
from lpverify.report.run import Kind, RunReport
from lpverify.table import MEANING as USUAL

NORMS = {"inf": "l∞", "2": "l2", "1": "l1"}
MEANING = {
    Kind.VERIFY: USUAL,
    Kind.ATTACK: USUAL,
    Kind.PROPERTY: {
        "verified": "proved: the unsafe set is not reached",
        "falsified": "an unsafe input was evaluated exactly",
        "unknown": "neither was found",
    },
    Kind.DETECT: {
        "verified": "passed: the predicted class is proved for the whole ball",
        "falsified": "flagged: another class was found nearby and evaluated exactly",
        "unknown": "flagged: neither was found",
    },
    Kind.CASCADE: {
        "verified": "proved: the right answer at the input, no wrong one nearby",
        "falsified": "certified for a wrong class",
        "unknown": "neither was found",
    },
}
RADIUS_MEANING = {
    "certified": "proved up to here, by a certificate",
    "exact_lower": "nothing fails nearer, a solver claims; not proved",
    "exact_upper": "a counterexample at the solver's point, or the attack's if nearer, evaluated exactly",
    "attacked": "a counterexample of the attack, evaluated exactly",
}


def asked_in_words(run: RunReport) -> str:
    """The question of each example, as one sentence."""
    question = run.question
    ball = f"within {question.eps or 'an unknown eps'} of it (norm {NORMS.get(question.norm, question.norm)}"
    ball += f", clipped to {' to '.join(question.clip)})" if question.clip else ", not clipped)"
    return {
        Kind.VERIFY: f"Does the network give each input's label to every input {ball}?",
        Kind.ATTACK: f"Does an attack find an input {ball} that does not get the label? An attack proves nothing.",
        Kind.DETECT: f"Is the class that the network predicts at each input that of every input {ball}?"
        " Those for which that is not proved are flagged.",
        Kind.RADIUS: f"Up to which radius does the network give each input's label to every input around it? None above"
        f" {question.eps or 'an unknown eps'} was tried (norm {NORMS.get(question.norm, question.norm)}"
        + (f", clipped to {' to '.join(question.clip)})." if question.clip else ", not clipped)."),
        Kind.CASCADE: f"Does the cascade answer each input rightly, and no input {ball} wrongly?",
        Kind.PROPERTY: "Is the unsafe set of the property empty? It is if every claim holds.",
    }[run.kind]


def percent(count: int, total: int) -> str:
    """A share in percent with two decimals; a dash if there is nothing to share."""
    return f"{100 * count / total:.2f}\N{NO-BREAK SPACE}%" if total else "–"


def count_of(count: int, noun: str, several: str = "") -> str:
    """A count with its noun; ``several`` is its plural where that is not made by an s."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def settings(run: RunReport) -> dict[str, str]:
    """Everything that changes what the numbers mean, by name; empty where a run has no such thing."""
    question, options = run.question, dict(run.options)
    return {
        "command": "verify --vnnlib" if run.kind is Kind.PROPERTY else run.kind.value,
        "model": options.get("model", ""),
        "network SHA-256": _digests(question.model),
        "data": options.get("vnnlib", run.source),
        "data SHA-256": question.data[:12],
        "eps": f"up to {question.eps}" if run.kind is Kind.RADIUS else question.eps,
        "norm": NORMS.get(question.norm, question.norm),
        "clip": " to ".join(question.clip) or ("" if run.kind is Kind.PROPERTY else "none"),
        "semantics": question.semantics,
        "method": options.get("method", ""),
        "normalisation": run.normalisation,
        "timeout": f"{options['timeout']} s" if "timeout" in options else "",
    }


def numbers(run: RunReport) -> dict[str, str]:
    """What came of it, by name."""
    said, n = {"state": state(run)}, run.examples
    if run.kind is not Kind.RADIUS:
        said |= {name: f"{run.verdicts[name]} ({percent(run.verdicts[name], n)})" for name in VERDICTS}
    if run.misclassified is not None and n == run.asked:
        said["clean error"] = percent(run.misclassified, n)
    if run.has_errors:
        said["robust error, at least"] = percent(run.verdicts["falsified"], run.asked)
        said["robust error, at most"] = percent(run.asked - run.verdicts["verified"], run.asked)
    for name, _, quartiles in run.radii:
        median = quartiles["median"]
        said[f"median radius, {name}"] = "–" if median is None else f"{median:.4g}"
    said["certificates"] = "not checked" if run.checked is None else f"{run.checked.certificates} accepted"
    said["counterexamples"] = "not checked" if run.checked is None else f"{run.checked.counterexamples} accepted"
    said["seconds, all examples"] = f"{sum(method.seconds for method in run.methods):.2f}"
    return said


def side_by_side(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str], bool]]:
    """For each name that some run has a value for: the values, and whether they differ."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    columns = ((name, [row.get(name, "") for row in rows]) for name in names)
    return [(name, values, len(set(values)) > 1) for name, values in columns]


def state(run: RunReport) -> str:
    """How far the run got."""
    what = "claim" if run.kind is Kind.PROPERTY else "example"
    have = count_of(run.examples, what) if run.total is None else f"{run.examples:,} of {count_of(run.total, what)}"
    if run.ended == "finished":
        return f"finished, {count_of(run.examples, what)}"
    how = f"stopped ({run.stopped})" if run.ended == "stopped" else "not finished"
    return f"{how}, {have}"


def _digests(model: str) -> str:
    return ", ".join(digest.strip()[:12] for digest in model.split(",")) if model else ""
