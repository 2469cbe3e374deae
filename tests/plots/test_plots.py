"""Rows, run folders and CSV files as what pictures are drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpverify.comparison.rows import Row
from lpverify.errors import DataError
from lpverify.plots.gallery import Shown, counterexample_gallery
from lpverify.plots.hull import relu_hull
from lpverify.plots.margins import costs, errors_by_radius, margins_of
from lpverify.plots.pareto import Cost, front
from lpverify.plots.radius import Radii, radius_curves
from lpverify.plots.runs import errors_of, radii_of
from lpverify.plots.source import number, read_table
from lpverify.plots.style import STYLES, TRAINED, save, styled
from lpverify.plots.tightness import Margins, sorted_bounds

NAN = float("nan")


def row(
    method: str, margin: float, *, eps: str = "0.1", example: int = 0, target: int = 1, upper: float = 3.0,
    verdict: str = "unknown", cpu: float = 0.5,
) -> Row:  # fmt: skip
    """A row of a comparison."""
    return Row(
        "p", "0" * 12, eps, "inf", "0 1", method, example, 0, target, margin, margin, 0.0, upper, upper - margin, "1/2",
        verdict, int(margin > 0), 1.0, cpu, "", "cpu", "float64", "0", "0", "c", 1,
    )  # fmt: skip


def test_every_method_and_training_looks_different() -> None:
    for styles in (STYLES, TRAINED):
        looks = [(s.color, s.marker, s.linestyle) for name, s in styles.items() if name not in ("milp", "search")]
        assert len(set(looks)) == len(looks)


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0.001, 10)), min_size=1, max_size=12))
def test_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    every = [Cost("crown", seconds, gap) for seconds, gap in points]
    best = front(every)
    assert [c.seconds for c in best] == sorted(c.seconds for c in best)
    assert [c.gap for c in best] == sorted((c.gap for c in best), reverse=True)
    for cost in every:
        assert any(b.seconds <= cost.seconds and b.gap <= cost.gap for b in best)


def test_margins_are_of_claims_that_all_methods_bounded() -> None:
    rows = [row("attack", 3.0), row("dual", 1.0), row("lp", 2.0), row("dual", 0.5, target=2), row("lp", NAN, target=2)]
    found = margins_of(rows)
    assert {name: values.tolist() for name, values in found.lower.items()} == {"dual": [1.0], "lp": [2.0]}
    assert found.upper.tolist() == [3.0] and found.certified.tolist() == [0.0]


def test_margins_without_common_claims_are_refused() -> None:
    with pytest.raises(DataError, match="all of dual, lp"):
        margins_of([row("dual", 1.0), row("lp", 1.0, target=2)])


def test_costs_are_means_over_examples_that_all_methods_were_given() -> None:
    rows = [
        row("dual", 1.0, cpu=0.5), row("lp", 2.0, cpu=2.0), row("dual", 0.0, target=2, cpu=0.5),
        row("lp", 2.0, target=2, cpu=2.0), row("dual", -9.0, example=1, cpu=7.0),
    ]  # fmt: skip
    assert costs(rows) == [Cost("dual", 0.5, 2.5), Cost("lp", 2.0, 1.0)]


def test_errors_by_radius_count_examples() -> None:
    rows = [
        row("dual", 1.0, verdict="verified"), row("dual", -1.0, example=1), row("attack", 1.0),
        row("attack", -1.0, example=1, verdict="falsified"), row("lp", 1.0, verdict="verified"),
        row("dual", -1.0, eps="0.25"), row("dual", -1.0, example=1, eps="0.25"), row("attack", 1.0, eps="0.25"),
        row("attack", -1.0, example=1, eps="0.25", verdict="falsified"),
    ]  # fmt: skip
    found = errors_by_radius(rows)
    assert found.radii.tolist() == [0.1, 0.25] and found.lower.tolist() == [0.5, 0.5]
    # lp was given one example of two, at one radius of two.
    assert {name: values.tolist() for name, values in found.upper.items()} == {"dual": [0.5, 1.0]}


def test_tables_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path, ("a",))
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="has no line"):
        read_table(path, ("a",))
    path.write_text("a,b\n1,\n")
    with pytest.raises(DataError, match="no column 'c'"):
        read_table(path, ("a", "c"))
    (line,) = read_table(path, ("a", "b"))
    assert number(line["a"]) == 1 and np.isnan(number(line["b"]))


def test_runs_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no summary of a run"):
        errors_of([tmp_path])
    (tmp_path / "summary.json").write_text('{"options": {"method": "auto"}}')
    with pytest.raises(DataError, match="no summary of a run"):
        radii_of([tmp_path])


def test_same_picture_same_bytes(tmp_path: Path) -> None:
    radii = Radii({"dual": np.array([0.2, 0.1])}, np.array([0.3, NAN]), (np.array([0.2, 0.1]), np.array([0.25, NAN])))
    margins = Margins({"dual": np.array([1.0, 0.0])}, np.array([2.0, 1.0]), np.array([1.5, 0.5]))
    image = np.array([[0.0, 1.0], [0.5, 0.25]])
    makers = {
        "radius": lambda: radius_curves({"one": radii}),
        "tightness": lambda: sorted_bounds({"one": margins}),
        "gallery": lambda: counterexample_gallery([Shown(0, image, image / 2, 1, 2)]),
        "hull": lambda: relu_hull([(-1, 0), (0, 0), (1, 1)], [(-1, 0), (0, 0), (1, 1)], {}, [(-1, 0), (1, 1)], {}),
    }
    for name, make in makers.items():
        pairs = []
        for turn in ("a", "b"):
            with styled():
                pairs.append(save(make(), tmp_path / turn / name))
        assert all(first.read_bytes() == second.read_bytes() for first, second in zip(*pairs, strict=True))


def test_gallery_shows_input_change_and_result() -> None:
    x, found = np.array([[0.0, 1.0]]), np.array([[0.1, 0.9]])
    with styled():
        figure = counterexample_gallery([Shown(7, x, found, 3, 5)])
    first, change, last = (panel.get_images()[0].get_array() for panel in figure.axes[:3])
    assert np.array_equal(first, x) and np.array_equal(last, found) and np.array_equal(change, found - x)
    assert [panel.get_title() for panel in figure.axes[:3]] == ["7: a 3", "change", "called 5"]
