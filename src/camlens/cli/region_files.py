"""Regions of photographs from files: boxes, masks and label maps."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..regions import Regions

#: What a file of regions may be: boxes, masks, and label maps of formats without loss.
SUFFIXES = (".json", ".safetensors", ".png", ".bmp", ".tif", ".tiff")

#: The file beside label maps that names the labels.
NAMES = "names.json"

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class RegionFiles:
    """The regions of photographs, kept in one file for all or in a folder with a file for each.

    Coordinates, masks and label maps are those of the photograph, upright and at its own size.

    ``boxes.json`` holds ``{"left eye": [left, top, right, bottom], ...}`` in pixels, or one such
    object for each photograph's name. ``masks.safetensors`` holds a tensor (H, W) for each region,
    boolean, or in [0, 1]. A label map is a grey or palette picture of integers, beside a
    ``names.json`` that names them: ``{"1": "eyes", ...}``. In a folder, the file of ``a/b.jpg`` is
    ``a/b`` or ``b`` with one of :data:`SUFFIXES`.

    Args:
        path: the file or folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file's kind is unknown.
    """

    path: Path

    def __post_init__(self) -> None:
        """Check that it is there."""
        if not self.path.exists():
            raise FileNotFoundError(f"there is no file or folder {self.path}: expected regions")
        if not self.path.is_dir() and self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"expected regions as {', '.join(SUFFIXES)} or a folder of them, got {self.path}"
            )

    def fingerprint(self) -> str:
        """Return a hash of the files' contents."""
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        files += [self.path.parent / NAMES] if not self.path.is_dir() else []
        found = [
            (path.name, sha256(path.read_bytes()).hexdigest()) for path in files if path.is_file()
        ]
        return sha256(repr(found).encode()).hexdigest()

    def of(
        self, name: str, size: tuple[int, int], seen: tuple[int, int], box: Box | None
    ) -> Regions:
        """Return a photograph's regions in the picture that the model sees of it.

        Args:
            name: the photograph's path, relative to the folder of all.
            size: its (H, W).
            seen: (h, w) of the model's picture.
            box: (top, left, height, width) of that picture in the photograph's pixels.

        Raises:
            LookupError: there are none of it.
            ValueError: the file is damaged or of another size, or the box is unknown.
        """
        if box is None:
            raise ValueError(
                f"where in {name} the model's picture lies is unknown, so the regions of "
                f"{self.path} cannot be placed: say how pictures are prepared with --resize, "
                "--crop or --size, or return a plain resize and crop from the model's function"
            )
        file = self._file(name)
        if file.suffix.lower() == ".json":
            return _boxes(file, name, seen, box)
        masks = _masks(file) if file.suffix.lower() == ".safetensors" else _labels(file)
        if masks.size != size:
            raise ValueError(
                f"{file} is of {masks.size[0]} x {masks.size[1]} pixels, but {name} of {size[0]} x "
                f"{size[1]}: expected the photograph's own size, upright"
            )
        return Regions(masks.names, _cut(masks.masks, seen, box))

    def _file(self, name: str) -> Path:
        if not self.path.is_dir():
            return self.path
        whole = Path(name).with_suffix("")
        for stem in (whole, Path(whole.name)):
            for suffix in SUFFIXES:
                file = self.path / f"{stem}{suffix}"
                if file.is_file() and file.name != NAMES:
                    return file
        raise LookupError(
            f"{self.path} holds no regions of {name}: expected {whole.name} with one of "
            f"{', '.join(SUFFIXES)}"
        )


def _boxes(file: Path, name: str, seen: tuple[int, int], box: Box) -> Regions:
    """Return boxes, moved and scaled to the model's picture."""
    content = _json(file)
    if content and all(isinstance(value, Mapping) for value in content.values()):
        stem = Path(name)
        keys = (name, stem.name, stem.with_suffix("").as_posix(), stem.stem)
        key = next((key for key in keys if key in content), None)
        if key is None:
            raise LookupError(f"{file} holds no regions of {name}")
        content = content[key]
    for region, edges in content.items():
        numbers = isinstance(edges, list) and len(edges) == 4
        if not numbers or not all(
            isinstance(edge, (int, float)) and math.isfinite(edge) for edge in edges
        ):
            raise ValueError(
                f"expected {file} to hold [left, top, right, bottom] in pixels of each region, got "
                f"{edges!r:.60} for {region!r}"
            )
    if not content:
        raise ValueError(f"{file} names no region of {name}")
    top, left, height, width = box
    scale = torch.tensor([seen[1] / width, seen[0] / height] * 2)
    edges = (torch.tensor(list(content.values())).float() - torch.tensor([left, top] * 2)) * scale
    try:
        return Regions.from_boxes(list(content), edges, seen)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _masks(file: Path) -> Regions:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
        masks = [mask if mask.dtype == torch.bool else mask.float() for mask in tensors.values()]
        return Regions(list(tensors), torch.stack([mask.float() for mask in masks]))
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{file} holds no masks (H, W) of regions: {error}") from error


def _labels(file: Path) -> Regions:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            mode, values = picture.mode, np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{file} is no label map: {error}") from error
    if mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(
            f"{file} is no label map: expected grey or palette pixels, which hold a label each, "
            f"got {mode}"
        )
    labels = torch.from_numpy(values.astype(np.int64))
    return Regions.from_labels(_label_names(file.parent / NAMES), labels)


@functools.cache
def _label_names(file: Path) -> dict[int, str]:
    if not file.is_file():
        raise FileNotFoundError(
            f'there is no {file}, which names the labels of the maps beside it: {{"1": "eyes"}}'
        )
    names = _json(file)
    if not names or not all(key.isdecimal() and isinstance(v, str) for key, v in names.items()):
        raise ValueError(f'expected {file} as names by label, such as {{"1": "eyes"}}')
    return {int(label): name for label, name in names.items()}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8-sig"))
        return dict(content.items())
    except (AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"expected {file} as a JSON object: {error}") from error


def _cut(masks: Tensor, seen: tuple[int, int], box: Box) -> Tensor:
    """Return (1, R, h, w) of masks, cut to a box of whole pixels and resized."""
    top, left, bottom, right = (
        *(round(box[0]), round(box[1])),
        *(round(box[0] + box[2]), round(box[1] + box[3])),
    )
    h, w = masks.shape[-2:]
    sides = (max(-left, 0), max(right - w, 0), max(-top, 0), max(bottom - h, 0))
    whole = pad(masks, sides)
    part = whole[..., top + sides[2] : bottom + sides[2], left + sides[0] : right + sides[0]]
    return interpolate(part, seen, mode="bilinear", antialias=True).clamp(0, 1)
