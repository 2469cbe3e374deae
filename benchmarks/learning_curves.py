"""Learning curves of trainings, from their run folders to one CSV.

    for name in standard pgd dual ibp; do
        lpverify train benchmarks/configs/digits-$name.toml --out runs/digits-$name --no-card
    done
    python benchmarks/learning_curves.py runs/digits-standard runs/digits-pgd runs/digits-dual runs/digits-ibp

A line for each epoch of each run, from RUN/metrics.jsonl, with what RUN/config.toml says of data, method and radius.
Errors are shares; robust ones are those of the method's own robust loss, at the radius ``eps`` of that epoch on the
training set and at the final radius on the test set. ``seconds`` are those of training the epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

from lpverify.files import write_csv

HERE = Path(__file__).resolve().parent
MEASURED = (
    "epoch", "eps", "loss", "error", "robust_loss", "robust_error", "test_error", "test_robust_loss",
    "test_robust_error", "seconds",
)  # fmt: skip


def main() -> int:
    """All runs, one after the other."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    options.add_argument("--out", type=Path, default=HERE / "results" / "learning_curves.csv")
    arguments = options.parse_args()
    rows = []
    for run in arguments.runs:
        config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
        about = [run.name, config["data"], config["method"], str(config["eps"])]
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            rows.append(about + ["" if found.get(c) is None else f"{found[c]:.6g}" for c in MEASURED])
    write_csv(arguments.out, ["run", "data", "method", "final_eps", *MEASURED], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
