"""Draw every figure and table of this folder from the committed results.

    PYTHONPATH=. python figures/draw.py

Each script here with a function ``main(results, out)`` makes its own files; one that fails is named, and the others
are still made. Exit code 1 says that some failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from common import OUT, RESULTS

HERE = Path(__file__).resolve().parent
NOT_FIGURES = ("common", "draw", "saved")


def scripts() -> list[str]:
    """The names of the scripts, in order."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_FIGURES)


def main() -> int:
    """All scripts, or those that are named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", help="scripts without .py; all by default")
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--out", type=Path, default=OUT)
    arguments = options.parse_args()
    failed = []
    for name in arguments.names or scripts():
        began = time.perf_counter()
        try:
            importlib.import_module(name).main(arguments.results, arguments.out)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
