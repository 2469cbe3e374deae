"""How many neurons of each layer CROWN proves active or inactive, over the digits' balls of radius 0.05.

Source: Wong & Kolter 2018, figure 10. Input: neurons.csv, made by ``benchmarks/neurons.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import column, run

from lpverify.plots.neurons import KINDS, neuron_histograms
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

METHOD = "crown"
NAMES = tuple(kind for kind, _ in KINDS)


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = [
        line for line in read_table(results / "neurons.csv", ("network", "method", "layer", *NAMES))
        if line["method"] == METHOD
    ]  # fmt: skip
    layers = sorted({int(line["layer"]) for line in lines})
    networks = {}
    for network in dict.fromkeys(line["network"] for line in lines):
        kinds: dict[str, list] = {kind: [] for kind in NAMES}
        for layer in layers:
            own = [line for line in lines if line["network"] == network and int(line["layer"]) == layer]
            counts = {kind: column(own, kind) for kind in NAMES}
            for kind, count in counts.items():
                kinds[kind].append(count / sum(counts.values()))
        networks[network] = kinds
    with styled():
        return save(neuron_histograms(networks), out / "neurons")


if __name__ == "__main__":
    run(main, __doc__)
