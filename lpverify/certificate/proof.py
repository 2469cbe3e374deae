"""Certificates and witnesses: their content and their bytes. Standard library only.

A certificate's header:

    {"format": "lpverify certificate", "version": 2, "network": SHA-256 of the network file,
     "semantics": "real" or "float32", "rule": "interval", "dual", "dual-tight" or "crown",
     "region": ..., "claim": ... (see ``claim``),
     "lemmas": [{"node": k, "neurons": array, "sides": array, "slopes": [...], "duals": [...]}],
     "tree": {"rows": array, "slopes": [...], "duals": [...]}}

The checker forms every dual variable itself by the rule; ``slopes`` override it: {"node": ReLU node,
"neurons": <i4 (k,), "values": <u2 (r, k)} gives, for the r rows listed, lower slopes value / 32768 in [0, 1]
at the listed neurons (used where the checker finds them unstable; any value is sound). ``duals`` override both:
{"node", "neurons", "values": <f4 or <f8 (r, k)} gives the multipliers v themselves, finite, used as they stand
whether a neuron is stable or not. A row is a lower bound of c.f (in a lemma of z, on side 1 of -z); where w_i
is the coefficient of relu(z_i) that it hands down, it gains phi(w_i, v_i) = min over z in {l_i, u_i} and, if
l_i < 0 < u_i, 0 of w_i max(z, 0) - v_i z and goes on as v through the affine node below. Tables count at the
ReLUs that the row reaches. ``rows`` lists the claim's rows that use them; the others follow the rule. A lemma
tightens pre-activation bounds of ReLU node k before they are used: row i bounds neuron neurons[i] from below
(sides[i] = 0) or above (1). Lemmas are checked in order. ``tree`` is the root leaf. Version 1, still read, has no
``duals``.

Version 3 has "trees" beside: a list, not empty, of split trees (see ``tree``). A clause is proved if one of its rows
is bounded above zero at the root leaf, or if a tree that lists it proves it in all leaves; no two trees list the same.
A certificate without trees is written as version 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lpverify.certificate.claim import Claim, ClauseRows, decode_claim, encode_claim
from lpverify.certificate.container import Packed, RawArray, pack, unpack
from lpverify.certificate.fields import UNIT_SLOPE as UNIT_SLOPE
from lpverify.certificate.fields import are_slopes, finite, integers, rises, whole
from lpverify.certificate.tree import Tree, decode_tree, encode_tree, require_well_formed
from lpverify.errors import CertificateError

FORMAT = "lpverify certificate"
WITNESS_FORMAT = "lpverify counterexample"
VERSION = 2
TREE_VERSION = 3
WITNESS_VERSION = 1
CLAUSE_WITNESS_VERSION = 2
RULES = ("interval", "dual", "dual-tight", "crown")
SEMANTICS = ("real", "float32")


@dataclass(frozen=True)
class Slopes:
    """Lower slopes of one ReLU: ``neurons`` (k,) int32 rising, ``values`` (r, k) uint16 in 0..UNIT_SLOPE."""

    node: int
    neurons: RawArray
    values: RawArray


@dataclass(frozen=True)
class Duals:
    """Multipliers of one ReLU: ``neurons`` (k,) int32 rising, ``values`` (r, k) float32 or float64, finite."""

    node: int
    neurons: RawArray
    values: RawArray


@dataclass(frozen=True)
class Leaf:
    """The claim's rows that have tables of their own, ``rows`` (r,) int32, and these: slopes and multipliers."""

    rows: RawArray
    slopes: tuple[Slopes, ...]
    duals: tuple[Duals, ...] = ()


@dataclass(frozen=True)
class Lemma:
    """Bounds of neurons of one ReLU's input: ``neurons`` (r,) int32, ``sides`` (r,) uint8 (0 below, 1 above)."""

    node: int
    neurons: RawArray
    sides: RawArray
    slopes: tuple[Slopes, ...]
    duals: tuple[Duals, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """A proof that ``claim`` holds for the network named by ``network``; see the module's docstring."""

    network: str
    semantics: str
    rule: str
    claim: Claim
    leaf: Leaf
    lemmas: tuple[Lemma, ...] = ()
    trees: tuple[Tree, ...] = ()

    def tables(self) -> Iterator[Slopes | Duals]:
        """Every table of the leaf and of the lemmas."""
        owners: tuple[Leaf | Lemma, ...] = (self.leaf, *self.lemmas)
        for owner in owners:
            yield from owner.slopes
            yield from owner.duals

    def encode(self) -> bytes:
        """The certificate's file."""
        arrays: list[RawArray] = []
        region, rows = encode_claim(self.claim, arrays)

        def store(raw: RawArray) -> dict[str, int]:
            arrays.append(raw)
            return {"array": len(arrays) - 1}

        def listed(tables: tuple[Slopes, ...] | tuple[Duals, ...]) -> list[dict[str, Any]]:
            return [{"node": t.node, "neurons": store(t.neurons), "values": store(t.values)} for t in tables]

        def tables(own: Leaf | Lemma) -> dict[str, Any]:
            return {"slopes": listed(own.slopes), "duals": listed(own.duals)}

        header = {
            "format": FORMAT, "version": VERSION, "network": self.network, "semantics": self.semantics,
            "rule": self.rule, "region": region, "claim": rows,
            "lemmas": [
                {"node": x.node, "neurons": store(x.neurons), "sides": store(x.sides), **tables(x)}
                for x in self.lemmas
            ],
            "tree": {"rows": store(self.leaf.rows), **tables(self.leaf)},
        }  # fmt: skip
        if self.trees:
            header |= {"version": TREE_VERSION, "trees": [encode_tree(tree, arrays) for tree in self.trees]}
        return pack(header, arrays)


def decode(data: bytes, name: str = "<bytes>") -> Certificate:
    """Parse a certificate file's bytes; raises CertificateError if they are not a well-formed certificate."""
    packed = unpack(data, name)
    header = packed.header
    version = header.get("version")
    if header.get("format") != FORMAT or type(version) is not int or version not in (1, VERSION, TREE_VERSION):
        raise CertificateError(f"{name}: not a {FORMAT} of version 1, {VERSION} or {TREE_VERSION}")
    known = {"format", "version", "network", "semantics", "rule", "region", "claim", "lemmas", "tree", "arrays"}
    known |= {"trees"} if version == TREE_VERSION else set()
    if set(header) != known:
        raise CertificateError(f"{name}: unknown or missing fields: {', '.join(sorted(set(header) ^ known))}")
    if header["rule"] not in RULES or header["semantics"] not in SEMANTICS:
        raise CertificateError(f"{name}: rule {header['rule']!r} or semantics {header['semantics']!r} is unknown")
    if not isinstance(header["network"], str) or not isinstance(header["lemmas"], list):
        raise CertificateError(f"{name}: network or lemmas have the wrong type")
    claim, tree = decode_claim(packed), header["tree"]
    tables = {"slopes"} if version == 1 else {"slopes", "duals"}
    if not isinstance(tree, dict) or set(tree) != {"rows"} | tables:
        raise CertificateError(f"{name}: the tree is not a single leaf with rows and {' and '.join(sorted(tables))}")
    rows = integers(packed, tree["rows"], "<i4", claim.num_rows)
    if len(set(rows.values())) != rows.shape[0]:
        raise CertificateError(f"{name}: a row is listed twice")
    leaf = Leaf(rows, _slopes(packed, tree, rows.shape[0]), _duals(packed, tree, rows.shape[0]))
    lemmas = tuple(_lemma(packed, entry, tables) for entry in header["lemmas"])
    trees = _trees(packed, claim) if version == TREE_VERSION else ()
    return Certificate(header["network"], header["semantics"], header["rule"], claim, leaf, lemmas, trees)


def _trees(packed: Packed, claim: Claim) -> tuple[Tree, ...]:
    listed = packed.header["trees"]
    if not isinstance(listed, list) or not listed:
        raise CertificateError(f"{packed.name}: trees are not a list, or there are none")
    trees = tuple(decode_tree(packed, entry, claim) for entry in listed)
    _require_apart(trees, packed.name)
    return trees


def require_trees(certificate: Certificate) -> None:
    """Raise CertificateError unless the trees could have been decoded: a certificate need not come from bytes."""
    for tree in certificate.trees:
        require_well_formed(tree, certificate.claim)
    _require_apart(certificate.trees, "certificate")


def _require_apart(trees: tuple[Tree, ...], name: str) -> None:
    clauses = [clause for tree in trees for clause in tree.clauses.values()]
    if len(set(clauses)) != len(clauses):
        raise CertificateError(f"{name}: a clause is listed by two trees")


def _lemma(packed: Packed, entry: Any, tables: set[str]) -> Lemma:
    if not isinstance(entry, dict) or set(entry) != {"node", "neurons", "sides"} | tables:
        raise CertificateError(f"{packed.name}: a lemma has unknown or missing fields")
    neurons = integers(packed, entry["neurons"], "<i4", 2**31)
    sides = integers(packed, entry["sides"], "|u1", 2)
    if sides.shape != neurons.shape:
        raise CertificateError(f"{packed.name}: a lemma has {neurons.shape[0]} neurons but {sides.shape[0]} sides")
    if len(set(zip(neurons.values(), sides.values(), strict=True))) != neurons.shape[0]:
        raise CertificateError(f"{packed.name}: a lemma bounds the same side of a neuron twice")
    rows = neurons.shape[0]
    slopes, duals = _slopes(packed, entry, rows), _duals(packed, entry, rows)
    return Lemma(whole(packed, entry["node"]), neurons, sides, slopes, duals)


def _slopes(packed: Packed, owner: dict[str, Any], rows: int) -> tuple[Slopes, ...]:
    found = []
    for node, neurons, values in _tables(packed, owner, "slopes", ("<u2",), rows):
        if not are_slopes(values):
            raise CertificateError(f"{packed.name}: a slope is above 1, which is stored as {UNIT_SLOPE}")
        found.append(Slopes(node, neurons, values))
    return tuple(found)


def _duals(packed: Packed, owner: dict[str, Any], rows: int) -> tuple[Duals, ...]:
    found = []
    for node, neurons, values in _tables(packed, owner, "duals", ("<f4", "<f8"), rows):
        if not finite(values):
            raise CertificateError(f"{packed.name}: a multiplier of node {node} is not finite")
        found.append(Duals(node, neurons, values))
    return tuple(found)


def _tables(
    packed: Packed, owner: dict[str, Any], kind: str, dtypes: tuple[str, ...], rows: int
) -> Iterator[tuple[int, RawArray, RawArray]]:
    """The node, neurons (k,) and values (rows, k) of each of the owner's tables of one kind."""
    entries, nodes = owner.get(kind, []), set[int]()
    if not isinstance(entries, list):
        raise CertificateError(f"{packed.name}: {kind} are not a list")
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"node", "neurons", "values"}:
            raise CertificateError(f"{packed.name}: {kind} have unknown or missing fields")
        node, neurons = whole(packed, entry["node"]), integers(packed, entry["neurons"], "<i4", 2**31)
        values = packed.array(entry["values"], ndim=2)
        if values.dtype not in dtypes or values.shape != (rows, neurons.shape[0]):
            raise CertificateError(f"{packed.name}: {kind} are {values.dtype} {values.shape}")
        if not rises(neurons):
            raise CertificateError(f"{packed.name}: the neurons of {kind} do not rise")
        if node in nodes:
            raise CertificateError(f"{packed.name}: {kind} of node {node} are given twice")
        nodes.add(node)
        yield node, neurons, values


@dataclass(frozen=True)
class Witness:
    """A point where a claim fails: ``x`` (n_0,), the failing clause and its value in both arithmetics.

    The point meant is ``x`` clamped into a rational box, input by input; in any other region x itself lies inside.
    ``row`` is the number of the failing clause, which in a label or linear claim is a row. All rows of the clause fail;
    its value is the greatest of theirs. Version 2, for claims of clauses, writes "clause" where version 1 has "row".
    """

    network: str
    claim: Claim
    x: RawArray
    row: int
    margin: float
    margin_float32: float

    def encode(self) -> bytes:
        """The witness's file."""
        arrays: list[RawArray] = [self.x]
        region, rows = encode_claim(self.claim, arrays)
        version, field = _witness_version(self.claim)
        header = {
            "format": WITNESS_FORMAT, "version": version, "network": self.network,
            "region": region, "claim": rows, "x": {"array": 0}, field: self.row,
            "margin": repr(self.margin), "margin_float32": repr(self.margin_float32),
        }  # fmt: skip
        return pack(header, arrays)


def _witness_version(claim: Claim) -> tuple[int, str]:
    """The version of a witness against ``claim``, and the field that holds the number of the failing clause."""
    return (CLAUSE_WITNESS_VERSION, "clause") if isinstance(claim.rows, ClauseRows) else (WITNESS_VERSION, "row")


def decode_witness(data: bytes, name: str = "<bytes>") -> Witness:
    """Parse a witness file's bytes; raises CertificateError if they are not well-formed."""
    packed = unpack(data, name)
    header = packed.header
    version = header.get("version")
    if header.get("format") != WITNESS_FORMAT or version not in (WITNESS_VERSION, CLAUSE_WITNESS_VERSION):
        raise CertificateError(f"{name}: not a {WITNESS_FORMAT} of version 1 or {CLAUSE_WITNESS_VERSION}")
    claim, x = decode_claim(packed), packed.array(header.get("x"), ndim=1)
    expected, field = _witness_version(claim)
    if version != expected:
        raise CertificateError(f"{name}: the claim is not one of a {WITNESS_FORMAT} of version {version}")
    row = header.get(field)
    if x.dtype not in ("<f4", "<f8") or type(row) is not int or not 0 <= row < len(claim.clauses):
        raise CertificateError(f"{name}: the point is {x.dtype} or the {field} {row!r} is not one of the claim's")
    if x.shape[0] != claim.inputs:
        raise CertificateError(f"{name}: the point has {x.shape[0]} inputs, the claim {claim.inputs}")
    try:
        margins = float(header["margin"]), float(header["margin_float32"])
        network = str(header["network"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise CertificateError(f"{name}: the margins or the network's name are missing") from None
    return Witness(network, claim, x, row, *margins)
