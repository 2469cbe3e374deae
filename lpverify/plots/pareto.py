"""How tight a method is against what it costs, and the front that no other method beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lpverify.plots.style import PAGE, STYLES, legend_above, new_figure
from lpverify.plots.tightness import SMALLEST


@dataclass(frozen=True)
class Cost:
    """What a method costs and gives: CPU seconds an example, and its mean gap to the least known margin, in logits."""

    method: str
    seconds: float
    gap: float


def front(costs: Sequence[Cost]) -> list[Cost]:
    """Those that no other method equals or beats in time and gap, from the fastest to the tightest."""
    found: list[Cost] = []
    for cost in sorted(costs, key=lambda c: (c.seconds, c.gap)):
        if not found or cost.gap < found[-1].gap:
            found.append(cost)
    return found


def pareto(problems: Mapping[str, Sequence[Cost]]) -> Figure:
    """A panel for each problem: mean gap to the least known margin against mean seconds, both on log scales.

    Gaps below ``SMALLEST`` are drawn there.
    """
    figure, grid = new_figure(1, len(problems), width=PAGE, height=2.4, squeeze=False)
    axes = list(grid.flat)
    for ax, (name, costs) in zip(axes, problems.items(), strict=True):
        best = front(costs)
        gaps = [max(cost.gap, SMALLEST) for cost in best]
        ax.plot([cost.seconds for cost in best], gaps, color="black", linewidth=0.6, label="front")
        for cost in costs:
            style = STYLES[cost.method]
            ax.plot(cost.seconds, max(cost.gap, SMALLEST), color=style.color, marker=style.marker, markersize=6,
                    linestyle="none", label=style.label)  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(name)
        ax.set_xlabel("CPU seconds an example")
    axes[0].set_ylabel("mean gap to the least\nknown margin (logits)")
    legend_above(figure, axes, 9)
    return figure
