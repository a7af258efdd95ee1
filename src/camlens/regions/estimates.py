"""Rows of results for one group, or for two: numbers, and a note where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .groups import Block
from .resampling import Array, Resampling

if TYPE_CHECKING:
    import pandas as pd

#: Values of which 0 is nothing, so that a ratio of means means something.
RATIOS = ("share", "density", "hit", "overlap")


def summary(block: Block, place: int, value: str, how: Resampling) -> Iterator[pd.DataFrame]:
    """Yield a group's means, with what :func:`camlens.regions.summarize` says of them."""
    own = block.group == place
    for regions, usable in block.patterns(value):
        numbers = block.numbers[value][:, regions]
        inside, outside = numbers[own & usable], numbers[~own & usable]
        columns = _estimates(inside, outside, how, ratio=value in RATIOS)
        note = _notes(block, regions, [(own, len(inside))], how.least, value)
        if value in RATIOS:
            note = np.where(note == "", _on_lift(columns["lift"], len(outside), how.least), note)
        missing = block.present[own][:, regions].sum(axis=0) - len(inside)
        columns = {"value": value, "n": len(inside), "missing": missing, **columns}
        columns |= {"enough": len(inside) >= how.least, "note": note}
        yield _piece(block, regions, own, {"group": place, "order": place}, columns)


def difference(
    block: Block, pair: tuple[int, int], names: Sequence[Any], value: str, how: Resampling
) -> Iterator[pd.DataFrame]:
    """Yield the difference of two groups, with an interval and a p-value."""
    owners = [block.group == place for place in pair]
    for regions, usable in block.patterns(value):
        a, b = (block.numbers[value][own & usable][:, regions] for own in owners)
        sizes = list(zip(owners, (len(a), len(b)), strict=True))
        none = np.full(len(regions), np.nan)
        enough = min(len(a), len(b)) >= how.least
        low, high = how.difference(a, b) if enough else (none, none)
        columns = {
            **{"a": names[pair[0]], "b": names[pair[1]], "n_a": len(a), "n_b": len(b)},
            "difference": a.mean(axis=0) - b.mean(axis=0) if len(a) and len(b) else none,
            **{"low": low, "high": high, "p": how.p_of_groups(a, b) if enough else none},
            "note": _notes(block, regions, sizes, how.least, value),
        }
        order = {"order": pair[0] * len(names) + pair[1]}
        yield _piece(block, regions, owners[0] | owners[1], order, columns)


def comparison(block: Block, place: int, value: str, how: Resampling) -> Iterator[pd.DataFrame]:
    """Yield the difference of the columns a and b within images."""
    own = block.group == place
    for regions, usable in block.patterns("difference"):
        a, b, both = (
            block.numbers[name][own & usable][:, regions] for name in ("a", "b", "difference")
        )
        none = np.full(len(regions), np.nan)
        enough = len(both) >= how.least
        low, high = how.mean(both) if enough else (none, none)
        means = [v.mean(axis=0) if len(v) else none for v in (a, b, both)]
        columns = {
            **{"n": len(both), "mean_a": means[0], "mean_b": means[1], "difference": means[2]},
            **{"low": low, "high": high, "p": how.p_of_pairs(both) if enough else none},
            "note": _notes(block, regions, [(own, len(both))], how.least, value),
        }
        yield _piece(block, regions, own, {"group": place, "order": place}, columns)


def _estimates(own: Array, rest: Array, how: Resampling, *, ratio: bool) -> dict[str, Any]:
    """Return what can be said of a group, (n, R), beside the rest, (m, R)."""
    names = ("mean", "low", "high", "lift", "lift_low", "lift_high")
    found = {name: np.full(own.shape[1], np.nan) for name in names}
    if len(own):
        found["mean"] = own.mean(axis=0)
    if len(own) < how.least:
        return found
    found["low"], found["high"] = how.mean(own)
    pooled = np.concatenate([own, rest]).mean(axis=0)
    if ratio:
        np.divide(found["mean"], pooled, out=found["lift"], where=pooled > 0)
        if not len(rest):
            found["lift_low"], found["lift_high"] = found["lift"], found["lift"]
        elif len(rest) >= how.least:
            bounds = np.where(pooled > 0, how.lift(own, rest), np.nan)
            found["lift_low"], found["lift_high"] = bounds
    return found


def _notes(
    block: Block, regions: Array, owners: Sequence[tuple[Array, int]], least: int, value: str
) -> Array:
    """Say for each region what the first group that is too small lacks, if one is.

    Args:
        block: rows of one setting.
        regions: (r,) places of regions that have numbers for the same images.
        owners: of each group which images are its own, (n,) bool, and how many have numbers.
        least: how many images are enough.
        value: name of the column that was asked for.
    """
    for own, count in owners:
        if not count:
            return block.why_none(value, own)[regions]
        if count < least:
            return np.full(len(regions), f"only {_images(count)}", dtype=object)
    return np.full(len(regions), "", dtype=object)


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _on_lift(lift: Array, others: int, least: int) -> Array:
    note = f"only {_images(others)} in other groups" if 0 < others < least else ""
    note = note if others else "no other group: lift is 1 by definition"
    return np.where(np.isnan(lift), "0 in all groups: no lift", note)


def _piece(
    block: Block, regions: Array, own: Array, facts: dict[str, Any], columns: dict[str, Any]
) -> pd.DataFrame:
    """Return rows of some regions, as far as the group has them."""
    import pandas as pd

    names = np.array(block.regions, dtype=object)[regions]
    found = pd.DataFrame(
        {"setting": block.setting, **facts, "place": regions, "region": names, **columns}
    )
    return found[block.present[own][:, regions].any(axis=0)]
