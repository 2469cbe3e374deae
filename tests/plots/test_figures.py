"""Every script of figures/ draws its picture from the committed results, and what is drawn is what the files hold."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
FIGURES, RESULTS = ROOT / "figures", ROOT / "benchmarks" / "results"
SCRIPTS = sorted(path.stem for path in FIGURES.glob("*.py") if path.stem not in ("common", "draw", "saved", "tables"))


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as ``draw.py`` imports it; the benchmarks have a module ``common``, too."""
    monkeypatch.syspath_prepend(str(FIGURES))
    for module in ("common", name):
        monkeypatch.delitem(sys.modules, module, raising=False)
    found = importlib.import_module(name)
    for module in ("common", name):
        monkeypatch.setitem(sys.modules, module, sys.modules[module])
    return found


def drawn(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a script saves."""
    module, figures = script(name, monkeypatch), []
    save = module.save

    def kept(figure: Figure, stem: Path) -> list[Path]:
        figures.append(figure)
        return save(figure, stem)

    monkeypatch.setattr(module, "save", kept)
    module.main(RESULTS, out)
    return figures


def lines_of(name: str) -> list[dict[str, str]]:
    """The lines of a committed CSV."""
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", SCRIPTS)
def test_draws_both_files_with_data_and_labels(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (figure, *more) = drawn(name, tmp_path, monkeypatch)
    made = sorted(path.suffix for path in tmp_path.iterdir())
    assert made == sorted([".pdf", ".png"] * (1 + len(more)))
    assert all(path.stat().st_size > 2000 for path in tmp_path.iterdir())
    for one in (figure, *more):
        assert any(ax.has_data() for ax in one.axes)
        shown = [ax for ax in one.axes if ax.axison and ax.has_data()]
        assert all(any(other.get_xlabel() or other.get_ylabel() for other in one.axes) for _ in shown)


def test_draw_names_every_script(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in script("draw", monkeypatch).scripts() if name != "tables"] == SCRIPTS


def test_errors_are_those_of_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("errors", tmp_path, monkeypatch)
    cards = {line["network"]: line for line in lines_of("cards.csv")}
    names = [f"digits-{kind}" for kind in ("standard", "pgd", "dual", "ibp")]
    for bars, kind in zip(figure.axes[0].containers, ("clean", "fgsm", "pgd", "certified", "dual"), strict=True):
        assert [bar.get_height() for bar in bars] == [float(cards[name][kind]) for name in names]


def test_radii_are_the_sorted_ones_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("radii", tmp_path, monkeypatch)
    found = lines_of("radii.csv")
    panel = figure.axes[0]
    network = panel.get_title().split(",")[0]
    searched = {line["example"] for line in found if (line["network"], line["method"]) == (network, "search")}
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in panel.get_lines()}
    for method, label in (("dual", "dual"), ("crown", "CROWN"), ("lp-tight", "LP, tightened")):
        own = [line for line in found if (line["network"], line["method"]) == (network, method)]
        expected = sorted(float(line["certified"]) for line in own if line["example"] in searched)
        assert lines[label].tolist() == expected


def test_certified_radii_stay_below_attacked_ones() -> None:
    """Whoever certified and whoever attacked."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines_of("radii.csv"):
        found.setdefault((line["network"], line["example"]), []).append(line)
    for lines in found.values():
        attacked = min(float(line["attacked"] or "inf") for line in lines)
        certified = max(float(line["certified"]) for line in lines)
        assert certified < attacked or certified == attacked == 0


def test_learning_curves_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("learning_curves", tmp_path, monkeypatch)
    for panel, method in zip(figure.axes, ("standard", "pgd", "dual", "ibp"), strict=False):
        own = [line for line in lines_of("learning_curves.csv") if line["method"] == method]
        lines = {line.get_label(): np.asarray(line.get_ydata()) for line in panel.get_lines()}
        for column, label in (("test_error", "error, test set"), ("test_robust_error", "robust error, test set")):
            assert lines[label].tolist() == pytest.approx([100 * float(line[column]) for line in own])


def test_robust_errors_are_ordered_and_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("robust_error", tmp_path, monkeypatch)
    found = lines_of("robust_error.csv")
    for panel in figure.axes:
        lines = {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in panel.get_lines()}
        own = [line for line in found if line["network"] == panel.get_title() and line["method"] == "dual"]
        assert lines["dual"].tolist() == pytest.approx(
            [100 * int(line["uncertified"]) / int(line["examples"]) for line in own]
        )
        assert (lines["counterexamples"] <= lines["search"]).all()
        for bound in ("interval", "dual", "CROWN", "alpha"):
            assert (lines["search"] <= lines[bound]).all()


def test_histograms_count_every_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("neurons", tmp_path, monkeypatch)
    for panel in figure.axes:
        assert len(panel.containers) == 3
        for bars in panel.containers:
            assert sum(bar.get_height() for bar in bars) == pytest.approx(100)


def test_filters_are_all_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (figure,) = drawn("filters", tmp_path, monkeypatch)
    with np.load(RESULTS / "filters.npz") as arrays:
        every = [one / np.abs(arrays[name]).max() for name in arrays.files for one in arrays[name]]
    images = [np.asarray(image.get_array()) for panel in figure.axes for image in panel.get_images()]
    assert len(images) == len(every)
    assert all((image == one).all() for image, one in zip(images, every, strict=True))


def test_tables_hold_published_numbers_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = script("tables", monkeypatch)
    markdown, latex = (path.read_text() for path in module.main(RESULTS, tmp_path))
    assert "| Wong & Kolter 2018 | MNIST | small | dual | 0.1 | 1.80 | 3.93 | 4.11 | 5.82 |  |" in markdown
    card = next(line for line in lines_of("cards.csv") if line["network"] == "digits-dual")
    assert f"| ours | digits | digits-dual | dual | 0.1 | {card['clean']} |" in markdown
    assert latex.count(r"\begin{tabular}") == markdown.count("## ") == latex.count(r"\end{table}")
    for table in module.errors(RESULTS), module.verified(RESULTS):
        assert all(len(line) == len(table.columns) for line in table.lines)


def test_a_table_without_its_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "salman_table2.csv").write_text("network,method,mean_radius,published\nn.pth,dual,0.5,0.25\n")
    markdown = script("tables", monkeypatch).main(tmp_path, tmp_path)[0].read_text()
    assert markdown.count("## ") == 1 and "| n | dual | 0.50000 | 0.25 |" in markdown
