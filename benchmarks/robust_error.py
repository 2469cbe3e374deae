"""Robust error of the shipped digits networks against the radius, from above by each method and from below by attacks.

    PYTHONPATH=. python benchmarks/robust_error.py --examples 60 --timeout 4

A line for each network, radius and method: how many examples it leaves uncertified, the misclassified ones included,
by certificates that the rigorous checker accepted. ``attack``: how many have a counterexample (PGD, evaluated exactly).
``search``: complete search on what the methods and the attack left open; its ``falsified`` counts all counterexamples.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import Table, machine, parser, timed

from lpverify.bounds import METHODS
from lpverify.certificate import rigorous
from lpverify.data import load_data
from lpverify.evidence import certificate, claim_of
from lpverify.falsify import attack_stream
from lpverify.lowering import load_model
from lpverify.problem import Specification
from lpverify.result import Verdict
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.verify import verify_in

ASSETS = Path(__file__).resolve().parents[1] / "lpverify" / "assets"
NETWORKS = ("digits-standard", "digits-pgd", "digits-dual", "digits-ibp")
RADII = ("0.01", "0.02", "0.03", "0.04", "0.06", "0.08", "0.1", "0.125", "0.15")
QUICK = ("interval", "dual", "crown", "alpha")
COLUMNS = (
    "network", "eps", "method", "examples", "uncertified", "falsified", "timeout", "cpu_s", "machine"
)  # fmt: skip
BATCH = 25


def accepted(session: Session, method: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the checker accepts the method's certificate, for each example (N,)."""
    found = []
    rows = list(range(session.exact.output_size - 1))
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        spec = Specification.label(torch.as_tensor(y[part]), session.exact.output_size)
        bound = session.bound(METHODS[method](), session.settings.region(torch.as_tensor(x[part]).double()), spec)
        claims = [claim_of(session.settings, x[i], int(y[i]), session.exact.output_size)
                  for i in range(start, min(start + BATCH, len(x)))]  # fmt: skip
        proofs = [
            certificate(session.plain.sha256, "real", claim, bound, i, rows) for i, claim in enumerate(claims)
        ]
        found += [outcome.accepted for outcome in rigorous.check(session.checker, proofs)]
    return np.array(found)


def main() -> int:
    """Every network at every radius, continued where the file ends."""
    options = parser(__doc__, "robust_error.csv")
    options.add_argument("--examples", type=int, default=60, help="the first so many of the test set")
    options.add_argument("--timeout", type=float, default=4.0, help="seconds of the search for an example")
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    table, examples = Table(arguments.out, COLUMNS, 3), load_data("digits")
    x = examples.x[: arguments.examples].reshape(arguments.examples, -1)
    y = examples.y[: arguments.examples]
    for name in arguments.networks:
        network = load_model(ASSETS / f"{name}.safetensors")
        base = Settings("0", clip=("0", "1"), timeout=arguments.timeout, workers=0, batch_size=BATCH)
        for eps in RADII:
            if table.has(name, eps, "search"):
                continue
            settings = replace(base, eps=eps)
            lines = {}
            with Session(network, replace(settings, dtype="float64")) as session:
                with timed() as clock:
                    results = attack_stream(network, x, y, settings, range(len(x)), method="pgd")
                    falsified = np.array([found.verdict is Verdict.FALSIFIED for found in results])
                lines["attack"] = (len(x), int(falsified.sum()), clock.cpu)
                done = np.zeros(len(x), dtype=bool)
                for method in QUICK:
                    with timed() as clock:
                        proved = accepted(session, method, x, y)
                    done |= proved
                    lines[method] = (len(x) - int(proved.sum()), "", clock.cpu)
            left = np.flatnonzero(~done & ~falsified)
            with timed() as clock, Session(network, settings) as session:
                verdicts = [found.verdict for found in verify_in(session, x[left], y[left], left.tolist())]
            verified = int(done.sum()) + verdicts.count(Verdict.VERIFIED)
            lines["search"] = (
                len(x) - verified, int(falsified.sum()) + verdicts.count(Verdict.FALSIFIED), clock.cpu
            )
            for method, (uncertified, broken, cpu) in lines.items():
                table.add(
                    network=name, eps=eps, method=method, examples=len(x), uncertified=uncertified, falsified=broken,
                    timeout=arguments.timeout, cpu_s=cpu, machine=machine(),
                )  # fmt: skip
            print(f"{name} {eps}: {lines}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
