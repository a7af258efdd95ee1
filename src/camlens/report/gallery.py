"""Build the gallery's records: the data of each image that the page's script needs, as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pandas as pd

from .run_tables import SETTING, Tables, shown_target

#: Largest number of targets shown for an image (label, prediction, then the highest scores), and
#: the number of maps on a page above which fewer, but at least two, are shown.
MOST_TARGETS, MOST_MAPS = 12, 6000

#: Columns of the table of regions in a map's record, with one number for each region.
_REGION_COLUMNS = {
    **{"density": "density", "excess": "excess", "standard_error": "error"},
    **{"exceeds": "exceeds"},
    **{"probability_excess": "probability", "probability_standard_error": "probability_error"},
}


def most_targets(tables: Tables, images: Sequence[int]) -> int:
    """Return the number of targets that the page shows for each image."""
    fits = MOST_MAPS // max(1, len(images) * len(tables.settings))
    return min(MOST_TARGETS, max(2, fits))


def records(
    tables: Tables, images: Sequence[int], folder: Path | None = None
) -> list[dict[str, Any]]:
    """Return a record for each image, in the order given.

    Args:
        tables: the run's tables.
        images: dataset indexes.
        folder: the page's folder, to which links to images' files are relative; None: no links.

    Returns:
        For each image its columns from the table of images, a ``link`` to its file if there is one,
        the ``area`` of each region, and ``maps``: for each map the index of its ``setting``, ``k``,
        ``target``, ``score``, ``confidence`` (the class's probability), ``evidence``, ``measures``,
        and for each region ``density``, ``excess`` and ``probability`` with their standard errors,
        ``error`` and ``probability_error``, and ``exceeds``. Unknown values are None.
    """
    chosen = tables.images.set_index("image").loc[list(images)]
    regions = _regions(tables, images)
    areas = _areas(tables, images)
    maps: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
    for row in _maps(tables, images).to_dict("records"):
        key = (row["image"], row["k"], row["place"])
        maps[row["image"]].append(_map(row, tables.measures) | regions.get(key, {}))
    return [
        {
            "image": int(image),
            "name": str(row["name"]),
            **{name: _integer(row[name]) for name in ("label", "prediction", "width", "height")},
            "confidence": _number(row["confidence"]),
            "link": link(tables.manifest.get("root"), str(row["name"]), folder),
            "area": areas.get(image, []),
            "maps": maps[image],
        }
        for image, row in zip(images, chosen.to_dict("records"), strict=True)
    ]


def link(root: Any, name: str, folder: Path | None) -> str | None:
    """Return the address of an image's file, relative to the page; None if there is none.

    Args:
        root: the folder that names are relative to, from the manifest.
        name: the image's name.
        folder: the page's folder.
    """
    parts = PurePosixPath(name.replace(os.sep, "/")).parts
    if not isinstance(root, str) or not root or folder is None or not parts:
        return None
    if ".." in parts or Path(name).is_absolute() or PurePosixPath(name).is_absolute():
        return None
    try:
        path = Path(root, *parts)
        if not path.is_file():
            return None
        relative = os.path.relpath(path.absolute(), folder.absolute())
        return quote(os.fsencode(relative).replace(os.fsencode(os.sep), b"/"))
    except (OSError, ValueError):  # not a valid file name, or on another drive
        return None


def targets(tables: Tables, shown: Sequence[int]) -> list[dict[str, str]]:
    """Return the targets that the page can switch to: an id and a name for each."""
    maps = tables.maps[tables.maps["image"].isin(shown)]
    ks = sorted(map(int, maps["k"].unique()))
    choices = []
    if shown_target(tables.maps) == "the predicted class":
        choices.append({"id": "prediction", "name": "predicted class"})
    labels = tables.images.set_index("image")["label"]
    if len(ks) > 1 and (maps["target"] == maps["image"].map(labels)).any():
        choices.append({"id": "label", "name": "true class"})
    if len(ks) == 1 and choices:
        return choices
    for k in ks[:200]:
        classes = maps.loc[maps["k"] == k, "target"].unique()
        known = len(classes) == 1 and classes[0] >= 0
        name = tables.class_name(int(classes[0])) if known else f"target {k + 1}"
        choices.append({"id": f"k{k}", "name": name})
    return choices


def _maps(tables: Tables, images: Sequence[int]) -> pd.DataFrame:
    """Return the maps to show, with the index of their setting."""
    maps = tables.maps[tables.maps["image"].isin(images)]
    known = tables.images.set_index("image")
    first = sum(
        (maps["target"] == maps["image"].map(known[name])).fillna(False).astype(int)
        for name in ("label", "prediction")
    )
    maps = maps.assign(first=first + maps["shown"])
    maps = maps.sort_values(["first", "score"], ascending=False, kind="stable")
    # The predicted class and the label may be the same class, which is shown once.
    again = maps.duplicated(["image", *SETTING, "target"]) & (maps["target"] >= 0)
    maps = maps[~again]
    maps = maps.groupby(["image", *SETTING], sort=False).head(most_targets(tables, images))
    places = pd.DataFrame(tables.settings, columns=SETTING).rename_axis("place").reset_index()
    maps = maps.merge(places, on=SETTING)
    return maps.sort_values(["image", "place", "k"], kind="stable")


def _map(row: dict[str, Any], measures: Sequence[str]) -> dict[str, Any]:
    return {
        "setting": row["place"],
        "k": row["k"],
        "target": row["target"],
        "score": _number(row["score"]),
        "confidence": _number(row["probability"]),
        "evidence": bool(row["evidence"]),
        "measures": [_number(row[name]) for name in measures],
    }


def _regions(tables: Tables, images: Sequence[int]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return the regions' numbers by image, k and index of the setting."""
    if tables.regions is None:
        return {}
    table = tables.regions[tables.regions["image"].isin(images)]
    places = {setting: place for place, setting in enumerate(tables.settings)}
    order = {name: at for at, name in enumerate(tables.region_names)}
    columns = [name for name in _REGION_COLUMNS if name in table]
    by_map: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in table[["image", "k", *SETTING, "region", *columns]].to_dict("records"):
        key = (row["image"], row["k"], places[tuple(row[name] for name in SETTING)])
        numbers = by_map.setdefault(key, {_REGION_COLUMNS[c]: [None] * len(order) for c in columns})
        for column in columns:
            numbers[_REGION_COLUMNS[column]][order[row["region"]]] = _number(row[column])
    if "agreement" in table:
        once = table.drop_duplicates(["image", "k", *SETTING])
        for row in once[["image", "k", *SETTING, "agreement"]].to_dict("records"):
            key = (row["image"], row["k"], places[tuple(row[name] for name in SETTING)])
            by_map[key]["agreement"] = _number(row["agreement"])
    return by_map


def _areas(tables: Tables, images: Sequence[int]) -> dict[int, list[float | None]]:
    """Return each region's share of each image's area."""
    if tables.regions is None:
        return {}
    table = tables.regions[tables.regions["image"].isin(images)]
    table = table.drop_duplicates(["image", "region"])
    wide = table.pivot(index="image", columns="region", values="area")
    wide = wide.reindex(columns=tables.region_names)
    return {
        image: [_number(v) for v in row]
        for image, row in zip(wide.index, wide.to_numpy(), strict=True)
    }


def _number(value: Any) -> float | None:
    """Return a number's first eight digits; None for a missing or infinite one (JSON has no NaN).

    The page sorts by it and rounds it; with few digits here, it would round some numbers twice.
    """
    if pd.isna(value) or not math.isfinite(value):
        return None
    return float(f"{value:.8g}")


def _integer(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
