"""Items of a data set, their pictures, and folders of image files as a data set."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.utils.data import Dataset

from .. import render
from ..loading import find_photographs, read_photograph
from ..regions.masks import Regions
from .fingerprint import fingerprint

#: The label of an item whose class is unknown.
NO_LABEL = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One image with its label, name, picture and regions.

    Attributes:
        image: (C, H, W) floating point, exactly as the model takes it (normalised).
        label: class id of the image; -1 if unknown.
        name: the image's name in the tables, such as a relative path; by default its index.
        picture: (1 or 3, H, W) uint8, the image before normalisation, for display and for
            functions that find regions.
        regions: one set of masks of the image's size, for ``RunOptions(regions="own")``.
    """

    image: Tensor
    label: int = NO_LABEL
    name: str | None = None
    picture: Tensor | None = None
    regions: Regions | None = None


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An item that cannot be read; a data set may return it instead of raising.

    Attributes:
        reason: why it cannot be read.
        name: the item's name in the tables; by default its index.
    """

    reason: str
    name: str | None = None


class Folder(Dataset[Sample]):
    """A data set of the image files below a folder, sorted by their paths.

    An image's class is the name of the direct subfolder of ``root`` that contains it, such as
    ``cat`` for ``root/cat/001.png``; images directly in ``root`` have no class.

    Args:
        root: the folder.
        transform: converts a picture, (3, H, W) uint8, to the model's input, (C, H, W) floating
            point. It must not be random: otherwise no table could be reproduced.
        shown: converts a picture to the model's view of it before normalisation, (1 or 3, H, W)
            uint8 of the image's size, for example by a resize. By default the picture itself if it
            has the image's size; otherwise :func:`explain_dataset`'s ``picture`` creates it.

    Attributes:
        root: the folder.
        files: the image files.
        classes: sorted names of the direct subfolders; the position of a name is the label.

    Raises:
        NotADirectoryError: the folder does not exist.
        ValueError: the folder contains no image file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Tensor], Tensor],
        *,
        shown: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.root = Path(root)
        self.files = find_photographs(self.root)
        if not self.files:
            raise ValueError(f"there are no image files in {self.root} or its subfolders")
        parts = [file.relative_to(self.root).parts for file in self.files]
        self.classes = sorted({above for above, *below in parts if below})
        labels = {name: label for label, name in enumerate(self.classes)}
        self._labels = [labels[above] if below else NO_LABEL for above, *below in parts]
        self._names = ["/".join(some) for some in parts]
        self._transform, self._shown = transform, shown

    def __len__(self) -> int:
        """Return the number of image files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read one file.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a complete image.
        """
        picture = read_photograph(self.files[index])
        image = self._transform(picture)
        seen = picture if self._shown is None else self._shown(picture)
        fits = self._shown is not None or seen.shape[-2:] == image.shape[-2:]
        return Sample(image, self._labels[index], self.name(index), seen if fits else None)

    def name(self, index: int) -> str:
        """Return a file's path below the folder, with slashes on every system."""
        return self._names[index]

    def fingerprint(self) -> str:
        """Return a hash of the files' names and contents, the transforms, and a subclass's own."""
        files = [[self.name(i), content_of(file)] for i, file in enumerate(self.files)]
        own = {name: value for name, value in vars(self).items() if name not in ("root", "files")}
        return fingerprint([files, type(self), own])


def _label(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"expected a label as a class id, got {value!r}")
    return int(value)


def content_of(file: Path) -> bytes:
    """Return a hash of a file's content; b"" if it cannot be read, or is a pipe or a device.

    Hashing takes a few per cent of the time that decoding takes.
    """
    if not file.is_file():  # opening a pipe would wait for its writer
        return b""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, xxhash.xxh3_128).digest()
    except OSError:
        return b""


def as_sample(item: Any) -> Sample:
    """Convert a data set's item to a sample.

    Args:
        item: a tensor (C, H, W), a tuple of a tensor and optionally a label, or a sample.

    Raises:
        TypeError: the item has another type.
        ValueError: a shape is wrong.

    Example:
        >>> as_sample((torch.zeros(3, 8, 8), 4)).label
        4
    """
    if isinstance(item, Tensor):
        item = Sample(item)
    elif isinstance(item, (tuple, list)) and len(item) in (1, 2):
        item = Sample(item[0], _label(item[1]) if len(item) == 2 else NO_LABEL)
    if not isinstance(item, Sample) or not isinstance(item.image, Tensor):
        raise TypeError(
            "expected the data set's items as a tensor (C, H, W), as (tensor, label) or as "
            f"camlens.dataset.Sample, got {type(item).__name__}"
        )
    image, picture = item.image, item.picture
    if image.ndim != 3 or 0 in image.shape or not image.is_floating_point():
        raise ValueError(
            f"expected an image as (C, H, W), floating point as the model takes it, got shape "
            f"{tuple(image.shape)} of {image.dtype}: transform the pictures in the data set"
        )
    if picture is not None and (
        picture.dtype != torch.uint8
        or picture.ndim != 3
        or picture.shape[0] not in (1, 3)
        or picture.shape[1:] != image.shape[1:]
    ):
        raise ValueError(
            f"expected a picture as (1 or 3, {image.shape[1]}, {image.shape[2]}) of uint8, the "
            f"image's size, got shape {tuple(picture.shape)} of {picture.dtype}"
        )
    regions = item.regions
    if regions is not None and (len(regions.masks), *regions.size) != (1, *image.shape[1:]):
        raise ValueError(
            f"expected a sample's regions as one set of masks of the image's size, "
            f"{tuple(image.shape[1:])}, got {len(regions.masks)} of size {regions.size}"
        )
    return item


def pictures_of(images: Tensor, picture: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return (N, 1 or 3, H, W) uint8 pictures of preprocessed images.

    Args:
        images: (N, C, H, W) floating point.
        picture: undoes the normalisation: from the images to (N, 1 or 3, H, W), floating point in
            [0, 1] or uint8. None: images in [0, 1] are used as they are; other images are each
            stretched from their minimum to their maximum, which shows their content but not their
            brightness or contrast. With other than 1 or 3 channels, the channels' mean is shown.

    Raises:
        TypeError: the function did not return a tensor of such a type.
        ValueError: the function returned a wrong shape or range.

    Example:
        >>> pictures_of(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).flatten().tolist()
        [0, 128, 255]
    """
    if picture is not None:
        return _made(picture(images), images)
    shown = images.float()
    if shown.shape[1] not in (1, 3):
        shown = shown.mean(dim=1, keepdim=True)
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    span = (high - low).where(high > low, 1)
    fits = (low >= 0) & (high <= 1)
    return _to_uint8(torch.where(fits, shown, (shown - low) / span))


def _made(made: object, images: Tensor) -> Tensor:
    if not isinstance(made, Tensor) or not (made.is_floating_point() or made.dtype == torch.uint8):
        kind = made.dtype if isinstance(made, Tensor) else type(made).__name__
        raise TypeError(
            f"expected picture= to return floating point in [0, 1] or uint8, got {kind}"
        )
    n, _, h, w = images.shape
    if (
        made.ndim != 4
        or made.shape[1] not in (1, 3)
        or (made.shape[0], *made.shape[2:]) != (n, h, w)
    ):
        raise ValueError(
            f"expected picture= to return ({n}, 1 or 3, {h}, {w}), got {tuple(made.shape)}"
        )
    if made.dtype == torch.uint8:
        return made
    render.check_range(made, "what picture= returned", "undo all of the normalisation")
    return _to_uint8(made.float().clamp(0, 1))


def _to_uint8(values: Tensor) -> Tensor:
    return (values * 255).round().to(torch.uint8)
