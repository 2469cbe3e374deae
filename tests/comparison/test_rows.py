"""The file of rows: what is read is what was written, and a file cut short anywhere is continued as if it never was."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lpverify.comparison.rows import COLUMNS, Row, RowFile, read_rows
from lpverify.errors import DataError

ROW = Row(
    "p", "0123456789ab", "0.1", "inf", "0 1", "crown", 3, 2, 0, -1.25, math.nan, -1.5, 0.5, 1.75, "4/0", "unknown", 0,
    0.5, 0.25, "", "cpu", "float64", "1", "2", "abc", 4,
)  # fmt: skip


def group(example: int, *methods: str, **changes: object) -> list[Row]:
    """Two rows for each method."""
    row = replace(ROW, example=example, group_rows=2 * len(methods), **changes)  # type: ignore[arg-type]
    return [replace(row, method=method, target=target) for method in methods for target in (0, 1)]


def same(one: list[Row], other: list[Row]) -> bool:
    return repr(one) == repr(other)


def test_reads_what_was_written(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    rows = group(0, "attack", "crown") + group(1, "attack", note='a "quoted", line') + group(2, "lp", margin=math.inf)
    for example in range(3):
        file.add([row for row in rows if row.example == example])
    assert same(read_rows(file.path), rows) and same(RowFile(file.path).rows, rows)
    assert file.path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_note_stays_on_one_line(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "lp", note="out of\nmemory"))
    assert {row.note for row in read_rows(file.path)} == {"out of memory"}
    assert len(file.path.read_text().splitlines()) == 3


def test_numbers_keep_eight_digits(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "lp", margin=-1.2345678912e-7, seconds=0.000123456))
    row = read_rows(file.path)[0]
    assert (row.margin, row.seconds) == (-1.2345679e-07, 0.0001235) and math.isnan(row.certified_margin)


def test_a_file_cut_short_at_any_byte_is_continued(tmp_path: Path) -> None:
    whole = RowFile(tmp_path / "whole.csv")
    header = whole.path.stat().st_size
    first, second = group(0, "attack", "crown"), group(1, "attack", "crown", commit="abc1234")
    whole.add(first)
    middle = whole.path.stat().st_size
    whole.add(second)
    data = whole.path.read_bytes()
    path = tmp_path / "cut.csv"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        kept = first if length >= middle else []
        assert same(read_rows(path), kept)
        file = RowFile(path)
        assert same(file.rows, kept)
        assert path.stat().st_size == (middle if kept else header)
        for rows in (first, second):
            if not file.has(rows[0].group, ("attack", "crown")):
                file.add(rows)
        assert path.read_bytes() == data


def test_has_asks_for_every_method(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "attack", "crown"))
    key = group(0, "crown")[0].group
    assert file.has(key, ("crown",)) and not file.has(key, ("crown", "lp"))
    for changes in ({"eps": "0.10"}, {"norm": "2"}, {"clip": ""}, {"dtype": "float32"}, {"network_sha256": "0"}):
        assert not file.has(group(0, "crown", **changes)[0].group, ("crown",))


def test_a_group_with_more_methods_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "attack"))
    file.add(group(1, "attack"))
    file.add(group(0, "attack", "lp"))
    expected = group(1, "attack") + group(0, "attack", "lp")
    assert same(file.rows, expected) and same(read_rows(file.path), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_group_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="group_rows: must be 1 "):
        file.add(group(0, "attack")[:1])


@pytest.mark.parametrize("text", ["index,label\n1,2\n", "x", ",".join(COLUMNS[:-1]) + "\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="not a comparison's file"):
        RowFile(path)
    assert path.read_text() == text


def test_a_hole_in_the_middle_is_refused(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "attack", "crown"))
    file.add(group(1, "attack", "crown"))
    lines = file.path.read_text().splitlines(keepends=True)
    file.path.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(DataError, match="too few lines"):
        RowFile(file.path)


def test_a_line_that_is_no_row_is_refused(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.csv")
    file.add(group(0, "attack"))
    with file.path.open("a") as stream:
        stream.write("p,only,three\n")
    with pytest.raises(DataError, match="remove this line"):
        RowFile(file.path)
