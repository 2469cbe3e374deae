"""Attacks alone, example by example: every counterexample is moved into the exact ball and evaluated exactly."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.attack import attack
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification
from lpverify.recovery import recovered
from lpverify.result import MISCLASSIFIED, Counterexample, Result, Verdict
from lpverify.session import EXAMPLE_SECONDS, Session
from lpverify.settings import Settings
from lpverify.sweep import Answer, Task, sweep
from lpverify.sweep.cut import Cut, cuts
from lpverify.witness import witness_at

Array = NDArray[Any]


def attack_stream(
    network: Network,
    x: Array,
    y: Array,
    settings: Settings,
    indices: Sequence[int],
    finished: Collection[int] = (),
    **search: Any,
) -> Iterator[Result]:
    """Attack label claims batch by batch, falsified with a witness or unknown; in order, unless spread over processes.

    Args:
        network: the lowered network.
        x: (N, ...) finite inputs; y: (N,) labels in range.
        settings: eps, norm, clip, seed and the engine's dtype, device and batch size.
        indices: what to call each example.
        finished: those that have a result already; they take part in their batch, and nothing is yielded of them.
        search: method, loss, steps, restarts of ``lpverify.attack.attack``.
    """
    flat = x.reshape(len(x), -1)
    tasks = (AttackBatch(cut, search) for cut in cuts(network, settings, flat, y, indices, finished))
    return sweep(network, settings, tasks)


@dataclass(frozen=True, eq=False)
class AttackBatch(Task[Result]):
    """The attack on one batch."""

    cut: Cut
    search: dict[str, Any]

    def run(self, session: Session) -> Iterator[Result]:
        return recovered(partial(_attack_batch, self.search), session, self.cut)

    def __call__(self, session: Session) -> Answer[Result]:
        return Answer(list(self.run(session)))

    def seconds(self, settings: Settings) -> float:
        return len(self.cut.x) * EXAMPLE_SECONDS

    def parts(self) -> Sequence[AttackBatch]:
        return [AttackBatch(one, self.search) for one in self.cut.singles()]

    def given_up(self, settings: Settings, reason: str) -> Sequence[Result]:
        return [
            Result(
                index=self.cut.indices[i], verdict=Verdict.UNKNOWN, reason=reason, method=self.search["method"],
                semantics=settings.semantics, margins=np.zeros(0), seconds=0.0, label=int(self.cut.y[i]),
            )
            for i in self.cut.wanted
        ]  # fmt: skip


def _attack_batch(search: dict[str, Any], session: Session, cut: Cut) -> Iterator[Result]:
    """The results of a batch; of the finished examples only what they share with the others."""
    began, x, y = time.perf_counter(), cut.x, cut.y
    clean = torch.as_tensor(x).double()
    spec = Specification.label(torch.as_tensor(y), session.exact.output_size)
    region = session.settings.region(clean)
    with torch.no_grad():
        predicted = session.exact.forward(clean).argmax(1).tolist()
    found = attack(session.engine, region, spec, start=clean, seed=session.settings.seed, **search)
    points = as_numpy(found.points).astype(np.float64)
    # Exact evaluation costs more than the attack: only where the floating-point search found something.
    failed = found.falsified.tolist()
    witnesses = {
        i: _witness(session, x[i], points[i], spec, i) if failed[i] or predicted[i] != y[i] else None
        for i in cut.wanted
    }
    share = (time.perf_counter() - began) / len(x)
    for i, witness in witnesses.items():
        yield Result(
            index=cut.indices[i],
            verdict=Verdict.UNKNOWN if witness is None else Verdict.FALSIFIED,
            reason=_reason(witness),
            method="clean" if witness is not None and witness.misclassified else search["method"],
            semantics=session.settings.semantics,
            margins=np.full(spec.d.shape[1], np.nan),
            seconds=share,
            label=int(y[i]),
            predicted=predicted[i],
            counterexample=witness,
        )


def _witness(session: Session, x: Array, point: Array, spec: Specification, i: int) -> Counterexample | None:
    """The clean input if it fails, else the attack's point, if that fails."""
    for candidate in (x, point):
        found = witness_at(session.exact, session.single, session.settings, x, candidate, spec, i)
        if found is not None:
            return found
    return None


def _reason(witness: Counterexample | None) -> str:
    if witness is None:
        return "no counterexample found"
    return MISCLASSIFIED if witness.misclassified else ""
