"""The cells of a density map: a number, its interval and its colour, or why there is none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A factor of this, or more, from 1 has the strongest colour.
STRONGEST = 4.0

#: From purple to orange, told apart by the colour-blind.
_COLORMAP = "PuOr_r"


def shade(value: float) -> tuple[float, ...]:
    """Return the colour of a density or a lift: red, green, blue and opacity.

    Example:
        >>> shade(0.01) == shade(1 / STRONGEST), shade(2.0) == shade(1.0)
        (True, False)
    """
    import matplotlib

    doublings = math.log2(max(value, 1 / STRONGEST)) / math.log2(STRONGEST)
    color: tuple[float, ...] = matplotlib.colormaps[_COLORMAP]((doublings + 1) / 2)
    return color


def draw(axes: Axes, place: tuple[int, int], cell: dict[str, Any] | None, value: str) -> None:
    """Draw one group's number for one region, or why there is none."""
    from matplotlib.patches import Rectangle

    x, y = place
    corner = (x - 0.5, y - 0.5)
    number = cell[value] if cell is not None else math.nan
    if cell is None or not cell["enough"] or not math.isfinite(number):
        why = cell["note"] if cell is not None else "absent"
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor="0.92", edgecolor="0.75", hatch="////", linewidth=0)
        )
        box = {"facecolor": "0.92", "edgecolor": "none", "pad": 1.5}
        lines = why.replace(" ", "\n", 1) if len(why) < 16 else why.replace(": ", ":\n")
        axes.text(x, y, lines, ha="center", va="center", fontsize=7, color="0.25", bbox=box)
        return
    color = shade(number)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor="white", linewidth=1))
    ink = "black" if np.dot(color[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
    low, high = (
        (cell["low"], cell["high"]) if value == "mean" else (cell["lift_low"], cell["lift_high"])
    )
    known = math.isfinite(low)
    weight = "bold" if known and not low <= 1 <= high else "normal"
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    axes.text(x, y - 0.12, f"{number:.2f}", fontsize=10, weight=weight, **style)
    interval = f"{low:.2f} to {high:.2f}" if known else "no interval"
    axes.text(x, y + 0.24, interval, fontsize=7, **style)


def explain(figure: Figure, axes: Axes, one: str) -> None:
    """Draw the scale of colours beside the cells, and what 1 means."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    norm = LogNorm(1 / STRONGEST, STRONGEST)
    bar = figure.colorbar(ScalarMappable(norm, _COLORMAP), ax=axes, extend="both", pad=0.02)
    ticks = {1 / 4: "¼", 1 / 2: "½", 1: f"1: {one}", 2: "2", 4: "4"}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.minorticks_off()
