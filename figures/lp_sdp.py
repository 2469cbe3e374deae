"""Networks trained on the dual of the LP and on an SDP bound, judged by both and by tighter ones.

Source: thesis, table 3.2. Input: lp_sdp.csv, made by ``benchmarks/lp_sdp.py``.
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.plots.bars import judged_bars
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

METHODS = ("clean", "attack", "exact", "sdp", "lp", "dual", "global sdp")
NAMES = {"standard": "standard", "lp-nn": "LP-NN (dual)", "sdp-nn": "SDP-NN"}


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "lp_sdp.csv", ("network", "bound", "error"))
    errors = {(line["network"], line["bound"]): float(line["error"]) for line in lines}
    networks = {label: {method: errors[name, method] for method in METHODS} for name, label in NAMES.items()}
    with styled():
        return save(judged_bars(networks, METHODS), out / "lp_sdp")


if __name__ == "__main__":
    run(main, __doc__)
