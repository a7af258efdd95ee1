"""A configuration's augmentation of batches of faces, on the device that trains, by kornia."""

from __future__ import annotations

from kornia import augmentation as kornia
from torch import nn

from ..configurations.config import Augmentation
from ..data.faces import SIDE

# Wave length of the elastic distortion in pixels: about the width of an eye.
_ELASTIC_SIGMA = 4.0
_ELASTIC_KERNEL = 33  # torchvision's for this sigma


def augment(how: Augmentation) -> nn.Sequential:
    """Return what changes each of (N, 1, 48, 48) training faces in [0, 1]; mixup is not part of it.

    Its random numbers are drawn in main memory from torch's generator, the same on every device.
    """
    steps: list[nn.Module] = []
    if how.mirror:
        steps.append(kornia.RandomHorizontalFlip(p=how.mirror))
    if how.resized_crop != (1.0, 1.0):
        steps.append(kornia.RandomResizedCrop((SIDE, SIDE), how.resized_crop))
    if how.elastic:
        # kornia measures in halves of the side, torchvision in halves of a pixel
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
