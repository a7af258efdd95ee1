"""Tiny ImageNet: 110,000 photographs of 64 x 64 pixels in 200 of ImageNet's classes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE, CLASSES = 64, 200

SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def photographs(folder: Path, split: str, *, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Load a split; the decoded pixels are cached in ``folder`` as a ``.npy`` file.

    Args:
        folder: with ``split/<class>/*.JPEG``, the layout of torchvision's ``ImageFolder``.
        split: "train" or "val".
        limit: maximal number of photographs, taken from all classes in turn, without a cache.

    Returns:
        (N, 3, 64, 64) uint8 pixels, and (N,) int64 classes in alphabetical order.

    Raises:
        FileNotFoundError: there are no such files.
    """
    names = sorted({file.parent.name for file in (folder / split).glob("*/*.JPEG")})
    if not names or names == ["images"]:  # the zip's validation photographs, not sorted by class
        raise FileNotFoundError(
            f"expected Tiny ImageNet as {folder / split}/<class>/*.JPEG, found no such files. "
            f"Download {SOURCE}, move train/<class>/images/*.JPEG to train/<class>, and "
            "val/images/*.JPEG to val/<class>, as val/val_annotations.txt says"
        )
    of_classes = [sorted((folder / split / name).glob("*.JPEG")) for name in names]
    files = list(itertools.chain(*of_classes))
    if limit is not None:
        in_turn = itertools.chain(*itertools.zip_longest(*of_classes))
        files = [file for file in in_turn if file is not None][:limit]
    classes = torch.tensor([names.index(file.parent.name) for file in files])
    cache = folder / f"{split}.npy"
    if limit is None and cache.is_file():
        return torch.from_numpy(np.load(cache)), classes
    pixels = np.empty((len(files), 3, SIDE, SIDE), np.uint8)
    for row, file in enumerate(files):
        with Image.open(file) as picture:
            pixels[row] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    if limit is None:
        part = cache.with_name(f".{split}.npy")
        np.save(part, pixels)
        part.rename(cache)
    return torch.from_numpy(pixels), classes
