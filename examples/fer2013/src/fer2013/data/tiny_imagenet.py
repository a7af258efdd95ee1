"""Tiny ImageNet: 200 of ImageNet's classes, 110,000 photographs of 64 pixels."""

from __future__ import annotations

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
    files = sorted((folder / split).glob("*/*.JPEG"))
    if not files:
        raise FileNotFoundError(
            f"expected Tiny ImageNet as {folder / split}/<class>/*.JPEG, found none"
        )
    names = sorted({file.parent.name for file in files})
    if limit is not None:
        within = [0] * len(names)
        order = []
        for file in files:
            place = names.index(file.parent.name)
            order.append((within[place], place))
            within[place] += 1
        files = [file for _, file in sorted(zip(order, files, strict=True))][:limit]
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
