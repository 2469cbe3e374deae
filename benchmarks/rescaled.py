"""What solvers claim of a trained network with one layer times 2^k and the next times 2^-k, and what becomes of it.

    PYTHONPATH=. python benchmarks/rescaled.py --data ../shared/data

The rescaled network is the same function, exactly, but its programs are in odd units. Instances, each one row of a
label claim on one ball:

- ``falsifiable``: a point of the ball fails the claim by exact evaluation (PGD's nearest, the radius 10 percent
  larger). A solver that claims a positive minimum is wrong.
- ``robust``: the rigorous checker accepts a certificate (``lp`` at 99.5 percent of the radius that it proves). A MILP
  solver whose point is negative is wrong.

For every k, backend and instance the LP relaxation (``lp``) and the MILP (``milp``) are asked, over CROWN's bounds of
the rescaled network, in two ways: ``raw``, as they are encoded (``backend.start``), and ``scaled``, equilibrated by
powers of two (``backend.open``). A claim is ``robust`` for a positive optimum, a positive bound or "infeasible";
``falsified`` for a MILP's point that is not positive; ``none`` for anything else (a relaxation that is not positive, a
limit, a failure). Then:

- ``accepted``: the rigorous checker accepts the certificate made of the LP's duals, raw ones included;
- ``verdict``: what ``lpverify.verify`` says with that method and backend, at the k of ``--verify-at``.

``rescaled_claims.csv`` has every answer, ``rescaled.csv`` the counts. Exit code 1 says that a wrong claim was accepted
or became a verdict.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import NETWORKS, Table, correct, images, load, machine, parser, timed
from lp_backends import backends
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lpverify import verify
from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, dual_bound
from lpverify.bounds import BoundResult
from lpverify.bounds.lp import LPBound
from lpverify.bounds.root import root_bounds
from lpverify.certificate import rigorous
from lpverify.certificate.claim import LinearRows
from lpverify.data import load_data
from lpverify.encode import encode
from lpverify.errors import LpverifyError, UsageError
from lpverify.evidence import ball_claim, certificate
from lpverify.lowering import load_model
from lpverify.network import Affine, Network
from lpverify.problem import Specification
from lpverify.program import Array, Program
from lpverify.radius.radii import radii
from lpverify.result import Verdict
from lpverify.serialize import raw_array
from lpverify.session import Session
from lpverify.settings import Settings

DIGITS = Path(__file__).resolve().parents[1] / "lpverify" / "assets" / "digits-demo.safetensors"
CLIP = ("0", "1")
# Seconds for one MILP, and for an example of verify.
LIMIT = 3.0
RAW = (
    "network", "k", "backend", "way", "method", "instance", "kind", "eps", "status", "objective", "bound", "claim",
    "wrong", "accepted", "verdict", "cpu_s",
)  # fmt: skip
COLUMNS = (
    "network", "backend", "way", "method", "asked", "robust_right", "robust_wrong", "falsified_right",
    "falsified_wrong", "none", "of_these_failed", "accepted", "accepted_wrong", "verdicts", "verdicts_wrong",
    "wrong_at_k", "machine",
)  # fmt: skip


@dataclass(frozen=True)
class RawBackend(AbstractBackend):
    """A backend whose programs are not equilibrated."""

    name = "raw"
    inner: AbstractBackend | None = None

    def start(self, program: Program) -> AbstractSession:
        assert self.inner is not None
        return self.inner.start(program)

    def open(self, program: Program) -> AbstractSession:
        return _RawSession(self.start(program), program)


class _RawSession(AbstractSession):
    """The solver's own answers; the bound of an LP is made of its duals, as ``open`` does."""

    def __init__(self, session: AbstractSession, program: Program) -> None:
        self._session, self._program = session, program

    def minimise(self, objective: Array, offset: float = 0.0, **options: Any) -> Solution:
        found = self._session.minimise(objective, offset, **options)
        if found.row_duals is None:
            return found
        return replace(found, bound=dual_bound(self._program.with_objective(objective, offset), found.row_duals))


@dataclass(frozen=True, eq=False)
class Instance:
    """One row C (1, n_K) of a claim about the ball of radius ``eps`` about x (n_0,)."""

    name: str
    falsifiable: bool
    x: NDArray[np.float32]
    eps: str
    C: Array

    @property
    def settings(self) -> Settings:
        """The ball."""
        return Settings(self.eps, clip=CLIP, dtype="float64")

    @property
    def spec(self) -> Specification:
        """The claim as the engines read it."""
        return Specification(torch.as_tensor(self.C)[None], torch.zeros(1, 1, dtype=torch.float64))


def rescale(network: Network, k: int) -> Network:
    """The first affine layer times 2^k, the next one's weights times 2^-k: the same function."""
    nodes, first = list(network.nodes), [i for i, node in enumerate(network.nodes) if isinstance(node, Affine)][:2]
    for index, power in zip(first, (k, -k), strict=True):
        node = nodes[index]
        assert isinstance(node, Affine)
        times = torch.tensor(2.0**power, dtype=torch.float64).mul
        maps = tuple(linear.map_tensors(times) for linear in node.maps)
        nodes[index] = replace(node, maps=maps, bias=times(node.bias) if index == first[0] else node.bias)
    return Network(tuple(nodes), network.notes)


def instances(network: Network, x: NDArray[np.float32], y: NDArray[np.int64], chosen: list[int]) -> Iterator[Instance]:
    """A falsifiable and a robust instance of each chosen image, by the network as it is."""
    settings = Settings("1", clip=CLIP, method="lp", dtype="float64")
    with torch.enable_grad():
        found = list(radii(network, x[chosen], y[chosen], settings, chosen))
    for radius in found:
        i, label = radius.index, int(y[radius.index])
        wide, narrow = f"{1.1 * radius.attacked:.6g}", f"{0.995 * radius.certified:.6g}"
        (result,) = verify(network, x[[i]], y[[i]], wide, clip=CLIP, method="crown")
        if result.verdict is Verdict.FALSIFIED and result.counterexample is not None:
            outputs = network.forward(torch.as_tensor(result.counterexample.x)[None].double())[0]
            row = Specification.label(torch.tensor([label]), len(outputs)).C[0]
            worst = row[(row @ outputs).argmin()][None].numpy()
            yield Instance(f"{i} falsifiable", True, x[i], wide, worst)
        spec = Specification.label(torch.tensor([label]), network.output_size)
        settings = Settings(narrow, clip=CLIP, dtype="float64")
        bound = LPBound().bound(network, settings.region(torch.as_tensor(x[[i]]).double()), spec)
        hard = spec.C[0, bound.margins[0].argmin()][None].numpy()
        robust = Instance(f"{i} robust", False, x[i], narrow, hard)
        if accepted(Session(network, settings), robust, LPBound().bound(network, region_of(robust), robust.spec)):
            yield robust


def region_of(instance: Instance) -> Any:
    """The ball as the engines read it."""
    return instance.settings.region(torch.as_tensor(instance.x)[None].double())


def accepted(session: Session, instance: Instance, bound: BoundResult) -> bool:
    """Whether the rigorous checker accepts the certificate that the bound proposes."""
    rows = LinearRows(raw_array(instance.C), raw_array(np.zeros(1)))
    claim = ball_claim(instance.x, instance.eps, "inf", CLIP, rows)
    proposed = certificate(session.plain.sha256, "real", claim, bound, 0, [0])
    return rigorous.check(session.checker, [proposed])[0].accepted


def ask(network: Network, instance: Instance, backend: AbstractBackend, *, milp: bool) -> Solution:
    """The backend's answer to the relaxation or the MILP of an instance; FAILED for what it refuses."""
    region = region_of(instance)
    encoder = encode(network, region, root_bounds(network, region, "crown").layers, milp=milp)
    objectives, offsets = encoder.rows(len(network.nodes) - 1, instance.C)
    try:
        session = backend.open(encoder.program())
        return session.minimise(objectives[0], float(offsets[0]), time_limit=LIMIT, stop_at=0.0 if milp else None)
    except LpverifyError as error:
        return Solution(Status.FAILED, message=str(error))


def claim_of(found: Solution, *, milp: bool) -> str:
    """What a reader of the answer would say."""
    positive = found.status is Status.OPTIMAL and found.objective > 0
    if found.status is Status.INFEASIBLE or positive or found.bound > 0:
        return "robust"
    return "falsified" if milp and found.objective <= 0 else "none"


def verdict_of(network: Network, instance: Instance, backend: AbstractBackend, method: str) -> str:
    """What lpverify says, in this process; "refused" for a solver that cannot do what the method needs."""
    try:
        (result,) = verify(
            network, instance.x[None], None, instance.eps, claim=(instance.C, np.zeros(1)), clip=CLIP, method=method,
            backend=backend.name, solver=backend.solver, workers=0, timeout=LIMIT,
        )  # fmt: skip
    except UsageError:
        return "refused"
    return result.verdict.value


def measure(
    name: str, network: Network, x: NDArray[np.float32], y: NDArray[np.int64], arguments: argparse.Namespace, raw: Table
) -> None:
    """Every k, instance, backend, way and method; a line each."""
    asked = list(instances(network, x, y, correct(network, x, y, arguments.images)))
    print(f"{name}: {[i.name + ' ' + i.eps for i in asked]}", flush=True)
    for k in range(-30, 31, arguments.step):
        scaled = rescale(network, k)
        points = torch.as_tensor(x[:50]).double()
        if not torch.equal(scaled.forward(points), network.forward(points)):
            print(f"  k {k}: the rescaled network rounds otherwise", flush=True)
        session = Session(scaled, Settings("0", dtype="float64"))
        for backend_name, backend in backends().items():
            if raw.has(name, k, backend_name, "scaled", arguments.methods[-1], asked[-1].name):
                continue
            for instance in asked:
                for way in ("raw", "scaled"):
                    engine = RawBackend(inner=backend) if way == "raw" else backend
                    for method in arguments.methods:
                        verifier = backend if way == "scaled" and k in arguments.verify_at else None
                        answer = line(session, instance, engine, method, verifier)
                        raw.add(network=name, k=k, backend=backend_name, way=way, method=method, **answer)
        print(f"  {name}, k {k}", flush=True)


def line(
    session: Session, instance: Instance, engine: AbstractBackend, method: str, verifier: AbstractBackend | None
) -> dict[str, object]:
    """One answer and what became of it."""
    milp = method == "milp"
    with timed() as clock:
        found = ask(session.exact, instance, engine, milp=milp)
    claim = claim_of(found, milp=milp)
    wrong = claim == ("robust" if instance.falsifiable else "falsified")
    proved: object = ""
    if not milp and found.row_duals is not None:
        bound = LPBound(engine).bound(session.exact, region_of(instance), instance.spec)
        proved = accepted(session, instance, bound)
    verdict = "" if verifier is None else verdict_of(session.exact, instance, verifier, method)
    return {
        "instance": instance.name, "kind": "falsifiable" if instance.falsifiable else "robust", "eps": instance.eps,
        "status": found.status.value, "objective": found.objective, "bound": found.bound, "claim": claim,
        "wrong": wrong, "accepted": proved, "verdict": verdict, "cpu_s": clock.cpu,
    }  # fmt: skip


def summary(raw: Table, out: Path) -> bool:
    """The counts; whether nothing wrong was accepted or became a verdict."""
    out.unlink(missing_ok=True)
    table, about, sound = Table(out, COLUMNS, 4), machine(), True
    keys = ("network", "backend", "way", "method")
    for group in dict.fromkeys(tuple(r[c] for c in keys) for r in raw.lines):
        rows = [r for r in raw.lines if tuple(r[c] for c in keys) == group]
        counts = {f"{c}_{w}": sum(r["claim"] == c and r["wrong"] == str(w == "wrong") for r in rows)
                  for c in ("robust", "falsified") for w in ("right", "wrong")}  # fmt: skip
        took = [r for r in rows if r["accepted"] == "True"]
        verdicts = [r for r in rows if r["verdict"] in ("verified", "falsified")]
        opposite = {"falsifiable": "verified", "robust": "falsified"}
        bad_verdicts = sum(r["verdict"] == opposite[r["kind"]] for r in verdicts)
        bad_proofs = sum(r["kind"] == "falsifiable" for r in took)
        sound &= not bad_verdicts and not bad_proofs
        table.add(
            **dict(zip(keys, group, strict=True)), asked=len(rows), **counts,
            none=sum(r["claim"] == "none" for r in rows),
            of_these_failed=sum(r["claim"] == "none" and r["status"] == "failed" for r in rows), accepted=len(took),
            accepted_wrong=bad_proofs, verdicts=len(verdicts), verdicts_wrong=bad_verdicts,
            wrong_at_k=" ".join(dict.fromkeys(r["k"] for r in rows if r["wrong"] == "True")), machine=about,
        )  # fmt: skip
        last = table.lines[-1]
        print("  ".join(f"{c} {last[c]}" for c in COLUMNS[:-1]))
    return sound


def main() -> int:
    """Ask, count; 1 for a wrong verdict."""
    options = parser(__doc__, "rescaled.csv")
    options.add_argument("--networks", nargs="+", choices=("digits", "2x20", "wk17a"), default=["digits", "2x20"])
    options.add_argument("--images", type=int, default=2, help="of each network, two instances each")
    options.add_argument("--step", type=int, default=5, help="between one k and the next")
    options.add_argument("--methods", nargs="+", choices=("lp", "milp"), default=["lp", "milp"])
    options.add_argument("--verify-at", nargs="*", type=int, default=[-30, -15, 0, 15, 30], help="k for verify")
    arguments: argparse.Namespace = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    raw, began = Table(arguments.out.with_stem(arguments.out.stem + "_claims"), RAW, 6), time.perf_counter()
    with threadpool_limits(1), torch.no_grad():
        for name in arguments.networks:
            if name == "digits":
                network, examples = load_model(DIGITS), load_data("digits")
                assert examples.y is not None
                x, y = examples.x.reshape(len(examples), -1), examples.y
            else:
                network = load(arguments.data, NETWORKS[name])
                x, y = images(arguments.data, network)
            measure(name, network, x, y, arguments, raw)
    print(f"{time.perf_counter() - began:.0f} s")
    if summary(raw, arguments.out):
        return 0
    print("a wrong claim became a verdict", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
