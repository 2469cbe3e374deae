"""What an LP solver says beside what the rigorous checker certifies from its duals, and backends beside each other.

    PYTHONPATH=. python benchmarks/lp_certified.py --data ../shared/data

The first test images that each network classifies correctly, l-infinity balls clipped to [0, 1], all rows of the
label claim, pre-activation bounds by CROWN. Every backend solves the same LPs. A line of ``lp_certified_rows.csv`` is
one LP by one backend: ``objective``, the value at the solver's point; ``bound``, the Lagrangian bound of its duals
in floating point; ``certified``, the margin that the checker proves from the certificate (multipliers in float32).
``lp_certified.csv`` has the largest differences, relative ones to 1 + |objective|. ``above`` is how far a certified
margin lies above the objective: rounding, as a certified margin above the LP's true value would be a fault; the LP's
relaxation is by the engine's bounds, the checker's own differ by rounding. Exit code 1 says that one lies further.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import NETWORKS, Table, correct, images, load, machine, parser, timed
from lp_backends import backends
from threadpoolctl import threadpool_limits

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution
from lpverify.bounds.lp import LPBound
from lpverify.certificate import rigorous
from lpverify.evidence import certificate, claim_of
from lpverify.problem import Specification
from lpverify.program import Array, Program
from lpverify.session import Session
from lpverify.settings import Settings

EPS = {"conv": "0.1", "wk17a": "0.1", "6x100": "0.015", "cifar": "0.00784313725490196"}
RAW = ("network", "image", "row", "backend", "status", "objective", "bound", "certified", "cpu")
COLUMNS = (
    "network", "eps", "backend", "lps", "failed", "objective_bound", "objective_certified",
    "objective_certified_relative", "above", "from_highs", "from_highs_relative", "cpu_lp", "machine",
)  # fmt: skip
ABOVE = 1e-9


@dataclass(frozen=True)
class Recorder(AbstractBackend):
    """A backend that keeps what another one answers."""

    name = "recorder"
    inner: AbstractBackend | None = None
    solutions: list[Solution] = field(default_factory=list)

    def start(self, program: Program) -> AbstractSession:
        raise AssertionError("open is what is used")

    def open(self, program: Program) -> AbstractSession:
        assert self.inner is not None
        return _Recording(self.inner.open(program), self.solutions)


class _Recording(AbstractSession):
    def __init__(self, session: AbstractSession, solutions: list[Solution]) -> None:
        self._session, self._solutions = session, solutions

    def minimise(self, objective: Array, offset: float = 0.0, **options: float) -> Solution:  # type: ignore[override]
        self._solutions.append(self._session.minimise(objective, offset, **options))
        return self._solutions[-1]


def measure(name: str, data: Path, count: int, chosen: dict[str, AbstractBackend], raw: Table) -> None:
    """Every backend on every image; a line for each row."""
    network = load(data, NETWORKS[name])
    x, y = images(data, network)
    settings = Settings(EPS[name], clip=("0", "1"), dtype="float64")
    session = Session(network, settings)
    for index in correct(network, x, y, count):
        region = settings.region(torch.as_tensor(x[[index]]).double())
        spec = Specification.label(torch.as_tensor(y[[index]]), network.output_size)
        claim = claim_of(settings, x[index], int(y[index]), network.output_size)
        for backend_name, backend in chosen.items():
            if raw.has(name, index, 0, backend_name):
                continue
            recorder = Recorder(inner=backend)
            with timed() as clock:
                found = LPBound(recorder).bound(session.exact, region, spec)
            rows = list(range(spec.d.shape[1]))
            proposed = certificate(session.plain.sha256, "real", claim, found, 0, rows)
            (outcome,) = rigorous.check(session.checker, [proposed])
            for row, solution in enumerate(recorder.solutions):
                raw.add(
                    network=name, image=index, row=row, backend=backend_name, status=solution.status.value,
                    objective=repr(solution.objective), bound=repr(solution.bound),
                    certified=repr(float(outcome.margins[row])), cpu=clock.cpu / len(rows),
                )  # fmt: skip


def summary(raw: Table, out: Path) -> bool:
    """The largest differences; whether no certified margin is above its LP."""
    out.unlink(missing_ok=True)
    table, about = Table(out, COLUMNS, 3), machine()
    values = {(r["network"], r["image"], r["row"], r["backend"]): float(r["objective"]) for r in raw.lines}
    for network, backend in dict.fromkeys((r["network"], r["backend"]) for r in raw.lines):
        rows = [r for r in raw.lines if (r["network"], r["backend"]) == (network, backend)]
        solved = [r for r in rows if r["status"] == "optimal"]
        triples = [tuple(float(r[c]) for c in ("objective", "bound", "certified")) for r in solved]
        others = [values.get((network, r["image"], r["row"], "highs"), float("nan")) for r in solved]
        from_highs = [abs(o - h) for (o, _, _), h in zip(triples, others, strict=True)]
        table.add(
            network=NETWORKS[network], eps=EPS[network], backend=backend, lps=len(rows),
            failed=len(rows) - len(solved), objective_bound=max(abs(o - b) for o, b, _ in triples),
            objective_certified=max(o - c for o, _, c in triples),
            objective_certified_relative=max((o - c) / (1 + abs(o)) for o, _, c in triples),
            above=max(0.0, *((c - o) / (1 + abs(o)) for o, _, c in triples)),
            from_highs=max(from_highs),
            from_highs_relative=max(d / (1 + abs(h)) for d, h in zip(from_highs, others, strict=True)),
            cpu_lp=sum(float(r["cpu"]) for r in rows) / len(rows), machine=about,
        )  # fmt: skip
        line = table.lines[-1]
        print("  ".join(f"{c} {line[c]}" for c in COLUMNS[:-1]))
    return all(float(line["above"]) <= ABOVE for line in table.lines if line["backend"] == "highs")


def main() -> int:
    """Measure, print, write; 1 if the checker proved more than an LP allows."""
    options = parser(__doc__, "lp_certified.csv")
    options.add_argument("--networks", nargs="+", choices=tuple(EPS), default=list(EPS))
    options.add_argument("--images", type=int, default=18, help="images of each network, nine LPs each")
    options.add_argument("--backends", nargs="+", default=[], help="names; all by default")
    arguments: argparse.Namespace = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    raw = Table(arguments.out.with_stem(arguments.out.stem + "_rows"), RAW, 4)
    chosen = {k: b for k, b in backends().items() if k in arguments.backends or not arguments.backends}
    began = time.perf_counter()
    with threadpool_limits(1), torch.no_grad():
        for name in arguments.networks:
            measure(name, arguments.data, arguments.images, chosen, raw)
    print(f"{time.perf_counter() - began:.0f} s")
    if summary(raw, arguments.out):
        return 0
    print("the checker proved more than an LP allows", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
