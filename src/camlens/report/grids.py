"""Tables of groups by regions: in each cell a mean with its interval, or why there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from .. import regions
from . import wording
from .palette import step
from .tables import Setting, Tables, select

#: Smallest group of images with an interval, and with it a colour.
MIN_IMAGES = 10

#: How many groups a table shows at most.
MOST_ROWS = 40

_NOTES = {"not resolvable": "too coarse", "no evidence": "no evidence", "no value": "unknown"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One group's number for one region.

    Attributes:
        text: the number, or why there is none.
        note: its interval, or of how many images it is where these are too few.
        says: how it stands to chance, for those who do not see the colour.
        shade: of the palette, 0 to 16; None where nothing is coloured.
        sure: whether the interval leaves chance out.
    """

    text: str
    note: str = ""
    says: str = ""
    shade: int | None = None
    sure: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One group: its name, how many images it has, and its cells."""

    name: str
    images: str
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of the page.

    Attributes:
        title: what the numbers are.
        text: how to read them.
        groups: what the rows are, such as ``"label"``.
        columns: the regions, and what else stands beside them.
        rows: the first is of all images together.
        left_out: how many groups the table does not show.
    """

    title: str
    text: str
    groups: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: int = 0


def density_grid(tables: Tables, setting: Setting) -> Grid:
    """Return the density of heat by group and region, with heat and effect's agreement."""
    rows, by = _rows(tables, setting)
    parts = [_summaries(rows, by, "density")]
    columns = list(tables.region_names)
    if "agreement" in rows and rows["agreement"].notna().any():
        # The same for each region of a map: once is enough.
        once = rows.drop_duplicates("image").assign(region=_AGREEMENT)
        parts.append(_summaries(once, by, "agreement"))
        columns.append(_AGREEMENT)
    return _grid(
        tables,
        pd.concat(parts, ignore_index=True),
        by=by,
        title=tables.setting_name(setting),
        text="Mean density of heat: the region's share of the heat over its share of the area. "
        "1 is what heat without any preference has.",
        columns=columns,
    )


def ablation_grid(tables: Tables, setting: Setting) -> Grid | None:
    """Return what the score loses without each region; None where no region was ablated."""
    rows, by = _rows(tables, setting)
    if "excess" not in rows or not rows["excess"].notna().any():
        return None
    probable = bool(rows["probability_excess"].notna().any())
    value = "probability_excess" if probable else "excess"
    infills = ", ".join(map(str, rows["infill"].dropna().unique()))
    return _grid(
        tables,
        _summaries(rows, by, value),
        by=by,
        title=tables.setting_name(setting),
        text=f"Mean fall of the {'probability' if probable else 'score'} when the region is "
        f"replaced ({infills}), beyond what the same shape costs at random places. 0 is chance.",
        columns=list(tables.region_names),
    )


#: The column of the agreement; no region can have this name by accident.
_AGREEMENT = "heat and effect agree"


def _rows(tables: Tables, setting: Setting) -> tuple[pd.DataFrame, str | None]:
    """Return the rows of one setting's shown maps, and the column they are grouped by."""
    table = tables.regions
    if table is None:
        raise ValueError("the run has no regions: run it again with regions=")
    # Grid and place of the shown target may differ between images, which are still averaged.
    rows = select(table[table["shown"]], setting).assign(k=0).drop(columns="grid")
    known = [name for name in ("label", "prediction") if rows[name].notna().any()]
    return rows, known[0] if known else None


def _summaries(rows: pd.DataFrame, by: str | None, value: str) -> pd.DataFrame:
    """Return the summary of all images, and below it that of each group; ``group`` is NA or id."""
    whole = regions.summarize(rows, by=[], value=value, min_images=MIN_IMAGES).assign(group=pd.NA)
    if by is None:
        return whole
    parts = regions.summarize(rows, by=by, value=value, min_images=MIN_IMAGES)
    return pd.concat([whole, parts.assign(group=parts[by])], ignore_index=True)


def _grid(
    tables: Tables,
    summary: pd.DataFrame,
    *,
    by: str | None,
    title: str,
    text: str,
    columns: list[str],
) -> Grid:
    strongest = summary.loc[~summary["value"].isin(["density", "agreement"]), "mean"].abs().max()
    found = {
        (group, row["region"]): _cell(row, strongest)
        for group, row in zip(_keys(summary["group"]), summary.to_dict("records"), strict=True)
    }
    counts = _counts(tables, by)
    absent = Cell(text="absent", says="absent from these images")
    rows = tuple(
        Row(
            name="all images" if group is None else tables.class_name(group),
            images=wording.count(counts[group], "image"),
            cells=tuple(found.get((group, column), absent) for column in columns),
        )
        for group in list(counts)[: MOST_ROWS + 1]
    )
    return Grid(
        title=title,
        text=text,
        groups={"label": "label", "prediction": "predicted class"}.get(by or "", "images"),
        columns=tuple(columns),
        rows=rows,
        left_out=max(0, len(counts) - MOST_ROWS - 1),
    )


def _counts(tables: Tables, by: str | None) -> dict[int | None, int]:
    """Return how many images there are of each group: of all, then by id, the largest of many."""
    counts: dict[int | None, int] = {None: len(tables.images)}
    if by is None:
        return counts
    sizes = tables.images[by].value_counts()
    largest = sizes.sort_values(ascending=False, kind="stable")
    ordered = sizes.sort_index() if len(sizes) <= MOST_ROWS else largest
    return counts | {int(one): int(size) for one, size in ordered.items()}


def _keys(groups: Iterable[Any]) -> list[int | None]:
    return [None if pd.isna(one) else int(one) for one in groups]


def _cell(row: dict[str, Any], strongest: float) -> Cell:
    """Return a row of a summary as a cell."""
    mean, ratio, chance = row["mean"], row["value"] == "density", 1.0
    if not math.isfinite(mean):
        return Cell(text=_NOTES.get(row["note"], row["note"]), says="no number")
    form = ".2f" if ratio else "+.2f" if row["value"] == "agreement" else "+.3f"
    if not row["enough"]:
        return Cell(
            text=f"{mean:{form}}",
            note=f"only {wording.count(row['n'], 'image')}",
            says="too few images for an interval",
        )
    chance = 1.0 if ratio else 0.0
    sure = not row["low"] <= chance <= row["high"]
    side = "above chance" if mean > chance else "below chance"
    shade = step(mean) if ratio else step(mean, strongest=strongest, ratio=False)
    if row["value"] == "agreement":
        shade = step(mean, strongest=1.0, ratio=False)
    return Cell(
        text=f"{mean:{form}}",
        note=f"{row['low']:{form}} to {row['high']:{form}}",
        says=side if sure else "not told from chance",
        shade=shade + 8,
        sure=sure,
    )
