"""Draw an evaluation: the mean of each method and floor by each metric."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .measurements import FLOOR

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ...render.figures import Figure

#: After Okabe and Ito 2008: distinguishable with colour blindness and in grey.
_METHOD = "#0072B2"
_FLOORS = "#D55E00"

#: Panels in a row.
_PER_LINE = 4

#: Characters of 8-point type that fit into an inch.
_LETTERS = 15


def draw(table: pd.DataFrame, metrics: Sequence[str] | None) -> Figure:
    """Draw an evaluation's table, see :meth:`camlens.faithfulness.Evaluation.plot`."""
    from ...render.figures import Figure

    known = table["metric"].drop_duplicates().tolist()
    shown = known if metrics is None else list(metrics)
    if missing := [name for name in shown if name not in known]:
        raise ValueError(f"expected metrics from {known}, got {missing}")
    if not shown:
        raise ValueError("there is no metric to draw")
    methods = table["method"].drop_duplicates().tolist()
    floors = [name for name in table.columns if name.startswith(FLOOR) and name != "floor_seconds"]
    floors = [name for name in floors if table[name].notna().any()]
    names = [*methods, *(name.removeprefix(FLOOR).replace("_", " ") for name in floors)]
    across = min(_PER_LINE, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(
        figsize=(1.6 + 0.07 * max(map(len, names)) + 2.3 * across, down * (1.1 + 0.2 * len(names))),
        layout="constrained",
    )
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, metric in zip(grid.flat, shown, strict=False):
        _draw_metric(axes, table[table["metric"] == metric], methods, floors)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
    legend = (
        "filled: clearly better than every floor; bars: 95% intervals over images; "
        "squares: floors, maps made without the network; dashed: the best floor"
    )
    figure.supxlabel(textwrap.fill(legend, int(_LETTERS * figure.get_figwidth())), fontsize=8)
    return figure


def _draw_metric(
    axes: Axes, rows: pd.DataFrame, methods: Sequence[str], floors: Sequence[str]
) -> None:
    better = rows["better"].iloc[0]
    axes.set_title(str(rows["metric"].iloc[0]).replace("_", " "), fontsize=9)
    axes.set_xlabel(f"{better} is better", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for row in rows.to_dict("records"):
        _draw_method(axes, methods.index(row["method"]), row)
    means = {name: rows[name].mean() for name in floors}
    for y, mean in enumerate(means.values(), start=len(methods)):
        if math.isfinite(mean):
            axes.plot([mean], [y], marker="s", markersize=4, color=_FLOORS, linestyle="none")
    known = [mean for mean in means.values() if math.isfinite(mean)]
    if known:
        best = max(known) if better == "higher" else min(known)
        axes.axvline(best, color=_FLOORS, linestyle="--", linewidth=0.8, zorder=0)
        axes.axhline(len(methods) - 0.5, color="0.8", linewidth=0.8)


def _draw_method(axes: Axes, y: int, row: dict[Any, Any]) -> None:
    if not math.isfinite(row["mean"]):
        axes.text(
            0.02, y, "no value", transform=axes.get_yaxis_transform(), fontsize=7, va="center"
        )
        return
    if math.isfinite(row["low"]):
        axes.plot([row["low"], row["high"]], [y, y], color=_METHOD, linewidth=1.2)
    inside = _METHOD if row["clear"] else "white"
    axes.plot([row["mean"]], [y], marker="o", markersize=5, color=_METHOD, markerfacecolor=inside)
