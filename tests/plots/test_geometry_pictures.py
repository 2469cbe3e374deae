"""The pictures of boundaries and polytopes: what is drawn is what was measured, and the commands measure what they say.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import lpverify
from lpverify.cli import main
from lpverify.geometry import area, contains
from lpverify.geometry.arrays import read_arrays
from lpverify.geometry.boundaries import Boundaries
from lpverify.geometry.polytope import Polytope
from lpverify.plots.boundaries import BALLS, FILLS, boundaries_figure, cascade_figure
from lpverify.plots.polytope import drawn_methods, polytope_figure, polytopes_figure
from lpverify.plots.style import STYLES, styled

ROOT = Path(__file__).resolve().parents[2]
ASSETS, RESULTS = Path(lpverify.__file__).parent / "assets", ROOT / "benchmarks" / "results"
FIGURES = ("boundaries", "certified_balls", "cascade_toy", "polytope", "polytope_trained")


def tiny(outer: dict[str, NDArray[np.float64]], exact: bool = True) -> Polytope:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    points = np.zeros((0, 2)) if exact else np.array([[0.5, 0.5], [0.4, 0.6]])
    return Polytope((square,) if exact else (), 1.0, points, points[:1], np.full(2, 0.5), outer, int(exact))


def around(width: float) -> NDArray[np.float64]:
    return 0.5 + width / 2 * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def test_polygons_are_drawn_closed_in_the_methods_colours_and_far_ones_are_left_out() -> None:
    data = tiny({"interval": around(50), "dual": around(4), "lp": around(2)})
    assert drawn_methods(data) == ["lp", "dual"]
    with styled():
        figure = polytope_figure(data, ("output 3", "output 5"), "title")
    axes = figure.axes[0]
    lines = {line.get_gid(): line for line in axes.lines if line.get_gid() in STYLES}
    assert set(lines) == {"lp", "dual"} and lines["lp"].get_color() == STYLES["lp"].color
    assert np.array_equal(lines["dual"].get_xydata(), np.concatenate([around(4), around(4)[:1]]))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("output 3", "output 5")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact", "LP", "dual", "interval (outside)"]


def test_points_stand_for_a_set_that_is_not_known() -> None:
    data = tiny({"lp": around(2)}, exact=False)
    with styled():
        figure = polytope_figure(data, ("a", "b"), "title")
    drawn = {line.get_gid(): line.get_xydata() for line in figure.axes[0].lines}
    assert np.array_equal(drawn["random"], data.points) and np.array_equal(drawn["attacked"], data.attacked)
    assert not figure.axes[0].patches
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["random", "attacked", "LP"]


def test_areas_over_the_exact_one_stand_below_the_titles() -> None:
    data = tiny({"dual": around(1.5), "lp": around(1.2), "interval": around(2000)})
    with styled():
        figure = polytopes_figure([[("one", data), ("two", data)]], ("a", "b"), wall=True)
    below = "LP 1.4, dual 2.2,\ninterval 4e6"
    assert [axes.get_title() for axes in figure.axes] == [f"one\n{below}", f"two\n{below}"]
    assert "equal outputs" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_ball_is_drawn_by_its_verdict() -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    x, y = np.array([[0.2, 0.2], [0.6, 0.6], [0.3, 0.7]]), np.array([0, 1, 1])
    data = Boundaries(np.zeros(2), np.ones(2), ((square,), ()), np.array([1.0, 0.0]), x, y, 0.1, "inf",
                      np.array(["verified", "falsified", "unknown"]), 1)  # fmt: skip
    with styled():
        figure = boundaries_figure({"net": data})
    axes = figure.axes[0]
    balls = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [ball.get_gid() for ball in balls] == ["verified", "falsified", "unknown"]
    np.testing.assert_allclose([ball.get_bbox().bounds for ball in balls], [[*(p - 0.1), 0.2, 0.2] for p in x])
    assert len({color for color, _ in BALLS.values()}) == len(BALLS)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 1.0), (0.0, 1.0))
    with styled():
        figure = cascade_figure([data], [np.full((4, 4), -1, np.int8), np.ones((4, 4), np.int8)])
    assert [a.get_title() for a in figure.axes] == ["stage 1 alone: 0% certified", "the cascade: 100% certified"]
    assert len(FILLS) > 1 and np.array_equal(figure.axes[1].images[0].get_array(), np.ones((4, 4)))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_from_the_committed_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "figures"))
    for module in (name, "common"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    made = importlib.import_module(name).main(RESULTS, tmp_path)
    monkeypatch.delitem(sys.modules, "common")
    assert [path.name for path in made] == [f"{name}.pdf", f"{name}.png"]
    assert all(path.stat().st_size > 5000 for path in made)


def test_committed_polytopes_are_in_order() -> None:
    arrays = read_arrays(RESULTS / "polytopes.npz")
    cases = {tuple(name.split("/")[:2]) for name in arrays}
    assert len(cases) == 12
    for case, eps in cases:
        data = Polytope.from_arrays(read_arrays(RESULTS / "polytopes.npz", f"{case}/{eps}/"))
        areas = {name: area(polygon) for name, polygon in data.outer.items()}
        # The solver's tolerance, in units of the polygon.
        assert data.area < areas["lp"] <= min(areas.values()) * (1 + 1e-6)
        scale = float(np.ptp(data.outer["lp"], axis=0).max())
        for polygon in data.outer.values():
            assert contains(polygon, np.concatenate(data.rings), 1e-6 * scale).all()


def test_the_command_draws_boundaries(tmp_path: Path) -> None:
    model, out = str(ASSETS / "toy2d-standard.safetensors"), tmp_path / "pictures" / "toy.png"
    assert main(["figure", "boundaries", model, "--data", "toy2d", "--index", "0:6", "--eps", "0.08",
                 "--method", "dual", "--out", str(out)]) == 0  # fmt: skip
    assert sorted(path.name for path in out.parent.iterdir()) == ["toy.npz", "toy.pdf", "toy.png"]
    data = Boundaries.from_arrays(read_arrays(out.with_suffix(".npz")))
    # One of the first six examples lies closer than 0.08 to the boundary.
    assert data.x.shape == (6, 2) and list(data.verdicts).count("falsified") == 1
    side = data.upper - data.lower
    assert data.areas.sum() == pytest.approx(float(side.prod()), rel=1e-6)


def test_the_command_draws_the_exact_set_of_two_inputs(tmp_path: Path) -> None:
    model = str(ASSETS / "toy2d-dual.safetensors")
    assert main(["figure", "polytope", model, "--data", "toy2d", "--index", "4", "--eps", "0.05", "--difference",
                 "--method", "dual,crown", "--out", str(tmp_path / "p")]) == 0  # fmt: skip
    data = Polytope.from_arrays(read_arrays(tmp_path / "p.npz"))
    assert data.regions > 20 and set(data.outer) == {"dual", "crown"}
    kept = Polytope.from_arrays(read_arrays(RESULTS / "polytopes.npz", "trained-dual/0.05/"))
    assert data.area == pytest.approx(kept.area, rel=1e-6)


def test_the_command_draws_points_of_more_inputs(tmp_path: Path) -> None:
    model = str(ASSETS / "digits-dual.safetensors")
    command = ["figure", "polytope", model, "--data", "digits", "--index", "0", "--eps", "0.05", "--clip", "0", "1"]
    options = ["--outputs", "4", "6", "--method", "crown", "--samples", "100", "--out", str(tmp_path / "p")]
    assert main([*command, *options]) == 0
    data = Polytope.from_arrays(read_arrays(tmp_path / "p.npz"))
    assert data.points.shape == (100, 2) and not data.rings
    assert contains(data.outer["crown"], np.concatenate([data.points, data.attacked]), 1e-9).all()


def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ASSETS / "digits-dual.safetensors")
    common = ["--data", "digits", "--index", "0", "--eps", "0.05", "--out", str(tmp_path / "p")]
    assert main(["figure", "boundaries", model, *common]) == 4
    assert "64 inputs; boundaries are drawn of networks of two" in capsys.readouterr().err
    assert main(["figure", "polytope", model, *common, "--outputs", "3", "3"]) == 4
    assert "not two different ones of 0..9" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
