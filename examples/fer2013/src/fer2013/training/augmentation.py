"""A configuration's augmentation as torchvision's transforms."""

from __future__ import annotations

from torchvision.transforms import InterpolationMode, v2

from ..configurations.config import Augmentation
from ..data.faces import SIDE

# Wave length of the elastic distortion in pixels: about the width of an eye.
_ELASTIC_SIGMA = 4.0


def augment(how: Augmentation) -> v2.Transform:
    """Return the transform of one (1, 48, 48) training face in [0, 1]; mixup needs a batch."""
    bilinear = InterpolationMode.BILINEAR
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip()]
    if how.resized_crop != (1.0, 1.0):
        steps.append(v2.RandomResizedCrop(SIDE, how.resized_crop, interpolation=bilinear))
    if how.elastic:
        steps.append(v2.ElasticTransform(how.elastic, _ELASTIC_SIGMA, interpolation=bilinear))
    if how.perspective:
        steps.append(v2.RandomPerspective(how.perspective, interpolation=bilinear))
    if how.rotation or how.shift or how.shear or how.scale != (1.0, 1.0):
        shift, shear = (how.shift, how.shift) if how.shift else None, how.shear or None
        steps.append(v2.RandomAffine(how.rotation, shift, how.scale, shear, interpolation=bilinear))
    if how.jitter:
        steps.append(v2.ColorJitter(brightness=how.jitter, contrast=how.jitter))
    if how.crop is not None:
        steps.append(v2.RandomCrop(how.crop))
    if how.erasing:
        steps.append(v2.RandomErasing(how.erasing, scale=(0.02, 0.2), value=0.5))
    return v2.Compose(steps)
