"""One question whose answer is known, asked of an engine, and its answer judged without the package's arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.bounds import METHODS
from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import LinearRows
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import SEMANTICS, decode
from lpverify.errors import LpverifyError, SoundnessError, UsageError
from lpverify.evidence import ball_claim, certificate
from lpverify.network import Affine, Network, ReLU, as_numpy
from lpverify.problem import Specification
from lpverify.properties import verify_property
from lpverify.result import Result, Verdict
from lpverify.serialize import network_bytes, raw_array
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.verify import verify
from lpverify.vnnlib import parse_property
from lpverify.vnnlib.source import Source
from lpverify.vnnlib.work import Work
from lpverify.workers import Failure
from soundness.report import Tally

Array = NDArray[np.float64]
# Methods of ``verify``, some by other solver interfaces, the complete search, and a VNN-LIB file.
ENGINES = (*METHODS, "lp cvxpy", "milp pulp", "auto", "property")
# Seconds for an answer: enough for networks of this size on a machine that is not busy.
TIMEOUT = 2.0


@dataclass(frozen=True, eq=False)
class Case:
    """Whether all outputs of a network are > 0 on a ball; with a ``label``, all its differences to other outputs.

    Attributes:
        x: (n_0,) the center, whose floats are taken exactly.
        eps: the radius, a decimal.
        least: the exact least output over the ball; None where nobody knows.
        float32_fails: whether some float32 evaluation in the ball, in some order of summation, is not > 0.
    """

    name: str
    network: Network
    x: Array
    eps: str
    least: Fraction | None = None
    float32_fails: bool = False
    label: int | None = None

    @property
    def rows(self) -> Array:
        """The claim's C (m, n_K); d is 0."""
        eye = np.eye(self.network.output_size)
        return eye if self.label is None else np.delete(eye[self.label] - eye, self.label, 0)

    @property
    def ends(self) -> tuple[list[Fraction], list[Fraction]]:
        """The exact box."""
        radius = Fraction(self.eps)
        return [Fraction(v) - radius for v in self.x.tolist()], [Fraction(v) + radius for v in self.x.tolist()]


def answer(case: Case, engine: str, semantics: str, timeout: float = TIMEOUT) -> Result:
    """What an engine says; raises what it raises."""
    if engine == "property":
        settings = Settings("0", semantics=semantics, workers=0)
        asked = parse_property(Source(Path(case.name), property_text(case), ""), Work())
        with Session(case.network, settings) as session:
            (result,) = verify_property(session, asked, deadline=time.perf_counter() + timeout)
        return result
    method, _, backend = engine.partition(" ")
    asked: dict[str, Any] = {"claim": (case.rows, np.zeros(len(case.rows)))}
    if case.label is not None:
        asked = {"y": np.array([case.label])}
    (result,) = verify(
        case.network, case.x[None], eps=case.eps, method=method, semantics=semantics, timeout=timeout, workers=0,
        backend=backend or "highs", **asked,
    )  # fmt: skip
    return result


def ask(tally: Tally, case: Case, engine: str, semantics: str, timeout: float = TIMEOUT) -> Verdict | None:
    """Ask, judge and count; the verdict, or None if there was none."""
    kind = f"{engine}, {semantics}"
    try:
        result = answer(case, engine, semantics, timeout)
    except SoundnessError as error:
        tally.accuse(case.network, f"{case.name}, {kind}: contradictory evidence: {error}")
        return None
    except UsageError:
        tally.counts[f"{kind}: refused"] += 1
        return None
    except LpverifyError as error:
        tally.counts[f"{kind}: error"] += 1
        tally.errors.append(f"{kind}: {type(error).__name__}: {error}")
        return None
    except Exception as error:
        tally.fault(case.network, f"{case.name}, {kind}: {type(error).__name__}: {error}")
        return None
    tally.counts[f"{kind}: {result.verdict.value}"] += 1
    for complaint in complaints(case, result, clamped=engine == "property"):
        tally.accuse(case.network, f"{case.name}, x {case.x.tolist()}, eps {case.eps}, {kind}: {complaint}")
    if result.certificate is not None:
        outcome = exact.check(parse_network(network_bytes(case.network)), decode(result.certificate))
        tally.counts[f"certificates that the exact checker {'accepts' if outcome.accepted else 'rejects'}"] += 1
        if case.least is not None and any(margin > case.least for margin in proved(case, outcome.margins)):
            tally.accuse(case.network, f"{case.name}, {kind}: the exact checker proves {outcome.margins}")
    return result.verdict


def ask_bounds(tally: Tally, case: Case, methods: Sequence[str] = tuple(METHODS)) -> None:
    """Bound methods alone, without any attack before them, and what the rigorous checker makes of them.

    A method that claims what is false is no fault; a checker that accepts it is.
    """
    rows = LinearRows(raw_array(case.rows), raw_array(np.zeros(len(case.rows))))
    claim = ball_claim(case.x, case.eps, "inf", None, rows)
    spec = Specification(torch.from_numpy(case.rows)[None], torch.zeros(1, len(case.rows), dtype=torch.float64))
    with Session(case.network, Settings(case.eps, workers=0, timeout=TIMEOUT)) as session:
        region = session.settings.region(torch.from_numpy(case.x)[None])
        for name in methods:
            try:
                method = session.method(name)
                solved = session.solve(method, region, spec) if method.isolated else None
                bound = session.bound(method, region, spec) if solved is None else next(solved)
            except LpverifyError as error:
                tally.counts[f"bound {name}: {'refused' if isinstance(error, UsageError) else 'error'}"] += 1
                continue
            if isinstance(bound, Failure):
                tally.counts[f"bound {name}: failed"] += 1
                continue
            claims = bool((bound.margins > 0).all())
            for semantics in SEMANTICS if session.checker.is_float32 else SEMANTICS[:1]:
                proof = certificate(session.plain.sha256, semantics, claim, bound, 0, range(len(case.rows)))
                (outcome,) = rigorous.check(session.checker, [proof])
                _judge_bound(tally, case, f"bound {name}, {semantics}", claims, outcome)


def _judge_bound(tally: Tally, case: Case, kind: str, claims: bool, outcome: rigorous.Outcome) -> None:
    is_false = case.least is not None and not case.least > 0
    if kind.endswith("float32"):
        is_false |= case.float32_fails
    tally.counts[f"{kind}: {'proved' if outcome.accepted else 'not proved'}"] += 1
    if claims and is_false:
        tally.counts[f"{kind}: false claims of the engine"] += 1
    if outcome.accepted and is_false:
        tally.accuse(case.network, f"{case.name}, {kind}: accepted, but the claim is false")
    for margin in proved(case, outcome.margins.tolist()) if case.least is not None else []:
        if margin > case.least:
            tally.accuse(case.network, f"{case.name}, {kind}: {margin!r} is above the least output {case.least}")


def complaints(case: Case, result: Result, *, clamped: bool = False) -> list[str]:
    """What is wrong with a result; nothing, if all is well. ``clamped``: see ``bad_witness``."""
    found, least = [], case.least
    if result.verdict is Verdict.VERIFIED:
        if least is not None and not least > 0:
            found.append(f"verified, but the least output is {float(least)!r}")
        if result.semantics == "float32":
            if case.float32_fails:
                found.append("verified, but a float32 evaluation is not above 0")
            elif not float32_least(case) > 0:
                found.append(f"verified, but a float32 evaluation gives {float32_least(case)!r}")
        if result.certificate is None:
            found.append("verified without a certificate")
    if result.verdict is Verdict.FALSIFIED:
        if least is not None and least > 0:
            found.append(f"falsified, but the least output is {float(least)!r}")
        found += bad_witness(case, result, clamped=clamped)
    if least is not None:
        found += [f"a proved margin {margin!r} is above the least output {float(least)!r}"
                  for margin in proved(case, result.margins.tolist()) if margin > least]  # fmt: skip
    return found


def proved(case: Case, margins: Sequence[Any]) -> list[Any]:
    """The margins that must be at most ``case.least``: where there is one output, all that claim anything."""
    if len(case.rows) > 1:
        return [min(margins)] if margins and not any(math.isnan(float(m)) for m in margins) else []
    return [m for m in margins if m == m and m != -math.inf]


def bad_witness(case: Case, result: Result, *, clamped: bool = False) -> list[str]:
    """Why a counterexample is none: outside the exact box, or no margin <= 0 there over the rationals.

    Args:
        clamped: the floats stand for the nearest point of the box, whose ends need not be floats, as in a property's
            witness; they may then leave the box by one unit in the last place.
    """
    if result.counterexample is None:
        return ["falsified without a witness"]
    stored = result.counterexample.x.tolist()
    x = [Fraction(v) for v in stored]
    if clamped:
        x = [min(max(v, low), high) for low, v, high in zip(case.ends[0], x, case.ends[1], strict=True)]
    found = [f"input {i} of the witness is outside the box"
             for i, (low, v, high) in enumerate(zip(case.ends[0], x, case.ends[1], strict=True))
             if not low <= v <= high or abs(float(v) - stored[i]) > math.ulp(stored[i])]  # fmt: skip
    outputs = rational_forward(case.network, x)
    margins = [sum(int(c) * v for c, v in zip(row, outputs, strict=True)) for row in case.rows.tolist()]
    if not min(margins) <= 0:
        found.append(f"the witness {result.counterexample.x.tolist()} has margins {[float(v) for v in margins]}")
    return found


def rational_forward(network: Network, x: Sequence[Fraction]) -> list[Fraction]:
    """f(x) over the rationals, term by term."""
    values: list[list[Fraction]] = [list(x)]
    for node in network.nodes[1:]:
        if isinstance(node, ReLU):
            values.append([max(v, Fraction(0)) for v in values[node.input]])
            continue
        assert isinstance(node, Affine)
        total = [Fraction(v) for v in as_numpy(node.bias).tolist()]
        for source, linear in zip(node.inputs, node.maps, strict=True):
            entries = linear.matrix().tocoo()
            for i, j, w in zip(entries.row.tolist(), entries.col.tolist(), entries.data.tolist(), strict=True):
                total[i] += Fraction(w) * values[source][j]
        values.append(total)
    return values[-1]


def float32_least(case: Case, count: int = 40) -> float:
    """The least margin of float32 evaluations in several orders of summation, at floats inside the box.

    NaN (from an overflow, for instance) counts as minus infinity.
    """
    rng = np.random.default_rng(0)
    low, high = (np.array([float(v) for v in end]) for end in case.ends)
    share = rng.random((count, len(low)))
    share[: count // 2] = share[: count // 2].round()
    points = np.concatenate([low + share * (high - low), low[None], high[None], case.x[None]]).astype(np.float32)
    inside = [p for p in points if all(a <= Fraction(float(v)) <= b for a, v, b in zip(*_zip(case, p), strict=True))]
    if not inside:
        return math.inf
    with np.errstate(all="ignore"):
        found = [_float32_forward(case.network, np.array(inside), order, rng).astype(np.float64) @ case.rows.T
                 for order in range(6)]  # fmt: skip
    least = min(float(values.min()) for values in found)
    return -math.inf if math.isnan(least) else least


def _zip(case: Case, point: NDArray[np.float32]) -> tuple[list[Fraction], list[float], list[Fraction]]:
    return case.ends[0], point.tolist(), case.ends[1]


def _float32_forward(network: Network, x: NDArray[np.float32], order: int, rng: np.random.Generator) -> Any:
    """Every sum one term after the other: as stored, backwards, shuffled; the bias first or last."""
    values = [x]
    for node in network.nodes[1:]:
        if isinstance(node, ReLU):
            values.append(np.maximum(values[node.input], np.float32(0)))
            continue
        assert isinstance(node, Affine)
        bias = np.broadcast_to(as_numpy(node.bias).astype(np.float32), (len(x), len(node.bias)))[..., None]
        terms = [values[source][:, None, :] * linear.matrix().toarray().astype(np.float32)
                 for source, linear in zip(node.inputs, node.maps, strict=True)]  # fmt: skip
        every = np.concatenate([bias, *terms] if order % 2 else [*terms, bias], axis=2)
        places = np.arange(every.shape[2])[:: -1 if order in (2, 3) else 1]
        places = places if order < 4 else rng.permutation(places)
        values.append(np.cumsum(every[:, :, places], axis=2, dtype=np.float32)[:, :, -1])
    return values[-1]


def property_text(case: Case) -> str:
    """The case as a VNN-LIB file: unsafe where some output is <= 0."""
    inputs, outputs = case.network.input_size, case.network.output_size
    names = [*(f"X_{i}" for i in range(inputs)), *(f"Y_{j}" for j in range(outputs))]
    lines = [f"(declare-const {name} Real)" for name in names]
    for i, (low, high) in enumerate(zip(*case.ends, strict=True)):
        lines += [f"(assert (>= X_{i} {decimal_text(low)}))", f"(assert (<= X_{i} {decimal_text(high)}))"]
    unsafe = " ".join(f"(and (<= Y_{j} 0))" for j in range(outputs))
    return "\n".join([*lines, f"(assert (or {unsafe}))"]) + "\n"


def decimal_text(value: Fraction) -> str:
    """A fraction whose denominator has no primes but 2 and 5, as a decimal without any rounding."""
    digits = 0
    while 10**digits % value.denominator:
        digits += 1
    whole = abs(value.numerator) * 10**digits // value.denominator
    text = str(whole).rjust(digits + 1, "0")
    cut = len(text) - digits
    return f"{'-' if value < 0 else ''}{text[:cut]}{'.' if digits else ''}{text[cut:]}"
