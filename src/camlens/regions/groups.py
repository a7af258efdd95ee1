"""Groups a table's rows by columns such as the label, and pairs the rows of two tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .intervals import Array
from .tables import check_columns

if TYPE_CHECKING:
    import pandas as pd

#: Columns that distinguish explanations of the same image; ``infill`` if regions were ablated.
SETTING = ("method", "layer", "grid", "k", "infill")

#: Values that are defined only for maps with evidence and for regions that the map can resolve.
MAP_VALUES = ("share", "density", "pointing_game", "iou", "density_rank")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """The rows of one setting, as matrices of n images by R regions.

    Attributes:
        setting: index of the setting's row in ``Groups.settings``.
        regions: R names.
        group: (n,), the index of each image's row in ``Groups.keys``.
        present: (n, R) bool, whether the table has the row.
        numbers: for each requested column (n, R) float64; NaN where missing.
    """

    setting: int
    regions: tuple[str, ...]
    group: Array
    present: Array
    numbers: dict[str, Array]

    @property
    def groups(self) -> list[int]:
        """Indices in ``Groups.keys`` of the groups in this block, in order."""
        return list(map(int, np.unique(self.group)))

    def patterns(self, name: str) -> Iterator[tuple[Array, Array]]:
        """Yield sets of regions that have numbers for the same images: positions (r,), usable (n,).

        All regions of a set can share the same resamples of images.
        """
        usable = np.isfinite(self.numbers[name])
        patterns, which = np.unique(usable, axis=1, return_inverse=True)
        for position in range(patterns.shape[1]):
            yield np.flatnonzero(which == position), patterns[:, position]

    def why_missing(self, value: str, images: Array) -> Array:
        """Return for each region why none of the selected images, (n,) bool, has the value."""
        resolvable, evidence = (
            self.numbers[name][images] == 1 for name in ("resolvable", "evidence")
        )
        reasons = [~resolvable.any(axis=0), ~(resolvable & evidence).any(axis=0)]
        if value not in MAP_VALUES:
            reasons = [np.zeros_like(reason) for reason in reasons]
        return np.select(reasons, ["not resolvable", "no evidence"], "no value")


@dataclasses.dataclass(frozen=True)
class Groups:
    """A table, divided by groups and settings.

    Attributes:
        keys: a row for each group, in order, with the columns that the table was grouped by.
        settings: a row for each setting.
        blocks: one for each setting.
    """

    keys: pd.DataFrame
    settings: pd.DataFrame
    blocks: list[Block]

    @property
    def names(self) -> list[Any]:
        """The groups' names: the column's values, joined by " / " if several; "all" if none."""
        if not len(self.keys.columns):
            return ["all"]
        if len(self.keys.columns) == 1:
            return list(self.keys.iloc[:, 0])
        return [" / ".join(map(str, row)) for row in self.keys.itertuples(index=False)]


def check(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a table can be grouped.

    Raises:
        ValueError: the table has no rows, or a column does not exist, has no values, is not
            numeric, or is part of the setting.
    """
    from pandas.api.types import is_numeric_dtype

    check_columns(table, ["image", "region", "resolvable", "evidence", *columns, *by])
    fixed = [name for name in by if name in (*SETTING, "region", "image")]
    if fixed:
        raise ValueError(
            f"expected no {fixed} in by: each method, layer, grid, k, infill and region has its "
            "own rows anyway; pass by=[] for no further grouping"
        )
    for name in columns:
        if not is_numeric_dtype(table[name]):
            raise ValueError(f"expected numbers in the column {name!r}, got {table[name].dtype}")
    if table.empty:
        raise ValueError("expected a table with rows, got none: check how it was filtered")
    if by and table[list(by)].isna().any(axis=1).all():
        raise ValueError(
            f"expected values in {list(by)}, but each row lacks one: make the table with "
            "table(scores, labels=..., predictions=...), or use one group with by=[]"
        )


def group(table: pd.DataFrame, by: str | Sequence[str], columns: Sequence[str]) -> Groups:
    """Group a table's rows.

    Args:
        table: from :func:`camlens.regions.table`, or several joined. Rows with a missing value in a
            column of ``by`` belong to no group.
        by: columns to group by, in addition to setting and region.
        columns: requested columns; ``resolvable`` and ``evidence`` are added.

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
    which, settings = _distinct(table, setting, sort=False)
    groups, keys = _distinct(table, by, sort=True)
    if not by:
        keys = pd.DataFrame(index=[0])
    wanted = dict.fromkeys((*columns, "resolvable", "evidence"))
    numbers = {name: table[name].to_numpy("float64", na_value=np.nan) for name in wanted}
    blocks = []
    for position in range(len(settings)):
        rows = np.flatnonzero(which == position)
        selected = {name: values[rows] for name, values in numbers.items()}
        blocks.append(_block(position, table.iloc[rows], groups[rows], selected))
    return Groups(keys, settings, blocks)


def _block(setting: int, rows: pd.DataFrame, groups: Array, numbers: dict[str, Array]) -> Block:
    image, ids = rows["image"].factorize(sort=True)
    region, names = rows["region"].factorize()
    first = np.full(len(ids), -1)
    first[image[::-1]] = groups[::-1]
    if (first[image] != groups).any():
        raise ValueError(
            f"image {ids[image[first[image] != groups][0]]} is in several groups: group by a "
            "property of the image, such as label, prediction or correct"
        )
    present = np.zeros((len(ids), len(names)), dtype=bool)
    present[image, region] = True
    if present.sum() != len(rows):
        repeated = rows.duplicated(["image", "region"])
        raise ValueError(
            f"image {rows['image'][repeated].iloc[0]} has several rows of the same setting and "
            "region: summarize the tables of several models one by one, or see compare(a, b)"
        )
    matrices = {}
    for name, values in numbers.items():
        matrices[name] = np.full(present.shape, np.nan)
        matrices[name][image, region] = values
    return Block(
        setting=setting, regions=tuple(names), group=first, present=present, numbers=matrices
    )


def _distinct(table: pd.DataFrame, by: list[str], *, sort: bool) -> tuple[Array, pd.DataFrame]:
    """Return each table row's index among the distinct rows of some columns, and these rows."""
    if not by:
        return np.zeros(len(table), dtype=np.intp), table[[]].iloc[:1]
    which = table.groupby(by, sort=sort, dropna=False, observed=True).ngroup().to_numpy()
    _, first = np.unique(which, return_index=True)
    return which, table[by].iloc[first].reset_index(drop=True)


def pair(table_a: pd.DataFrame, table_b: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Join two tables row by row.

    Args:
        table_a: of one setting.
        table_b: of one setting, with the same images, ``k`` and regions.
        by: columns to keep, equal in both.
        value: the column to pair.

    Returns:
        A row per image, ``k`` and region with the columns ``a``, ``b`` and ``difference``, which
        is 0 for values that agree up to rounding.

    Raises:
        ValueError: see :func:`check`; or rows without a counterpart, or several settings.
    """
    keys = ["image", "k", "region"]
    for name, table in (("table_a", table_a), ("table_b", table_b)):
        check(table, by, [value])
        check_columns(table, keys)
        _check_setting(name, table)
    for key in keys:
        _check_same(table_a[key], table_b[key])
    columns = list(dict.fromkeys([*keys, *by, value, "resolvable", "evidence"]))
    pairs = table_a[columns].merge(table_b[columns], on=keys, suffixes=("_a", "_b"))
    if not len(table_a) == len(table_b) == len(pairs):
        raise ValueError(
            f"expected one row for each image, k and region in both tables, got {len(table_a)} and "
            f"{len(table_b)} rows, {len(pairs)} pairs of them"
        )
    for name in by:
        pairs[name] = pairs[f"{name}_a"]
        if not pairs[name].astype("string").equals(pairs[f"{name}_b"].astype("string")):
            raise ValueError(
                f"expected the same {name!r} of each image in both tables: pairs cannot be grouped "
                "by what differs within them"
            )
    a, b = (pairs[f"{value}_{side}"].astype("float64") for side in "ab")
    flags = {name: pairs[f"{name}_a"] & pairs[f"{name}_b"] for name in ("resolvable", "evidence")}
    # Otherwise rounding that has a direction could pass for a significant difference.
    difference = (a - b).mask(np.isclose(a, b, rtol=1e-5, atol=0), 0.0)
    return pairs[[*keys, *by]].assign(a=a, b=b, difference=difference, **flags)


def _check_setting(name: str, table: pd.DataFrame) -> None:
    columns = [column for column in SETTING if column in table.columns and column != "k"]
    settings = table[columns].drop_duplicates()
    if len(settings) > 1:
        raise ValueError(
            f"expected {name} of one setting, got {settings.to_dict('records')}: filter it, as in "
            "table[table['method'] == 'GradCAM']"
        )


def _check_same(a: pd.Series, b: pd.Series) -> None:
    lacking = {
        name: sorted(set(other.unique()) - set(values.unique()), key=str)
        for name, values, other in (("table_a", a, b), ("table_b", b, a))
    }
    clauses = [
        f"{name} lacks {', '.join(map(str, values[:5]))}"
        + (f" and {len(values) - 5} more" if len(values) > 5 else "")
        for name, values in lacking.items()
        if values
    ]
    if clauses:
        raise ValueError(
            f"expected the same values of {a.name!r} in both tables, but {' and '.join(clauses)}: "
            f"keep the common ones, as in table_a[table_a[{a.name!r}].isin(table_b[{a.name!r}])]"
        )
