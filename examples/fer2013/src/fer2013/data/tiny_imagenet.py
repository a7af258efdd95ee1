"""Tiny ImageNet: 200 of ImageNet's classes, 110,000 photographs of 64 pixels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE, CLASSES = 64, 200


def photographs(folder: Path, split: str, *, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Read a split; it is decoded once and kept as an array beside the folder.

    Args:
        folder: with ``split/<class>/*.JPEG``, as torchvision's ``ImageFolder`` takes it.
        split: "train" or "val".
        limit: only so many, of all classes in turn; nothing is kept then.

    Returns:
        (N, 3, 64, 64) uint8 and (N,) classes in the order of their names.

    Raises:
        FileNotFoundError: there are no such files.
    """
    names = sorted({file.parent.name for file in (folder / split).glob("*/*.JPEG")})
    if not names:
        raise FileNotFoundError(
            f"expected Tiny ImageNet as {folder / split}/<class>/*.JPEG, found none"
        )
    of_classes = [sorted((folder / split / name).glob("*.JPEG")) for name in names]
    files = list(itertools.chain(*of_classes))
    if limit is not None:
        in_turn = itertools.chain(*itertools.zip_longest(*of_classes))
        files = [file for file in in_turn if file is not None][:limit]
    classes = torch.tensor([names.index(file.parent.name) for file in files])
    kept = folder / f"{split}.npy"
    if limit is None and kept.is_file():
        return torch.from_numpy(np.load(kept)), classes
    pixels = np.empty((len(files), 3, SIDE, SIDE), np.uint8)
    for row, file in enumerate(files):
        with Image.open(file) as picture:
            pixels[row] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    if limit is None:
        np.save(kept.with_name(f".{split}.npy"), pixels)
        kept.with_name(f".{split}.npy").rename(kept)
    return torch.from_numpy(pixels), classes
