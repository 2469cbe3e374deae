"""Filled sets with holes, as one path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray


def add_rings(axes: Any, rings: Sequence[NDArray[np.float64]], **style: Any) -> None:
    """Add the set that rings (k, 2) enclose: counter-clockwise ones bound it, clockwise ones its holes."""
    if not len(rings):
        return
    parts = []
    for ring in rings:
        codes = np.full(len(ring) + 1, Path.LINETO, dtype=np.uint8)
        codes[0], codes[-1] = Path.MOVETO, Path.CLOSEPOLY
        parts.append(Path(np.concatenate([ring, ring[:1]]), codes))
    axes.add_patch(PathPatch(Path.make_compound_path(*parts), **style))
