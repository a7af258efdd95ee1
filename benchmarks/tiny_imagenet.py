"""Tiny ImageNet, and the ResNet-18 that is trained on it (``train_tiny_imagenet.py``).

The network is torchvision's with a stem of one 3x3 convolution of stride 2, so that a photograph of
64 pixels has 8 x 8 cells at ``layer3`` and 4 x 4 at ``layer4``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18

SIZE, CLASSES = 64, 200
#: Of each channel of photographs in [0, 1], as torchvision's ImageNet weights have it.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network() -> nn.Module:
    """Return the untrained network."""
    model = resnet18(num_classes=CLASSES)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def photographs(folder: Path, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """Return (N, 3, 64, 64) uint8, (N,) classes in the order of their names, and the files' names.

    They are decoded once and kept beside the folder, as an array that is mapped into memory.
    """
    files = sorted((folder / split).glob("*/*.JPEG"))
    if not files:
        raise FileNotFoundError(
            f"expected {folder / split}/<class>/*.JPEG, found none: write them with "
            "../shared/tiny_imagenet/from_snapshot.py"
        )
    names = sorted({file.parent.name for file in files})
    classes = torch.tensor([names.index(file.parent.name) for file in files])
    kept = folder / f"{split}.npy"
    if not kept.exists():
        pixels = np.empty((len(files), 3, SIZE, SIZE), np.uint8)
        for row, file in enumerate(files):
            with Image.open(file) as picture:
                pixels[row] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        written = folder / f".{split}.npy"
        np.save(written, pixels)
        written.rename(kept)
    return torch.from_numpy(np.load(kept)), classes, [file.name for file in files]


def normalized(pixels: Tensor) -> Tensor:
    """Return photographs as the network takes them."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std
