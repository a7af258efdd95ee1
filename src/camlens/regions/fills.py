"""What a part of an image is replaced by when it is taken away."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

#: What a region is replaced by.
FILLS = ("blur", "mean", "inpaint")

# The blur's standard deviation as a part of the image's shorter side: on a face of 48 pixels, 5
# pixels, more than half an eye's height.
_BLUR = 0.1


def replaced(images: Tensor, masks: Tensor, fill: str) -> Tensor:
    """Replace each mask's part of each image, and leave the rest as it is.

    Args:
        images: (N, C, H, W) floating point.
        masks: (N, M, H, W) in [0, 1].
        fill: ``"blur"``, ``"mean"`` or ``"inpaint"``, as :func:`camlens.regions.effect` says.

    Returns:
        (N, M, C, H, W).

    Raises:
        ImportError: inpainting without OpenCV.

    Example:
        >>> image, mask = torch.tensor([[[[1.0, 2.0, 6.0]]]]), torch.tensor([[[[1.0, 0.5, 0.0]]]])
        >>> replaced(image, mask, "mean").flatten().tolist()
        [3.0, 2.5, 6.0]
    """
    if fill == "inpaint":
        return torch.stack(list(_inpainted(images, masks)))
    other = _blurred(images) if fill == "blur" else images.mean(dim=(-2, -1), keepdim=True)
    return images.unsqueeze(1) + masks.unsqueeze(2) * (other - images).unsqueeze(1)


def _blurred(images: Tensor) -> Tensor:
    sigma = _BLUR * min(images.shape[-2:])
    radius = min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1)
    steps = torch.arange(-radius, radius + 1).to(images)
    kernel = (-0.5 * (steps / sigma).square()).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    wide = pad(images, (radius,) * 4, mode="reflect")
    groups = images.shape[1]
    return conv2d(conv2d(wide, kernel, groups=groups), kernel.transpose(-1, -2), groups=groups)


def _inpainted(images: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """Yield (M, C, H, W) for each image: OpenCV fills one channel with one mask at a time."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError('fill="inpaint" needs OpenCV: pip install "camlens[regions]"') from error
    # OpenCV adds up to 1.4 grey levels to what it fills in: little of 256, and more than all there
    # is of 1. So the levels are made 0 to 255, whatever the images' own.
    values = images.float()
    low = values.amin(dim=(1, 2, 3), keepdim=True)
    level = (values.amax(dim=(1, 2, 3), keepdim=True) - low) / 255
    levels = ((values - low) / level.where(level > 0, 1)).cpu().numpy()
    holes = masks >= 0.5
    for index, cut in enumerate(holes.cpu().numpy().astype("uint8")):
        filled = [
            [torch.from_numpy(cv2.inpaint(c, hole, 3, cv2.INPAINT_TELEA)) for c in levels[index]]
            for hole in cut
        ]
        new = torch.stack([torch.stack(channels) for channels in filled]).to(values)
        new = new * level[index] + low[index]
        yield new.to(images).where(holes[index].unsqueeze(1), images[index])
