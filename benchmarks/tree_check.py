"""CPU time of both checkers on the certificate trees of run folders.

    lpverify verify MODEL.onnx --vnnlib PROPERTY --timeout 60 --out RUN
    python benchmarks/tree_check.py RUN... [--only rigorous]

One line a certificate and checker: leaves, whether bounds are the root's or each leaf's own, CPU seconds of this
process, and milliseconds a leaf. To compare versions, run it with PYTHONPATH set to one checkout and then the other.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpverify.certificate import exact, rigorous
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.graph import read_network
from lpverify.certificate.proof import decode


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--only", choices=["rigorous", "exact"])
    args = parser.parse_args()
    for run in args.runs:
        plain = read_network(run / "network.lpnet")
        network, whole = rigorous.Network(plain), convert(plain)
        checkers: dict[str, Callable[[Any], Any]] = {
            "rigorous": lambda proof, network=network: rigorous.check(network, [proof])[0],
            "exact": lambda proof, whole=whole: exact.check(whole, proof),
        }
        for path in sorted(run.glob("certificates/*.lpcert")):
            proof = decode(path.read_bytes())
            bounds = "+".join(sorted({tree.bounds for tree in proof.trees})) or "none"
            for name, check in checkers.items():
                if args.only not in (None, name):
                    continue
                began = time.process_time()
                found = check(proof)
                spent = time.process_time() - began
                verdict = f"{found.leaves} leaves" if found.accepted else f"REJECTED: {found.message}"
                each = spent / max(1, found.leaves) * 1000
                print(f"{run.name}/{path.stem} {bounds} {name}: {verdict}, {spent:.2f} s CPU, {each:.3f} ms a leaf")


if __name__ == "__main__":
    main()
