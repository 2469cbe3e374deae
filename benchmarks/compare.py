"""Every bound method, and the attack, on the named problems of ``problems.py``: a CSV of ``lpverify.comparison.rows``.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/compare.py --data ../shared/data

Continued where it was stopped: what the file has is not measured again. ``--quick`` takes one radius and two examples
of each problem and writes ``compare_quick.csv``. Problems that need shared data are left out, with a line, where there
are none. What must hold between the methods (``lpverify.comparison.orderings``) is asserted for every example; a
violation ends the run with exit code 6, a line on standard error, and the case saved in ``violations/`` beside the
file. ``--layers DIR`` keeps the pre-activation bounds of every neuron by every method.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch
from common import HERE, parser
from instances import commit
from problems import PROBLEMS
from threadpoolctl import threadpool_limits

from lpverify.comparison.rows import RowFile
from lpverify.comparison.run import Options, compare
from lpverify.errors import SoundnessError


def main() -> int:
    """Measure; 6 for numbers in the wrong order."""
    options = parser(__doc__, "compare.csv")
    options.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    options.add_argument("--quick", action="store_true", help="one radius, two examples, two seconds a costly method")
    options.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="of the engines")
    options.add_argument("--layers", type=Path, metavar="DIR", help="keep pre-activation bounds there")
    arguments = options.parse_args()
    if arguments.quick and arguments.out == HERE / "results" / "compare.csv":
        arguments.out = arguments.out.with_name("compare_quick.csv")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    file, began = RowFile(arguments.out), time.perf_counter()
    asked = Options(dtype=arguments.dtype, layers=arguments.layers, commit=commit())
    with threadpool_limits(1):
        for name in arguments.problems:
            problem = PROBLEMS[name]
            if problem.shared and not (arguments.data / "torch_networks.csv").is_file():
                print(f"{name}: left out, there are no shared data at {arguments.data}", flush=True)
                continue
            try:
                for rows in compare(problem.case(name, arguments.data, quick=arguments.quick), file, asked):
                    seconds = time.perf_counter() - began
                    print(f"{name}, eps {rows[0].eps}, example {rows[0].example}: {seconds:.0f} s", flush=True)
            except SoundnessError as error:
                print(f"wrong order: {error}", file=sys.stderr)
                return 6
    print(f"{arguments.out}: {len(file.rows)} rows, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
