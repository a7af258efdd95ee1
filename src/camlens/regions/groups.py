"""From a table to matrices of images by regions, one for each setting of the explanations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .tables import check_columns

if TYPE_CHECKING:
    import pandas as pd

    from .resampling import Array

#: What distinguishes explanations of the same image; ``fill`` where an effect was measured.
SETTING = ("method", "layer", "grid", "k", "fill")

#: Values that need a map that has evidence and can tell the region.
MAP_VALUES = ("share", "density", "hit", "overlap", "rank")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """The rows of one setting.

    Attributes:
        setting: its row in ``Groups.settings``.
        regions: R names.
        group: (n,) for each image its row in ``Groups.keys``.
        present: (n, R) bool, whether the table has the row at all.
        numbers: of each column asked for, (n, R) float64; NaN where there is none.
    """

    setting: int
    regions: tuple[str, ...]
    group: Array
    present: Array
    numbers: dict[str, Array]

    @property
    def groups(self) -> list[int]:
        """Rows in ``Groups.keys`` of the groups that are here, in order."""
        return list(map(int, np.unique(self.group)))

    def patterns(self, name: str) -> Iterator[tuple[Array, Array]]:
        """Yield regions that have numbers for the same images: places (r,), usable (n,).

        One draw of images then serves all of them.
        """
        usable = np.isfinite(self.numbers[name])
        patterns, which = np.unique(usable, axis=1, return_inverse=True)
        for place in range(patterns.shape[1]):
            yield np.flatnonzero(which == place), patterns[:, place]

    def why_none(self, value: str, images: Array) -> Array:
        """Say for each region why these images, a boolean (n,), have no value of it at all."""
        can, has = (self.numbers[name][images] == 1 for name in ("resolvable", "evidence"))
        reasons = [~can.any(axis=0), ~(can & has).any(axis=0)]
        if value not in MAP_VALUES:
            reasons = [np.zeros_like(reason) for reason in reasons]
        return np.select(reasons, ["not resolvable", "no evidence"], "no value")


@dataclasses.dataclass(frozen=True)
class Groups:
    """A table by groups and settings.

    Attributes:
        keys: a row for each group, in order, of the columns it was grouped by.
        settings: a row for each setting.
        blocks: one for each setting.
    """

    keys: pd.DataFrame
    settings: pd.DataFrame
    blocks: list[Block]

    @property
    def names(self) -> list[Any]:
        """A name for each group: its value, or several joined by " / "; "all" of no columns."""
        if not len(self.keys.columns):
            return ["all"]
        if len(self.keys.columns) == 1:
            return list(self.keys.iloc[:, 0])
        return [" / ".join(map(str, row)) for row in self.keys.itertuples(index=False)]


def check(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a table can be grouped.

    Raises:
        ValueError: it has no rows, a column is not there, is missing throughout, has no numbers,
            or is part of the setting.
    """
    from pandas.api.types import is_numeric_dtype

    check_columns(table, ["image", "region", "resolvable", "evidence", *columns, *by])
    fixed = [name for name in by if name in (*SETTING, "region", "image")]
    if fixed:
        raise ValueError(
            f"expected no {fixed} in by: each method, layer, grid, k, fill and region has rows of "
            "its own anyway; by=[] groups by nothing else"
        )
    for name in columns:
        if not is_numeric_dtype(table[name]):
            raise ValueError(f"expected numbers in the column {name!r}, got {table[name].dtype}")
    if table.empty:
        raise ValueError("expected a table with rows, got none: look at the filter it went through")
    if by and table[list(by)].isna().any(axis=1).all():
        raise ValueError(
            f"expected values in {list(by)}, but each row lacks one: make the table with "
            "table(scores, labels=..., predictions=...), or take everything together with by=[]"
        )


def group(table: pd.DataFrame, by: str | Sequence[str], columns: Sequence[str]) -> Groups:
    """Group a table's rows.

    Args:
        table: as :func:`camlens.regions.table` makes it, or several put together. Rows where a
            column of ``by`` is missing are in no group.
        by: columns to group by, besides setting and region.
        columns: whose numbers are asked for; ``resolvable`` and ``evidence`` come besides.

    Returns:
        The groups. An image has at most one row in each setting and region.

    Raises:
        ValueError: see :func:`check`; or an image has several rows or is in several groups.
    """
    import pandas as pd

    by = [by] if isinstance(by, str) else list(by)
    check(table, by, columns)
    table = table.dropna(subset=by)
    setting = [name for name in SETTING if name in table.columns]
    which, settings = _places(table, setting, sort=False)
    groups, keys = _places(table, by, sort=True)
    if not by:
        keys = pd.DataFrame(index=[0])
    wanted = dict.fromkeys((*columns, "resolvable", "evidence"))
    numbers = {name: table[name].to_numpy("float64", na_value=np.nan) for name in wanted}
    blocks = []
    for place in range(len(settings)):
        rows = np.flatnonzero(which == place)
        blocks.append(
            _block(place, table.iloc[rows], groups[rows], {k: v[rows] for k, v in numbers.items()})
        )
    return Groups(keys, settings, blocks)


def _block(place: int, rows: pd.DataFrame, groups: Array, numbers: dict[str, Array]) -> Block:
    image, ids = rows["image"].factorize(sort=True)
    region, names = rows["region"].factorize()
    first = np.full(len(ids), -1)
    first[image[::-1]] = groups[::-1]
    if (first[image] != groups).any():
        raise ValueError(
            f"image {ids[image[first[image] != groups][0]]} is in several groups: group by what "
            "belongs to an image, such as label, prediction or correct"
        )
    present = np.zeros((len(ids), len(names)), dtype=bool)
    present[image, region] = True
    if present.sum() != len(rows):
        twice = rows.duplicated(["image", "region"])
        raise ValueError(
            f"image {rows['image'][twice].iloc[0]} has several rows of the same setting and "
            "region: summarize the tables of several models one by one, or see compare(a, b)"
        )
    matrices = {}
    for name, values in numbers.items():
        matrices[name] = np.full(present.shape, np.nan)
        matrices[name][image, region] = values
    return Block(
        setting=place, regions=tuple(names), group=first, present=present, numbers=matrices
    )


def _places(table: pd.DataFrame, by: list[str], *, sort: bool) -> tuple[Array, pd.DataFrame]:
    """Return for each row its place among the distinct rows of some columns, and these."""
    if not by:
        return np.zeros(len(table), dtype=np.intp), table[[]].iloc[:1]
    place = table.groupby(by, sort=sort, dropna=False, observed=True).ngroup().to_numpy()
    _, first = np.unique(place, return_index=True)
    return place, table[by].iloc[first].reset_index(drop=True)
