"""A thousand solver calls, a tenth of them faulty: wrong answers, lost answers, and what the faults cost.

    python benchmarks/solver_faults.py --calls 1000 --out benchmarks/results/solver_faults.json

Each call is the LP task of one example, in a process of its own: on a tiny network (two inputs, the whole claim known
by enumeration of its linear regions: ``tests/enumeration.py``), or on the convolutional one in the package (``--network
digits``), where an attack has found what it can. Attacks are left out of the runs, and examples that CROWN decides, so
that every example needs the solver. A tenth of the programs, chosen by their own bytes, meets one of FAULTS instead
of an honest HiGHS. Wrong is a verified claim whose least margin is <= 0, or a falsified one whose is > 0; lost is an
example without a result. The same run without faults gives the throughput to compare with.

A hanging solver is ended at the example's limit and a grace; here these are short (``--limit``, ``--grace``; lpverify's
own grace is 30 s), and the loss says little of longer or shorter solves: ``seconds_a_fault`` is what one fault costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from enumeration import least  # noqa: E402
from fault_runs import MODEL  # noqa: E402
from faulty_tenth import FAULTS, FaultyTenthBackend  # noqa: E402
from networks import NETWORKS  # noqa: E402

import lpverify.pipeline  # noqa: E402
import lpverify.session  # noqa: E402
from lpverify.attack import attack  # noqa: E402
from lpverify.backends import BACKENDS  # noqa: E402
from lpverify.bounds import CrownBound  # noqa: E402
from lpverify.data import load_data  # noqa: E402
from lpverify.evidence import claim_of  # noqa: E402
from lpverify.lowering import load_model  # noqa: E402
from lpverify.network import Network  # noqa: E402
from lpverify.problem import Specification  # noqa: E402
from lpverify.program import Array  # noqa: E402
from lpverify.result import Result, Verdict  # noqa: E402
from lpverify.session import Session  # noqa: E402
from lpverify.settings import Settings  # noqa: E402
from lpverify.verify import verify_in  # noqa: E402
from lpverify.versions import versions  # noqa: E402


@dataclass(frozen=True)
class Case:
    """Claims that CROWN leaves open.

    Attributes:
        settings: radius and clip.
        x: (B, n_0) inputs.
        y: (B,) the predicted classes.
        truth: (B,) the least margins, or something that is not below them: a margin somewhere in the ball.
    """

    network: Network
    settings: Settings
    x: Array
    y: Array
    truth: list[float]


def tiny(count: int, draw: torch.Generator) -> Case:
    """A network of two inputs, whose least margins are enumerated."""
    network, settings = NETWORKS["deep"](1).to(torch.float64), Settings("0.3")

    def drawn(n: int) -> torch.Tensor:
        return 2 * torch.rand(n, network.input_size, generator=draw, dtype=torch.float64) - 0.5

    x, y = left_open(network, settings, count, drawn)
    claims = [claim_of(settings, row, int(label), network.output_size) for row, label in zip(x, y, strict=True)]
    return Case(network, settings, x, y, [float(least(network, claim).value) for claim in claims])


def digits(count: int, draw: torch.Generator) -> Case:
    """The convolutional network in the package, about digits that were moved a little; margins found by an attack."""
    network, settings = load_model(MODEL).to(torch.float64), Settings("0.15", clip=("0", "1"))
    images = torch.as_tensor(load_data("digits").x).double().flatten(1)

    def drawn(n: int) -> torch.Tensor:
        chosen = images[torch.randint(len(images), (n,), generator=draw)]
        return (chosen + 0.02 * torch.rand(chosen.shape, generator=draw, dtype=torch.float64)).clamp(0, 1)

    x, y = left_open(network, settings, count, drawn)
    spec = Specification.label(torch.as_tensor(y), network.output_size)
    found = attack(network, settings.region(torch.as_tensor(x)), spec)
    return Case(network, settings, x, y, found.margins.tolist())


def left_open(
    network: Network, settings: Settings, count: int, drawn: Callable[[int], torch.Tensor]
) -> tuple[Array, Array]:
    """Inputs whose predicted classes CROWN does not prove, and these classes."""
    network, xs = network.detach(), list[torch.Tensor]()
    while len(xs) < count:
        x = drawn(200)
        spec = Specification.label(network.forward(x).argmax(1), network.output_size)
        margins = CrownBound().bound(network, settings.region(x), spec).margins
        xs.extend(x[~(margins > 0).all(1)])
    x = torch.stack(xs[:count])
    return x.numpy(), network.forward(x).argmax(1).numpy()


NETS = {"tiny": tiny, "digits": digits}


def answer(case: Case, given: argparse.Namespace, solver: str) -> tuple[list[Result], float]:
    """All results, and the seconds after the first worker was ready."""
    settings = replace(
        case.settings, method="lp", backend="faulty-tenth", solver=solver, timeout=given.limit, workers=given.workers,
        batch_size=given.batch_size,
    )  # fmt: skip
    with Session(case.network, settings) as session:
        session.method("lp")
        began = time.perf_counter()
        found = list(verify_in(session, case.x, case.y, range(len(case.x))))
        return found, time.perf_counter() - began


def main() -> None:
    """Both runs, judged by the enumerated minima."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--network", choices=sorted(NETS), default="tiny")
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    case = NETS[given.network](given.calls, torch.Generator().manual_seed(given.seed))
    truth = case.truth
    BACKENDS["faulty-tenth"] = FaultyTenthBackend
    lpverify.session.GRACE_SECONDS = given.grace
    lpverify.pipeline._attack = lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "faults.log"
        honest, honest_seconds = answer(case, given, "")
        faulty, seconds = answer(case, given, f"{log}@{given.limit}")
        done = Counter(log.read_text().split())
    wrong = [
        r.index for run in (honest, faulty) for r in run
        if (r.verdict is Verdict.VERIFIED and not truth[r.index] > 0)
        or (r.verdict is Verdict.FALSIFIED and given.network == "tiny" and truth[r.index] > 1e-9)
    ]  # fmt: skip
    lost = sorted(set(range(given.calls)) - {r.index for r in faulty})
    faults = sum(done[name] for name in FAULTS)
    both = zip(honest, faulty, strict=True)
    changed = Counter(f"{a.verdict} to {b.verdict}" for a, b in both if a.verdict != b.verdict)
    verdicts = {name: Counter(r.verdict.value for r in run) for name, run in (("without", honest), ("with", faulty))}
    reasons = Counter(re.sub(r": claimed.*", "", r.reason) for r in faulty if r.reason)
    found = {
        "calls": given.calls, "solver_sessions": done.total(), "faults": faults,
        "by_kind": {name: done[name] for name in FAULTS}, "wrong": len(wrong), "lost": len(lost),
        "verdicts": verdicts,
        "network": given.network, "margins_not_above_0": sum(value <= 0 for value in truth), "changed": changed,
        "reasons": reasons,
        "limit": given.limit, "grace": given.grace, "workers": given.workers,
        "seconds": {"without": round(honest_seconds, 1), "with": round(seconds, 1)},
        "throughput_loss_percent": round(100 * (1 - honest_seconds / seconds), 1),
        "seconds_a_fault": round((seconds - honest_seconds) / max(1, faults), 2),
        "versions": versions(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "versions"}, indent=1))
    if wrong or lost:
        raise SystemExit(f"wrong: {wrong[:5]}, lost: {lost[:5]}")


if __name__ == "__main__":
    main()
