"""Means with intervals, differences with p-values, of a table of region scores.

Images are what varies and what is resampled. An image has one row in each setting (method,
layer, grid, place of the target, fill) and region; settings are never mixed, so rows are
independent. All statistics are scipy's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import estimates
from .groups import SETTING, Groups, check, group
from .resampling import Resampling, corrected
from .tables import check_columns

if TYPE_CHECKING:
    import pandas as pd


def summarize(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    value: str = "density",
    confidence: float = 0.95,
    resamples: int = 2000,
    least: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Average a value over images, with bootstrap intervals.

    A mean density of 2 on the nose says little where every class has it: maps of coarse layers
    favour the centre. The ``lift`` divides a group's mean by the mean of all groups together.

    Args:
        table: as :func:`camlens.regions.table` makes it, or several put together.
        by: a column or several; ``["label", "correct"]`` splits by right and wrong predictions,
            ``["label", "prediction"]`` by what was taken for what, ``[]`` not at all. Rows where
            one is missing are left out.
        value: the column to average.
        confidence: of the intervals (percentiles of the bootstrap over images).
        resamples: of the bootstrap.
        least: of how many images at least an interval is given; 2 or more.
        seed: of the bootstrap.

    Returns:
        A row for each setting, group and region: ``by``, the setting, ``region``, ``value`` (the
        name), ``n`` images with a number and ``missing`` ones without, ``mean``, ``low``,
        ``high``, ``lift``, ``lift_low``, ``lift_high`` (NaN unless 0 means nothing, as for share,
        density, hit and overlap; group and rest are drawn separately), ``enough`` (n >= least)
        and ``note``, which says why something is NaN.

    Raises:
        ValueError: a column is not there, is missing throughout or has no numbers, an image has
            several rows in a setting, or an option is out of range.
    """
    how = Resampling(resamples=resamples, seed=seed, confidence=confidence, least=least)
    groups = group(table, by, [value])
    return _assembled(
        groups,
        (
            row
            for block in groups.blocks
            for place in block.groups
            for row in estimates.summary(block, place, value, how)
        ),
    )


def differences(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    value: str = "density",
    resamples: int = 9999,
    least: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every two groups for a difference of their means.

    Args:
        table: see :func:`summarize`.
        by: see :func:`summarize`.
        value: see :func:`summarize`.
        resamples: of the permutation test and of the bootstrap.
        least: of how many images at least each group must be for an interval and a p-value.
        seed: of both.

    Returns:
        A row for each setting, two groups and region: the setting, ``region``, ``a``, ``b`` (of
        several columns joined by " / "), ``n_a``, ``n_b``, ``difference`` (mean of a minus mean
        of b), ``low``, ``high`` (95% bootstrap interval), ``p`` (two-sided permutation test of
        the difference of means, independent samples), ``p_corrected`` (Benjamini and Hochberg's
        false discovery rate over all tests of the call) and ``note``.

    Raises:
        ValueError: see :func:`summarize`; or there is only one group.
    """
    how = Resampling(resamples=resamples, seed=seed, least=least)
    groups = group(table, by, [value])
    if len(groups.keys) < 2:
        only = ", ".join(map(str, groups.names)) or "none"
        raise ValueError(f"expected at least two groups by {by!r} to compare, got only {only}")
    found = _assembled(
        groups,
        (
            row
            for block in groups.blocks
            for pair in itertools.combinations(block.groups, 2)
            for row in estimates.difference(block, pair, groups.names, value, how)
        ),
    )
    return _with_correction(found)


def compare(
    table_a: pd.DataFrame,
    table_b: pd.DataFrame,
    *,
    by: str | Sequence[str] | None = None,
    value: str = "density",
    resamples: int = 9999,
    least: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two models, methods or layers on the same images, image by image.

    Args:
        table_a: of one setting (method, layer, grid, fill).
        table_b: of one setting too, of the same images, ``k`` and regions. Targets may differ: of
            two models, each one's prediction.
        by: a column or several, equal in both tables, such as ``"label"``; None for all images.
        value: see :func:`summarize`.
        resamples: of the permutation test and of the bootstrap.
        least: of how many images at least there is an interval and a p-value.
        seed: of both.

    Returns:
        A row for each group, ``k`` and region: ``by``, ``k``, ``region``, ``n`` images with a
        number in both tables, ``mean_a``, ``mean_b`` over these, ``difference`` (a minus b),
        ``low``, ``high`` (95% bootstrap interval), ``p`` (two-sided permutation test of paired
        samples: signs are flipped), ``p_corrected`` (Benjamini and Hochberg's false discovery
        rate over all tests of the call) and ``note``.

    Raises:
        ValueError: see :func:`summarize`; or a table of several settings, of other images or
            regions than the other, or of other groups.
    """
    how = Resampling(resamples=resamples, seed=seed, least=least)
    by = [] if by is None else [by] if isinstance(by, str) else list(by)
    groups = group(_paired(table_a, table_b, by, value), by, ["a", "b", "difference"])
    found = _assembled(
        groups,
        (
            row
            for block in groups.blocks
            for place in block.groups
            for row in estimates.comparison(block, place, value, how)
        ),
    )
    return _with_correction(found)


def _assembled(groups: Groups, pieces: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put rows together: groups, setting, region, numbers; regions in the table's order."""
    import pandas as pd

    order = ["setting", "order", "place"]
    rows = pd.concat(list(pieces), ignore_index=True)
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    settings = groups.settings.iloc[rows["setting"]].reset_index(drop=True)
    keys = groups.keys.iloc[rows["group"]].reset_index(drop=True) if "group" in rows else None
    parts = [keys, settings, rows.drop(columns=[*order, "group"], errors="ignore")]
    return pd.concat([part for part in parts if part is not None], axis=1)


def _with_correction(found: pd.DataFrame) -> pd.DataFrame:
    place = found.columns.get_loc("p") + 1
    found.insert(place, "p_corrected", corrected(found["p"].to_numpy()))
    return found


def _paired(
    table_a: pd.DataFrame, table_b: pd.DataFrame, by: list[str], value: str
) -> pd.DataFrame:
    """Return a table of the values a and b, and their difference, of the same rows."""
    keys = ["image", "k", "region"]
    for name, table in (("table_a", table_a), ("table_b", table_b)):
        check(table, by, [value])
        check_columns(table, keys)
        _check_setting(name, table)
    for key in keys:
        _check_same(table_a[key], table_b[key])
    columns = list(dict.fromkeys([*keys, *by, value, "resolvable", "evidence"]))
    found = table_a[columns].merge(table_b[columns], on=keys, suffixes=("_a", "_b"))
    if not len(table_a) == len(table_b) == len(found):
        raise ValueError(
            f"expected one row for each image, k and region in both tables, got {len(table_a)} and "
            f"{len(table_b)} rows, {len(found)} pairs of them"
        )
    for name in by:
        found[name] = found[f"{name}_a"]
        if not found[name].astype("string").equals(found[f"{name}_b"].astype("string")):
            raise ValueError(
                f"expected the same {name!r} of each image in both tables: pairs cannot be grouped "
                "by what differs within them"
            )
    a, b = (found[f"{value}_{side}"].astype("float64") for side in "ab")
    flags = {name: found[f"{name}_a"] & found[f"{name}_b"] for name in ("resolvable", "evidence")}
    return found[[*keys, *by]].assign(a=a, b=b, difference=a - b, **flags)


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
        name: sorted(set(other.unique()) - set(own.unique()), key=str)
        for name, own, other in (("table_a", a, b), ("table_b", b, a))
    }
    said = [
        f"{name} lacks {', '.join(map(str, some[:5]))}"
        + (f" and {len(some) - 5} more" if len(some) > 5 else "")
        for name, some in lacking.items()
        if some
    ]
    if said:
        raise ValueError(
            f"expected the same values of {a.name!r} in both tables, but {' and '.join(said)}: "
            f"keep what both have, as in table_a[table_a[{a.name!r}].isin(table_b[{a.name!r}])]"
        )
