"""The exact checker: accepts a certificate or a witness by integer arithmetic alone. Standard library only.

    python -m lpverify.certificate.exact RUN/

checks RUN/certificates/*.lpcert and RUN/counterexamples/*.lpwit against RUN/network.lpnet; the exit code
is 0, or 7 at the first file that is rejected.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from lpverify.certificate.claim import Claim, ClauseRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.exact_bounds import RULE_ONLY, State, listed, lower_bound, root_state
from lpverify.certificate.exact_claim import claim_forms, value
from lpverify.certificate.exact_linear import ExactNetwork, convert, evaluate
from lpverify.certificate.exact_region import NoBoundError, outside, point_meant
from lpverify.certificate.exact_tree import first_failure, require_fit
from lpverify.certificate.graph import PlainNetwork, read_network
from lpverify.certificate.proof import Certificate, Witness, decode, decode_witness, require_trees
from lpverify.errors import CertificateError


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        margins: the proved lower bounds of the rows at the root (a witness: the failing clause's value).
        leaves: the number of leaves of an accepted certificate's trees; 1 without trees; 0 of all else.
    """

    accepted: bool
    margins: tuple[Fraction, ...]
    message: str
    leaves: int = 0


def check(network: PlainNetwork | ExactNetwork, certificate: Certificate) -> Outcome:
    """Recompute the certificate's bounds exactly; accepted if every clause is proved at the root or by a tree.

    Args:
        network: as parsed, or from ``convert`` where several certificates of one network are checked.

    Raises:
        CertificateError: if the certificate contradicts itself, or refers to nodes or neurons that the network does
            not have, or to a threshold outside a leaf's box.
    """
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, certificate.network, certificate.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    leaf, claim, trees = certificate.leaf, certificate.claim, certificate.trees
    for lemma in certificate.lemmas:
        _require_neurons(exact, lemma.node, lemma.neurons)
    for table in certificate.tables():
        _require_neurons(exact, table.node, table.neurons)
    require_trees(certificate)
    for tree in trees:
        require_fit(exact, claim, tree)
    margins: tuple[Fraction, ...] = ()
    try:
        state = root_state(exact, certificate)
        own = dict(zip(leaf.rows.values(), listed(leaf, leaf.rows.shape[0]), strict=True))
        margins = tuple(
            (form.constant + lower_bound(state, len(exact.nodes) - 1, form.row, own.get(index, RULE_ONLY)))
            / form.multiple
            for index, form in enumerate(claim_forms(claim))
        )
        problem = _unproved(state, certificate, margins)
    except NoBoundError as error:
        problem = str(error)
    if problem:
        return Outcome(False, margins, problem)
    if trees:
        leaves = sum(tree.num_leaves for tree in trees)
        return Outcome(True, margins, f"{leaves} leaves", leaves)
    clauses = [max(margins[row] for row in clause) for clause in claim.clauses]
    least = f", the least bound {_nearest(min(clauses))!r}" if clauses else ""
    return Outcome(True, margins, f"all {len(clauses)} {_noun(claim)}s proved{least}", 1)


def _unproved(root: State, certificate: Certificate, margins: tuple[Fraction, ...]) -> str:
    """Why the certificate proves not all of the claim's clauses; empty if it does."""
    claim, listed_clauses = certificate.claim, {c for tree in certificate.trees for c in tree.clauses.values()}
    best = {k: max((margins[row] for row in clause), default=None) for k, clause in enumerate(claim.clauses)}
    proved = {clause for clause, bound in best.items() if bound is not None and bound > 0}
    for clause, bound in best.items():
        if clause not in proved and clause not in listed_clauses:
            what = f"the bound {_nearest(bound)!r} is not above 0" if bound is not None else "it has no rows"
            return f"{_noun(claim)} {clause}: {what}" + (", and no tree proves it" if certificate.trees else "")
    for number, tree in enumerate(certificate.trees):
        found = first_failure(root, claim, tree, proved)
        if found is not None:
            where = f"tree {number}, leaf {found.leaf} (node {found.node})"
            return f"{where}: clause {found.clause} is not proved (bound {_nearest(found.bound)!r})"
    return ""


def _noun(claim: Claim) -> str:
    return "clause" if isinstance(claim.rows, ClauseRows) else "row"


def check_witness(network: PlainNetwork | ExactNetwork, witness: Witness) -> Outcome:
    """Whether the witness lies in the exact region and all rows of its clause fail there, by the recorded value."""
    exact = convert(network) if isinstance(network, PlainNetwork) else network
    mismatch = _mismatch(exact, witness.network, witness.claim)
    if mismatch:
        return Outcome(False, (), mismatch)
    if not all(map(math.isfinite, witness.x.values())):
        return Outcome(False, (), "the point has an input that is not finite")
    claim = witness.claim
    x = point_meant(claim.region, [Fraction(value) for value in witness.x.values()])
    misplaced = outside(claim.region, x)
    if misplaced:
        return Outcome(False, (), misplaced)
    outputs, forms = evaluate(exact, x), list(claim_forms(claim))
    values = [value(forms[row], outputs) for row in claim.clauses[witness.row]]
    margins, margin = tuple(sorted(values)[-1:]), _nearest(max(values, default=-math.inf))
    strict = [row.strict for row in claim.rows.clauses[witness.row]] if isinstance(claim.rows, ClauseRows) else [True]
    where = f"{_noun(claim)} {witness.row}"
    if any(found > 0 or (found == 0 and not above) for found, above in zip(values, strict, strict=True)):
        return Outcome(False, margins, f"{where} holds at the point: its value is {margin!r}")
    if margin != witness.margin:
        return Outcome(False, margins, f"the margin is {margin!r}, recorded is {witness.margin!r}")
    return Outcome(True, margins, f"{where} fails at the point: its value is {margin!r}")


def _mismatch(network: ExactNetwork, sha256: str, claim: Claim) -> str:
    if sha256 != network.sha256:
        return f"made for network {sha256[:16]!r}, not for this one, {network.sha256[:16]!r}"
    have, want = (claim.inputs, claim.outputs), (network.nodes[0].size, network.nodes[-1].size)
    if have != want:
        return f"the claim has (inputs, outputs) {have}, the network {want}"
    rows = [row for clause in claim.rows.clauses for row in clause] if isinstance(claim.rows, ClauseRows) else []
    for row in rows:  # a file is refused for this, but a claim need not come from a file
        if any(a >= b for a, b in pairwise([-1, *row.units, want[1]])) or len(row.units) != len(row.coefficients):
            return f"a row of the claim is about outputs {row.units}"
    return ""


def _require_neurons(network: ExactNetwork, node: int, neurons: RawArray) -> None:
    if node >= len(network.nodes) or network.nodes[node].kind != "relu":
        raise CertificateError(f"certificate: node {node} is not a ReLU of the network")
    if not all(0 <= n < network.nodes[node].size for n in neurons.values()):
        raise CertificateError(f"certificate: a neuron of node {node} is not in 0..{network.nodes[node].size - 1}")


def _nearest(value: Fraction | float) -> float:
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
