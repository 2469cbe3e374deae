"""The errors on the model cards of the shipped networks as one CSV.

    python benchmarks/cards.py

A line for each card of ``lpverify/assets``, which has the command of each number. Errors in per cent; ``falsified`` and
``unknown`` are the two parts of ``certified``, the examples not verified.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from lpverify.files import write_csv

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent / "lpverify" / "assets"
ERRORS = ("clean", "fgsm", "pgd", "dual", "certified")
SETTING = re.compile(r"Errors at eps (\S+) in raw input units, norm (\S+), (clip \S+ to \S+|no clip), on (\S+) ")
LINE = re.compile(r"\| (\w+) \| \S+ % \| (\d+) \| (\d+) \|")
TRAINED = re.compile(r"^- eps: (\S+)$", re.MULTILINE)
PARTS = re.compile(r"(\d+) falsified, (\d+) unknown")


def main() -> int:
    """All cards, by name."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cards", type=Path, default=ASSETS, help="folder with the cards, NAME.md")
    options.add_argument("--out", type=Path, default=HERE / "results" / "cards.csv")
    arguments = options.parse_args()
    rows = []
    for card in sorted(arguments.cards.glob("*.md")):
        text = card.read_text(encoding="utf-8")
        setting, parts, trained = SETTING.search(text), PARTS.search(text), TRAINED.search(text)
        if setting is None or parts is None or trained is None:
            print(f"{card}: no model card, left out", file=sys.stderr)
            continue
        counts = {name: (int(count), int(total)) for name, count, total in LINE.findall(text)}
        errors = [f"{100 * counts[name][0] / counts[name][1]:.2f}" for name in ERRORS]
        examples = str(counts["clean"][1])
        said = [card.stem, setting[4], trained[1], setting[1], setting[2], setting[3], examples]
        rows.append([*said, *errors, parts[1], parts[2]])
    columns = ["network", "data", "trained_eps", "eps", "norm", "clip", "examples", *ERRORS, "falsified", "unknown"]
    write_csv(arguments.out, columns, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
