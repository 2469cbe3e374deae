"""Random formulas against their direct evaluation; depth, work and damaged files."""

from __future__ import annotations

import gzip
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lpverify.certificate.claim import ClauseRows, Inequality, decode_claim, encode_claim
from lpverify.certificate.container import Packed
from lpverify.errors import DataError, LpverifyError
from lpverify.vnnlib import Property, parse_property, read_property
from lpverify.vnnlib.source import Source
from lpverify.vnnlib.work import Work

HEAD = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))
BOX = "".join(f"(assert (<= {name} 3)) (assert (>= {name} -3))\n" for name in ("X_0", "X_1"))
COMPARE = {
    "<=": lambda a, b: a <= b, "<": lambda a, b: a < b, ">=": lambda a, b: a >= b, ">": lambda a, b: a > b,
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b,
}
COUNTS = st.integers(-3, 3)


def parsed(text: str, work: Work | None = None) -> Property:
    return parse_property(Source(Path("p.vnnlib"), text, ""), work or Work())


def meant(text: str) -> Property:
    """As ``parsed``; random bounds that cross, and formulas that leave the output free, are no property."""
    try:
        return parsed(text)
    except DataError as error:
        assume("correct its bounds" not in str(error) and "does not constrain the output" not in str(error))
        raise


def holds(row: Inequality, y: list[Fraction]) -> bool:
    value = sum((c * y[unit] for unit, c in zip(row.units, row.coefficients, strict=True)), row.constant)
    return value > 0 if row.strict else value >= 0


def unsafe(found: Property, x: list[Fraction], y: list[Fraction]) -> bool:
    """Whether the point is in the union that the claims deny."""
    for number, claim in enumerate(found.claims):
        assert isinstance(claim.rows, ClauseRows)
        if found.inside(number, x) and any(not any(holds(r, y) for r in clause) for clause in claim.rows.clauses):
            return True
    return False


def write(tree: Any) -> str:
    return "(" + " ".join([tree[0], *map(write, tree[1:])]) + ")" if isinstance(tree, tuple) else str(tree)


def evaluate(tree: Any, values: dict[str, Fraction]) -> Any:
    if not isinstance(tree, tuple):
        return values[tree] if isinstance(tree, str) else Fraction(tree)
    args = [evaluate(arg, values) for arg in tree[1:]]
    if tree[0] in COMPARE:
        return COMPARE[tree[0]](*args)
    if tree[0] == "*":
        return args[0] * args[1]
    if tree[0] in ("+", "-"):
        return args[0] + sum(args[1:]) if tree[0] == "+" else args[0] - sum(args[1:]) if args[1:] else -args[0]
    return all(args) if tree[0] == "and" else any(args)


def terms(names: list[str]) -> st.SearchStrategy[Any]:
    leaf = COUNTS | st.sampled_from(names)
    return st.recursive(
        leaf,
        lambda inner: st.tuples(st.just("*"), COUNTS, inner)
        | st.lists(inner, min_size=1, max_size=3).flatmap(
            lambda args: st.sampled_from([("+", *args), ("-", *args)])
        ),
        max_leaves=5,
    )


OPERATORS = st.sampled_from(sorted(COMPARE))
COMPARISONS = st.one_of(
    st.tuples(OPERATORS, terms(["X_0"]), COUNTS),
    st.tuples(OPERATORS, COUNTS, terms(["X_1"])),
    st.tuples(OPERATORS, terms(["Y_0", "Y_1", "Y_2"]), terms(["Y_0", "Y_1", "Y_2"])),
)
FORMULAS = st.recursive(
    COMPARISONS,
    lambda inner: st.lists(inner, min_size=1, max_size=4).flatmap(
        lambda args: st.sampled_from([("and", *args), ("or", *args)])
    ),
    max_leaves=12,
)
HALVES = st.integers(-8, 8).map(lambda k: Fraction(k, 2))


@settings(max_examples=400, deadline=None)
@given(st.lists(FORMULAS, min_size=1, max_size=3), st.lists(st.lists(HALVES, min_size=5, max_size=5), max_size=30))
def test_the_claims_deny_exactly_the_formula(trees: list[Any], points: list[list[Fraction]]) -> None:
    found = meant(HEAD + BOX + "".join(f"(assert {write(tree)})\n" for tree in trees))
    for point in points:
        values = dict(zip(("X_0", "X_1", "Y_0", "Y_1", "Y_2"), point, strict=True))
        direct = max(map(abs, point[:2])) <= 3 and all(evaluate(tree, values) for tree in trees)
        assert unsafe(found, point[:2], point[2:]) == direct


@settings(max_examples=100, deadline=None)
@given(st.lists(FORMULAS, min_size=1, max_size=3))
def test_boxes_and_clauses_are_listed_once_and_none_is_empty(trees: list[Any]) -> None:
    found = meant(HEAD + BOX + "".join(f"(assert {write(tree)})\n" for tree in trees))
    keys = [(claim.region, faces) for claim, faces in zip(found.claims, found.open_faces, strict=True)]
    assert len(set(keys)) == len(keys)
    for claim in found.claims:
        assert all(low <= high for low, high in zip(claim.region.lower, claim.region.upper, strict=True))
        assert claim.rows.clauses and len(set(claim.rows.clauses)) == len(claim.rows.clauses)


@settings(max_examples=100, deadline=None)
@given(FORMULAS)
def test_claims_survive_being_stored(tree: Any) -> None:
    for claim in meant(HEAD + BOX + f"(assert {write(tree)})").claims:
        region, rows = encode_claim(claim, [])
        header = json.loads(json.dumps({"region": region, "claim": rows}))
        assert decode_claim(Packed(header, ())) == claim


@pytest.mark.parametrize("long", ["1e-399", "1" * 309, "0." + "3" * 390, "(/ 1 " + "7" * 300 + ")"])
def test_the_longest_constants_survive_being_stored(long: str) -> None:
    text = HEAD + BOX + f"(assert (and (<= X_0 {long}) (<= (* {long} Y_0) {long})))"
    (claim,) = parsed(text).claims
    region, rows = encode_claim(claim, [])
    assert decode_claim(Packed({"region": region, "claim": rows}, ())) == claim


def test_bounds_without_a_common_denominator_are_refused() -> None:
    primes = [p for p in range(2, 4000) if all(p % q for q in range(2, int(p**0.5) + 1))]
    names = [f"X_{k}" for k in range(len(primes))]
    head = "(declare-const Y_0 Real)" + "".join(f"(declare-const {name} Real)" for name in names)
    text = head + "".join(f"(assert (= {name} (/ 1 {p})))" for name, p in zip(names, primes, strict=True))
    with pytest.raises(DataError, match="common denominator takes over 4096 bits"):
        parsed(text)


DEPTH = 100_000


@pytest.mark.parametrize(
    ("opening", "inner", "closing"),
    [
        ("(and ", "(<= Y_0 0)", ")"),
        ("(or ", "(<= Y_0 0)", ")"),
        ("(or (and ", "(<= Y_0 0)", "))"),
        ("(and (<= Y_1 0) ", "(<= Y_0 0)", ")"),
        ("(or (<= Y_0 0) ", "(<= Y_0 0)", ")"),
        ("(or ", "(<= Y_0 0)", " (<= Y_0 0))"),
    ],
)
def test_depth_does_not_matter_to_formulas(opening: str, inner: str, closing: str) -> None:
    found = parsed(HEAD + BOX + f"(assert {opening * DEPTH}{inner}{closing * DEPTH})")
    assert [len(clause) for clause in found.claims[0].rows.clauses] == [2 if "Y_1" in opening else 1]


@pytest.mark.parametrize(
    ("opening", "closing", "constant"),
    [("(- ", ")", 0), ("(+ 1 ", ")", DEPTH), ("(- ", " 1)", -DEPTH), ("(+ Y_1 ", ")", 0), ("(* 1 ", ")", 0)],
)
def test_depth_does_not_matter_to_terms(opening: str, closing: str, constant: int) -> None:
    found = parsed(HEAD + BOX + f"(assert (<= {opening * DEPTH}Y_0{closing * DEPTH} 0))")
    ((row,),) = found.claims[0].rows.clauses
    assert row.constant == constant and row.coefficients == ((1, DEPTH) if "Y_1" in opening else (1,))


@pytest.mark.parametrize("text", ["(" * DEPTH, "(and " * DEPTH, ")" * DEPTH, "(assert " * DEPTH, "[" * DEPTH,
                                  "(declare-const " + "[ " * DEPTH, "(declare-const " + '" ' * (DEPTH + 1)])
def test_depth_without_meaning_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parsed(text)


def test_alternations_that_multiply_out_are_refused_at_the_limit() -> None:
    deep = "(or (<= Y_0 0) (and (<= Y_1 0) " * 5000 + "(<= Y_2 0)" + "))" * 5000
    with pytest.raises(DataError, match="needs more than 1000000 entries"):
        parsed(HEAD + BOX + f"(assert {deep})", Work(10**6))
    wide = "".join(f"(assert (or (<= Y_0 {k}) (<= Y_1 {k})))" for k in range(40))
    with pytest.raises(DataError, match="needs more than 1000000 entries"):
        parsed(HEAD + BOX + wide, Work(10**6))


def test_terms_that_are_scaled_again_and_again_are_refused_at_the_limit() -> None:
    outputs = [f"Y_{k}" for k in range(2000)]
    head = "(declare-const X_0 Real)" + "".join(f"(declare-const {name} Real)" for name in outputs)
    text = head + "(assert (<= " + "(- " * 2000 + "(+ " + " ".join(outputs) + ")" + ")" * 2000 + " 0))"
    with pytest.raises(DataError, match="needs more than 1000000 entries"):
        parsed(text, Work(10**6))


def many(count: int, disjuncts: int) -> tuple[str, int]:
    """A file of ``count`` bounded inputs and a disjunction, and the work that reading it takes."""
    names = [f"X_{k}" for k in range(count)]
    text = "".join(f"(declare-const {name} Real)\n" for name in [*names, "Y_0", "Y_1"])
    text += "".join(f"(assert (<= {name} 0.5))\n(assert (>= {name} -0.5))\n" for name in names)
    text += "(assert (or " + "\n".join(f"(and (>= Y_0 {k}.25) (<= Y_1 Y_0))" for k in range(disjuncts)) + "))"
    work = Work()
    found = parsed(text, work)
    assert found.inputs == count and len(found.claims[0].rows.clauses) == disjuncts
    return text, work.spent


def test_boxes_are_shared_by_the_disjuncts_of_outputs() -> None:
    few, some = many(50, 40)[1], many(2000, 40)[1]
    assert some == few < 40 * 10
    assert many(50, 80)[1] < 2 * few + 10


def test_unions_of_boxes_take_linear_work() -> None:
    def spent(count: int) -> int:
        work = Work()
        parts = "".join(f"(and (>= X_0 {k}) (<= X_0 {k}.5) (= X_1 {k}) (>= Y_0 {k}))" for k in range(count))
        assert len(parsed(HEAD + f"(assert (or {parts}))", work).claims) == count
        return work.spent

    assert spent(2000) <= 2 * spent(1000) + 10


SEEDS = [
    HEAD + BOX + "(assert (or (and (>= Y_0 Y_1) (<= X_0 1.5e-1)) (< (+ (* 2 Y_1) Y_2) -3)))",
    '(vnnlib-version <2.0>) (declare-network N (declare-input X real [1,2] "a") (declare-output Y float32 [2]))\n'
    "(assert (and (== X[0,0] 1) (<= X[0,1] 2) (>= X[0,1] (/ 1 3)))) ; end\n(assert (!= Y[0] (- Y[1])))",
]
PIECES = ["(", ")", "[", "]", '"', ";", "\n", " ", "and", "or", "<=", "-", "*", "/", "0", "1e9", "nan", "X_0", "Y_1",
          "X", "Y[0]", "[0,1]", "[]", "assert", "declare-const", "declare-input", "\x00", "é", "<2.0>", "1e-399"]


@pytest.mark.parametrize("text", SEEDS)
def test_damaged_files_are_read_or_refused(text: str) -> None:
    draw = random.Random(3)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2000):
        damaged = text
        for _ in range(draw.randint(1, 2)):
            start = draw.randrange(len(damaged) + 1)
            end = min(len(damaged), start + draw.choice([0, 0, 1, 1, 5, 30]))
            damaged = damaged[:start] + draw.choice([*PIECES, ""]) + damaged[end:]
        try:
            parsed(damaged)
            outcomes["read"] += 1
        except LpverifyError as error:
            assert "\n" not in str(error) and str(error).startswith("p.vnnlib, line ")
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_damaged_gzip_files_are_read_or_refused(tmp_path: Path) -> None:
    draw = random.Random(4)
    packed = gzip.compress(SEEDS[0].encode() * 3, mtime=0)
    path, refused = tmp_path / "p.vnnlib.gz", 0
    for _ in range(300):
        place = draw.randrange(len(packed))
        path.write_bytes(packed[:place] + draw.randbytes(draw.randint(0, 3)) + packed[place + draw.randint(0, 3) :])
        try:
            read_property(path)
        except DataError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 250
