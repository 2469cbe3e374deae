"""The exact checker: accepts a certificate or a witness by integer arithmetic alone. Standard library only.

    python -m lpverify.certificate.exact RUN/

checks RUN/certificates/*.lpcert and RUN/counterexamples/*.lpwit against RUN/network.lpnet; the exit code
is 0, or 7 at the first file that is rejected.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lpverify.certificate.claim import Claim, LabelRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.exact_bounds import RULE_ONLY, Row, listed, lower_bound, root_state
from lpverify.certificate.exact_linear import ExactNetwork, convert, evaluate, integers, scaled
from lpverify.certificate.exact_region import NoBoundError, outside
from lpverify.certificate.graph import PlainNetwork, read_network
from lpverify.certificate.proof import Certificate, Witness, decode, decode_witness
from lpverify.errors import CertificateError


@dataclass(frozen=True)
class Outcome:
    """What a check found: ``margins`` are the proved lower bounds of the rows (a witness: the row's value)."""

    accepted: bool
    margins: tuple[Fraction, ...]
    message: str


def check(network: PlainNetwork | ExactNetwork, certificate: Certificate) -> Outcome:
    """Recompute the certificate's bounds exactly; accepted if every row's bound is above zero.

    Args:
        network: as parsed, or from ``convert`` where several certificates of one network are checked.

    Raises:
        CertificateError: if the certificate refers to nodes or neurons that the network does not have.
    """
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, certificate.network, certificate.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    leaf = certificate.leaf
    for lemma in certificate.lemmas:
        _require_neurons(exact, lemma.node, lemma.neurons)
    for table in certificate.tables():
        _require_neurons(exact, table.node, table.neurons)
    try:
        state = root_state(exact, certificate)
    except NoBoundError as error:
        return Outcome(False, (), str(error))
    own = dict(zip(leaf.rows.values(), listed(leaf, leaf.rows.shape[0]), strict=True))
    margins = tuple(
        bound + lower_bound(state, len(exact.nodes) - 1, row, own.get(index, RULE_ONLY))
        for index, (row, bound) in enumerate(_rows(certificate.claim))
    )
    failed = next((index for index, margin in enumerate(margins) if not margin > 0), None)
    if failed is not None:
        return Outcome(False, margins, f"row {failed}: the bound {_nearest(margins[failed])!r} is not above 0")
    least = f", the least bound {_nearest(min(margins))!r}" if margins else ""
    return Outcome(True, margins, f"all {len(margins)} rows proved{least}")


def check_witness(network: PlainNetwork | ExactNetwork, witness: Witness) -> Outcome:
    """Whether the witness lies in the exact region and its row's exact value is the recorded one and <= 0."""
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, witness.network, witness.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    if not all(map(math.isfinite, witness.x.values())):
        return Outcome(False, (), "the point has an input that is not finite")
    x = [Fraction(value) for value in witness.x.values()]
    misplaced = outside(witness.claim.region, x)
    if misplaced:
        return Outcome(False, (), misplaced)
    (whole, exponent), margin = list(_rows(witness.claim))[witness.row]
    outputs = evaluate(exact, x)
    margin += sum((scaled(n, exponent) * outputs[unit] for unit, n in whole.items()), Fraction(0))
    if margin > 0:
        return Outcome(False, (margin,), f"row {witness.row} holds at the point: its value is {_nearest(margin)!r}")
    if _nearest(margin) != witness.margin:
        return Outcome(False, (margin,), f"the margin is {_nearest(margin)!r}, recorded is {witness.margin!r}")
    return Outcome(True, (margin,), f"row {witness.row} fails at the point: its value is {_nearest(margin)!r}")


def _mismatch(network: ExactNetwork, sha256: str, claim: Claim) -> str:
    if sha256 != network.sha256:
        return f"made for network {sha256[:16]!r}, not for this one, {network.sha256[:16]!r}"
    have, want = (claim.inputs, claim.outputs), (network.nodes[0].size, network.nodes[-1].size)
    return "" if have == want else f"the claim has (inputs, outputs) {have}, the network {want}"


def _require_neurons(network: ExactNetwork, node: int, neurons: RawArray) -> None:
    if node >= len(network.nodes) or network.nodes[node].kind != "relu":
        raise CertificateError(f"certificate: node {node} is not a ReLU of the network")
    if not all(0 <= n < network.nodes[node].size for n in neurons.values()):
        raise CertificateError(f"certificate: a neuron of node {node} is not in 0..{network.nodes[node].size - 1}")


def _rows(claim: Claim) -> Iterator[tuple[Row, Fraction]]:
    """The claim's rows and their constants."""
    if isinstance(claim.rows, LabelRows):
        label = claim.rows.label
        for other in range(claim.rows.classes):
            if other != label:
                yield ({label: 1, other: -1}, 0), Fraction(0)
        return
    entries, width = claim.rows.C.values(), claim.rows.C.shape[1]
    for index, constant in enumerate(claim.rows.d.values()):
        whole, exponent = integers(entries[index * width : (index + 1) * width])
        yield ({unit: n for unit, n in enumerate(whole) if n}, exponent), Fraction(constant)


def _nearest(value: Fraction) -> float:
    """The float64 nearest to a fraction; infinite beyond the range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def main(argv: Sequence[str] | None = None) -> int:
    """Check every file of a run; prints a line each and a summary; returns 0, 2 for misuse, or 7."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m lpverify.certificate.exact RUN/", file=sys.stderr)
        return 2
    run, counts = Path(arguments[0]), {"lpcert": 0, "lpwit": 0}
    try:
        network = convert(read_network(run / "network.lpnet"))
        for path in [*sorted(run.glob("certificates/*.lpcert")), *sorted(run.glob("counterexamples/*.lpwit"))]:
            outcome = _check_file(network, path)
            print(f"{path.name}: {'accepted' if outcome.accepted else 'REJECTED'}: {outcome.message}", flush=True)
            if not outcome.accepted:
                raise CertificateError(f"{path}: {outcome.message}")
            counts[path.suffix[1:]] += 1
    except CertificateError as error:
        print(f"rejected: {error}", file=sys.stderr)
        return CertificateError.exit_code
    print(f"{counts['lpcert']} certificates and {counts['lpwit']} counterexamples accepted in exact arithmetic")
    return 0


def _check_file(network: ExactNetwork, path: Path) -> Outcome:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".lpcert":
        return check(network, decode(data, str(path)))
    return check_witness(network, decode_witness(data, str(path)))


if __name__ == "__main__":
    sys.exit(main())
