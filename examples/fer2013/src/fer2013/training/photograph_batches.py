"""Batches of photographs for pretraining, made on the device: shuffled, flipped, cropped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

#: Of each channel of photographs in [0, 1]; EmotionVGG has torchvision's own.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Split = tuple[Tensor, Tensor]


class Batches:
    """Shuffled, flipped and cropped batches; an epoch's depend on the seed and the epoch alone.

    Args:
        split: photographs (N, 3, H, W) uint8 and classes (N,), on the device that trains.
        batch: photographs in a batch.
        size: pixels of their sides.
        seed: of the run.
        epoch: from 0.
    """

    def __init__(self, split: Split, *, batch: int, size: int, seed: int, epoch: int) -> None:
        self.pixels, self.classes = split
        self.batch, self.size = batch, size
        self.draw = torch.Generator().manual_seed(seed * 10_007 + epoch)

    def __len__(self) -> int:
        """Return how many there are; what is left over waits for the next epoch."""
        return len(self.classes) // self.batch

    def __iter__(self) -> Iterator[Split]:
        """Yield images (batch, 3, size, size), normalised, and classes."""
        order = torch.randperm(len(self.classes), generator=self.draw)
        for rows in order[: len(self) * self.batch].view(-1, self.batch):
            chosen = rows.to(self.pixels.device)
            images = normalized(self.pixels[chosen])
            flipped = (torch.rand(len(rows), generator=self.draw) < 0.5).to(images.device)
            images = images.where(~flipped.view(-1, 1, 1, 1), images.flip(3))
            yield self._cropped(images), self.classes[chosen]

    def _cropped(self, images: Tensor) -> Tensor:
        """Cut a square of half to all of the side out of each eighth of a batch, and resize it."""
        side = images.shape[-1]
        parts = []
        for part in images.chunk(8):
            cut = int(torch.randint(side // 2, side + 1, (), generator=self.draw))
            top, left = torch.randint(side - cut + 1, (2,), generator=self.draw).tolist()
            cut_out = part[:, :, top : top + cut, left : left + cut]
            parts.append(resized(cut_out, self.size))
        return torch.cat(parts)


def normalized(pixels: Tensor) -> Tensor:
    """Return photographs (N, 3, H, W) uint8 as networks with torchvision's weights take them."""
    mean, deviation = (pixels.new_tensor(v, dtype=torch.float32) for v in (_MEAN, _DEVIATION))
    return (pixels.float() / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Return images with sides of so many pixels."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(
        images, side, mode="bilinear", antialias=True, align_corners=False
    )
