"""Tables of the sources as Markdown and LaTeX, our numbers beside the published ones: tables.md and tables.tex.

Sources: Wong & Kolter 2018, tables 1 and 2; Wong's thesis, tables 3.2, 3.3 and 4.4; Wong et al. 2018; Salman et al.
2019, tables 1 and 2. Inputs: cards.csv, tightness_training.csv, lp_sdp.csv, salman_table1.csv, salman_table2.csv, each
made by the script of its name (cards.py, ..., salman.py), and benchmarks/published.csv, which names its sources.

Of the thesis's tables 3.4 to 3.7 only the numbers under "Scaling" are known to us; of tables 2, 3.2 and 3.3 none, so
that these hold our numbers alone. A table whose file is not there is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, run

from lpverify.plots.source import read_table

PUBLISHED = ROOT / "benchmarks" / "published.csv"
ERRORS = ("clean", "fgsm", "pgd", "dual", "certified")
LATEX = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#"})


@dataclass(frozen=True)
class Table:
    """A table: what it is about, the names of its columns, and its lines; the first ``words`` columns are words."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    words: int

    def markdown(self) -> str:
        """The table in Markdown, under its title."""
        rules = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        return "\n".join([f"## {self.title}", "", *(f"| {' | '.join(cells)} |" for cells in
                          (self.columns, rules, *self.lines)), ""])  # fmt: skip

    def latex(self) -> str:
        """The table in LaTeX, for the package booktabs."""
        rows = [" & ".join(cell.translate(LATEX) for cell in cells) + r" \\" for cells in (self.columns, *self.lines)]
        kinds = "l" * self.words + "r" * (len(self.columns) - self.words)
        return "\n".join([
            r"\begin{table}", rf"\caption{{{self.title.translate(LATEX)}}}", rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
        ])  # fmt: skip


def percent(share: str) -> str:
    """A share as per cent, two decimals."""
    return f"{100 * float(share):.2f}"


def published(table: str) -> list[dict[str, str]]:
    """The published numbers of one table."""
    with PUBLISHED.open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["table"] == table]


def errors(results: Path) -> Table:
    """Table 1 of Wong & Kolter 2018 with our shipped networks below."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in published("1"):
        key = line["source"], line["data"], line["network"], line["training"], line["eps"]
        found.setdefault(key, {})[line["quantity"]] = line["value"]
    lines = [[*key, *(values.get(kind, "") for kind in ERRORS)] for key, values in found.items()]
    for line in read_table(results / "cards.csv", ("network", "data", "eps", *ERRORS)):
        training = line["network"].split("-")[-1]
        lines.append(["ours", line["data"], line["network"], training, line["eps"], *(line[kind] for kind in ERRORS)])
    title = "Table 1 (Wong & Kolter 2018): errors in %, published and ours; certified: not verified by complete search"
    return Table(title, ("whose", "data", "network", "training", "eps", *ERRORS), lines, 4)


def tightness(results: Path) -> Table:
    """Table 2 of Wong & Kolter 2018, table 3.3 of the thesis."""
    names = ("clean_error", "pgd_error", "lp_error", "dual_error")
    margins = ("exact_margin", "lp_margin", "dual_margin")
    lines = []
    for line in read_table(results / "tightness_training.csv", ("trained", "eps", "images", *names, *margins)):
        exact = [int(line["falsified"]), int(line["falsified"]) + int(line["unknown"])]
        shares = [f"{100 * count / int(line['images']):.2f}" for count in exact]
        clean, pgd, lp, dual = (percent(line[name]) for name in names)
        known = [f"{float(line[name]):.3f}" for name in margins]
        lines.append([line["trained"], line["eps"], clean, pgd, "-".join(dict.fromkeys(shares)), lp, dual, *known])
    columns = ("trained", "eps", "clean", "PGD", "exact", "LP", "dual", "exact margin", "LP margin", "dual margin")
    title = "Table 2 (Wong & Kolter 2018), 3.3 (thesis): one hidden layer trained at each eps, ours on digits, in %"
    return Table(title, columns, lines, 1)


def lp_sdp(results: Path) -> Table:
    """Table 3.2 of the thesis: each network judged by each bound."""
    found = read_table(results / "lp_sdp.csv", ("network", "bound", "eps", "error"))
    bounds = list(dict.fromkeys(line["bound"] for line in found))
    cells = {(line["network"], line["bound"]): percent(line["error"]) for line in found}
    networks = list(dict.fromkeys(line["network"] for line in found))
    lines = [[name, *(cells.get((name, bound), "") for bound in bounds)] for name in networks]
    about = ", ".join(sorted({line["eps"] for line in found}, key=float))
    return Table(f"Table 3.2 (thesis): errors in % at eps {about} by each bound, ours on digits", ("network", *bounds),
                 lines, 1)  # fmt: skip


def scaling(results: Path) -> Table:
    """What is known of tables 3.4 to 3.7 of the thesis, beside our networks' dual bound."""
    lines = [[line["source"], line["data"], line["network"], line["training"], line["eps"], line["value"]]
             for line in (*published("1"), *published("scaling")) if line["quantity"] == "dual"]  # fmt: skip
    ours = read_table(results / "cards.csv", ("network", "data", "eps", "dual"))
    lines += [["ours", line["data"], line["network"], "dual", line["eps"], line["dual"]]
              for line in ours if line["network"].endswith("-dual")]  # fmt: skip
    title = "Scaling (Wong et al. 2018; all that we know of the thesis's tables 3.4 to 3.7): dual bound's error in %"
    return Table(title, ("whose", "data", "network", "training", "eps", "dual"), lines, 4)


def verified(results: Path) -> Table:
    """Table 4.4 of the thesis: the share verified of adversarially trained networks."""
    lines = [["thesis", line["data"], line["training"], line["eps"], line["value"]] for line in published("4.4")]
    for line in read_table(results / "cards.csv", ("network", "data", "trained_eps", "eps", "certified")):
        if line["network"].endswith(("-pgd", "-fgsm")):
            share = 100 - float(line["certified"])
            training = f"{line['network'].split('-')[-1].upper()} at {line['trained_eps']}"
            lines.append(["ours", line["data"], training, line["eps"], f"{share:.2f}"])
    return Table("Table 4.4 (thesis): examples verified by complete search, in %",
                 ("whose", "data", "training", "eps", "verified"), lines, 3)  # fmt: skip


def salman1(results: Path) -> Table:
    """Table 1 of Salman et al. 2019."""
    lines = [
        [Path(line["network"]).stem, line["eps"], line["images"], f"{float(line['dual_error_10000']):.2f}",
         line["published_lp_greedy"], f"{float(line['lp_all_error']):.2f}", line["published_lp_all"]]
        for line in read_table(results / "salman_table1.csv", ("network", "eps", "images", "lp_all_error"))
    ]  # fmt: skip
    title = "Table 1 (Salman et al. 2019): errors in %; dual of 10,000 images, LP of the first so many"
    return Table(title, ("network", "eps", "images", "dual", "published", "LP", "published"), lines, 1)


def salman2(results: Path) -> Table:
    """Table 2 of Salman et al. 2019."""
    lines = [
        [Path(line["network"]).stem, line["method"], f"{float(line['mean_radius']):.5f}", line["published"]]
        for line in read_table(results / "salman_table2.csv", ("network", "method", "mean_radius", "published"))
    ]
    return Table("Table 2 (Salman et al. 2019): mean certified radius of ten images",
                 ("network", "method", "ours", "published"), lines, 2)  # fmt: skip


TABLES = {
    "cards.csv": (errors, scaling, verified),
    "tightness_training.csv": (tightness,),
    "lp_sdp.csv": (lp_sdp,),
    "salman_table1.csv": (salman1,),
    "salman_table2.csv": (salman2,),
}


def main(results: Path, out: Path) -> list[Path]:
    """Write both files."""
    tables = [make(results) for file, makers in TABLES.items() if (results / file).is_file() for make in makers]
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for name, texts in (("tables.md", [t.markdown() for t in tables]), ("tables.tex", [t.latex() for t in tables])):
        (out / name).write_text("\n".join(texts), encoding="utf-8")
        made.append(out / name)
    return made


if __name__ == "__main__":
    run(main, __doc__)
