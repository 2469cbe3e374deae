"""One property from its files to a run folder and a report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpverify.properties import Conclusion
    from lpverify.result import Result
    from lpverify.runs.folder import RunFolder
    from lpverify.session import Session
    from lpverify.vnnlib import Property

# The search stops at the timeout; what overruns it is interrupted so much later: a share of it, and seconds.
GRACE_SHARE, GRACE_SECONDS = 0.1, 1.0


@dataclass(frozen=True, eq=False)
class Done:
    """A property, what became of it, and in what time; ``out`` is the run folder, if there is one."""

    asked: Property
    conclusion: Conclusion
    seconds: float
    out: Path | None


def run_property(
    model: Path,
    vnnlib: Path,
    given: dict[str, Any],
    *,
    out: Path | None,
    overwrite: bool,
    began: float,
    latest: float = math.inf,
) -> Done:
    """Decide a property; with ``out``, write each claim's result as it comes, then the summary, come what may.

    A run of the same property that is in the folder is gone on with; its timeout begins anew.

    Args:
        given: the command's options.
        began: when the timeout started to run (``time.perf_counter``).
        latest: when to end, whatever is running; by default a little after the timeout.
    """
    from contextlib import nullcontext

    from lpverify.cli.limit import limited
    from lpverify.cli.loading import load_network, make_settings, say_assumed, settings_header
    from lpverify.cli.running import announce
    from lpverify.properties import TIMEOUT, Conclusion, unanswered, verify_property
    from lpverify.runs.folder import RunFolder
    from lpverify.serialize import network_file
    from lpverify.session import Session
    from lpverify.vnnlib import read_property

    settings = make_settings({**given, "eps": "0", "norm": "inf", "clip": None})
    asked = read_property(vnnlib)
    network = load_network(model, given)
    say_assumed(model, network)
    timeout = math.inf if settings.timeout is None else settings.timeout
    latest = min(latest, began + (1 + GRACE_SHARE) * timeout + GRACE_SECONDS)
    conclusion = Conclusion(len(asked.claims))
    data, sha256 = network_file(network)
    about = settings_header("verify --vnnlib", sha256, asked.sha256, settings, {})
    with Session(network, settings) as session, (
        nullcontext(None) if out is None else RunFolder(out, overwrite=overwrite, header=about)
    ) as run:
        stopped: str | None = None
        finished: frozenset[int] = frozenset()
        if run is not None:
            announce(run, len(asked.claims), "claims")
            finished = run.finished
            for result in _restored(run, session, asked):
                conclusion.add(result)
            if run.summary is not None:
                return Done(asked, conclusion, time.perf_counter() - began, out)
            run.write_network(data, sha256)
            run.write_property(vnnlib.read_bytes())
        waiting = set(range(len(asked.claims))) - finished
        try:
            if conclusion.falsified is not None:
                reason = f"claim {conclusion.falsified.index} is falsified"
                stream = unanswered(session, asked, sorted(waiting), reason)
            else:
                stream = verify_property(session, asked, deadline=began + timeout, finished=finished)
            for result in limited(stream, latest):
                _keep(run, conclusion, asked, result)
                waiting.discard(result.index)
            for result in unanswered(session, asked, sorted(waiting), TIMEOUT):
                _keep(run, conclusion, asked, result)
        except BaseException as error:
            stopped = type(error).__name__
            raise
        finally:
            seconds = time.perf_counter() - began
            if run is not None:
                options = {"model": str(model), "vnnlib": str(vnnlib), **_options(given, settings)}
                run.write_summary(_summary(asked, conclusion, seconds, stopped, options, network, sha256, settings))
    return Done(asked, conclusion, seconds, out)


def _restored(run: RunFolder, session: Session, asked: Property) -> Iterator[Result]:
    """The results of earlier processes; a counterexample is evaluated again, for its outputs are not stored."""
    from lpverify.clause_witness import Judge

    for result in run.results():
        if result.counterexample is not None:
            judge = Judge(session.exact, session.single, asked.claims[result.index], asked.open_faces[result.index])
            result = replace(result, counterexample=judge(result.counterexample.x))
        yield result


def _keep(run: RunFolder | None, conclusion: Conclusion, asked: Property, result: Any) -> None:
    if run is not None:
        run.add(result, asked.claims[result.index])
    conclusion.add(result)


def _options(given: dict[str, Any], settings: Any) -> dict[str, Any]:
    names = ("semantics", "timeout", "device", "dtype", "batch_size", "seed", "backend", "solver", "workers")
    normalised = {name: list(given[name]) if given[name] is not None else None for name in ("mean", "std")}
    return {**{name: getattr(settings, name) for name in names}, **normalised}


def _summary(
    asked: Property,
    conclusion: Conclusion,
    seconds: float,
    stopped: str | None,
    options: dict[str, Any],
    network: Any,
    sha256: str,
    settings: Any,
) -> dict[str, Any]:
    """The content of ``summary.json``."""
    import torch

    from lpverify.result import Verdict
    from lpverify.versions import machine

    return {
        "verdict": conclusion.verdict.value,
        "reason": conclusion.reason,
        "method": conclusion.method,
        "claims": conclusion.claims,
        **{verdict.value: conclusion.verdicts[verdict] for verdict in Verdict},
        "leaves": conclusion.leaves,
        "stopped": stopped,
        "property": {"sha256": asked.sha256, "summary": asked.summary()},
        "options": options,
        "seconds": {"total": round(seconds, 6)},
        "network": {"sha256": sha256, "notes": list(network.notes)},
        **machine(settings.device, torch.get_num_threads()),
    }


def evidence(done: Done) -> tuple[str | None, str | None]:
    """Paths of the certificate (of several, their folder) and of the counterexample; None where there is none."""
    from lpverify.result import Verdict
    from lpverify.runs.folder import CERTIFICATE_SUFFIX, CERTIFICATES, COUNTEREXAMPLE_SUFFIX, COUNTEREXAMPLES

    if done.out is None:
        return None, None
    falsified = done.conclusion.falsified
    if falsified is not None:
        return None, str(done.out / COUNTEREXAMPLES / f"{falsified.index:06d}{COUNTEREXAMPLE_SUFFIX}")
    if done.conclusion.verdict is not Verdict.VERIFIED or not done.conclusion.claims:
        return None, None
    folder = done.out / CERTIFICATES
    return str(folder if done.conclusion.claims > 1 else folder / f"{0:06d}{CERTIFICATE_SUFFIX}"), None


def report(done: Done) -> str:
    """The result for people."""
    conclusion = done.conclusion
    counts = ", ".join(f"{n} {verdict.value}" for verdict, n in conclusion.verdicts.items() if n) or "none"
    lines = [
        f"{conclusion.verdict.value}: by {conclusion.method} in {done.seconds:.2f} s",
        f"property: {done.asked.summary()}",
        f"claims: {counts}; leaves {conclusion.leaves}",
    ]
    if conclusion.reason:
        lines.append(f"because: {conclusion.reason}")
    if conclusion.counterexample is not None:
        lines += [f"{name} = {value!r}" for name, value in _values(done)[:12]]
    lines.append("evidence was not kept: no --out" if done.out is None else f"results and evidence: {done.out}")
    return "\n".join(lines)


def to_json(done: Done) -> dict[str, Any]:
    """The result for programs: paths are of files in the run folder, X and Y the counterexample's values in order."""
    certificate, path = evidence(done)
    found = done.conclusion.counterexample
    counterexample = None
    if found is not None:
        assert found.outputs is not None
        counterexample = {"path": path, "X": found.x.tolist(), "Y": list(map(float, found.outputs.tolist()))}
    return {
        "verdict": done.conclusion.verdict.value,
        "reason": done.conclusion.reason,
        "method": done.conclusion.method,
        "seconds": round(done.seconds, 6),
        "leaves": done.conclusion.leaves,
        "certificate": certificate,
        "counterexample": counterexample,
    }


def _values(done: Done) -> list[tuple[str, float]]:
    """The counterexample's inputs and outputs by the names in the file."""
    found = done.conclusion.counterexample
    assert found is not None and found.outputs is not None
    x, y = map(float, found.x.tolist()), map(float, found.outputs.tolist())
    return [*zip(done.asked.x.names, x, strict=True), *zip(done.asked.y.names, y, strict=True)]


def competition_text(done: Done) -> str:
    """The file that the competition's rules ask for: the verdict, and a counterexample's values."""
    from lpverify.properties import TIMEOUT

    words = {"falsified": "sat", "verified": "unsat"}
    verdict = done.conclusion.verdict.value
    if verdict == "falsified":
        values = [f"({name} {decimal_text(value)})" for name, value in _values(done)]
        return "sat\n(" + "\n".join(values) + ")\n"
    late = verdict == "unknown" and TIMEOUT in " ".join(done.conclusion.reasons)
    return ("timeout" if late else words.get(verdict, "unknown")) + "\n"


def decimal_text(value: float) -> str:
    """The shortest decimal without an exponent that reads back as ``value``."""
    from decimal import Decimal

    return format(Decimal(repr(value)), "f")
