"""A store cut off or changed at every byte of its last record, and certificates changed at every byte.

    python benchmarks/torn_tail.py --out benchmarks/results/torn_tail.json

The store is that of a run that was killed after ``--rows`` examples: ``run.sqlite`` and its journal, with the lines of
the package's digits. The last record is what its transaction added to the journal. The journal is cut at every length
from there on, and one bit of every byte there is flipped; what is then read must be all rows, all but the last, or a
refusal, and every row that of the run. The certificates are those of the first examples with a certificate of at most
``--largest`` bytes, one bit flipped in every byte (a drawn one, or with ``--bits`` each of the eight). One that the
rigorous checker still accepts must convince the exact checker too; if it is about another claim, it must be told apart
by its network, label, input, radius, norm, clip or semantics, as ``lpverify check --data`` does.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from fault_runs import MODEL

from lpverify.certificate import rigorous
from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.data import load_data
from lpverify.errors import CertificateError
from lpverify.lowering import load_model
from lpverify.result import Result
from lpverify.runs.store import STORE, Header, Store, read_store
from lpverify.serialize import network_bytes
from lpverify.settings import Settings
from lpverify.verify import verify_stream

JOURNAL = f"{STORE}-wal"


def store_faults(folder: Path, records: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Cut and change the journal's last transaction; the counts of what was read."""
    store, lengths = Store(folder, Header("verify"), {}), []
    for place, record in enumerate(records):
        store.add(place, record)
        lengths.append((folder / JOURNAL).stat().st_size)
    whole, data = (folder / STORE).read_bytes(), (folder / JOURNAL).read_bytes()
    store.close()
    begin, draw, left = lengths[-2], random.Random(seed), folder / "left"
    cuts, flips = Counter[str](), Counter[str]()
    for at in range(begin, len(data) + 1):
        cuts[_read(left, whole, data[:at], records)] += 1
    for at in range(begin, len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << draw.randrange(8)
        flips[_read(left, whole, bytes(changed), records)] += 1
    return {"rows": len(records), "bytes_of_the_last": len(data) - begin, "cuts": cuts, "flips": flips}


def _read(folder: Path, store: bytes, journal: bytes, records: list[dict[str, Any]]) -> str:
    """What is read of a store with this journal; a wrong row ends the benchmark."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / STORE).write_bytes(store)
    (folder / JOURNAL).write_bytes(journal)
    try:
        stored = read_store(folder)
    except CertificateError:
        return "refused"
    found = [] if stored is None else list(stored.records)
    if found == records:
        return "all rows"
    if found == records[:-1]:
        return "all but the last"
    raise SystemExit(f"read {len(found)} rows that are not those of the run")


def certificate_faults(checker: Any, plain: Any, data: bytes, draw: random.Random, every: bool) -> Counter[str]:
    """Change every byte of a certificate; the counts of what followed."""
    original, counts = decode(data), Counter[str]()
    for at in range(len(data)):
        for bit in range(8) if every else [draw.randrange(8)]:
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            counts[_judge(checker, plain, original, bytes(changed))] += 1
    return counts


def _judge(checker: Any, plain: Any, original: Any, data: bytes) -> str:
    try:
        proof = decode(data)
    except CertificateError:
        return "not decoded"
    if proof.network != original.network:
        return "another network, told by its name"
    try:
        (outcome,) = rigorous.check(checker, [proof])
    except CertificateError:
        return "refused"
    if not outcome.accepted:
        return "refused"
    if not check_exactly(plain, proof).accepted:
        raise SystemExit(f"accepted in float64, refused in integers: {data.hex()}")
    if (proof.claim, proof.semantics) != (original.claim, original.semantics):
        return "proves another claim, told by its input, label or radius"
    return "proves the same claim"


def main() -> None:
    """Both parts; writes the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--certificates", type=int, default=3)
    parser.add_argument("--largest", type=int, default=6000)
    parser.add_argument("--bits", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    network, examples, draw = load_model(MODEL), load_data("digits"), random.Random(given.seed)
    assert examples.y is not None
    count = max(given.rows, 20 * given.certificates)
    results: list[Result] = list(
        verify_stream(network, examples.x[:count], examples.y[:count], Settings("0.05", clip=("0", "1")))
    )
    plain = parse_network(network_bytes(network.detach()))
    checker = rigorous.Network(plain)
    small = [r for r in results if r.certificate is not None and len(r.certificate) <= given.largest]
    # Of each method that proved something, one; then the first ones.
    chosen = list({r.method: r for r in reversed(small)}.values())[: given.certificates]
    chosen += [r for r in small if r not in chosen][: given.certificates - len(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        records = [result.record(None, None) for result in results[: given.rows]]
        found: dict[str, Any] = {"store": store_faults(Path(folder), records, given.seed)}
    print(json.dumps(found["store"]), flush=True)
    found["certificates"] = []
    for result in chosen:
        assert result.certificate is not None
        counts = certificate_faults(checker, plain, result.certificate, draw, given.bits)
        about = {"method": result.method, "bytes": len(result.certificate), "changes": counts.total(), "then": counts}
        found["certificates"].append(about)
        print(json.dumps(about), flush=True)
    found["false_verified"] = 0
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
