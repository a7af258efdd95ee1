"""FER2013 from either CSV file or from train/test folders, with labels by class name.

The CSV files number the classes, while sorted folders are in alphabetical order, so labels from
folders come from the folder's name. ``torchvision.datasets.FER2013`` reads only byte-identical
copies of the two CSV files; this loader also reads folders, subsets and re-encoded copies.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

#: The emotions in the order of the CSV files' codes 0 to 6, which is the order of the outputs.
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

#: The official splits, for training, validation and test.
USAGES = ("Training", "PublicTest", "PrivateTest")

SIDE = 48
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
PICTURES = {".jpg", ".jpeg", ".png"}

#: An image, its class, its split, and its name.
_Row = tuple[np.ndarray, int, int, str]


@dataclasses.dataclass(frozen=True)
class Faces:
    """N labelled images of faces.

    Attributes:
        images: (N, 48, 48) uint8, greyscale.
        labels: (N,) int64 indices into :data:`CLASSES`.
        usages: (N,) int64 indices into :data:`USAGES`.
        names: (N,) str: row numbers of the CSV file, from 0, or paths within the folder.
        index: digest of the index that removed images or changed labels; empty without an index.
    """

    images: np.ndarray
    labels: np.ndarray
    usages: np.ndarray
    names: np.ndarray
    index: str = ""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, which: np.ndarray) -> Faces:
        """Select images by indices or by a (N,) bool mask."""
        names = ("images", "labels", "usages", "names")
        parts: dict[str, Any] = {name: getattr(self, name)[which] for name in names}
        return dataclasses.replace(self, **parts)

    def split(self, usage: str) -> Faces:
        """Select an official split.

        Raises:
            ValueError: the split is unknown or empty.
        """
        if usage not in USAGES:
            raise ValueError(f"expected one of the splits {USAGES}, got {usage!r}")
        picked = self.usages == USAGES.index(usage)
        if not picked.any():
            raise ValueError(f"the data has no {usage} images: is this the whole of FER2013?")
        return self.take(picked)

    def first(self, count: int) -> Faces:
        """Select the first ``count`` images, at least one.

        Raises:
            ValueError: ``count`` is below 1.
        """
        if count < 1:
            raise ValueError(f"expected at least 1 face, got {count}")
        return self.take(np.arange(min(count, len(self))))


def load(path: str | Path) -> Faces:
    """Load FER2013.

    Args:
        path: ``fer2013.csv`` (columns emotion, pixels, Usage), ``icml_face_data.csv`` (emotion,
            Usage, pixels, with spaces in the header), a folder with either, or a folder with
            pictures in ``train/<class>/`` and ``test/<class>/`` whose file names begin with the
            official split (``PublicTest_123.jpg``).

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the header, an image's size, a class or a split is wrong.
    """
    path = Path(path)
    for file in (path, *(path / name for name in CSV_NAMES)):
        if file.is_file():
            try:
                return _collect(_read_csv(file), file)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{file} is not a CSV file in UTF-8: {error}") from error
    if (path / "train").is_dir() or (path / "test").is_dir():
        return _collect(_read_folders(path), path)
    raise FileNotFoundError(
        f"no FER2013 at {path}: expected {' or '.join(CSV_NAMES)}, or the folders train/<class> "
        "and test/<class>. Download it from Kaggle (msambare/fer2013 or the challenge "
        "'challenges-in-representation-learning-facial-expression-recognition-challenge')."
    )


def _collect(rows: Iterator[_Row], source: Path) -> Faces:
    faces = list(rows)
    if not faces:
        raise ValueError(f"{source} has no images")
    images, labels, usages, names = zip(*faces, strict=True)
    return Faces(
        np.stack(images), np.array(labels, np.int64), np.array(usages, np.int64), np.array(names)
    )


def _read_csv(path: Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        missing = {"emotion", "pixels", "Usage"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} has the columns {reader.fieldnames}; FER2013 also has {sorted(missing)}"
            )
        for number, row in enumerate(reader):
            where = f"{path}, line {reader.line_num}"
            try:
                pixels = np.array(row["pixels"].split(), dtype=np.uint8)
                label = int(row["emotion"])
            except (ValueError, OverflowError, AttributeError) as error:
                raise ValueError(
                    f"{where}: expected the number of an emotion, and pixels from 0 to 255"
                ) from error
            if pixels.size != SIDE * SIDE:
                raise ValueError(f"{where}: expected {SIDE * SIDE} pixels, got {pixels.size}")
            if not 0 <= label < len(CLASSES):
                raise ValueError(f"{where}: expected an emotion from 0 to 6, got {label}")
            yield pixels.reshape(SIDE, SIDE), label, _usage(row["Usage"], where), str(number)


def _read_folders(root: Path) -> Iterator[_Row]:
    for folder in sorted(p for top in ("train", "test") for p in (root / top).glob("*/")):
        if folder.name.lower() not in CLASSES:
            raise ValueError(f"{folder}: expected a folder named after one of {CLASSES}")
        label = CLASSES.index(folder.name.lower())
        for file in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
            image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if image is None or image.shape != (SIDE, SIDE):
                size = "unreadable" if image is None else f"{image.shape[1]}x{image.shape[0]}"
                raise ValueError(f"{file}: expected a readable 48x48 picture, it is {size}")
            usage = _usage(file.name.split("_")[0], str(file))
            yield image, label, usage, file.relative_to(root).as_posix()


def _usage(name: str, where: str) -> int:
    if name not in USAGES:
        raise ValueError(f"{where}: expected one of the official splits {USAGES}, got {name!r}")
    return USAGES.index(name)


def to_batch(images: np.ndarray) -> Tensor:
    """Convert images (N, 48, 48) uint8 to the networks' input, (N, 1, 48, 48) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float() / 255
