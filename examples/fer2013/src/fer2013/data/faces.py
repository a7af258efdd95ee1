"""FER2013 as people have it: one CSV file or the train/test folders, always by class name.

The file formats differ in the order of the classes (the CSV files number them, folders
sort them alphabetically), so nothing here trusts a number that did not come with a name.
``torchvision.datasets.FER2013`` reads the two CSV files only, and only byte-identical
copies of them; this loader also takes the folders, subsets and re-encoded copies.
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

#: The emotions in the order of the CSV files' codes 0 to 6; the order of every output here.
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

#: The official splits: train on the first, choose on the second, look at the third once.
USAGES = ("Training", "PublicTest", "PrivateTest")

SIDE = 48
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
PICTURES = {".jpg", ".jpeg", ".png"}

#: A face's grey levels, class, official split, and name.
_Row = tuple[np.ndarray, int, int, str]


@dataclasses.dataclass(frozen=True)
class Faces:
    """Faces in memory.

    Attributes:
        images: (N, 48, 48) uint8, grey.
        labels: (N,) int64, an index into :data:`CLASSES`.
        usages: (N,) int64, an index into :data:`USAGES`.
        names: (N,) str, what the data calls each face: the number of its row in the CSV file,
            from 0, or the path of its picture in the folder.
        index: the digest of the index that left faces out or changed labels; empty if none did.
    """

    images: np.ndarray
    labels: np.ndarray
    usages: np.ndarray
    names: np.ndarray
    index: str = ""

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.labels)

    def take(self, which: np.ndarray) -> Faces:
        """Return some of the faces, by their indices or by a (N,) bool array."""
        names = ("images", "labels", "usages", "names")
        parts: dict[str, Any] = {name: getattr(self, name)[which] for name in names}
        return dataclasses.replace(self, **parts)

    def split(self, usage: str) -> Faces:
        """Return the faces of one official split.

        Raises:
            ValueError: the split's name is unknown, or these files hold none of it.
        """
        if usage not in USAGES:
            raise ValueError(f"expected a split out of {USAGES}, got {usage!r}")
        picked = self.usages == USAGES.index(usage)
        if not picked.any():
            raise ValueError(f"the data holds no {usage} faces: is this the whole of FER2013?")
        return self.take(picked)

    def first(self, count: int) -> Faces:
        """Return the first faces.

        Raises:
            ValueError: none are asked for.
        """
        if count < 1:
            raise ValueError(f"expected at least 1 face, got {count}")
        return self.take(np.arange(min(count, len(self))))


def load(path: str | Path) -> Faces:
    """Read FER2013 from a CSV file, a folder that holds one, or the train/test folders.

    Args:
        path: ``fer2013.csv`` (columns emotion, pixels, Usage), ``icml_face_data.csv``
            (emotion, Usage, pixels, with spaces in the header), a folder with either, or a
            folder with ``train/<class>/`` and ``test/<class>/`` pictures, whose file names
            begin with the official split (``PublicTest_123.jpg``).

    Raises:
        FileNotFoundError: none of these is there.
        ValueError: a file is there but not FER2013: a wrong header, size, class or split.
    """
    path = Path(path)
    for file in (path, *(path / name for name in CSV_NAMES)):
        if file.is_file():
            try:
                return _collect(_read_csv(file), file)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{file} is not a CSV file as UTF-8: {error}") from error
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
        raise ValueError(f"{source} holds no faces")
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
                raise ValueError(f"{where}: not an emotion's number and pixels 0-255") from error
            if pixels.size != SIDE * SIDE:
                raise ValueError(f"{where}: expected {SIDE * SIDE} pixels, got {pixels.size}")
            if not 0 <= label < len(CLASSES):
                raise ValueError(f"{where}: expected an emotion 0 to 6, got {label}")
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
    """Turn grey faces into what the networks take.

    Args:
        images: (N, 48, 48) uint8.

    Returns:
        (N, 1, 48, 48) float32 in [0, 1].
    """
    return torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float() / 255
