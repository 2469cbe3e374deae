"""Time and memory of the methods over width, depth, batch and the number of unstable neurons.

Source: issue of the project; the thesis has the dual's in figure 3.20. Input: scaling.csv, made by
``benchmarks/scaling.py``, which fits the exponents, too (scaling_fits.csv).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import column, run

from lpverify.plots.scaling import LABELS, Growth, scaling
from lpverify.plots.source import read_table
from lpverify.plots.style import save, styled

# Less is noise.
LEAST_MIB = 1.0


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    lines = read_table(results / "scaling.csv", ("axis", "method", "size", "seconds", "peak_mib"))
    axes: dict[str, dict[str, Growth]] = {axis: {} for axis in LABELS}
    for axis, method in dict.fromkeys((line["axis"], line["method"]) for line in lines):
        chosen = [line for line in lines if (line["axis"], line["method"]) == (axis, method)]
        chosen.sort(key=lambda line: float(line["size"]))
        mib = column(chosen, "peak_mib")
        axes[axis][method] = Growth(
            column(chosen, "size"), column(chosen, "seconds"), np.where(mib >= LEAST_MIB, mib, np.nan)
        )
    with styled():
        return save(scaling(axes), out / "scaling")


if __name__ == "__main__":
    run(main, __doc__)
