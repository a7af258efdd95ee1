"""The records of the gallery: what the page's script needs of each image, as plain JSON."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from .tables import SETTING, Tables, shown_target

#: How many targets of an image are shown at most: label, prediction, then the highest scores.
MOST_TARGETS = 12

#: Maps with more cells on a side are averaged down: those of input gradients are as large as
#: the image, and 2,000 of them would make a page of 100 MB.
MOST_CELLS = 64

# A picture of more bytes is encoded again, as JPEG.
_MOST_BYTES = 16_000

#: Columns of the table of regions that a map's record has, one number for each region.
_REGION_COLUMNS = {"density": "density", "excess": "excess", "probability_excess": "probability"}


def records(tables: Tables, images: Sequence[int]) -> list[dict[str, Any]]:
    """Return a record for each image, in the order given.

    Args:
        tables: of the run.
        images: dataset indexes.

    Returns:
        Of each image what the tables say of it, ``area`` of each region, and ``maps``: of each
        map the place of its ``setting``, ``k``, ``target``, ``score``, ``evidence``, ``heat`` (a
        byte a cell, row by row, in base64; empty without evidence) with ``height`` and ``width``,
        and of each region ``density``, ``excess`` and ``probability``. What is unknown is None.
    """
    chosen = tables.images.set_index("image").loc[list(images)]
    regions = _regions(tables, images)
    areas = _areas(tables, images)
    maps: dict[int, list[dict[str, Any]]] = {one: [] for one in images}
    for row in _maps(tables, images).to_dict("records"):
        key = (row["image"], row["k"], row["place"])
        maps[row["image"]].append(_map(row) | regions.get(key, {}))
    return [
        {
            "image": int(image),
            "name": str(row["name"]),
            **{name: _integer(row[name]) for name in ("label", "prediction", "width", "height")},
            "confidence": _number(row["confidence"], 8),  # all digits: images are sorted by it
            "area": areas.get(image, []),
            "maps": maps[image],
        }
        for image, row in zip(images, chosen.to_dict("records"), strict=True)
    ]


def pictures(tables: Tables, images: Sequence[int]) -> list[str]:
    """Return images' pictures as data addresses; empty where there is none."""
    found = tables.thumbnails(images)
    return [_address(found.get(one, b"")) for one in images]


def targets(tables: Tables, shown: Sequence[int]) -> list[dict[str, str]]:
    """Return which of an image's targets the page can switch to: an id and a name for each."""
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
        own = maps.loc[maps["k"] == k, "target"].unique()
        known = len(own) == 1 and own[0] >= 0
        name = tables.class_name(int(own[0])) if known else f"target {k + 1}"
        choices.append({"id": f"k{k}", "name": name})
    return choices


def _maps(tables: Tables, images: Sequence[int]) -> pd.DataFrame:
    """Return the maps to show, with their heat and the place of their setting."""
    maps = tables.maps[tables.maps["image"].isin(images)]
    known = tables.images.set_index("image")
    first = sum(
        (maps["target"] == maps["image"].map(known[name])).fillna(False).astype(int)
        for name in ("label", "prediction")
    )
    maps = maps.assign(first=first + maps["shown"])
    maps = maps.sort_values(["first", "score"], ascending=False, kind="stable")
    maps = maps.groupby(["image", *SETTING], sort=False).head(MOST_TARGETS)
    places = pd.DataFrame(tables.settings, columns=SETTING).rename_axis("place").reset_index()
    keys = ["image", "k", *SETTING]
    maps = maps.merge(tables.heat(images), on=keys).merge(places, on=SETTING)
    return maps.sort_values(["image", "place", "k"], kind="stable")


def _map(row: dict[str, Any]) -> dict[str, Any]:
    heat, size = b"", (row["heat_height"], row["heat_width"])
    if row["evidence"]:
        heat, size = _bytes(row["heat"], size)
    return {
        "setting": row["place"],
        "k": row["k"],
        "target": row["target"],
        "score": _number(row["score"], 6),
        "evidence": bool(row["evidence"]),
        "heat": base64.b64encode(heat).decode("ascii"),
        "height": int(size[0]),
        "width": int(size[1]),
    }


def _bytes(heat: bytes, size: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
    """Return a map as a byte a cell, on a grid that is not larger than the page needs."""
    cells = int(size[0]) * int(size[1])
    kind, full = (np.dtype("u1"), 255.0) if len(heat) == cells else (np.dtype("<f2"), 1.0)
    values = np.frombuffer(heat, kind).reshape(size).astype(np.float32) / full
    if max(size) > MOST_CELLS:
        size = (min(size[0], MOST_CELLS), min(size[1], MOST_CELLS))
        values = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(values)[None], size)[
            0
        ].numpy()
    largest = values.max(initial=0)
    values = values / largest if largest > 0 else values
    return np.round(values * 255).astype(np.uint8).tobytes(), size


def _regions(tables: Tables, images: Sequence[int]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return of each image, k and place of a setting the numbers of its regions."""
    if tables.regions is None:
        return {}
    table = tables.regions[tables.regions["image"].isin(images)]
    places = {setting: place for place, setting in enumerate(tables.settings)}
    order = {name: at for at, name in enumerate(tables.region_names)}
    columns = [name for name in _REGION_COLUMNS if name in table]
    found: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in table[["image", "k", *SETTING, "region", *columns]].to_dict("records"):
        key = (row["image"], row["k"], places[tuple(row[name] for name in SETTING)])
        own = found.setdefault(key, {_REGION_COLUMNS[c]: [None] * len(order) for c in columns})
        for column in columns:
            own[_REGION_COLUMNS[column]][order[row["region"]]] = _number(row[column])
    if "agreement" in table:
        once = table.drop_duplicates(["image", "k", *SETTING])
        for row in once[["image", "k", *SETTING, "agreement"]].to_dict("records"):
            key = (row["image"], row["k"], places[tuple(row[name] for name in SETTING)])
            found[key]["agreement"] = _number(row["agreement"])
    return found


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


def _address(content: bytes) -> str:
    """Return an encoded picture as an address that holds it; nothing else gets into the page."""
    kinds = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
    kind = next((kinds[start] for start in kinds if content.startswith(start)), None)
    if kind is None:
        return ""
    if len(content) > _MOST_BYTES:
        content = _as_jpeg(content)
        kind = "jpeg" if content.startswith(b"\xff\xd8\xff") else kind
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _as_jpeg(content: bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as picture:
            picture.convert("RGB").save(out, "JPEG", quality=80, optimize=True)
    except (OSError, ValueError, Image.DecompressionBombError):
        return content  # a browser shows of a damaged picture what it can
    return out.getvalue()


def _number(value: Any, digits: int = 4) -> float | None:
    """Return a number rounded to some digits; None where there is none (JSON has no NaN)."""
    if pd.isna(value) or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _integer(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def setting_names(tables: Tables) -> list[str]:
    """Return a name for each setting, in the order of the records' places."""
    return [tables.setting_name(setting) for setting in tables.settings]
