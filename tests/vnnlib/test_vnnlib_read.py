"""Each form of a VNN-LIB file against the claims it must become, and each refusal against its line."""

from __future__ import annotations

import gzip
import hashlib
from fractions import Fraction
from pathlib import Path

import pytest

from lpverify.certificate.claim import Claim, ClauseRows, Inequality, RationalBox
from lpverify.errors import DataError
from lpverify.vnnlib import Property, Tensor, read_property

ONE = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 0))\n(assert (<= X_0 1))\n"
NET = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X Real [1,2]) (declare-output Y Real [2]))\n"
BOX2 = "(assert (>= X[0,0] 0)) (assert (<= X[0,0] 1)) (assert (== X[0,1] 0.25))\n"


def read(folder: Path, text: str) -> Property:
    path = folder / "p.vnnlib"
    path.write_text(text)
    return read_property(path)


def row(terms: dict[int, str], constant: str = "0", strict: bool = True) -> Inequality:
    return Inequality(tuple(terms), tuple(map(Fraction, terms.values())), Fraction(constant), strict)


def claim(lower: list[str], upper: list[str], *clauses: tuple[Inequality, ...], outputs: int = 2) -> Claim:
    box = RationalBox(tuple(map(Fraction, lower)), tuple(map(Fraction, upper)))
    return Claim(box, ClauseRows(outputs, clauses))


def unit(*clauses: tuple[Inequality, ...]) -> tuple[Claim, ...]:
    """Claims about 0 <= X_0 <= 1."""
    return (claim(["0"], ["1"], *clauses),)


@pytest.mark.parametrize(
    ("unsafe", "rows"),
    [
        ("(<= Y_0 Y_1)", [row({0: "1", 1: "-1"})]),
        ("(>= Y_0 Y_1)", [row({0: "-1", 1: "1"})]),
        ("(< Y_0 0.1)", [row({0: "1"}, "-1/10", False)]),
        ("(> Y_1 -2e-3)", [row({1: "-1"}, "-1/500", False)]),
        ("(<= 0.5 Y_0)", [row({0: "-1"}, "1/2")]),
        ("(= Y_0 3)", [row({0: "1"}, "-3"), row({0: "-1"}, "3")]),
        ("(== Y_0 Y_1)", [row({0: "1", 1: "-1"}), row({0: "-1", 1: "1"})]),
        ("(<= (+ (* 2 Y_0) (- Y_1) 1) (- Y_0 (/ Y_1 3) (- 4)))", [row({0: "1", 1: "-2/3"}, "-3")]),
        ("(<= (* Y_0 -1 (/ 1 3)) (* 2 (+ Y_1 1.5)))", [row({0: "-1/3", 1: "-2"}, "-3")]),
        ("(<= (+ Y_0 Y_1 (- Y_0)) 0)", [row({1: "1"})]),
        ("(<= (+ Y_0) (- (- 1)))", [row({0: "1"}, "-1")]),
        ("(and (<= Y_0 1) (and (<= Y_1 .5)) (>= Y_0 -1.))", [row({0: "1"}, "-1"), row({1: "1"}, "-1/2"),
                                                             row({0: "-1"}, "-1")]),
        ("(and (<= Y_0 1) (<= Y_0 1))", [row({0: "1"}, "-1")]),
        ("(<= Y_0 12345678901234567890.123456789)", [row({0: "1"}, "-12345678901234567890.123456789")]),
        ("(and (<= 1 2) (>= (- Y_0 Y_0) 0) (<= (* 0 Y_0) 0) (<= Y_1 0))", [row({1: "1"})]),
    ],
)
def test_a_conjunction_of_outputs_is_one_clause_of_failing_rows(
    tmp_path: Path, unsafe: str, rows: list[Inequality]
) -> None:
    assert read(tmp_path, ONE + BOX + f"(assert {unsafe})").claims == unit(tuple(rows))


@pytest.mark.parametrize(
    "unsafe",
    [
        "(< 1 1)", "(!= Y_0 Y_0)", "(or (>= X_0 2) (<= X_0 -1))", "(or (and (<= X_0 9) (>= X_0 2)) (< X_0 0))",
    ],
)
def test_an_unsafe_set_that_is_empty_has_no_claims(tmp_path: Path, unsafe: str) -> None:
    found = read(tmp_path, ONE + BOX + f"(assert {unsafe})")
    assert found.claims == () and found.open_faces == ()


def test_a_disjunction_of_outputs_is_several_clauses(tmp_path: Path) -> None:
    found = read(tmp_path, ONE + BOX + "(assert (or (and (<= Y_0 1)) (and (>= Y_1 2) (< Y_0 0)) (<= Y_0 1)))")
    assert found.claims == unit((row({0: "1"}, "-1"),), (row({1: "-1"}, "2"), row({0: "1"}, "0", False)))


def test_unequal_outputs_are_two_clauses(tmp_path: Path) -> None:
    found = read(tmp_path, ONE + BOX + "(assert (!= Y_0 1))")
    assert found.claims == unit((row({0: "1"}, "-1", False),), (row({0: "-1"}, "1", False),))


def test_disjunctions_that_are_both_asserted_are_multiplied_out(tmp_path: Path) -> None:
    found = read(tmp_path, ONE + BOX + "(assert (or (<= Y_0 1) (<= Y_0 2))) (assert (or (<= Y_1 3) (<= Y_1 4)))")
    a, b, c, d = row({0: "1"}, "-1"), row({0: "1"}, "-2"), row({1: "1"}, "-3"), row({1: "1"}, "-4")
    assert found.claims == unit((a, c), (a, d), (b, c), (b, d))


def test_a_union_of_boxes_and_outputs_beside_it(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        ONE
        + "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (<= X_0 3.5) (>= X_0 2.5))))"
        + "(assert (or (<= Y_0 1) (<= Y_1 1)))",
    )
    clauses = (row({0: "1"}, "-1"),), (row({1: "1"}, "-1"),)
    assert found.claims == (claim(["0"], ["1"], *clauses), claim(["5/2"], ["7/2"], *clauses))


def test_a_union_of_boxes_with_outputs_of_their_own_is_merged_by_box(tmp_path: Path) -> None:
    text = "(assert (or (and (>= X_0 2) (<= X_0 3) (<= Y_0 0)) (and (>= X_0 0) (<= X_0 1) (>= Y_1 5))" \
           " (and (<= X_0 3.0) (>= X_0 2.0) (or (>= Y_0 7) (<= Y_1 7)))))"
    assert read(tmp_path, ONE + text).claims == (
        claim(["2"], ["3"], (row({0: "1"}),), (row({0: "-1"}, "7"),), (row({1: "1"}, "-7"),)),
        claim(["0"], ["1"], (row({1: "-1"}, "5"),)),
    )


def test_bounds_given_several_times_and_scaled_intersect(tmp_path: Path) -> None:
    text = "(assert (and (<= X_0 3) (>= X_0 -1) (>= (* -2 X_0) (- 1)) (<= 0 (+ X_0 X_0 (/ 1 3))) (<= Y_0 0)))"
    assert read(tmp_path, ONE + text).claims == (claim(["-1/6"], ["1/2"], (row({0: "1"}),)),)


def test_an_equality_of_an_input_fixes_it(tmp_path: Path) -> None:
    assert read(tmp_path, ONE + "(assert (= X_0 0.1)) (assert (<= Y_0 0))").claims == (
        claim(["1/10"], ["1/10"], (row({0: "1"}),)),
    )


def test_strict_bounds_leave_faces_of_the_closed_box_out(tmp_path: Path) -> None:
    text = "(assert (> X_0 0)) (assert (>= X_0 0)) (assert (<= X_0 1)) (assert (!= X_0 0.5)) (assert (<= Y_0 0))"
    found = read(tmp_path, ONE + text)
    assert found.claims == (claim(["0"], ["1/2"], (row({0: "1"}),)), claim(["1/2"], ["1"], (row({0: "1"}),)))
    assert found.open_faces == (((0, False), (0, True)), ((0, False),))
    assert [found.inside(0, [x]) for x in (0.0, 1e-300, 0.25, 0.5, 0.75)] == [False, True, True, False, False]
    assert [found.inside(1, [x]) for x in (0.5, 1.0, Fraction(1) + Fraction(1, 10**30))] == [False, True, False]


def test_version_2_names_elements_by_their_indices(tmp_path: Path) -> None:
    found = read(tmp_path, NET + BOX2 + "(assert (or (<= Y[0] Y [ 1 ]) (> (- Y[1]) 2)))")
    assert found.claims == (
        claim(["0", "1/4"], ["1", "1/4"], (row({0: "1", 1: "-1"}),), (row({1: "1"}, "2", False),)),
    )
    assert found.version == "2.0"
    assert found.x == Tensor("X", "Real", (1, 2), True) and found.x.names == ("X[0,0]", "X[0,1]")
    assert found.y.names == ("Y[0]", "Y[1]")


def test_version_2_with_a_scalar_several_dimensions_and_one_index_for_all(tmp_path: Path) -> None:
    text = (
        "(vnnlib-version <2.0>) ; comment (\n(declare-network f_1\n (declare-input In float32 [2,1,\n2] \"in\")"
        " (declare-output Out real []))"
        "(assert (and (>= In[0,0,0] 0) (<= In[0,0,0] 1) (== In[0,0,1] 2) (== In[1,0,0] 3) (== In[1,0,1] 4)))"
        "(assert (<= Out 5))"
    )
    found = read(tmp_path, text)
    assert found.claims == (claim(["0", "2", "3", "4"], ["1", "2", "3", "4"], (row({0: "1"}, "-5"),), outputs=1),)
    assert found.y.names == ("Out",) and found.inputs == 4 and found.outputs == 1
    one_index = read(tmp_path, NET + "(assert (and (>= X[0] 0) (<= X[0] 1) (== X[1] 7) (<= Y[1] 0)))")
    assert one_index.claims == (claim(["0", "7"], ["1", "7"], (row({1: "1"}),)),)


def test_names_hash_and_summary_of_version_1(tmp_path: Path) -> None:
    found = read(tmp_path, ONE + BOX + "(assert (<= Y_0 0))")
    assert found.sha256 == hashlib.sha256((tmp_path / "p.vnnlib").read_bytes()).hexdigest()
    assert found.version == "1.0" and found.x.names == ("X_0",) and found.y.names == ("Y_0", "Y_1")
    assert found.summary() == "VNN-LIB 1.0, 1 inputs, 2 outputs, boxes 1, clauses 1, rows 1"


def test_a_gzipped_file_reads_as_the_plain_one(tmp_path: Path) -> None:
    text = ONE + BOX + "(assert (<= Y_0 0))"
    packed = tmp_path / "p.vnnlib.gz"
    packed.write_bytes(gzip.compress(text[:50].encode()) + gzip.compress(text[50:].encode()))
    assert read_property(packed) == read(tmp_path, text)


REFUSED = [
    ("", "declares no input"),
    ("hello", "line 1: not a VNN-LIB file: 'hello'"),
    ("\n\n)", "line 3: a ) that closes nothing"),
    ("()", "is empty"),
    ("((", "a ( where an operator was expected"),
    ("(assert", "never closed"),
    ("(check-sat)", "unexpected 'check-sat'; lpverify reads assert"),
    ("(declare-const X_0 Int)", "is not of the form (declare-const X_0 Real)"),
    ("(declare-const Z_0 Real)", "names neither an input X_i nor an output Y_j"),
    ("(declare-const X_00 Real)", "names neither"),
    ("(declare-const X_0 (Real))", "unexpected 'Real'"),
    (ONE + "(declare-const X_0 Real)", "line 4: '(declare-const X_0 Real)' was declared before"),
    (ONE + "(declare-const X_2 Real)", "declares X_2 but not X_1"),
    ("(declare-const X_0 Real)", "declares no output"),
    (ONE + "(assert (>= X_0 0))", "line 1: input X_0 has no upper bound"),
    (ONE + "(assert (or (= X_0 1) (<= Y_0 1)))", "input X_0 has no lower bound"),
    (ONE + BOX, "the file does not constrain the output"),
    (ONE + BOX + "(assert (<= (* 0 Y_0) 0))", "the file does not constrain the output"),
    (ONE + BOX + "(assert (>= X_0 1.5))", "line 1: no value of input X_0 is >= 1.5 and <= 1.0; correct its bounds"),
    (ONE + BOX + "(assert (>= X_0 1.000000001))", "no value of input X_0 is >= 1.000000001 and <= 1.0"),
    (ONE + BOX + "(assert (and (<= X_0 0) (> X_0 0)))", "no value of input X_0 is > 0.0 and <= 0.0"),
    (ONE + BOX + "(assert (or (<= Y_0 1) (and (>= X_0 9) (<= X_0 8))))", "is >= 9.0 and <= 8.0"),
    (NET + BOX2 + "(assert (< X[0] 0))", "line 2: no value of input X[0,0] is >= 0.0 and < 0.0"),
    (ONE + BOX + "(assert (<= X_0 Y_0))", "line 6: '(<= X_0 Y_0)' mixes inputs and outputs"),
    (ONE + "(declare-const X_1 Real)(assert (<= X_0 X_1))", "constrains several inputs together"),
    (ONE + BOX + "(assert (<= (* Y_0 Y_1) 1))", "line 6: '(* Y_0 Y_1)' is a product of variables"),
    (ONE + BOX + "(assert (<= (/ 1 Y_0) 1))", "does not divide one term by one constant"),
    (ONE + BOX + "(assert (<= (/ Y_0 (- 1 1)) 1))", "divides by 0"),
    (ONE + BOX + "(assert\n (<= (sin Y_0) 1))", "line 7: unexpected 'sin'"),
    (ONE + BOX + "(assert (not (<= Y_0 1)))", "unexpected 'not'"),
    (ONE + BOX + "(assert (<= Y_0 inf))", "'inf' is not finite"),
    (ONE + BOX + "(assert (<= Y_0 NaN))", "'NaN' is not finite"),
    (ONE + BOX + "(assert (<= Y_0 1e309))", "beyond the range of float64"),
    (ONE + BOX + "(assert (<= Y_0 1e999999999))", "exponent beyond"),
    (ONE + BOX + "(assert (<= Y_0 " + "1" * 401 + "))", "has 401 characters"),
    (ONE + BOX + "(assert (<= Y_0 (* 1e-300 1e-300)))", "more than 399 digits"),
    (ONE + BOX + "(assert (<= Y_7 1))", "'Y_7' is no declared variable"),
    (ONE + BOX + "(assert (<= Y_0 0x10))", "'0x10' is no declared variable and no decimal"),
    (ONE + BOX + "(assert (<= Y_0 .))", "no decimal"),
    (ONE + BOX + "(assert (<= Y_0 1 2))", "compares 3 terms"),
    (ONE + BOX + "(assert (<= Y_0 (<= Y_1 0)))", "has a formula where a number"),
    (ONE + BOX + "(assert (and Y_0))", "has a number or variable where a formula"),
    (ONE + BOX + "(assert Y_0)", "where a formula is expected"),
    (ONE + BOX + "(assert (<= Y_0 0) (<= Y_1 0))", "has 2 arguments"),
    (ONE + BOX + "(assert (or))", "'(or)' has no arguments"),
    (ONE + BOX + "(assert (<= (+) 1))", "has no arguments"),
    (ONE + BOX + "(assert (<= Y_0[0] 1))", "follows no declared tensor"),
    (ONE + BOX + "(assert (<= Y_0 [))", "follows no declared tensor"),
    (ONE + BOX + '(assert (<= Y_0 "1"))', "no declared variable"),
    (ONE + NET, "must be the first command"),
    (NET + "(declare-const X_0 Real)", "VNN-LIB 1.0 in a file of another version"),
    (NET + "(declare-network M (declare-input A Real [1]) (declare-output B Real [1]))", "belongs to a second network"),
    ("(declare-network M (isomorphic-to N))", "compares two networks"),
    ("(declare-network M (declare-hidden Z Real [1] \"z\"))", "names a hidden node"),
    ("(declare-network M (declare-input A int8 [1]))", "elements of type 'int8'"),
    ("(declare-network M (declare-input A Real [1] initialized))", "option 'initialized'"),
    ("(declare-network M (declare-input A Real [1,n]))", "is not of the form (declare-input NAME real [1,5])"),
    ("(declare-network M (declare-input A Real [4,0]))", "has 0 elements"),
    ("(declare-network M (declare-input A Real [9999,9999,9999]))", "elements; from 1 to"),
    ("(declare-network M (declare-input A Real [1]) (declare-input B Real [1]))", "is the second input"),
    ("(declare-network M (declare-input A Real [1]) (declare-output A Real [1]))", "declared before"),
    ("(declare-network M (declare-input A Real [1]))", "must declare one input and one output"),
    (NET + "(declare-network M (equal-to N) (declare-input A Real [1]))", "compares two networks"),
    ("(vnnlib-version <3.0>)", "does not read"),
    ("(vnnlib-version 2.0)", "is not of the form"),
    ("(declare-input A Real [1])", "unexpected 'declare-input'"),
    (NET + BOX2 + "(assert (<= Y 0))", "'Y' of shape [2] without an index"),
    (NET + BOX2 + "(assert (<= Y[2] 0))", "index '[2]' does not fit 'Y' of shape [2]"),
    (NET + BOX2 + "(assert (<= Y[0,0] 0))", "does not fit"),
    (NET + BOX2 + "(assert (<= Y[-1] 0))", "is no list of integers"),
    (NET + "(assert (<= X[0,0] 0))", "line 2: input X[0,0] has no lower bound"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'p.vnnlib'}, line ")


def test_files_that_are_missing_binary_damaged_or_too_long(tmp_path: Path) -> None:
    path = tmp_path / "q.vnnlib"
    with pytest.raises(DataError, match="cannot be read"):
        read_property(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_property(path)
    packed = gzip.compress(ONE.encode() * 1000)
    for damaged in (packed[:-9], packed[:12] + b"\xff" * 20, packed + b"rest"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="gzip"):
            read_property(path)
    for whole in (packed, ONE.encode() * 1000):
        path.write_bytes(whole)
        with pytest.raises(DataError, match="longer than the limit of 1000 bytes"):
            read_property(path, cap=1000)
