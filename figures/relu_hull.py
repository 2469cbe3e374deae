"""The ReLU over [l, u] with its convex hull, the relaxed big-M formulation, and the dual's lines.

Source: Wong & Kolter 2018, figure 2. Inputs: none; l = -1, u = 1.5, and 2.5 as the common big M.

Relaxed, the big-M formulation with M_l and M_u in place of -l and u is the triangle over [-M_l, M_u]: with the
neuron's own bounds the hull itself, with a common M what the middle panel shows, cut to [l, u].
"""

from __future__ import annotations

from pathlib import Path

from common import run

from lpverify.plots.hull import relu_hull
from lpverify.plots.style import save, styled

LOW, HIGH, M = -1.0, 1.5, 2.5


def main(results: Path, out: Path) -> list[Path]:
    """Draw it."""

    def upper(z: float, low: float, high: float) -> float:
        return high * (z - low) / (high - low)

    graph = [(LOW, 0.0), (0.0, 0.0), (HIGH, HIGH)]
    loose = [(LOW, 0.0), (0.0, 0.0), (HIGH, HIGH), (HIGH, upper(HIGH, -M, M)), (LOW, upper(LOW, -M, M))]
    slope = HIGH / (HIGH - LOW)
    with styled():
        figure = relu_hull(
            graph,
            hull=graph,
            big_m={f"$M_l$ = $M_u$ = {M}": loose, "$M_l$ = $-l$, $M_u$ = $u$": graph},
            upper=[(LOW, 0.0), (HIGH, HIGH)],
            lower={
                "dual": [(LOW, slope * LOW), (HIGH, slope * HIGH)],
                "crown": [(LOW, LOW), (HIGH, HIGH)],
            },
        )
        return save(figure, out / "relu_hull")


if __name__ == "__main__":
    run(main, __doc__)
