"""First-layer filters of convolutional networks, trained normally and robustly.

Source: Wong & Kolter 2018, figures 8 and 9. Input: filters.npz, made by ``benchmarks/filters.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import run

from lpverify.plots.filters import filter_images
from lpverify.plots.style import save, styled


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""
    with np.load(results / "filters.npz", allow_pickle=False) as arrays:
        networks = {name: arrays[name] for name in arrays.files}
    with styled():
        return save(filter_images(networks), out / "filters")


if __name__ == "__main__":
    run(main, __doc__)
