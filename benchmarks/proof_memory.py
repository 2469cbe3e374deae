"""Memory and time of a large proof tree: grown leaf by leaf, written as a certificate, read back.

    python benchmarks/proof_memory.py --leaves 50000 --columns 1500

A tree of phase splits whose leaves have random slopes for all columns, as the search over phases makes them. After each
stage one line: the stage, the process's peak memory so far (ru_maxrss) less that before, CPU seconds, and bytes.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from lpverify.certificate.claim import BoxRegion, Claim, LabelRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import Certificate, Leaf, decode
from lpverify.search.tree import LeafProof, TreeBuilder

MIB = 2**20


def grown(leaves: int, columns: int) -> TreeBuilder:
    """A tree whose shallowest open node is split until there are enough leaves; each is closed as the others wait."""
    random, builder = np.random.default_rng(0), TreeBuilder()
    nodes = [0]
    for at in range(leaves - 1):
        node = nodes[at]
        nodes += builder.split_phase(node, 1, len(builder.path(node)))
    for node in nodes[leaves - 1 :]:
        slopes = random.integers(0, 32769, (1, columns), dtype=np.uint16)
        builder.close(node, LeafProof((0,), slopes=slopes, phases=np.ones((1, len(builder.path(node))), np.float32)))
    return builder


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=1500)
    args = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def report(stage: str, began: float, size: int) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{stage:8} peak {peak / 1024:7.0f} MiB  {time.process_time() - began:6.1f} s CPU  {size / MIB:6.0f} MiB")

    began = time.process_time()
    builder = grown(args.leaves, args.columns)
    report("grow", began, args.leaves * args.columns * 2)
    began = time.process_time()
    tree = builder.encode([0], "root", [(1, np.arange(args.columns))])
    end = RawArray("<f8", (1,), np.zeros(1).tobytes())
    claim = Claim(BoxRegion(end, end), LabelRows(0, 2))
    proof = Certificate("", "real", "crown", claim, Leaf(RawArray("<i4", (0,), b""), ()), trees=(tree,))
    data = proof.encode()
    report("encode", began, len(data))
    del tree, proof, builder
    began = time.process_time()
    decode(data)
    report("decode", began, len(data))


if __name__ == "__main__":
    main()
