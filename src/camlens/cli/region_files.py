"""Read regions of photographs from files: boxes, masks and label maps."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..loading.photographs import MAX_PIXELS
from ..regions import Regions

#: Suffixes of region files: boxes, masks, and label maps in lossless formats.
SUFFIXES = (".json", ".safetensors", ".png", ".bmp", ".tif", ".tiff")

_LABEL_MAPS = (".png", ".bmp", ".tif", ".tiff")

#: The file with the names of the labels, in the folder of the label maps.
NAMES = "names.json"

#: Larger coordinates, NaN and infinity are refused.
_FARTHEST = 2**53

#: The form of a file of boxes, for messages.
_BOXES = '{"NAME": [left, top, right, bottom], ...}'

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class RegionFiles:
    """Regions of photographs from one file for all, or from a folder with a file for each.

    Coordinates, masks and label maps refer to the photograph, upright and at its own size.

    ``boxes.json`` contains ``{"left eye": [left, top, right, bottom], ...}`` in pixels, or one such
    object for each photograph's name. ``masks.safetensors`` contains a tensor (H, W) for each
    region, boolean or in [0, 1]. A label map is a grey or palette picture of integers, with a
    ``names.json`` in the same folder that names them: ``{"1": "eyes", ...}``. In a folder, the
    file of ``a/b.jpg`` is ``a/b`` or ``b`` with one of :data:`SUFFIXES`.

    Args:
        path: the file or folder.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the file type is unknown.
    """

    path: Path

    def __post_init__(self) -> None:
        """Check that the path exists and that its type is known."""
        if not self.path.exists():
            raise FileNotFoundError(f"the file or folder of regions {self.path} does not exist")
        if not self.path.is_dir() and self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"expected regions as {', '.join(SUFFIXES)} or a folder of such files, got "
                f"{self.path}"
            )

    def fingerprint(self) -> str:
        """Return a hash of the files' contents."""
        root = self.path if self.path.is_dir() else self.path.parent
        names = sorted(self._held) if self.path.is_dir() else [self.path.name]
        maps = [name for name in names if Path(name).suffix.lower() in _LABEL_MAPS]
        names += sorted({(Path(name).parent / NAMES).as_posix() for name in maps})
        found = [
            (name, sha256((root / name).read_bytes()).hexdigest())
            for name in names
            if (root / name).is_file()
        ]
        return sha256(repr(found).encode()).hexdigest()

    @functools.cached_property
    def _held(self) -> frozenset[str]:
        """The region files below a folder, by their paths relative to it."""
        files = (file for file in self.path.rglob("*") if file.name != NAMES and file.is_file())
        known = (file for file in files if file.suffix.lower() in SUFFIXES)
        return frozenset(file.relative_to(self.path).as_posix() for file in known)

    def check(self, photos: Sequence[Path]) -> None:
        """Check that no two photographs match the same file of a folder, or the same boxes.

        Raises:
            ValueError: two photographs match the same file or boxes, or the file is damaged.
        """
        if self.path.is_dir():
            known: Collection[str] = self._held
            candidates, kind = _candidates, "region files"
        elif self.path.suffix.lower() == ".json" and _is_of_each(
            content := _json(self.path, _BOXES)
        ):
            known, candidates, kind = content, _keys, "the boxes"
        else:
            return
        taken: dict[str, Path] = {}
        for photo in photos:
            name = next((name for name in candidates(photo) if name in known), None)
            if name is not None and taken.setdefault(name, photo) != photo:
                where = self.path / name if self.path.is_dir() else f"{name!r} of {self.path}"
                raise ValueError(
                    f"{where} matches both {taken[name]} and {photo}: name {kind} after the "
                    "photographs' folders and names"
                )

    def of(
        self, photo: Path, size: tuple[int, int], seen: tuple[int, int], box: Box | None
    ) -> Regions:
        """Return a photograph's regions in the coordinates of the model's picture.

        Args:
            photo: the photograph's path.
            size: (H, W) of the photograph.
            seen: (h, w) of the model's picture.
            box: (top, left, height, width) of that picture in the photograph's pixels.

        Raises:
            LookupError: the photograph has no regions.
            ValueError: the file is damaged or has another size, or the box is unknown.
        """
        if box is None:
            raise ValueError(
                f"the position of the model's picture in {photo} is unknown, so the regions of "
                f"{self.path} cannot be placed: use a transform of a resize, a centre crop and a "
                "normalisation"
            )
        file = self._file(photo)
        if file.suffix.lower() == ".json":
            return _boxes(file, photo, size, seen, box)
        masks = _masks(file) if file.suffix.lower() == ".safetensors" else _labels(file)
        if masks.size != size:
            raise ValueError(
                f"{file} has {masks.size[0]} x {masks.size[1]} pixels, but {photo} has "
                f"{size[0]} x {size[1]}: expected the size of the upright photograph"
            )
        return Regions(masks.names, _cut(masks.masks, seen, box))

    def cut_boxes(self, photo: Path, size: tuple[int, int]) -> list[str]:
        """Return the names of a photograph's boxes that reach beyond it, and lose that part.

        Raises:
            LookupError, ValueError: see :meth:`of`.
        """
        file = self._file(photo)
        if file.suffix.lower() != ".json":
            return []
        boxes = _boxes_of(file, photo, size)
        return [
            name
            for name, (start, top, end, bottom) in boxes.items()
            if min(start, top) < 0 or end > size[1] or bottom > size[0]
        ]

    def _file(self, photo: Path) -> Path:
        if not self.path.is_dir():
            return self.path
        for name in _candidates(photo):
            if name in self._held:
                return self.path / name
        raise LookupError(
            f"{self.path} contains no regions of {photo}: expected {photo.stem} with one of "
            f"{', '.join(SUFFIXES)}"
        )


def _candidates(photo: Path) -> Iterator[str]:
    """Yield possible names of a photograph's region file, from the longest part of its path.

    Example:
        >>> next(_candidates(Path("/photos/cat/1.jpg")))
        'photos/cat/1.json'
    """
    parts = [part for part in photo.absolute().with_suffix("").parts if part not in ("/", "..")]
    for first in range(len(parts)):
        for suffix in SUFFIXES:
            yield "/".join(parts[first:]) + suffix


def _is_of_each(content: Mapping[str, Any]) -> bool:
    """Return whether boxes are those of each photograph, by its name."""
    return bool(content) and all(isinstance(value, Mapping) for value in content.values())


def _keys(photo: Path) -> Iterator[str]:
    """Yield possible names of a photograph's boxes, from the longest part of its path."""
    parts = photo.absolute().parts
    for first in range(1, len(parts)):
        key = "/".join(parts[first:])
        yield from (key, key.removesuffix(photo.suffix))


def _boxes(
    file: Path, photo: Path, size: tuple[int, int], seen: tuple[int, int], box: Box
) -> Regions:
    """Read boxes, and move and scale them to the model's picture."""
    boxes = _boxes_of(file, photo, size)
    top, left, height, width = box
    scale = torch.tensor([seen[1] / width, seen[0] / height] * 2)
    edges = (torch.tensor(list(boxes.values())).float() - torch.tensor([left, top] * 2)) * scale
    try:
        return Regions.from_boxes(list(boxes), edges, seen)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _boxes_of(file: Path, photo: Path, size: tuple[int, int]) -> dict[str, list[float]]:
    """Read a photograph's boxes, in its pixels."""
    content = _json(file, _BOXES)
    if _is_of_each(content):
        key = next((key for key in _keys(photo) if key in content), None)
        if key is None:
            raise LookupError(f"{file} contains no regions of {photo}")
        content = content[key]
    for region, edges in content.items():
        numbers = isinstance(edges, list) and len(edges) == 4
        if not numbers or not all(
            type(edge) in (int, float) and abs(edge) <= _FARTHEST for edge in edges
        ):
            raise ValueError(
                f"expected {file} to contain [left, top, right, bottom] in pixels for each region, "
                f"got {edges!r:.60} for {region!r}"
            )
        start, top, end, bottom = edges
        if min(end, size[1]) <= max(start, 0) or min(bottom, size[0]) <= max(top, 0):
            raise ValueError(
                f"{file}: the box of {region!r}, {edges}, contains no pixel of {photo}, which is "
                f"{size[1]} pixels wide and {size[0]} high: expected left < right and top < bottom"
            )
    if not content:
        raise ValueError(f"{file} contains no region of {photo}")
    return content


def _masks(file: Path) -> Regions:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
        masks = [mask if mask.dtype == torch.bool else mask.float() for mask in tensors.values()]
        return Regions(list(tensors), torch.stack([mask.float() for mask in masks]))
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"expected {file} to contain masks (H, W) of regions: {error}") from error


def _labels(file: Path) -> Regions:
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=("BMP", "PNG", "TIFF")) as picture:
            if math.prod(picture.size) > MAX_PIXELS:
                raise ValueError(f"{picture.size} are too many pixels")  # noqa: TRY301
            mode, values = picture.mode, np.array(ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is not a label map: {error}") from error
    if mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(
            f"{file} is not a label map: expected grey or palette pixels with one label each, "
            f"got {mode}"
        )
    labels = torch.from_numpy(values.astype(np.int64))
    return Regions.from_labels(_label_names(file.parent / NAMES), labels)


@functools.cache
def _label_names(file: Path) -> dict[int, str]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing: expected names of the maps' labels in the same folder, such as "
            f'{{"1": "eyes"}}'
        )
    names = _json(file, '{"1": "eyes", ...}')
    if not names or not all(key.isdecimal() and isinstance(v, str) for key, v in names.items()):
        raise ValueError(f'expected {file} to map labels to names, such as {{"1": "eyes"}}')
    numbers = {int(label): name for label, name in names.items()}
    if len(numbers) < len(names):
        raise ValueError(f"{file} names a label twice, as 1 and 01: {', '.join(names)}")
    return numbers


def _json(file: Path, form: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected {file} as a JSON object {form}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected {file} as a JSON object {form}, got {content!r:.60}")  # noqa: TRY004
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} occurs twice")
    return dict(pairs)


def _cut(masks: Tensor, seen: tuple[int, int], box: Box) -> Tensor:
    """Return (1, R, h, w): the covered share of each pixel of the model's picture."""
    rows = _covered(masks.shape[-2], seen[0], box[0], box[2])
    columns = _covered(masks.shape[-1], seen[1], box[1], box[3])
    return (rows @ masks @ columns.T).clamp(0, 1)


def _covered(whole: int, parts: int, start: float, length: float) -> Tensor:
    """Return (parts, whole): the share of each of ``parts`` intervals that each pixel covers.

    Example:
        >>> _covered(3, 2, 0.5, 2.0).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    edges = start + length * torch.arange(parts + 1, dtype=torch.float64) / parts
    pixels = torch.arange(whole, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], pixels)
    high = torch.minimum(edges[1:, None], pixels + 1)
    return ((high - low).clamp(min=0) * parts / length).float()
