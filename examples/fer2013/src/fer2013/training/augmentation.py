"""Augmentation of image batches with kornia, on the training device."""

from __future__ import annotations

from kornia import augmentation as kornia
from torch import nn

from ..configurations.config import Augmentation
from ..data.faces import SIDE

# Standard deviation of the elastic distortion's blur in pixels, about half an eye's width.
_ELASTIC_SIGMA = 4.0
_ELASTIC_KERNEL = 33  # torchvision's size for this sigma


def augment(how: Augmentation) -> nn.Sequential:
    """Return the augmentations, except mixup, of (N, 1, 48, 48) images in [0, 1].

    Random numbers are drawn on the CPU from torch's generator, so every device gets the same.
    """
    steps: list[nn.Module] = []
    if how.mirror:
        steps.append(kornia.RandomHorizontalFlip(p=how.mirror))
    if how.resized_crop != (1.0, 1.0):
        steps.append(kornia.RandomResizedCrop((SIDE, SIDE), how.resized_crop))
    if how.elastic:
        # kornia's unit is half the side, torchvision's half a pixel.
        kernel, sigma = (_ELASTIC_KERNEL,) * 2, (_ELASTIC_SIGMA,) * 2
        alpha = (how.elastic / SIDE,) * 2
        steps.append(kornia.RandomElasticTransform(kernel, sigma, alpha, p=1.0))
    if how.perspective:
        steps.append(kornia.RandomPerspective(how.perspective, p=0.5))
    if how.rotation or how.shift or how.shear or how.scale != (1.0, 1.0):
        shift = (how.shift, how.shift)
        steps.append(kornia.RandomAffine(how.rotation, shift, how.scale, how.shear, p=1.0))
    if how.jitter:
        steps.append(kornia.ColorJitter(brightness=how.jitter, contrast=how.jitter, p=1.0))
    if how.crop is not None:
        steps.append(kornia.RandomCrop((how.crop, how.crop)))
    if how.erasing:
        steps.append(kornia.RandomErasing((0.02, 0.2), value=0.5, p=how.erasing))
    return nn.Sequential(*steps)
