"""Check the types and ranges of a run's tables, so that a page is never made from damaged data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..regions.tables import ABLATION_COLUMNS

#: Optional columns of the table of maps: the page's label, and which direction is better. A run
#: with such a column gets a row of findings and a column in the table of an image's maps.
MEASURES = {
    "insertion_auc": ("insertion AUC", "higher is better"),
    "deletion_auc": ("deletion AUC", "lower is better"),
}

#: Size of a curve: 51 numbers of four bytes.
_CURVE_BYTES = 4 * 51

#: Larger integers are not exact in a browser.
_LARGEST = 2**53


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Numbers:
    """A column of numbers: its range, and whether a value may be missing."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    missing: bool = False


_COUNT = _Numbers(low=0, high=_LARGEST, whole=True)
_SIZE = _Numbers(low=1, high=2**31 - 1, whole=True)
_CLASS = _Numbers(low=0, high=_LARGEST, whole=True, missing=True)
_SHARE = _Numbers(low=0, high=1 + 1e-4, missing=True)
_POSITIVE = _Numbers(low=0, missing=True)
_ANY = _Numbers(missing=True)
#: A probability; with activation="none", any output that the model returns as one.
_FINITE = _Numbers(low=-3e38, high=3e38, missing=True)

#: Missing for images that could not be read, and only for these.
_SIZES = ["width", "height"]

#: Ranges of numeric columns, and types of the values of other columns.
_COLUMNS: dict[str, _Numbers | type] = {
    **{"image": _COUNT, "k": _COUNT, "heat_height": _SIZE, "heat_width": _SIZE},
    **{"label": _CLASS, "prediction": _CLASS},
    **dict.fromkeys(_SIZES, dataclasses.replace(_SIZE, missing=True)),
    **{"target": _Numbers(low=-1, high=_LARGEST, whole=True)},
    **dict.fromkeys(("confidence", "probability"), _FINITE),
    **{"area": _SHARE, "share": _SHARE, "density": _POSITIVE, "score": _ANY},
    **dict.fromkeys(("drop", "baseline", "excess", "agreement", "probability_excess"), _ANY),
    **dict.fromkeys(("standard_error", "probability_standard_error"), _POSITIVE),
    **{"exceeds": _SHARE},
    **dict.fromkeys(MEASURES, _ANY),
    **dict.fromkeys(
        ("name", "reason", "method", "layer", "grid", "region", "infill", "outlines"), str
    ),
    **{"metric": str, "better": str, "value": _ANY, "curve": bytes},
    **{"evidence": bool, "resolvable": bool, "heat": bytes, "thumbnail": bytes},
}

_CLASSES = ("label", "prediction", "target")

#: Columns without numbers in which a value may be missing.
_OPTIONAL = ("reason", "infill", "thumbnail", "outlines", "curve")


def check(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check that a table's columns have the types and ranges that a run writes, and return it.

    Args:
        table: some or all columns of a table of images, maps or regions.
        path: the table's file, for messages.

    Raises:
        ValueError: a column has other contents; the message names the column and the file.
    """
    for name in table.columns:
        expected = _COLUMNS.get(name)
        # A table of regions contains class names, which the page does not read.
        if expected is None or not len(table) or ("region" in table and name in _CLASSES):
            continue
        if isinstance(expected, _Numbers):
            table[name] = _numbers(table[name], expected, path)
        else:
            _check_type(table[name], expected, path)
    lacking = [name for name in ABLATION_COLUMNS if name not in table]
    if "region" in table and 0 < len(lacking) < len(ABLATION_COLUMNS):
        raise _damaged(path, f"the ablation lacks the columns {lacking}")
    if "heat" in table:
        _check_heat(table, path)
    if "better" in table and not table["better"].isin(["higher", "lower"]).all():
        raise _damaged(path, "the better direction of a metric is neither higher nor lower")
    if "curve" in table and not table["curve"].dropna().map(len).eq(_CURVE_BYTES).all():
        raise _damaged(path, f"a curve does not have {_CURVE_BYTES} bytes")
    if "width" in table and table.loc[table["reason"].isna(), _SIZES].isna().any(axis=None):
        raise _damaged(path, "an image has no size")
    return table


def _numbers(values: pd.Series[Any], expected: _Numbers, path: Path) -> pd.Series[Any]:
    if values.isna().all() and values.dtype == object:
        values = pd.Series(pd.array([pd.NA] * len(values), "Int64"), values.index, name=values.name)
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(values) or kinds.is_bool_dtype(values):
        raise _damaged(path, f"the column {values.name!r} contains {values.dtype}, not numbers")
    known = values.dropna()
    if len(known) < len(values) and not expected.missing:
        raise _damaged(path, f"a value of {values.name!r} is missing")
    outside = known[(known < expected.low) | (known > expected.high)]
    if len(outside):
        limits = f"{expected.low:g} to {expected.high:g}"
        raise _damaged(path, f"{values.name!r} is {outside.iloc[0]}, expected {limits}")
    if expected.whole and not kinds.is_integer_dtype(values):
        if not (known % 1 == 0).all():
            raise _damaged(path, f"{values.name!r} is {known[known % 1 != 0].iloc[0]}, a fraction")
        values = values.astype("Int64")
    return values


def _check_type(values: pd.Series[Any], expected: type, path: Path) -> None:
    kinds, name = pd.api.types, values.name
    if expected is bool and kinds.is_bool_dtype(values) and not values.isna().any():
        return
    known = values.dropna()
    fits = isinstance(values.dtype, pd.StringDtype) and expected is str
    fits = fits or (expected is not bool and known.map(lambda v: isinstance(v, expected)).all())
    if not fits:
        raise _damaged(path, f"the column {name!r} contains values other than {expected.__name__}")
    if len(known) < len(values) and name not in _OPTIONAL:
        raise _damaged(path, f"a value of {name!r} is missing")


def _check_heat(table: pd.DataFrame, path: Path) -> None:
    """Check that each map has one or two bytes per cell."""
    cells = table["heat_height"] * table["heat_width"]
    sizes = table["heat"].map(len)
    wrong = ~((sizes == cells) | (sizes == 2 * cells))
    if wrong.any():
        row = table[wrong].iloc[0]
        grid = f"{row['heat_height']}x{row['heat_width']}"
        raise _damaged(path, f"a map of {grid} cells has {len(row['heat'])} bytes")


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {what}. Delete the folder {path.parent} and run explain_dataset "
        "again with the same options to write it again"
    )
