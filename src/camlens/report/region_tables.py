"""Build tables of groups by regions, with a mean and its interval in each cell."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from .. import regions
from . import wording
from .palette import step
from .run_tables import Setting, Tables

#: Smallest group of images that gets an interval and a colour.
MIN_IMAGES = 10

#: Largest number of groups in a table.
MOST_ROWS = 40

#: Columns of a file with a grid's numbers.
_RECORD = ("method", "layer", "region", "value", "n", "mean", "low", "high")

_FEW = "too few images for an interval"

_ERRORS = (
    "± is the standard error of a single image's excess over the random positions: within two "
    "standard errors of 0, other positions may change its sign."
)

_NOTES = {"not resolvable": "too coarse", "no evidence": "no evidence", "no value": "unknown"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One group's number for one region.

    Attributes:
        text: the number, or why it is missing.
        note: its interval; or, if there are too few images for one, their number and the standard
            error of a single image's excess.
        says: the comparison with chance in words, for readers who do not see the colour.
        shade: index in the palette, 0 to 16; None without a colour.
        sure: whether the interval excludes chance.
    """

    text: str
    note: str = ""
    says: str = ""
    shade: int | None = None
    sure: bool = False

    @property
    def style(self) -> str:
        """The cell's CSS class: a shade, ``few`` for a number without one, or ``blank``."""
        if self.shade is not None:
            return f"shade-{self.shade}"
        return "few" if self.says == _FEW else "blank"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One group: its name, its number of images, and its cells."""

    name: str
    images: str
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of the page.

    Attributes:
        title: name of the numbers.
        text: how to read them.
        groups: kind of the rows, such as ``"true class"``.
        columns: the regions and any further columns.
        rows: the groups; if these are classes, the first row covers all images.
        records: the numbers, a dictionary for each group and region.
        left_out: number of groups that the table does not show.
    """

    title: str
    text: str
    groups: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    records: tuple[dict[str, object], ...]
    left_out: int = 0


def density_grids(tables: Tables) -> list[Grid]:
    """Return the density of heat by region, and the agreement of heat and effect.

    There is one grid for each setting, with a row for each class. If no class has enough images,
    there is a single grid with a row for each setting.
    """
    return _grids(
        tables,
        "density",
        "Mean density of heat: the region's share of the heat divided by its share of the area. "
        "Uniform heat has density 1.",
    )


def ablation_grids(tables: Tables) -> list[Grid]:
    """Return the score's drop without each region; an empty list if no region was ablated."""
    table = tables.regions
    if table is None or "excess" not in table or not table["excess"].notna().any():
        return []
    infills = ", ".join(map(str, table["infill"].dropna().unique()))
    grids = _grids(
        tables,
        "excess",
        "Excess: mean drop of the score (not of the probability) when the region is replaced "
        f"({infills}), minus the mean drop for the same shape at random positions. 0 is chance. "
        "Below 0: removing the region costs less than removing the same shape elsewhere.",
    )
    cells = (cell for grid in grids for row in grid.rows for cell in row.cells)
    if not any("±" in cell.note for cell in cells):
        return grids
    return [dataclasses.replace(grid, text=f"{grid.text} {_ERRORS}") for grid in grids]


def records(grids: Sequence[Grid]) -> Iterator[dict[str, object]]:
    """Return the numbers of grids as rows of a file."""
    for grid in grids:
        yield from grid.records


#: Name of the agreement's column, which no region will have by accident.
_AGREEMENT = "heat and effect agree"


def _grids(tables: Tables, value: str, text: str) -> list[Grid]:
    by = _groups(tables)
    summaries = {
        setting: summary
        for setting in tables.settings
        if len(summary := _summary(tables, setting, by, value))
    }
    if not summaries:
        return []
    if by is None:
        whole = pd.concat([one.assign(group=at) for at, one in enumerate(summaries.values())])
        names = map(tables.setting_name, summaries)
        methods = {at: (name, len(tables.images)) for at, name in enumerate(names)}
        return [_grid(tables, whole, methods, title="All images", text=text, groups="method")]
    counts = _counts(tables, by)
    classes = {
        group: (_name(tables, group), count)
        for group, count in itertools.islice(counts.items(), MOST_ROWS + 1)
    }
    return [
        _grid(
            tables,
            summary,
            classes,
            title=f"{tables.setting_name(setting)} ({tables.setting_detail(setting)})",
            text=text,
            groups={"label": "true class", "prediction": "predicted class"}[by],
            left_out=len(counts) - len(classes),
        )
        for setting, summary in summaries.items()
    ]


def _groups(tables: Tables) -> str | None:
    """Return the column by which images are grouped; None if no group has enough images."""
    for name in ("label", "prediction"):
        if tables.images[name].notna().any():
            return name if tables.images[name].value_counts().max() >= MIN_IMAGES else None
    return None


def _summary(tables: Tables, setting: Setting, by: str | None, value: str) -> pd.DataFrame:
    """Return the means of one setting's shown maps; ``group`` is a class id, or NA for all."""
    rows = tables.shown_regions(setting)
    if rows is None:
        return pd.DataFrame()
    parts = [_means(rows, by, value)]
    if value == "density" and "agreement" in rows and rows["agreement"].notna().any():
        # The agreement is the same for all regions of a map.
        once = rows.drop_duplicates("image").assign(region=_AGREEMENT)
        parts.append(_means(once, by, "agreement"))
    return pd.concat(parts, ignore_index=True)


def _means(rows: pd.DataFrame, by: str | None, value: str) -> pd.DataFrame:
    whole = _summarized(rows, [], value).assign(group=pd.NA)
    if by is None or rows[by].isna().all():
        return whole
    parts = _summarized(rows, [by], value)
    return pd.concat([whole, parts.assign(group=parts[by])], ignore_index=True)


def _summarized(rows: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    summary = regions.summarize(rows, by=by, value=value, min_images=MIN_IMAGES)
    if value != "excess":
        return summary
    keys = [*by, "region"]
    # Of the first image: used for groups of a single one.
    errors = rows.dropna(subset=value).groupby(keys)["standard_error"].first()
    return summary.join(errors, on=keys)


def _grid(
    tables: Tables,
    summary: pd.DataFrame,
    names: Mapping[Any, tuple[str, int]],
    **about: Any,
) -> Grid:
    """Return a grid of a summary; ``names`` maps each group to the row's name and size."""
    strongest = summary.loc[~summary["value"].isin(["density", "agreement"]), "mean"].abs().max()
    columns = [
        *tables.region_names,
        *([_AGREEMENT] if "agreement" in set(summary["value"]) else []),
    ]
    keys = [None if pd.isna(one) else int(one) for one in summary["group"]]
    found = {
        (group, row["region"]): row
        for group, row in zip(keys, summary.to_dict("records"), strict=True)
    }
    absent = Cell(text="absent", says="absent from these images")
    rows = tuple(
        Row(
            name=name,
            images=wording.count(count, "image"),
            cells=tuple(
                _cell(found[group, column], strongest, count)
                if (group, column) in found
                else absent
                for column in columns
            ),
        )
        for group, (name, count) in names.items()
    )
    return Grid(
        **about,
        columns=tuple(columns),
        rows=rows,
        records=tuple(
            {"group": names[group][0], **{name: row[name] for name in _RECORD}}
            for (group, _), row in found.items()
            if group in names
        ),
    )


def _name(tables: Tables, group: int | None) -> str:
    return "all images" if group is None else tables.class_name(group)


def _counts(tables: Tables, by: str) -> dict[int | None, int]:
    """Return the numbers of images: all, then by class id, or by size if there are many classes."""
    counts: dict[int | None, int] = {None: len(tables.images)}
    sizes = tables.images[by].value_counts()
    largest = sizes.sort_values(ascending=False, kind="stable")
    ordered = sizes.sort_index() if len(sizes) <= MOST_ROWS else largest
    return counts | {int(one): int(size) for one, size in ordered.items()}


def _cell(row: dict[str, Any], strongest: float, images: int) -> Cell:
    """Convert a row of a summary to a cell."""
    mean, ratio = row["mean"], row["value"] == "density"
    if not math.isfinite(mean):
        return Cell(text=_NOTES.get(row["note"], row["note"]), says="no number")
    form = ".2f" if ratio else "+.2f" if row["value"] == "agreement" else "+.3f"
    if not row["enough"]:
        notes = [] if row["n"] == images else [f"only {wording.count(row['n'], 'image')}"]
        if row["n"] == 1 and math.isfinite(row.get("standard_error", math.nan)):
            notes.insert(0, f"± {row['standard_error']:.3f}")
        return Cell(text=f"{mean:{form}}", note=", ".join(notes), says=_FEW)
    chance = 1.0 if ratio else 0.0
    sure = not row["low"] <= chance <= row["high"]
    side = "above chance" if mean > chance else "below chance"
    shade = step(mean) if ratio else step(mean, strongest=strongest, ratio=False)
    if row["value"] == "agreement":
        shade = step(mean, strongest=1.0, ratio=False)
    return Cell(
        text=f"{mean:{form}}",
        note=f"{row['low']:{form}} to {row['high']:{form}}",
        says=side if sure else "not distinguishable from chance",
        shade=shade + 8,
        sure=sure,
    )
