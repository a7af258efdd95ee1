"""Draw region statistics: densities as a colour map, and heat density against ablation."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .groups import SETTING, Block, group
from .statistics import summarize
from .tables import ABLATION_COLUMNS, check_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ..render.figures import Figure

#: Colours after Okabe and Ito 2008: distinguishable with colour blindness and in grey.
_DENSITY = {"color": "#0072B2", "marker": "o"}
_EXCESS = {"color": "#D55E00", "marker": "s"}

_TITLES = {
    "mean": "Density of heat by region: share of the heat over share of the area",
    "lift": "Lift by region: a group's {value} over that of all groups together",
}
_MEANING_OF_1 = {"mean": "expected by chance", "lift": "as in all groups"}
_EXCESSES = {"excess": "score", "probability_excess": "probability"}

#: Factor above or below 1 at which the colour reaches full strength.
STRONGEST = 4.0

#: From purple to orange, distinguishable with colour blindness.
_COLORMAP = "PuOr_r"


def density_map(
    summary: pd.DataFrame, *, by: str | Sequence[str] = "label", value: str = "mean"
) -> Figure:
    """Draw a table of groups by regions, with densities or lifts coloured by distance from 1.

    The colour scale is logarithmic: one half is as far from 1 as two. Each cell shows the number
    and its interval, in bold if the interval excludes 1. Cells without a number are hatched and
    give the reason.

    Args:
        summary: from :func:`camlens.regions.summarize`, for one setting.
        by: the columns that the summary was grouped by.
        value: ``"mean"``, for densities only, or ``"lift"``.

    Returns:
        A matplotlib figure; notebooks display it, ``figure.savefig("map.png")`` writes it.

    Raises:
        ValueError: the value is unknown, a column does not exist, or the summary has several
            settings or means of something other than density.
    """
    from ..render.figures import Figure

    by = [by] if isinstance(by, str) else list(by)
    if value not in _TITLES:
        raise ValueError(f"expected the value 'mean' or 'lift', got {value!r}")
    check_columns(summary, [*by, "region", "value", "n", "enough", "note", value])
    setting, averaged = _setting(summary), _only(summary, "value")
    if value == "mean" and averaged != "density":
        raise ValueError(f"expected a summary of density, where 1 is chance, got one of {averaged}")
    cells = _cells(summary, by)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    width = max(1.05, 0.09 * max(map(len, columns)))
    figure = Figure(
        figsize=(3.2 + width * len(columns), 2.0 + 0.62 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            _draw_cell(axes, (x, y), cells.get((row, column)), value)
    _draw_scale(figure, axes, _MEANING_OF_1[value])
    counts = [_count([cell["n"] for (name, _), cell in cells.items() if name == r]) for r in rows]
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel="region", ylabel=" / ".join(by))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), list(map("{}\n{}".format, rows, counts)))
    axes.tick_params(length=0)
    _frame(
        figure,
        [_TITLES[value].format(value=averaged), _line(setting)],
        "below each number: its bootstrap interval over images; bold: the interval excludes 1; "
        "hatched: no number",
    )
    return figure


def density_against_excess(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    value: str = "excess",
    min_images: int = 10,
) -> Figure:
    """Draw the density of heat by region next to the score's drop without the region.

    Each group has two panels, with the regions on the vertical axis: on the left the mean density,
    on the right the mean excess of the ablation, with 95% bootstrap intervals over images and a
    line at chance. The title gives the agreement of the two within single explanations (Spearman's
    coefficient).

    Args:
        table: from :func:`camlens.regions.table` with an ablation, for one setting.
        by: the column or columns to group by, see :func:`camlens.regions.summarize`.
        value: ``"excess"`` (of the score) or ``"probability_excess"``.
        min_images: smallest group for which numbers are drawn.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: the value is unknown, a column does not exist, or the table has several
            settings.
    """
    from ..render.figures import Figure

    if value not in _EXCESSES:
        raise ValueError(f"expected value to be one of {tuple(_EXCESSES)}, got {value!r}")
    check_columns(table, ABLATION_COLUMNS)
    setting = _setting(table)
    groups = group(table, by, ["agreement"])
    (block,) = groups.blocks
    summaries = [
        summarize(table, by=by, value=name, min_images=min_images) for name in ("density", value)
    ]
    limits = [_limits(s, chance) for s, chance in zip(summaries, (1.0, 0.0), strict=True)]
    per_line = 2 if len(block.groups) > 1 else 1
    lines = -(-len(block.groups) // per_line)
    figure = Figure(
        figsize=(6.6 * per_line, 0.9 + lines * (1.5 + 0.27 * len(block.regions))),
        layout="constrained",
    )
    parts = figure.subfigures(lines, per_line, squeeze=False, wspace=0.04, hspace=0.02).flat
    keys = groups.keys.columns.tolist()
    for position, part in zip(block.groups, parts, strict=False):
        key = groups.keys.iloc[position]
        density, excess = (s[(s[keys] == key).all(axis=1)] if keys else s for s in summaries)
        left, right = part.subplots(1, 2, sharey=True)
        left.set(xlabel="density (1 = chance)", xlim=limits[0])
        right.set(xlabel=f"drop of the {_EXCESSES[value]} (0 = chance)", xlim=limits[1])
        left.axvline(1.0, color="0.4", linestyle="--", linewidth=1, zorder=0)
        right.axvline(0.0, color="0.4", linestyle="--", linewidth=1, zorder=0)
        _draw_dots(left, density, block.regions, style=_DENSITY)
        _draw_dots(right, excess, block.regions, style=_EXCESS)
        agreed = _agreement(block, position, min_images)
        part.suptitle(f"{groups.names[position]}, {agreed}", fontsize=9)
    heading = "Where the heat is (left), and what the network loses without the region (right)"
    _frame(
        figure,
        [heading, _line(setting)],
        f"infill: {setting['infill']}; bars: 95% interval over images; dashed: chance, that is "
        "heat spread evenly (left), and the drop at random placements of the same mask (right); "
        "agreement: Spearman's coefficient of the two over the regions",
    )
    return figure


def _frame(figure: Figure, heading: Sequence[str], notes: str) -> None:
    """Write a heading and notes, wrapped to the figure's width."""
    width = figure.get_figwidth()
    lines = [textwrap.fill(line, int(12 * width)) for line in heading]
    figure.suptitle("\n".join(lines), fontsize=11)
    figure.supxlabel(textwrap.fill(notes, int(16 * width)), fontsize=8)


def _cells(summary: pd.DataFrame, by: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the summary's rows by the names of group and region, in order."""
    groups = [" / ".join(map(str, row)) or "all" for row in summary[by].to_numpy(dtype=object)]
    keys = list(zip(groups, summary["region"], strict=True))
    if len(set(keys)) != len(keys):
        raise ValueError(
            f"expected one row for each group and region, got {len(keys)} of {len(set(keys))}: "
            "draw one summary at a time, with the by= that summarize received"
        )
    return dict(zip(keys, summary.to_dict("records"), strict=True))


def _only(frame: pd.DataFrame, column: str) -> Any:
    """Return the single value of a column."""
    values = frame[column].drop_duplicates().tolist()
    if len(values) != 1:
        raise ValueError(
            f"expected rows with one {column}, got {len(values)}: {values[:5]}; filter them, as in "
            f"table[table[{column!r}] == {values[0] if values else ''!r}]"
        )
    return values[0]


def _setting(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the single setting of all rows."""
    return {name: _only(frame, name) for name in SETTING if name in frame.columns}


def _line(setting: dict[str, Any]) -> str:
    """Describe a setting in one line."""
    parts = [
        str(setting.get("method") or "heatmaps"),
        f"layer {setting['layer']}" if setting.get("layer") else "",
        f"grid {setting['grid']}" if "grid" in setting else "",
        f"target {setting['k'] + 1} of each image (k = {setting['k']})" if "k" in setting else "",
    ]
    return ", ".join(part for part in parts if part)


def _count(counts: list[int]) -> str:
    """Describe how many images a group's regions have, ignoring regions without any."""
    positive = [count for count in counts if count] or [0]
    few, many = min(positive), max(positive)
    return f"n = {many}" if few == many else f"n = {few} to {many}"


def _limits(summary: pd.DataFrame, chance: float) -> tuple[float, float]:
    """Return axis limits that contain all intervals and chance, with a margin."""
    ends = summary[["low", "high"]].to_numpy("float64")
    ends = np.append(ends[np.isfinite(ends)], [chance, 0.0])
    low, high = ends.min(), max(ends.max(), ends.min() + 1e-9)
    margin = 0.06 * (high - low)
    return float(low - (margin if low < 0 else 0)), float(high + margin)


def _draw_dots(
    axes: Axes, summary: pd.DataFrame, regions: Sequence[str], *, style: dict[str, Any]
) -> None:
    """Draw each region's mean with its interval, or the reason why there is none."""
    for row in summary.to_dict("records"):
        y = regions.index(row["region"])
        if not row["enough"]:
            note = axes.text(0.03, y, row["note"], transform=axes.get_yaxis_transform())
            note.set(fontsize=8, color="0.4", style="italic", va="center")
            note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
            continue
        axes.plot([row["low"], row["high"]], [y, y], color=style["color"], linewidth=1.5)
        axes.plot([row["mean"]], [y], markersize=5, linestyle="none", **style)
    axes.set_yticks(range(len(regions)), regions)
    axes.set_ylim(len(regions) - 0.5, -0.5)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _agreement(block: Block, position: int, min_images: int) -> str:
    """Describe how well a group's explanations agree with the ablation."""
    in_group = block.group == position
    # An explanation's agreement is repeated in each of its rows.
    values = np.fmax.reduce(block.numbers["agreement"][in_group], axis=1)
    values = values[np.isfinite(values)]
    text = f"agreement within an explanation: known for {len(values)} only"
    if len(values) >= min_images:
        text = (
            f"agreement within an explanation: mean {values.mean():+.2f}, "
            f"above 0 for {(values > 0).mean():.0%} of {len(values)}"
        )
    return f"{in_group.sum()} image{'s' * int(in_group.sum() != 1)}\n{text}"


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


def _draw_cell(
    axes: Axes, position: tuple[int, int], cell: dict[str, Any] | None, value: str
) -> None:
    """Draw a group's number for one region, or the reason why there is none."""
    from matplotlib.patches import Rectangle

    x, y = position
    corner = (x - 0.5, y - 0.5)
    number = cell[value] if cell is not None else math.nan
    if cell is None or not cell["enough"] or not math.isfinite(number):
        reason = cell["note"] if cell is not None else "absent"
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor="0.92", edgecolor="0.75", hatch="////", linewidth=0)
        )
        box = {"facecolor": "0.92", "edgecolor": "none", "pad": 1.5}
        lines = reason.replace(" ", "\n", 1) if len(reason) < 16 else reason.replace(": ", ":\n")
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


def _draw_scale(figure: Figure, axes: Axes, meaning_of_1: str) -> None:
    """Draw the colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    norm = LogNorm(1 / STRONGEST, STRONGEST)
    bar = figure.colorbar(ScalarMappable(norm, _COLORMAP), ax=axes, extend="both", pad=0.02)
    ticks = {1 / 4: "¼", 1 / 2: "½", 1: f"1: {meaning_of_1}", 2: "2", 4: "4"}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.minorticks_off()
