"""Compare single images with the floors, for evaluations with too few images for intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pandas as pd

from . import wording
from .region_tables import MIN_IMAGES
from .run_tables import Tables
from .trust import BELOW, CLEAR, UNCLEAR, UNKNOWN, Judged, Metric, Value, metrics_of

#: Largest number of images and targets that the page compares one by one.
MOST = 20

_FLOOR = "floor_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedImage:
    """The metrics of each method for one image and target.

    Attributes:
        title: the image's name and the explained class.
        says: a sentence that names the methods above every floor.
        metrics: the columns.
        methods: a row for each method. A value is clear if it is better than every floor's on the
            same image; no interval supports this.
    """

    title: str
    says: str
    metrics: tuple[Metric, ...]
    methods: tuple[Judged, ...]


def single_images(tables: Tables) -> tuple[JudgedImage, ...]:
    """Return the metrics for each image and target, at most :data:`MOST`.

    The result is empty if there are enough images for intervals.
    """
    evaluation = tables.evaluation
    if evaluation is None or evaluation.values["image"].nunique() >= MIN_IMAGES:
        return ()
    names = tables.images.set_index("image")["name"].to_dict()
    metrics = metrics_of(evaluation.table.to_dict("records"))
    return tuple(
        _judged(rows, _title(tables, names.get(image), image, rows), metrics)
        for (image, _), rows in islice(evaluation.values.groupby(["image", "k"]), MOST)
    )


def _title(tables: Tables, name: Any, image: Any, rows: pd.DataFrame) -> str:
    target = int(rows["target"].iloc[0])
    shown = wording.name(str(name)) if isinstance(name, str) and name else f"image {image}"
    return f"{shown}, {wording.name(tables.class_name(target))}" if target >= 0 else shown


def _judged(rows: pd.DataFrame, title: str, metrics: Sequence[Metric]) -> JudgedImage:
    floors = [name for name in rows.columns if name.startswith(_FLOOR)]
    by = {(row["method"], row["metric"]): row for row in rows.to_dict("records")}
    methods = tuple(
        Judged(
            name=method,
            values=tuple(_value(by.get((method, one.name)), one, floors) for one in metrics),
        )
        for method in rows["method"].drop_duplicates()
    )
    return JudgedImage(title=title, says=_says(methods), metrics=tuple(metrics), methods=methods)


def _value(row: dict[Any, Any] | None, metric: Metric, floors: Sequence[str]) -> Value | None:
    if row is None or not math.isfinite(row["value"]):
        return None
    sign = 1 if metric.better == "higher" else -1
    beside = {name: row[name] for name in floors if math.isfinite(row[name])}
    text = metric.number(row["value"])
    if not beside:
        return Value(text=text, interval="", above="", stands=UNKNOWN)
    best = max(beside, key=lambda name: sign * beside[name])
    above = sign * (row["value"] - beside[best])
    stands = CLEAR if above > 0 else BELOW if above < 0 else UNCLEAR
    words = {CLEAR: "better than", BELOW: "worse than", UNCLEAR: "tie with"}[stands]
    floor = best.removeprefix(_FLOOR).replace("_", " ")
    note = f"{words} {floor}, {metric.number(beside[best])}"
    return Value(text=text, interval="", above=note, stands=stands)


def _says(methods: Sequence[Judged]) -> str:
    values = [[value for value in row.values if value is not None] for row in methods]
    compared = max(sum(value.stands != UNKNOWN for value in row) for row in values)
    if not compared:
        return "No metric was compared with floors."
    above = [sum(value.stands == CLEAR for value in row) for row in values]
    most = max(above)
    best = [row.name for row, count in zip(methods, above, strict=True) if count == most]
    by = "the only metric" if compared == 1 else f"all {compared} metrics"
    verb = "is" if len(best) == 1 else "are"
    caveat = f"; {about}" if (about := wording.class_caveat(best)) else ""
    if most == compared:
        return f"{wording.listed(best)} {verb} above every floor on {by}{caveat}."
    if not most:
        return "No map is above every floor on any metric."
    return (
        f"No map is above every floor on {by}; {wording.listed(best)} {verb} on "
        f"{wording.count(most, 'metric')}{caveat}."
    )
