"""Figures of a summary and of a table. Nothing is shown or kept: the caller saves them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cells
from .groups import SETTING, Block, group
from .statistics import summarize
from .tables import EFFECT_COLUMNS, check_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: After Okabe and Ito 2008, told apart by the colour-blind and in grey.
_DENSITY = {"color": "#0072B2", "marker": "o"}
_EFFECT = {"color": "#D55E00", "marker": "s"}

_MEANINGS = {
    "mean": "Density of heat by region: share of the heat over share of the area",
    "lift": "Lift by region: a group's {value} over that of all groups together",
}
_ONE = {"mean": "what chance gives", "lift": "as in all groups"}
_EFFECTS = {"excess": "score", "probability_excess": "probability"}


def density_map(
    summary: pd.DataFrame, *, by: str | Sequence[str] = "label", value: str = "mean"
) -> Figure:
    """Draw groups by regions, coloured by how far a density or a lift is from 1.

    Colours are symmetric in the factor: a half is as far from 1 as a double. Each cell has the
    number and below it its interval; bold where the interval excludes 1. What cannot be said is
    hatched and says why.

    Args:
        summary: from :func:`camlens.regions.summarize`, of one setting.
        by: what it was grouped by.
        value: ``"mean"``, of densities only, or ``"lift"``.

    Returns:
        A matplotlib figure; notebooks show it, ``figure.savefig("map.png")`` writes it.

    Raises:
        ValueError: an unknown value, a column is not there, or the summary holds several
            settings, or means of something else than density.
    """
    from matplotlib.figure import Figure

    by = [by] if isinstance(by, str) else list(by)
    if value not in _MEANINGS:
        raise ValueError(f"expected the value 'mean' or 'lift', got {value!r}")
    check_columns(summary, [*by, "region", "value", "n", "enough", "note", value])
    setting, what = _setting(summary), _only(summary, "value")
    if value == "mean" and what != "density":
        raise ValueError(f"expected a summary of density, of which 1 is chance, got one of {what}")
    found = _cells(summary, by)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    width = max(1.05, 0.09 * max(map(len, columns)))
    figure = Figure(
        figsize=(3.2 + width * len(columns), 2.0 + 0.62 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            cells.draw(axes, (x, y), found.get((row, column)), value)
    cells.explain(figure, axes, _ONE[value])
    counts = [_count([cell["n"] for (name, _), cell in found.items() if name == r]) for r in rows]
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel="region", ylabel=" / ".join(by))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), list(map("{}\n{}".format, rows, counts)))
    axes.tick_params(length=0)
    _frame(
        figure,
        [_MEANINGS[value].format(value=what), _line(setting)],
        "below each number: its bootstrap interval over images; bold: the interval excludes 1; "
        "hatched: nothing can be said",
    )
    return figure


def density_against_effect(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    effect: str = "excess",
    least: int = 10,
) -> Figure:
    """Draw, for each group, where the heat is beside what the network loses there.

    Both have the same regions on the vertical axis: on the left the mean density, on the right the
    mean effect, with 95% bootstrap intervals over images and a line at what chance gives. Above
    stands how well the two agree within single explanations (Spearman's coefficient).

    Args:
        table: from :func:`camlens.regions.table` with an effect, of one setting.
        by: a column or several, see :func:`camlens.regions.summarize`.
        effect: ``"excess"`` (of the score) or ``"probability_excess"``.
        least: of how many images at least numbers are drawn.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: an unknown effect, a column is not there, or the table holds several settings.
    """
    from matplotlib.figure import Figure

    if effect not in _EFFECTS:
        raise ValueError(f"expected an effect out of {tuple(_EFFECTS)}, got {effect!r}")
    check_columns(table, EFFECT_COLUMNS)
    setting = _setting(table)
    groups = group(table, by, ["agreement"])
    (block,) = groups.blocks
    found = [summarize(table, by=by, value=value, least=least) for value in ("density", effect)]
    limits = [_limits(summary, chance) for summary, chance in zip(found, (1.0, 0.0), strict=True)]
    per_line = 2 if len(block.groups) > 1 else 1
    lines = -(-len(block.groups) // per_line)
    figure = Figure(
        figsize=(6.6 * per_line, 0.9 + lines * (1.5 + 0.27 * len(block.regions))),
        layout="constrained",
    )
    parts = figure.subfigures(lines, per_line, squeeze=False, wspace=0.04, hspace=0.02).flat
    keys = groups.keys.columns.tolist()
    for place, part in zip(block.groups, parts, strict=False):
        own = [s[(s[keys] == groups.keys.iloc[place]).all(axis=1)] if keys else s for s in found]
        left, right = part.subplots(1, 2, sharey=True)
        left.set(xlabel="density (1 = chance)", xlim=limits[0])
        right.set(xlabel=f"fall of the {_EFFECTS[effect]} (0 = chance)", xlim=limits[1])
        left.axvline(1.0, color="0.4", linestyle="--", linewidth=1, zorder=0)
        right.axvline(0.0, color="0.4", linestyle="--", linewidth=1, zorder=0)
        _draw_dots(left, own[0], block.regions, style=_DENSITY)
        _draw_dots(right, own[1], block.regions, style=_EFFECT)
        part.suptitle(f"{groups.names[place]}, {_agreement(block, place, least)}", fontsize=9)
    heading = "Where the heat is (left), and what the network loses without the region (right)"
    _frame(
        figure,
        [heading, _line(setting)],
        f"regions replaced by: {setting['fill']}; bars: 95% interval over images; dashed: chance, "
        "that is heat spread evenly (left), and what random places of the same shape cost (right); "
        "agreement: Spearman's coefficient of the two over the regions",
    )
    return figure


def _frame(figure: Figure, heading: Sequence[str], notes: str) -> None:
    """Write above and below everything, in lines as long as the figure is wide."""
    width = figure.get_figwidth()
    lines = [textwrap.fill(line, int(12 * width)) for line in heading]
    figure.suptitle("\n".join(lines), fontsize=11)
    figure.supxlabel(textwrap.fill(notes, int(16 * width)), fontsize=8)


def _cells(summary: pd.DataFrame, by: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows by the names of group and region, in order."""
    groups = [" / ".join(map(str, row)) or "all" for row in summary[by].to_numpy(dtype=object)]
    places = list(zip(groups, summary["region"], strict=True))
    if len(set(places)) != len(places):
        raise ValueError(
            f"expected one row for each group and region, got {len(places)} of "
            f"{len(set(places))}: draw one summary at a time, with the by it was made with"
        )
    return dict(zip(places, summary.to_dict("records"), strict=True))


def _only(frame: pd.DataFrame, column: str) -> Any:
    """Return the one value of a column."""
    values = frame[column].drop_duplicates().tolist()
    if len(values) != 1:
        raise ValueError(
            f"expected rows with one {column}, got {len(values)}: {values[:5]}; filter them, as in "
            f"table[table[{column!r}] == {values[0] if values else ''!r}]"
        )
    return values[0]


def _setting(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the one setting of all rows."""
    return {name: _only(frame, name) for name in SETTING if name in frame.columns}


def _line(setting: dict[str, Any]) -> str:
    """Say in a line of what setting the rows are."""
    said = [
        str(setting.get("method") or "heatmaps"),
        f"layer {setting['layer']}" if setting.get("layer") else "",
        f"grid {setting['grid']}" if "grid" in setting else "",
        f"target {setting['k'] + 1} of each image (k = {setting['k']})" if "k" in setting else "",
    ]
    return ", ".join(part for part in said if part)


def _count(counts: list[int]) -> str:
    """Say how many images a group's regions have, leaving out those that have none."""
    some = [count for count in counts if count] or [0]
    few, many = min(some), max(some)
    return f"n = {many}" if few == many else f"n = {few} to {many}"


def _limits(summary: pd.DataFrame, chance: float) -> tuple[float, float]:
    """Return the axis that holds all intervals and the chance, with some room."""
    ends = summary[["low", "high"]].to_numpy("float64")
    ends = np.append(ends[np.isfinite(ends)], [chance, 0.0])
    low, high = ends.min(), max(ends.max(), ends.min() + 1e-9)
    room = 0.06 * (high - low)
    return float(low - (room if low < 0 else 0)), float(high + room)


def _draw_dots(
    axes: Axes, summary: pd.DataFrame, regions: Sequence[str], *, style: dict[str, Any]
) -> None:
    """Draw means with intervals, a region a line, or why there is none."""
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


def _agreement(block: Block, place: int, least: int) -> str:
    """Say how well a group's explanations agree with the effect."""
    own = block.group == place
    # The same for each region of an explanation, as far as there is a row.
    agreed = np.fmax.reduce(block.numbers["agreement"][own], axis=1)
    agreed = agreed[np.isfinite(agreed)]
    said = f"agreement within an explanation: known for {len(agreed)} only"
    if len(agreed) >= least:
        said = (
            f"agreement within an explanation: mean {agreed.mean():+.2f}, "
            f"above 0 for {(agreed > 0).mean():.0%} of {len(agreed)}"
        )
    return f"{own.sum()} image{'s' * int(own.sum() != 1)}\n{said}"
