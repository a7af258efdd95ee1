"""Statistics of region scores over images: means, differences of groups, paired comparisons.

The independent unit is the image: it has one row per setting (method, layer, grid, index of the
target, infill) and region, and settings are never pooled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .groups import Block, Groups, group, pair
from .intervals import Array, Resampling, corrected

if TYPE_CHECKING:
    import pandas as pd

#: Values with a meaningful zero, for which a ratio of means is defined.
RATIOS = ("share", "density", "pointing_game", "iou")


def summarize(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    value: str = "density",
    confidence: float = 0.95,
    resamples: int = 2000,
    min_images: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Average a value over the images of each group, with bootstrap intervals.

    A mean density of 2 on the nose means little if every class has it: maps of coarse layers
    favour the centre. The ``lift`` divides a group's mean by the mean of all groups together.

    Args:
        table: from :func:`camlens.regions.table`, or several joined.
        by: the column or columns to group by; ``["label", "correct"]`` separates right and wrong
            predictions, ``["label", "prediction"]`` gives the cells of the confusion matrix, ``[]``
            one group. Rows with a missing value in one of them are omitted.
        value: the column to average.
        confidence: level of the intervals (percentiles of the bootstrap over images).
        resamples: number of resamples of the bootstrap.
        min_images: smallest group for which an interval is computed; 2 or more.
        seed: seed of the bootstrap.

    Returns:
        A row for each setting, group and region: ``by``, the setting, ``region``, ``value`` (the
        column's name), ``n`` images with a number and ``missing`` ones without, ``mean``, ``low``,
        ``high``, ``lift``, ``lift_low``, ``lift_high`` (for share, density, pointing_game and iou,
        otherwise NaN; group and rest are resampled separately), ``enough`` (n >= min_images) and
        ``note``, the reason for a NaN.

    Raises:
        ValueError: a column does not exist, has no values or is not numeric, an image has several
            rows in a setting, or an option is out of range.
    """
    how = Resampling(resamples=resamples, seed=seed, confidence=confidence, min_images=min_images)
    groups = group(table, by, [value])
    pieces = (
        piece
        for block in groups.blocks
        for position in block.groups
        for piece in _means(block, position, value, how)
    )
    return _assembled(groups, pieces)


def differences(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "label",
    value: str = "density",
    resamples: int = 9999,
    min_images: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every pair of groups for a difference of means.

    Args:
        table: see :func:`summarize`.
        by: see :func:`summarize`.
        value: see :func:`summarize`.
        resamples: number of resamples of the permutation test and of the bootstrap.
        min_images: smallest group for which an interval and a p-value are computed.
        seed: seed of both.

    Returns:
        A row for each setting, pair of groups and region: the setting, ``region``, ``a``, ``b``
        (names joined by " / " for several columns), ``n_a``, ``n_b``, ``difference`` (mean of a
        minus mean of b), ``low``, ``high`` (95% bootstrap interval), ``p`` (two-sided permutation
        test of the difference of means, independent samples), ``p_corrected`` (Benjamini and
        Hochberg's false discovery rate over all tests of the call) and ``note``.

    Raises:
        ValueError: see :func:`summarize`; or there is only one group.
    """
    how = Resampling(resamples=resamples, seed=seed, min_images=min_images)
    groups = group(table, by, [value])
    if len(groups.keys) < 2:
        only = ", ".join(map(str, groups.names)) or "none"
        raise ValueError(f"expected at least two groups by {by!r} to compare, got only {only}")
    pieces = (
        piece
        for block in groups.blocks
        for a, b in itertools.combinations(block.groups, 2)
        for piece in _group_differences(block, (a, b), groups.names, value, how)
    )
    return _with_correction(_assembled(groups, pieces))


def compare(
    table_a: pd.DataFrame,
    table_b: pd.DataFrame,
    *,
    by: str | Sequence[str] | None = None,
    value: str = "density",
    resamples: int = 9999,
    min_images: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two models, methods or layers on the same images, paired by image.

    Args:
        table_a: a table of one setting (method, layer, grid, infill).
        table_b: a table of one setting, with the same images, ``k`` and regions. Targets may
            differ, as when each of two models explains its own prediction.
        by: the column or columns to group by, equal in both tables, such as ``"label"``; None for
            one group.
        value: the column to compare.
        resamples: number of resamples of the permutation test and of the bootstrap.
        min_images: smallest group for which an interval and a p-value are computed.
        seed: seed of both.

    Returns:
        A row for each group, ``k`` and region: ``by``, ``k``, ``region``, ``n`` images with a
        number in both tables, their ``mean_a`` and ``mean_b``, ``difference`` (a minus b; numbers
        that agree to five digits count as equal, since they differ by rounding), ``low``, ``high``
        (95% bootstrap interval), ``p`` (two-sided permutation test of paired samples: signs are
        flipped), ``p_corrected`` (Benjamini and Hochberg's false discovery rate over all tests of
        the call) and ``note``.

    Raises:
        ValueError: see :func:`summarize`; or a table has several settings, or the tables differ in
            their images, regions or groups.
    """
    how = Resampling(resamples=resamples, seed=seed, min_images=min_images)
    by = [] if by is None else [by] if isinstance(by, str) else list(by)
    groups = group(pair(table_a, table_b, by, value), by, ["a", "b", "difference"])
    pieces = (
        piece
        for block in groups.blocks
        for position in block.groups
        for piece in _paired_differences(block, position, value, how)
    )
    return _with_correction(_assembled(groups, pieces))


def _means(block: Block, position: int, value: str, how: Resampling) -> Iterator[pd.DataFrame]:
    """Yield the rows of :func:`summarize` for one group."""
    in_group = block.group == position
    for regions, usable in block.patterns(value):
        numbers = block.numbers[value][:, regions]
        inside, outside = numbers[in_group & usable], numbers[~in_group & usable]
        columns = _estimates(inside, outside, how, ratio=value in RATIOS)
        note = _notes(block, regions, [(in_group, len(inside))], how.min_images, value)
        if value in RATIOS:
            lift_note = _lift_notes(columns["lift"], len(outside), how.min_images)
            note = np.where(note == "", lift_note, note)
        missing = block.present[in_group][:, regions].sum(axis=0) - len(inside)
        columns = {"value": value, "n": len(inside), "missing": missing, **columns}
        columns |= {"enough": len(inside) >= how.min_images, "note": note}
        yield _rows(block, regions, in_group, {"group": position, "order": position}, columns)


def _group_differences(
    block: Block, positions: tuple[int, int], names: Sequence[Any], value: str, how: Resampling
) -> Iterator[pd.DataFrame]:
    """Yield the rows of :func:`differences` for two groups."""
    members = [block.group == position for position in positions]
    for regions, usable in block.patterns(value):
        a, b = (block.numbers[value][images & usable][:, regions] for images in members)
        sizes = list(zip(members, (len(a), len(b)), strict=True))
        unknown = np.full(len(regions), np.nan)
        enough = min(len(a), len(b)) >= how.min_images
        low, high = how.difference(a, b) if enough else (unknown, unknown)
        columns = {
            **{"a": names[positions[0]], "b": names[positions[1]], "n_a": len(a), "n_b": len(b)},
            "difference": a.mean(axis=0) - b.mean(axis=0) if len(a) and len(b) else unknown,
            **{"low": low, "high": high, "p": how.p_of_groups(a, b) if enough else unknown},
            "note": _notes(block, regions, sizes, how.min_images, value),
        }
        order = {"order": positions[0] * len(names) + positions[1]}
        yield _rows(block, regions, members[0] | members[1], order, columns)


def _paired_differences(
    block: Block, position: int, value: str, how: Resampling
) -> Iterator[pd.DataFrame]:
    """Yield the rows of :func:`compare` for one group."""
    in_group = block.group == position
    for regions, usable in block.patterns("difference"):
        a, b, difference = (
            block.numbers[name][in_group & usable][:, regions] for name in ("a", "b", "difference")
        )
        n, unknown = len(difference), np.full(len(regions), np.nan)
        enough = n >= how.min_images
        low, high = how.mean(difference) if enough else (unknown, unknown)
        means = [values.mean(axis=0) if n else unknown for values in (a, b, difference)]
        columns = {
            **{"n": n, "mean_a": means[0], "mean_b": means[1], "difference": means[2]},
            **{"low": low, "high": high, "p": how.p_of_pairs(difference) if enough else unknown},
            "note": _notes(block, regions, [(in_group, n)], how.min_images, value),
        }
        yield _rows(block, regions, in_group, {"group": position, "order": position}, columns)


def _estimates(group: Array, rest: Array, how: Resampling, *, ratio: bool) -> dict[str, Any]:
    """Return mean and lift of a group, (n, R), given the rest, (m, R), with intervals."""
    names = ("mean", "low", "high", "lift", "lift_low", "lift_high")
    columns = {name: np.full(group.shape[1], np.nan) for name in names}
    if len(group):
        columns["mean"] = group.mean(axis=0)
    if len(group) < how.min_images:
        return columns
    columns["low"], columns["high"] = how.mean(group)
    pooled = np.concatenate([group, rest]).mean(axis=0)
    if ratio:
        np.divide(columns["mean"], pooled, out=columns["lift"], where=pooled > 0)
        if not len(rest):
            columns["lift_low"], columns["lift_high"] = columns["lift"], columns["lift"]
        elif len(rest) >= how.min_images:
            bounds = np.where(pooled > 0, how.lift(group, rest), np.nan)
            columns["lift_low"], columns["lift_high"] = bounds
    return columns


def _notes(
    block: Block,
    regions: Array,
    groups: Sequence[tuple[Array, int]],
    min_images: int,
    value: str,
) -> Array:
    """Return for each region why a group has no interval, or an empty string.

    Args:
        block: the rows of one setting.
        regions: (r,), indices of regions that have numbers for the same images.
        groups: for each group its images, (n,) bool, and the number of them that have numbers.
        min_images: smallest group for which an interval is computed.
        value: name of the column.
    """
    for images, count in groups:
        if not count:
            return block.why_missing(value, images)[regions]
        if count < min_images:
            return np.full(len(regions), f"only {_images(count)}", dtype=object)
    return np.full(len(regions), "", dtype=object)


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _lift_notes(lift: Array, others: int, min_images: int) -> Array:
    note = f"only {_images(others)} in other groups" if 0 < others < min_images else ""
    note = note if others else "no other group: lift is 1 by definition"
    return np.where(np.isnan(lift), "0 in all groups: no lift", note)


def _rows(
    block: Block, regions: Array, images: Array, facts: dict[str, Any], columns: dict[str, Any]
) -> pd.DataFrame:
    """Return a row for each region that the table has for any of the images."""
    import pandas as pd

    names = np.array(block.regions, dtype=object)[regions]
    rows = pd.DataFrame(
        {"setting": block.setting, **facts, "place": regions, "region": names, **columns}
    )
    return rows[block.present[images][:, regions].any(axis=0)]


def _assembled(groups: Groups, pieces: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join rows and put columns in order: group, setting, region, numbers."""
    import pandas as pd

    order = ["setting", "order", "place"]
    rows = pd.concat(list(pieces), ignore_index=True)
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    settings = groups.settings.iloc[rows["setting"]].reset_index(drop=True)
    keys = groups.keys.iloc[rows["group"]].reset_index(drop=True) if "group" in rows else None
    parts = [keys, settings, rows.drop(columns=[*order, "group"], errors="ignore")]
    return pd.concat([part for part in parts if part is not None], axis=1)


def _with_correction(rows: pd.DataFrame) -> pd.DataFrame:
    position = rows.columns.get_loc("p") + 1
    rows.insert(position, "p_corrected", corrected(rows["p"].to_numpy()))
    return rows
