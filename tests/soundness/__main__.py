"""Run the parts of the gate and write their counts; exit code 1 for a wrong verdict or a fault."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch
from common import machine

from soundness import adversarial, differential, metamorphic, multipliers, report, tiny, twins

PARTS: dict[str, ModuleType] = {
    "adversarial": adversarial, "twins": twins, "tiny": tiny, "multipliers": multipliers, "metamorphic": metamorphic,
    "differential": differential,
}  # fmt: skip
OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "soundness.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, report; 1 if any part of the report has a wrong verdict or a fault."""
    options = argparse.ArgumentParser(description=__doc__, prog="soundness")
    options.add_argument("--only", help=f"parts with commas between them: {', '.join(PARTS)}")
    options.add_argument("--share", type=float, default=1.0, help="of each part's items, in (0, 1]")
    options.add_argument("--seconds", type=float, default=float("inf"), help="for each part; what is left is reported")
    options.add_argument("--out", type=Path, default=OUT, help="JSON; parts that are not run stay as they are in it")
    data = os.environ.get("LPVERIFY_SHARED", Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--data", type=Path, default=data, help="folder of shared networks")
    options.add_argument("--marabou", type=Path, help="Python of an environment with maraboupy (see marabou.py)")
    given = options.parse_args(arguments)
    chosen = list(PARTS) if given.only is None else given.only.split(",")
    if not set(chosen) <= set(PARTS) or not 0 < given.share <= 1:
        options.error(f"--only: parts are {', '.join(PARTS)}; --share: in (0, 1]")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    folders = report.Given(given.data, given.marabou)
    for name in chosen:
        whole = PARTS[name].total(folders)
        tally = report.Tally(name, whole, given.seconds, given.out.with_suffix(""))
        PARTS[name].run(tally, max(1, round(given.share * whole)), folders)
        found = report.read(given.out) | {name: tally.entry(machine())}
        report.write(given.out, {key: found[key] for key in PARTS if key in found})
        print(report.text({name: found[name]}), flush=True)
    return int(any(part["wrong"] or part.get("faults") for part in report.read(given.out).values()))


if __name__ == "__main__":
    sys.exit(main())
