"""Split trees, clauses and rational boxes as bytes: round trips, and everything that must not decode."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from small_certificates import box, plain, rows
from small_networks import random_network
from small_trees import NOTHING, Cut, Node, Phase, Row, clauses, raw, tree, tree_certificate
from test_exact_tree import assert_sound, enumerated
from test_proof_format import (
    STRANGE,
    change_everywhere,
    good_witness,
    header_of,
    linear_certificate,
    raw_file,
    rich_certificate,
)

from lpverify.certificate.claim import Claim, LabelRows, RationalBox, rational
from lpverify.certificate.container import RawArray, pack
from lpverify.certificate.exact import check, check_witness
from lpverify.certificate.fields import are_slopes, finite
from lpverify.certificate.proof import Certificate, Witness, decode, decode_witness
from lpverify.certificate.tree import Tree, walk
from lpverify.errors import CertificateError
from lpverify.serialize import raw_array

NETWORK = random_network(6, (2, 3, 3, 2))
PLAIN = plain(NETWORK)
REGION = RationalBox((Fraction(-7, 3), Fraction(1, 10)), (Fraction(5, 2), Fraction(1, 10)))
EITHER = [({0: "1/3", 1: -1}, "181/100", True), ({1: 1}, "31/100", False)]
CLAUSES = clauses(2, EITHER, [({}, 1, True)], [({0: 1}, 9, True)])


def own(row: Any, *phases: float) -> Row:
    return Row(row, phases, [0.25, 0.5, 1.0], [0.5, -0.25, 1.0])


def rich_tree() -> Tree:
    """A tree that uses every field."""
    below = Phase(4, 1, [Row(0, [0.5, 0.25]), own([0.5, 2.0, 0, 0], 0.5, 1.0)], [own(1, 0.0, 0.5)])
    above = Cut(0, 0.125, [Row(NOTHING, [1.0]), own(3, 0.25), Row(1, [0.0])], [Row(0, [0.5]), Row(3, [0.0])])
    return tree([0, 2], Phase(2, 0, below, above), 4, "leaf", {2: [1, 2], 4: [0]}, "<f4")


def rich() -> Certificate:
    single = tree([1], [Row([0, 0, 0.5, 0])], 4)
    return tree_certificate(PLAIN.sha256, REGION, CLAUSES, rich_tree(), single, rule="interval")


def proved() -> Certificate:
    return enumerated(0, (2, 2, 1), "leaf", 1e-6)[1]


@pytest.mark.parametrize("make", [rich, proved])
def test_round_trip(make: Callable[[], Certificate]) -> None:
    proof = make()
    again = decode(proof.encode())
    assert again == proof and again.encode() == proof.encode()
    header, _ = header_of(proof.encode())
    assert header["version"] == 3 and len(header["trees"]) == len(proof.trees)


def test_files_without_trees_are_as_before() -> None:
    """Digests of files that the package wrote before there were trees."""
    name = "0" * 64
    witness = replace(good_witness(), network=name, margin=-1.5, margin_float32=-1.25)
    files = [replace(rich_certificate(), network=name), replace(linear_certificate(), network=name), witness]
    assert [hashlib.sha256(file.encode()).hexdigest()[:16] for file in files] == [
        "b3b7f2cdcbde72c8",
        "9faabbe21e720864",
        "12511891254aa80f",
    ]
    header, arrays = header_of(files[1].encode())
    first = {**header, "version": 1, "tree": {"rows": header["tree"]["rows"], "slopes": []}}
    assert decode(pack(first, arrays)) == files[1]  # it has no duals


def test_a_version_has_its_own_fields() -> None:
    for make, version in itertools.product((rich, linear_certificate), (1, 2, 3, 4, True, "3", None)):
        header, arrays = header_of(make().encode())
        if header["version"] != version:
            with pytest.raises(CertificateError):
                decode(pack({**header, "version": version}, arrays))
    header, arrays = header_of(rich().encode())
    for bad in ([], {}, None, [None], [{}]):
        with pytest.raises(CertificateError):
            decode(pack({**header, "trees": bad}, arrays))


# Trees that contradict themselves


def removed(stored: RawArray, places: Any) -> RawArray:
    return raw(np.delete(np.array(stored.values(), stored.dtype).reshape(stored.shape), places, axis=0), stored.dtype)


def doubled(stored: RawArray, places: Any) -> RawArray:
    values = np.array(stored.values(), stored.dtype).reshape(stored.shape)
    return raw(np.insert(values, places, values[places], axis=0), stored.dtype)


@pytest.mark.parametrize("change", [removed, doubled])
@pytest.mark.parametrize("leaf", range(4))
def test_a_lost_or_doubled_leaf_does_not_decode(change: Callable[..., RawArray], leaf: int) -> None:
    """Also if all of the leaf's rows and multipliers go with it."""
    found = rich_tree()
    counts, node = found.counts.values(), [p for p, kind in enumerate(found.kinds.values()) if not kind][leaf]
    first = sum(counts[:leaf])
    lost = list(range(first, first + counts[leaf]))
    depth = [2, 2, 1, 1]
    phases = [d for d, count in zip(depth, counts, strict=True) for _ in range(count)]
    at = sum(phases[:first])
    multipliers = list(range(at, at + counts[leaf] * depth[leaf]))
    smaller = replace(
        found, kinds=change(found.kinds, [node]), counts=change(found.counts, [leaf]), rows=change(found.rows, lost),
        slope_of=change(found.slope_of, lost), dual_of=change(found.dual_of, lost),
        phases=change(found.phases, multipliers),
    )  # fmt: skip
    for bad in (replace(found, kinds=smaller.kinds), smaller):
        with pytest.raises(CertificateError, match=r"lacks 1 of its leaves|comes after its end"):
            decode(replace(rich(), trees=(bad,)).encode())
        with pytest.raises(CertificateError):
            check(PLAIN, replace(rich(), trees=(bad,)))


NAN, TOP = float("nan"), 2**31 - 1
BAD: list[tuple[str, Any, str]] = [
    ("bounds", "branch", "bounds 'branch'"),
    ("clauses", raw([], "<i4"), "clauses do not rise"),
    ("clauses", raw([0, 0], "<i4"), "clauses do not rise"),
    ("clauses", raw([2, 0], "<i4"), "clauses do not rise"),
    ("clauses", raw([-1, 0], "<i4"), "clauses do not rise"),
    ("clauses", raw([0, 3], "<i4"), "clauses do not rise"),
    ("clauses", raw([0, 2], "<i8"), "clauses of a tree are <i8"),
    ("kinds", raw([], "|u1"), "lacks 1 of its leaves"),
    ("kinds", raw([1, 1, 0, 0, 2, 0, 3], "|u1"), "of kind 3"),
    ("kinds", raw([0, 1, 1, 0, 0, 2, 0], "|u1"), "comes after its end"),
    ("kinds", raw([1, 2, 0, 0, 2, 0, 0], "|u1"), "split 1 is of kind 2 but has 4"),
    ("kinds", raw([1, 1, 0, 0, 1, 0, 0], "|u1"), "split 2 is of kind 1 but has 0, 0.125"),
    ("places", raw([[2, 0], [4, 1]], "<i4"), "3 splits but places"),
    ("places", raw([[2, 0], [2, 0], [0, 0]], "<i4"), "twice"),
    ("places", raw([[2, 0], [4, -1], [0, 0]], "<i4"), "negative place"),
    ("places", raw([[2, 0], [-4, 1], [0, 0]], "<i4"), "negative place"),
    ("places", raw([[2, 0], [4, 1], [1, 0]], "<i4"), "split 2 is of kind 2 but has 1"),
    ("points", raw([0, 0], "<f8"), "3 splits but"),
    ("points", raw([0, 0, NAN], "<f8"), "not finite"),
    ("points", raw([0, 0, float("inf")], "<f8"), "not finite"),
    ("points", raw([0, 0.5, 0.125], "<f8"), "split 1 is of kind 1"),
    ("counts", raw([2, 1, 3], "<i4"), "other counts"),
    ("counts", raw([2, 1, 3, 1], "<i4"), "other counts"),
    ("counts", raw([2, 1, 3, 3], "<i4"), "other counts"),
    ("counts", raw([2, 0, 4, 2], "<i4"), "other counts"),
    ("counts", raw([2, -1, 5, 2], "<i4"), "other counts"),
    ("counts", raw([2, 1, 2, 3], "<i4"), ""),  # as good as before: every row has one multiplier here
    ("counts", raw([1, 2, 3, 2], "<i4"), ""),
    ("counts", raw([2, 2, 2, 2], "<i4"), "phase multipliers instead of 12"),
    ("rows", raw([0, -3, 1, -1, 3, 1, 0, 3], "<i4"), "not of the claim's 4 rows"),
    ("rows", raw([0, -2, 1, -1, 4, 1, 0, 3], "<i4"), "not of the claim's 4 rows"),
    ("rows", raw([0, -2, TOP, -1, 3, 1, 0, 3], "<i4"), "not of the claim's 4 rows"),
    ("rows", raw([0, -TOP - 1, 1, -1, 3, 1, 0, 3], "<i4"), "not of the claim's 4 rows"),
    ("combos", raw([[0, 0, 0, 0]], "<f8"), "does not combine"),
    ("combos", raw([[0, 1, 1, 0]], "<f8"), "does not combine"),
    ("combos", raw([[1, -1, 0, 0]], "<f8"), "negative or not finite"),
    ("combos", raw([[1, NAN, 0, 0]], "<f8"), "negative or not finite"),
    ("combos", raw([[1, 1, 0]], "<f8"), "not of the claim's 4 rows"),
    ("combos", raw(np.zeros((0, 4)), "<f8"), "not of the claim's 4 rows"),
    ("combos", raw(np.zeros((9, 0)), "<f8"), "not of the claim's 4 rows"),
    ("combos", raw([1, 1, 0, 0], "<f8"), "combos of a tree are|expected 2 axes"),
    ("columns", ((2, raw([1], "<i4")), (4, raw([0], "<i4"))), "do not fit"),
    ("columns", ((2, raw([1, 1], "<i4")), (4, raw([0], "<i4"))), "do not rise"),
    ("columns", ((2, raw([2, 1], "<i4")), (4, raw([0], "<i4"))), "do not rise"),
    ("columns", ((2, raw([-1, 1], "<i4")), (4, raw([0], "<i4"))), "negative neuron"),
    ("columns", ((2, raw([1, 2], "<i4")), (2, raw([0], "<i4"))), "two columns of the same node"),
    ("columns", ((-2, raw([1, 2], "<i4")), (4, raw([0], "<i4"))), "of node -2|not a node"),
    ("columns", ((2, raw([1, 2], "<i8")), (4, raw([0], "<i4"))), "do not rise"),
    ("slopes", raw([[32769, 0, 0]] * 3, "<u2"), "above 1"),
    ("slopes", raw([[1, 0, 0]] * 2, "<u2"), "uses slopes that the tree does not have"),
    ("slopes", raw([[1, 0]] * 3, "<u2"), "do not fit"),
    ("slope_of", raw([-1] * 7, "<i4"), "do not fit"),
    ("slope_of", raw([3] * 8, "<i4"), "does not have"),
    ("slope_of", raw([-2] * 8, "<i4"), "does not have"),
    ("duals", raw([[NAN, 0, 0]] * 3, "<f4"), "not finite"),
    ("duals", raw([[1, 0, 0, 0]] * 3, "<f8"), "do not fit"),
    ("dual_of", raw([5] * 8, "<i4"), "does not have"),
    ("dual_of", raw([-1] * 9, "<i4"), "do not fit"),
    ("phases", raw([0.5] * 10, "<f4"), "10 phase multipliers instead of 11"),
    ("phases", raw([0.5] * 12, "<f4"), "12 phase multipliers instead of 11"),
    ("phases", raw([*[0.5] * 10, float("inf")], "<f4"), "not finite"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_fields_that_do_not_fit_are_refused(field: str, value: Any, message: str) -> None:
    proof = replace(rich(), trees=(replace(rich_tree(), **{field: value}),))
    for attempt in (lambda: decode(proof.encode()), lambda: check(PLAIN, proof)):
        if not message:
            attempt()
            continue
        with pytest.raises(CertificateError, match=message):
            attempt()


def test_a_clause_in_two_trees_is_refused() -> None:
    proof = replace(rich(), trees=(rich_tree(), tree([2], [Row(3)], 4)))
    for attempt in (lambda: decode(proof.encode()), lambda: check(PLAIN, proof)):
        with pytest.raises(CertificateError, match="listed by two trees"):
            attempt()


# Changed bytes and fields


def test_the_trees_are_needed() -> None:
    """So that what follows is about them."""
    for network, proof in ((NETWORK, rich()), (random_network(0, (2, 2, 1)), proved())):
        assert check(plain(network), proof).accepted
        assert not check(plain(network), replace(proof, trees=())).accepted


def judged(proof: Certificate) -> bool:
    """Whether the checker took it; if so its claim holds at sampled points."""
    network = NETWORK if proof.claim.outputs == 2 else random_network(0, (2, 2, 1))
    try:
        return assert_sound(network, proof)
    except CertificateError:
        return False


@pytest.mark.parametrize("make", [rich, proved])
def test_no_changed_byte_proves_what_is_false(make: Callable[[], Certificate]) -> None:
    data, draw, accepted = make().encode(), random.Random(5), 0
    for at in range(8, len(data)):
        mutated = bytearray(data)
        mutated[at] ^= 1 << draw.randrange(8)
        try:
            accepted += judged(decode(bytes(mutated)))
        except CertificateError:
            continue
    assert 0 < accepted < len(data) // 2


@pytest.mark.parametrize("make", [rich, proved])
def test_no_changed_field_proves_what_is_false(make: Callable[[], Certificate]) -> None:
    header, arrays = header_of(make().encode())
    accepted = 0
    for changed in change_everywhere(header, STRANGE):
        try:
            proof = decode(raw_file(changed, arrays))
        except CertificateError as error:
            assert "\n" not in str(error)
            continue
        accepted += judged(proof)
    assert accepted


# The walk


def paths(node: Node, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    if not isinstance(node, Phase | Cut):
        return [path]
    return [*paths(node.left, (*path, 0)), *paths(node.right, (*path, 1))]


@pytest.mark.parametrize("seed", range(20))
def test_the_walk_visits_the_leaves_in_order(seed: int) -> None:
    draw = random.Random(seed)

    def grow(depth: int) -> Node:
        return Cut(0, 0.0, grow(depth - 1), grow(depth - 1)) if depth and draw.random() < 0.8 else [Row(0)]

    root, before = grow(6), list[tuple[int, int]]()
    kinds = bytes(tree([0], root, 1).kinds.data)
    found = []
    for place in walk(kinds):
        assert kinds[place.node] == 0 and place.path[: place.kept] == before[: place.kept]
        assert place.path[place.kept : place.kept + 1] != before[place.kept : place.kept + 1] or not before
        found.append(tuple(side for _, side in place.path))
        before = list(place.path)
    assert found == paths(root)


# Clauses, rational boxes and their witnesses


@pytest.mark.parametrize("text", ["0", "-1", "1/3", "-22/7", "1/" + "9" * 400, "9" * 400])
def test_rationals_are_read_in_lowest_terms(text: str) -> None:
    assert str(rational(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "-0", "+1", "01", "2/4", "1/1", "1/0", "0/3", "1/-3", "1.5", "1e3", " 1", "1 ", "1_0", "١", "nan", "1" * 401,
     "1/" + "1" * 401, 1, 0.5, None, ["1"], True],
)  # fmt: skip
def test_other_rationals_are_refused(text: Any) -> None:
    with pytest.raises(CertificateError, match="not a rational"):
        rational(text)


def primes(count: int) -> list[int]:
    return [n for n in range(2, 10**5) if all(n % k for k in range(2, int(n**0.5) + 1))][:count]


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("region", "lower", ["1/10"], "1 lower and 2 upper"),
        ("region", "lower", [], "0 lower"),
        ("region", "lower", "1/10", "list of rationals"),
        ("region", "lower", ["1/2", "1/5"], "input 1 of the rational box has lower 1/5 above 1/10"),
        ("region", "kind", "rational", "unknown region"),
        ("region", "extra", 1, "rational box has"),
        ("claim", "outputs", 1, "not outputs in 0..0"),
        ("claim", "outputs", True, "True outputs"),
        ("claim", "outputs", 0, "0 outputs"),
        ("claim", "clauses", [], "there are none"),
        ("claim", "clauses", [[], 3], "not lists of rows"),
        ("claim", "clauses", [[{"units": [0]}]], "unknown or missing"),
        ("claim", "extra", 1, "unknown fields"),
    ],
)
def test_malformed_claims_are_refused(part: str, field: str, value: Any, message: str) -> None:
    header, arrays = header_of(rich().encode())
    header[part][field] = value
    with pytest.raises(CertificateError, match=message):
        decode(pack(header, arrays))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": [1, 0]}, "do not rise"),
        ({"units": [0, 0]}, "do not rise"),
        ({"units": [0]}, "other coefficients"),
        ({"units": [0, 2]}, "not outputs in 0..1"),
        ({"units": [-1, 0]}, "not outputs in 0..1"),
        ({"units": [False, True]}, "not outputs in 0..1"),
        ({"strict": 1}, "do not rise, or"),
        ({"constant": "0.5"}, "not a rational"),
        ({"coefficients": ["1", 2]}, "not a rational"),
        ({"coefficients": ["1/" + "7" * 400, "1/" + "1" * 400]}, ""),
    ],
)
def test_malformed_rows_are_refused(change: dict[str, Any], message: str) -> None:
    header, arrays = header_of(rich().encode())
    header["claim"]["clauses"][0][0].update(change)
    if not message:
        decode(pack(header, arrays))
        return
    with pytest.raises(CertificateError, match=message):
        decode(pack(header, arrays))


def test_denominators_without_a_short_common_multiple_are_refused() -> None:
    ends = tuple(Fraction(1, p) for p in primes(500))
    header, arrays = header_of(tree_certificate("", RationalBox(ends, ends), LabelRows(0, 2)).encode())
    with pytest.raises(CertificateError, match="common denominator"):
        decode(pack(header, arrays))


def test_the_clauses_of_a_claim_are_row_numbers() -> None:
    assert Claim(REGION, CLAUSES).clauses == ((0, 1), (2,), (3,))
    assert Claim(REGION, clauses(1, [], [({0: 1}, 0, True)], [])).clauses == ((), (0,), ())
    assert (Claim(REGION, CLAUSES).num_rows, Claim(REGION, CLAUSES).inputs, Claim(REGION, CLAUSES).outputs) == (4, 2, 2)
    assert Claim(box([0], [1]), LabelRows(1, 3)).clauses == ((0,), (1,))
    assert Claim(box([0], [1]), rows([[1], [2]], [0, 0])).clauses == ((0,), (1,))


def test_witnesses_of_clauses_are_of_version_2() -> None:
    claim = Claim(REGION, clauses(2, [({0: 1}, 100, True)], [({0: 1, 1: "1/3"}, -100, True)]))
    found = Witness(PLAIN.sha256, claim, raw_array(np.array([0.0, 0.1])), 1, 0.0, 0.0)
    margin = float(check_witness(PLAIN, found).margins[0])
    found = replace(found, margin=margin)
    header, arrays = header_of(found.encode())
    assert (header["version"], header["clause"], "row" in header) == (2, 1, False)
    again = decode_witness(found.encode())
    assert again == found and again.encode() == found.encode() and check_witness(PLAIN, again).accepted
    for change in ({"version": 1}, {"version": 3}, {"clause": 2}, {"clause": -1}, {"clause": True}, {"clause": None}):
        with pytest.raises(CertificateError):
            decode_witness(pack({**header, **change}, arrays))
    header, arrays = header_of(good_witness().encode())
    with pytest.raises(CertificateError, match="not one of a"):
        decode_witness(pack({**header, "version": 2, "clause": 0}, arrays))


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_finite_agrees_with_numpy_on_any_bits(dtype: str) -> None:
    source = np.random.default_rng(0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).max, np.finfo(dtype).tiny / 8], dtype)
    for size in (0, 1, 5, 3000, 9000):
        values = np.frombuffer(source.bytes(size * int(dtype[2])), dtype).copy()
        values[~np.isfinite(values)] = -np.finfo(dtype).max
        assert finite(RawArray(dtype, (size,), values.tobytes()))
        for value in special if size else []:
            values[source.integers(size)] = value
            assert finite(RawArray(dtype, (size,), values.tobytes())) == np.isfinite(values).all()
            values[~np.isfinite(values)] = 0


def test_are_slopes_agrees_with_numpy_for_every_number() -> None:
    for value in (0, 1, 32766, 32767, 32768, 32769, 40000, 65535):
        for size, at in ((1, 0), (9000, 0), (9000, 4321), (9000, 8999)):
            values = np.full(size, 32768, "<u2")
            values[at] = value
            assert are_slopes(RawArray("<u2", (size,), values.tobytes())) == (value <= 32768)
    every = np.arange(65536).astype("<u2")
    assert [are_slopes(RawArray("<u2", (1,), v.tobytes())) for v in every] == (every <= 32768).tolist()
