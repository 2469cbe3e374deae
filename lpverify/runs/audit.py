"""Re-checking a run folder from its files alone: no model, no torch, and a data set only if it is given.

Every ``verified`` line must name a certificate that the checker accepts, about this network and this label;
every ``falsified`` line a witness that exact evaluation accepts; all of them about the same radius, norm and
clip, and as many as the summary says. A line of radii must name a certificate at its certified radius, and a
witness at the attacked one or at the nearer one that a solver pointed to, if it gives such radii. In a run about a
property, line i is about claim i of the property file, which is read again: the evidence must be about that very
claim, and ``verified`` altogether needs all claims. That line i is otherwise
about example i of a data set can only be told with that data set at hand (``examples``). In a run of detection the
claims are about predicted classes: every line says whether its input is flagged, which is so unless it is verified,
and the data set's labels are those that the lines repeat as ``true_label``. ``margin_lower``,
``exact_lower``, ``predicted`` and times are reports, not claims.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lpverify.certificate import exact as exact_checker
from lpverify.certificate.claim import BallRegion, Claim, LabelRows, decimal
from lpverify.certificate.exact_linear import ExactNetwork, convert
from lpverify.certificate.exact_region import point_meant
from lpverify.certificate.graph import PlainNetwork, read_network
from lpverify.certificate.proof import Certificate, decode, decode_witness
from lpverify.errors import CertificateError, DataError, UsageError
from lpverify.result import REFUSED
from lpverify.runs.folder import NETWORK, PROPERTY, RADII, RESULTS, SUMMARY
from lpverify.runs.store import STORE, read_store
from lpverify.vnnlib import Property, read_property

if TYPE_CHECKING:
    from lpverify.data import Examples

BATCH = 64
Asked = set[tuple[str, str, Any]]


@dataclass(frozen=True)
class Line:
    """One line of ``results.jsonl`` or ``radii.jsonl``, and where it stands."""

    where: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """What the evidence of one line was found to be.

    Attributes:
        kind: "certificate", "witness", "both" or "nothing".
        leaves: of the certificate; 0 without one.
        message: what the checker says of the witness, else of the certificate.
        claim: what was proved or, of a witness alone, refuted; None where there is no evidence.
        semantics: of the certificate; empty without one.
    """

    kind: str
    leaves: int = 0
    message: str = ""
    claim: Claim | None = None
    semantics: str = ""


@dataclass(frozen=True)
class Run:
    """A run's files, parsed: the lines, the network and the summary (None if the run did not get that far).

    ``asked`` is the property of a run about one.
    """

    path: Path
    lines: tuple[Line, ...]
    network: PlainNetwork
    summary: dict[str, Any] | None
    asked: Property | None = None

    @property
    def verdict(self) -> str:
        """What the lines of a run about a property say of it altogether."""
        said = Counter(line.record.get("verdict") for line in self.lines)
        assert self.asked is not None
        if said["falsified"]:
            return "falsified"
        return "verified" if said["verified"] == len(self.asked.claims) else "unknown"

    @property
    def is_detection(self) -> bool:
        """Whether this is a run of ``lpverify detect``, whose claims are about predicted classes."""
        return any("flagged" in line.record for line in self.lines)

    @property
    def has_refused(self) -> bool:
        """Whether examples were left out because they could not be used (``verify --keep-going``)."""
        return any(str(line.record.get("reason", "")).startswith(REFUSED) for line in self.lines)

    @property
    def is_radius(self) -> bool:
        """Whether this is a run of ``lpverify radius``, where every example has its own eps."""
        return (self.path / RADII).is_file()


def open_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: if it is not one.
        CertificateError: if one of its files is malformed, or they do not belong together.
    """
    names = [n for n in (RESULTS, RADII) if (path / n).is_file()]
    if not names:
        raise UsageError(f"{path}: no {RESULTS} there; give the folder that lpverify verify --out wrote")
    if len(names) > 1:
        raise CertificateError(f"{path}: holds both {RESULTS} and {RADII}; a run writes only one of them")
    name = names[0]
    network = read_network(path / NETWORK)
    lines = tuple(read_results(path, name))
    summary = read_summary(path / SUMMARY)
    if summary is not None:
        _cross_check_summary(path, summary, network, lines, name == RESULTS)
    run = Run(path, lines, network, summary, _property(path))
    if run.asked is not None:
        _cross_check_property(run, run.asked)
    if run.is_detection:
        for line in run.lines:
            flagged, verdict = line.record.get("flagged"), line.record.get("verdict")
            if flagged is not (verdict != "verified"):
                raise CertificateError(f"{line.where}: verdict {verdict!r}, but flagged is {flagged!r}")
    return run


def audit(run: Run, *, exact: bool = False, examples: Examples | None = None) -> Iterator[str]:
    """As ``judge_lines``; yields only each line's kind."""
    return (judged.kind for judged in judge_lines(run, exact=exact, examples=examples))


def judge_lines(run: Run, *, exact: bool = False, examples: Examples | None = None) -> Iterator[Judged]:
    """Check every line's evidence in order.

    Args:
        run: the folder's files.
        exact: check certificates in integers instead of rigorous float64.
        examples: the data set by whose indices the lines go; inputs and labels must then be its own, bit for bit.

    Raises:
        CertificateError: at the first line whose evidence is missing, malformed, foreign or rejected.
    """
    asked: Asked = set()
    integers = convert(run.network)
    rigorous = None if exact else _RigorousChecker(run.network)
    for batch in _batched(run.lines, BATCH):
        proofs = {i: _certificate(run, line, asked, examples) for i, line in enumerate(batch) if _is_proved(line)}
        outcomes = (
            [exact_checker.check(integers, c) for c in proofs.values()]
            if rigorous is None else rigorous.check(list(proofs.values()))
        )  # fmt: skip
        judged = dict(zip(proofs, outcomes, strict=True))
        for i, line in enumerate(batch):
            if i in judged:
                _require(judged[i], line, line.record["certificate"])
            is_falsified, leaves, message, claim, semantics = _is_falsified(line), 0, "", None, ""
            if i in judged:
                leaves, message = judged[i].leaves, judged[i].message
                claim, semantics = proofs[i].claim, proofs[i].semantics
            if is_falsified:
                message, refuted = _check_witness(run, line, integers, asked, examples)
                claim = claim or refuted
            kinds = {(True, True): "both", (True, False): "certificate", (False, True): "witness"}
            yield Judged(kinds.get((i in judged, is_falsified), "nothing"), leaves, message, claim, semantics)


class _RigorousChecker:
    """The float64 checker on one network; numpy is loaded only if it is used."""

    def __init__(self, plain: PlainNetwork) -> None:
        from lpverify.certificate import rigorous

        self.module, self.network = rigorous, rigorous.Network(plain)

    def check(self, certificates: list[Certificate]) -> list[Any]:
        return list(self.module.check(self.network, certificates))


def _is_proved(line: Line) -> bool:
    if "verdict" in line.record:
        return bool(line.record["verdict"] == "verified")
    return line.record.get("certificate") is not None


def _is_falsified(line: Line) -> bool:
    if "verdict" in line.record:
        return bool(line.record["verdict"] == "falsified")
    return _reached(line) is not None


def _reached(line: Line) -> Any:
    """The radius that a line of radii has a witness for: the nearer of the attack's and the solver's, if any."""
    exact = line.record.get("exact_upper")
    return line.record.get("attacked") if exact is None else exact


def _require(outcome: Any, line: Line, file: str) -> None:
    if outcome.accepted is not True:
        raise CertificateError(f"{line.where}: {file} rejected: {outcome.message}")


def _certificate(run: Run, line: Line, asked: Asked, examples: Examples | None) -> Certificate:
    path = _evidence(run, line, "certificate")
    found = decode(_read(path), str(path))
    _check_claim(run, line, found.claim, found.network, asked)
    _check_input(run, line, found.claim, examples)
    semantics = _option(run, "semantics")
    if semantics is not None and found.semantics != semantics:
        raise CertificateError(f"{line.where}: {path} proves {found.semantics} semantics, the run says {semantics}")
    if run.is_radius and isinstance(found.claim.region, BallRegion):
        _require_radius(line, f"{path} proves", found.claim.region.eps, line.record["certified"])
    return found


def _check_witness(
    run: Run, line: Line, integers: ExactNetwork, asked: Asked, examples: Examples | None
) -> tuple[str, Claim]:
    path = _evidence(run, line, "counterexample")
    witness = decode_witness(_read(path), str(path))
    _check_claim(run, line, witness.claim, witness.network, asked)
    _check_input(run, line, witness.claim, examples)
    if run.is_radius and isinstance(witness.claim.region, BallRegion):
        _require_radius(line, f"{path} is for", witness.claim.region.eps, _reached(line))
    outcome = exact_checker.check_witness(integers, witness)
    _require(outcome, line, line.record["counterexample"])
    if run.asked is not None:
        meant = point_meant(witness.claim.region, [Fraction(v) for v in witness.x.values()])
        if not run.asked.inside(line.record["index"], meant):
            raise CertificateError(f"{line.where}: {path} lies on a side of its box that the property leaves out")
    return outcome.message, witness.claim


def _require_radius(line: Line, evidence: str, eps: str, stated: Any) -> None:
    if decimal(eps) != Fraction(repr(float(stated))):
        raise CertificateError(f"{line.where}: {evidence} radius {eps}, the line says {stated}")


def _check_claim(run: Run, line: Line, claim: Claim, network: str, asked: Asked) -> None:
    """The evidence is about this run's network, this line's label and the same question as every other line."""
    if network != run.network.sha256:
        raise CertificateError(
            f"{line.where}: its evidence names network {network[:12]}, the folder holds {run.network.sha256[:12]}"
        )
    if run.asked is not None:
        index = line.record["index"]
        if claim != run.asked.claims[index]:
            raise CertificateError(f"{line.where}: its evidence is not about claim {index} of {PROPERTY[0]}")
        return
    label = line.record.get("label")
    if not isinstance(claim.rows, LabelRows) or claim.rows.label != label:
        stated = f"label {claim.rows.label}" if isinstance(claim.rows, LabelRows) else "a linear claim"
        raise CertificateError(f"{line.where}: its evidence is about {stated}, the line's label is {label}")
    if not isinstance(claim.region, BallRegion):
        raise CertificateError(f"{line.where}: its evidence is about a box, the run about balls")
    asked.add(("" if run.is_radius else claim.region.eps, claim.region.norm, claim.region.clip))
    if isinstance((run.summary or {}).get("options"), dict):
        clip, eps = _option(run, "clip"), "" if run.is_radius else _option(run, "eps")
        asked.add((str(eps), str(_option(run, "norm")), tuple(clip) if isinstance(clip, list) else None))
    if len(asked) > 1:
        questions = " and ".join(sorted(f"eps {e or 'any'}, norm {n}, clip {c}" for e, n, c in asked))
        raise CertificateError(f"{line.where}: the run's evidence is about different questions: {questions}")


def _check_input(run: Run, line: Line, claim: Claim, examples: Examples | None) -> None:
    """The claim is about this line's example of the data set."""
    if examples is None or not isinstance(claim.region, BallRegion):
        return
    index, center = line.record["index"], claim.region.center
    if not 0 <= index < len(examples):
        raise CertificateError(f"{line.where}: {examples.source} has no example {index}")
    if center.values().tolist() != examples.x[index].ravel().tolist():
        raise CertificateError(
            f"{line.where}: its evidence is not about input {index} of {examples.source}; give --scale and --split as "
            "in the run"
        )
    stated = line.record.get("true_label" if run.is_detection else "label")
    if (None if examples.y is None else int(examples.y[index])) != stated or (stated is None and not run.is_detection):
        raise CertificateError(f"{line.where}: label {stated} is not that of {examples.source}")


def _evidence(run: Run, line: Line, kind: str) -> Path:
    """The file that a line names, which must lie in the run folder."""
    name = line.record.get(kind)
    if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        verdict = line.record.get("verdict", "certified")
        raise CertificateError(f"{line.where}: {verdict} without a {kind} file in the run ({name!r})")
    return run.path / name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror})") from None


def _option(run: Run, name: str) -> Any:
    options = (run.summary or {}).get("options")
    return options.get(name) if isinstance(options, dict) else None


def read_results(folder: Path, name: str = RESULTS) -> Iterator[Line]:
    """The lines of a run: from its file of lines; from its store where the run is under way or was killed.

    Raises:
        CertificateError: where a line is none or an index comes twice, or the store is damaged.
    """
    stored = read_store(folder)
    if stored is None or stored.ended is not None:
        return read_lines(folder / name)
    return _checked((f"{folder / STORE} row {n}", record) for n, record in enumerate(stored.records, start=1))


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file of results; raises CertificateError where one is none or an index comes twice."""
    numbered = ((f"{path} line {n}", text) for n, text in enumerate(_read(path).split(b"\n"), start=1) if text)
    return _checked((where, _parse(text, where)) for where, text in numbered)


def _checked(records: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Line]:
    seen: set[int] = set()
    for where, record in records:
        index, verdict = record.get("index"), record.get("verdict", "unknown")
        if type(index) is not int or index in seen or verdict not in ("verified", "falsified", "unknown"):
            raise CertificateError(f"{where}: index {index!r} or verdict {verdict!r} is none, or the index comes twice")
        seen.add(index)
        yield Line(where, record)


def read_summary(path: Path) -> dict[str, Any] | None:
    """The content of ``summary.json``, None if there is none; raises CertificateError if it is no JSON object."""
    return _parse(_read(path), str(path)) if path.exists() else None


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{where}: not JSON ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise CertificateError(f"{where}: not a JSON object")
    return found


def _property(path: Path) -> Property | None:
    found = [path / name for name in PROPERTY if (path / name).is_file()]
    if len(found) > 1:
        raise CertificateError(f"{path}: holds {PROPERTY[0]} and {PROPERTY[1]}; one of them is foreign")
    try:
        return read_property(found[0]) if found else None
    except DataError as error:
        raise CertificateError(str(error)) from None


def _cross_check_property(run: Run, asked: Property) -> None:
    have, want = (asked.inputs, asked.outputs), (run.network.nodes[0].size, run.network.nodes[-1].size)
    if have != want:
        raise CertificateError(f"{run.path}: the property has (inputs, outputs) {have}, the network {want}")
    for line in run.lines:
        if not 0 <= line.record["index"] < len(asked.claims):
            raise CertificateError(f"{line.where}: the property has {len(asked.claims)} claims, numbered from 0")
    if run.summary is not None and run.summary.get("verdict") != run.verdict:
        raise CertificateError(
            f"{run.path / SUMMARY}: the property is {run.summary.get('verdict')}, but the results say {run.verdict}"
        )


def _cross_check_summary(
    path: Path, summary: dict[str, Any], network: PlainNetwork, lines: tuple[Line, ...], counted: bool
) -> None:
    about = summary.get("network")
    if not isinstance(about, dict) or about.get("sha256") != network.sha256:
        raise CertificateError(f"{path / SUMMARY}: its network is not {NETWORK} ({network.sha256[:12]})")
    counts = Counter(line.record.get("verdict") for line in lines)
    for verdict in ("verified", "falsified", "unknown") if counted else ():
        if summary.get(verdict) != counts[verdict]:
            raise CertificateError(
                f"{path / SUMMARY}: {summary.get(verdict)} {verdict}, but the results have {counts[verdict]}"
            )


def _batched(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    source = iter(lines)
    while batch := list(islice(source, size)):
        yield batch
