"""Draw the heat and encode the photographs that the page contains."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import adaptive_avg_pool2d

from .. import heatmap, render
from .run_tables import SETTING, Tables

#: Heat is drawn with SIDE pixels on the longer side, like a thumbnail: if the browser enlarged it,
#: it would interpolate colours instead of values. On a page with more than MANY maps or images it
#: has SIDE_OF_MANY pixels and at most the image's own size, which takes a third of the bytes.
SIDE, SIDE_OF_MANY, MANY = 224, 112, 1000

#: Photographs with more bytes are encoded again; the limit is lower on a page with many images.
_MOST_BYTES, _MOST_BYTES_OF_MANY = 30_000, 12_000

#: Number of images whose maps are read and drawn at once.
_AT_ONCE = 200

#: What :func:`camlens.regions.outlines.outlines` writes.
_PATH = re.compile(r"[Mlz\d, -]*")

#: Smooth heat takes 1 to 5 kB, a third of a palette PNG.
_FORMAT: dict[str, Any] = {"format": "WEBP", "quality": 75, "method": 2}


def pictures(tables: Tables, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pictures of images and of their maps as data URLs.

    Args:
        tables: the run's tables.
        records: the images' records from :func:`camlens.report.gallery.records`.

    Returns:
        For each image ``photo``, which is empty if there is none; ``heat``, a list as long as the
        record's ``maps``, with empty strings for maps without evidence; and ``outlines``, an SVG
        path for each region, empty if it is absent or too small.

    Raises:
        ValueError: a map contains values that are not heat, or an outline is not a path.
    """
    many = sum(len(record["maps"]) for record in records) > MANY or len(records) > MANY
    return [
        shown
        for first in range(0, len(records), _AT_ONCE)
        for shown in _some(tables, records[first : first + _AT_ONCE], many)
    ]


def _some(
    tables: Tables, records: Sequence[dict[str, Any]], many: bool
) -> Iterator[dict[str, Any]]:
    images = [record["image"] for record in records]
    kept = tables.pictures(images)
    photos = kept["thumbnail"].dropna()
    rows = tables.heat(images)
    keys = zip(rows["image"], rows["k"], *(rows[name] for name in SETTING), strict=True)
    stored = zip(rows["heat"], rows["heat_height"], rows["heat_width"], strict=True)
    found = dict(zip(keys, stored, strict=True))
    settings = tables.settings
    for record in records:
        size = drawn_size(record["height"], record["width"], many=many)
        heat = []
        for one in record["maps"]:
            content, h, w = found[record["image"], one["k"], *settings[one["setting"]]]
            try:
                drawn = draw(content, (int(h), int(w)), size) if one["evidence"] else b""
            except ValueError as error:
                raise ValueError(
                    f"{tables.run.path} is damaged: in maps.parquet, image {record['image']}, "
                    f"{error}"
                ) from None
            heat.append(_address(drawn))
        most = _MOST_BYTES_OF_MANY if many else _MOST_BYTES
        image = record["image"]
        try:
            lines = outlines(kept["outlines"][image], tables.region_names)
        except ValueError as error:
            raise ValueError(
                f"{tables.run.path} is damaged: in images.parquet, image {image}, {error}"
            ) from None
        yield {"photo": photo(photos.get(image, b""), most), "heat": heat, "outlines": lines}


def drawn_size(height: int, width: int, *, many: bool = False) -> tuple[int, int]:
    """Return the (height, width) at which an image's heat is drawn.

    Example:
        >>> drawn_size(448, 300), drawn_size(48, 24), drawn_size(10_000, 1)
        ((224, 150), (224, 112), (224, 1))
        >>> drawn_size(448, 300, many=True), drawn_size(48, 24, many=True)
        ((112, 75), (48, 24))
    """
    longest = min(SIDE_OF_MANY, max(height, width)) if many else SIDE
    factor = longest / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def draw(heat: bytes, grid: tuple[int, int], size: tuple[int, int]) -> bytes:
    """Draw a stored map like :func:`camlens.overlay` with ``alpha=1``, as WebP.

    Args:
        heat: one byte or one half-precision number per cell, row by row.
        grid: (h, w) of the stored map.
        size: (H, W) of the picture. A finer map is averaged.

    Raises:
        ValueError: the map contains NaN, infinity or negative values.
    """
    from PIL import Image

    whole = len(heat) == grid[0] * grid[1]
    values = np.frombuffer(heat, "u1" if whole else "<f2").reshape(1, 1, *grid)
    cells = torch.from_numpy(values.astype(np.float32))
    if not (cells.isfinite() & (cells >= 0)).all():
        raise ValueError("a map contains values that are not heat")
    if grid[0] > size[0] or grid[1] > size[1]:
        cells = adaptive_avg_pool2d(cells, (min(grid[0], size[0]), min(grid[1], size[1])))
    scaled = heatmap.scale(heatmap.resize(cells, size))
    picture = render.overlay(torch.zeros(1, 1, *size), scaled, alpha=1.0)[0, 0]
    out = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(out, **_FORMAT)
    return out.getvalue()


def photo(content: bytes, most: int) -> str:
    """Return an encoded photograph as a data URL; other content never gets into the page.

    Args:
        content: PNG or JPEG; the URL of anything else is empty.
        most: largest number of bytes that are kept as they are; more are encoded again as JPEG.
    """
    if len(content) > most and _kind(content) in ("png", "jpeg"):
        content = _as_jpeg(content)
    return _address(content) if _kind(content) in ("png", "jpeg") else ""


def outlines(content: Any, names: Sequence[str]) -> list[str]:
    """Return the SVG path of each named region; other content never gets into the page.

    Args:
        content: paths by name, as JSON; a missing value if there are none.
        names: the regions' names.

    Raises:
        ValueError: the content is not such JSON.

    Example:
        >>> outlines('{"nose": "M10,20l5,5z"}', ["mouth", "nose"])
        ['', 'M10,20l5,5z']
    """
    try:
        found = {} if pd.isna(content) else json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("the outlines are not JSON") from None
    known = isinstance(found, dict) and all(isinstance(path, str) for path in found.values())
    if not known or not all(map(_PATH.fullmatch, found.values())):
        raise ValueError("the outlines are not paths")
    return [found.get(name, "") for name in names]


def _kind(content: bytes) -> str:
    starts = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
    return next((starts[start] for start in starts if content.startswith(start)), "")


def _address(content: bytes) -> str:
    if not content:
        return ""
    return f"data:image/{_kind(content)};base64,{base64.b64encode(content).decode('ascii')}"


def _as_jpeg(content: bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as picture:
            picture.convert("RGB").save(out, "JPEG", quality=80, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return content  # a browser shows the intact part of a damaged picture
    return out.getvalue()
