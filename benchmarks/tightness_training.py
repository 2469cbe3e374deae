"""How tight the bounds are after training with them, by the radius of training; one hidden layer (thesis, table 3.3).

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/tightness_training.py

The source uses the HAR data and 500 hidden units; here the bundled digits and 50, trained on the dual bound for a few
seconds at each radius, and once without any radius. Balls are clipped to [0, 1] in training and measuring. Each
network is measured at its radius of training, the standard one at every radius.

A line of ``tightness_training.csv`` has errors over the first test digits, of the inputs as they are (clean), under
FGSM and PGD, by LP and dual bound; ``falsified`` and ``unknown`` are counts of ``lpverify verify --method auto``: the
exact robust error lies between falsified / images and (falsified + unknown) / images. Margins are means over the first
``rows`` digits, of the class row with the least LP bound: at attacked points, exact (MILP), by LP and by the dual;
``exact_bound`` is the MILP's proved bound, equal to ``exact`` unless its time ran out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from common import HERE, Table, machine
from torch import Tensor

from lpverify.attack import attack
from lpverify.bounds import DualBound, LPBound, MILPBound
from lpverify.data import Examples, load_data
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.problem import Specification, ball
from lpverify.result import Verdict
from lpverify.settings import Settings
from lpverify.training.checkpoint import LAST
from lpverify.training.config import from_dict
from lpverify.training.loop import train
from lpverify.verify import verify_stream

RADII = ("0.01", "0.03", "0.05", "0.1", "0.15", "0.2")
COLUMNS = (
    "trained", "eps", "images", "clean_error", "fgsm_error", "pgd_error", "falsified", "unknown", "lp_error",
    "dual_error", "unstable", "rows", "attack_margin", "exact_margin", "exact_bound", "lp_margin", "dual_margin",
    "hidden", "epochs", "seed", "machine",
)  # fmt: skip
CLIP = (0.0, 1.0)


def trained(method: str, eps: str, arguments: argparse.Namespace) -> Network:
    """A network trained for a few seconds; in float64."""
    given = {
        "data": "digits", "method": method, "epochs": arguments.epochs, "eps": float(eps), "clip": list(CLIP),
        "arch": f"cnn(1x8x8; fc {arguments.hidden}; fc 10)", "batch": 50, "lr": 0.005, "lr_schedule": "cosine",
        "seed": arguments.seed, "device": "cpu", "threads": 1, "eval_every": arguments.epochs,
    }  # fmt: skip
    if method == "dual":
        given |= {"eps_schedule": "linear", "eps_start": 0.001, "eps_ramp": arguments.epochs // 2}
    with tempfile.TemporaryDirectory() as folder:
        train(from_dict(given), Path(folder) / "run")
        return load_model(Path(folder) / "run" / LAST)


def broken(margins: Tensor) -> float:
    """The share of examples (B, m) or (B,) with a margin that is not > 0."""
    return float((~(margins.reshape(len(margins), -1) > 0)).any(1).double().mean())


def measure(network: Network, eps: str, examples: Examples, arguments: argparse.Namespace) -> dict[str, object]:
    """One line but for what names it."""
    count, rows = arguments.images, arguments.rows
    assert examples.y is not None
    x, y = examples.x[:count].reshape(count, -1), examples.y[:count]
    region = ball(torch.as_tensor(x).double(), float(eps), clip=CLIP)
    spec = Specification.label(torch.as_tensor(y), 10)
    with torch.no_grad():
        clean = spec.margins(network.forward(torch.as_tensor(x).double()))
        dual, lp = DualBound().bound(network, region, spec), LPBound().bound(network, region, spec)
    attacked = {name: attack(network, region, spec, method=name, early_stop=False).margins for name in ("fgsm", "pgd")}
    settings = Settings(eps, clip=("0", "1"), timeout=arguments.timeout, workers=0)
    verdicts = [result.verdict for result in verify_stream(network, x, y, settings)]
    least = lp.margins[:rows].argmin(1)
    picked = torch.arange(rows), least
    some = Specification(spec.C[picked].unsqueeze(1), spec.d[picked].unsqueeze(1))
    balls = region.select(torch.arange(rows))
    with torch.no_grad():
        exact = MILPBound(value=True, seconds=arguments.timeout).bound(network, balls, some)
        assert exact.candidates is not None
        points = attack(network, balls, some, steps=100, restarts=5, early_stop=False).margins
        found = some.margins(network.forward(exact.candidates[:, 0]))[:, 0]
    # The MILP's point may be none, or not as good as the attack's.
    upper = torch.fmin(points, found)
    margins = {"attack": points, "exact": upper, "lp": lp.margins[picked], "dual": dual.margins[picked]}
    return {
        "images": count, "clean_error": broken(clean), "fgsm_error": broken(attacked["fgsm"]),
        "pgd_error": broken(attacked["pgd"]), "falsified": verdicts.count(Verdict.FALSIFIED),
        "unknown": verdicts.count(Verdict.UNKNOWN), "lp_error": broken(lp.margins), "dual_error": broken(dual.margins),
        "unstable": dual.stats["unstable"], "rows": rows, "exact_bound": float(exact.margins.mean()),
        **{f"{name}_margin": float(values.mean()) for name, values in margins.items()},
        "hidden": arguments.hidden, "epochs": arguments.epochs, "seed": arguments.seed, "machine": machine(),
    }  # fmt: skip


def main() -> None:
    """Train, measure, write; lines that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tightness_training.csv", help="continued")
    parser.add_argument("--images", type=int, default=200, help="first test digits")
    parser.add_argument("--rows", type=int, default=30, help="digits with exact margins")
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds an example, by the clock")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, examples = Table(arguments.out, COLUMNS, 2), load_data("digits")
    standard: Network | None = None
    for method in ("dual", "standard"):
        for eps in RADII:
            if table.has(method, eps):
                continue
            if method == "standard":
                network = standard = standard or trained(method, RADII[0], arguments)
            else:
                network = trained(method, eps, arguments)
            table.add(trained=method, eps=eps, **measure(network, eps, examples, arguments))
            print({k: v for k, v in table.lines[-1].items() if k != "machine"}, flush=True)


if __name__ == "__main__":
    main()
