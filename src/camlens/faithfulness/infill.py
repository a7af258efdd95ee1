"""Infills: replace a removed part of an image with a blur, the mean colour or inpainting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d, pad

#: Names of the infills.
INFILLS = ("blur", "mean", "inpaint")

# The blur's standard deviation as a fraction of the image's shortest side: on a face of 48 pixels,
# 5 pixels, more than half an eye's height.
_BLUR = 0.1

_CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def replace(images: Tensor, masks: Tensor, infill: str) -> Tensor:
    """Fill the masked part of each image.

    Args:
        images: ``(N, C, *size)`` floating point, with 1, 2 or 3 spatial axes.
        masks: ``(N, M, *size)`` in [0, 1]; 1 is replaced, 0 is left unchanged, and values between
            blend the two.
        infill: ``"blur"``, ``"mean"`` or ``"inpaint"``, see
            :func:`camlens.faithfulness.ablate_regions`.

    Returns:
        ``(N, M, C, *size)``: each image filled under each of its masks.

    Raises:
        ImportError: inpainting needs OpenCV.
        ValueError: inpainting is defined for 2-D images only.

    Example:
        >>> image, mask = torch.tensor([[[[1.0, 2.0, 6.0]]]]), torch.tensor([[[[1.0, 0.5, 0.0]]]])
        >>> replace(image, mask, "mean").flatten().tolist()
        [3.0, 2.5, 6.0]
    """
    if infill == "inpaint":
        return torch.stack(list(_inpainted(images, masks)))
    if infill == "blur":
        substitute = blurred(images)
    else:
        substitute = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
    return images.unsqueeze(1) + masks.unsqueeze(2) * (substitute - images).unsqueeze(1)


def blurred(images: Tensor) -> Tensor:
    """Blur with a separable Gaussian and reflecting borders."""
    axes, channels = images.ndim - 2, images.shape[1]
    shortest = min(images.shape[2:])
    sigma = _BLUR * shortest
    radius = min(math.ceil(3 * sigma), shortest - 1)
    # In float32 or wider: half precision loses digits in sums and takes minutes on some CPUs.
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    steps = torch.arange(-radius, radius + 1, device=wide.device).to(wide)
    kernel = (-0.5 * (steps / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    blurred = pad(wide, (radius,) * (2 * axes), mode="reflect")
    for axis in reversed(range(axes)):
        shape = [-1 if position == axis else 1 for position in range(axes)]
        weight = kernel.view(shape).expand(channels, 1, *[-1] * axes)
        blurred = _CONVOLUTIONS[axes](blurred, weight, groups=channels)
    return blurred.to(images)


def _inpainted(images: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """Yield (M, C, H, W) for each image. OpenCV inpaints one channel with one mask at a time."""
    if images.ndim != 4:
        raise ValueError(
            f'infill="inpaint" needs 2-D images (N, C, H, W), got {tuple(images.shape)}: use '
            'infill="blur" or "mean"'
        )
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            'infill="inpaint" needs OpenCV: pip install "camlens[regions]"'
        ) from error
    # OpenCV's filled values are up to 1.4 grey levels too high: little out of 256, but more than
    # the whole range of an image in [0, 1]. Each image is therefore scaled to 0 to 255 first.
    values = images.float()
    low = values.amin(dim=(1, 2, 3), keepdim=True)
    level = (values.amax(dim=(1, 2, 3), keepdim=True) - low) / 255
    levels = ((values - low) / level.where(level > 0, 1)).cpu().numpy()
    holes = masks >= 0.5
    for index, image_holes in enumerate(holes.cpu().numpy().astype("uint8")):
        inpainted = [
            [torch.from_numpy(cv2.inpaint(c, hole, 3, cv2.INPAINT_TELEA)) for c in levels[index]]
            for hole in image_holes
        ]
        pixels = torch.stack([torch.stack(channels) for channels in inpainted]).to(values)
        pixels = pixels * level[index] + low[index]
        yield pixels.to(images).where(holes[index].unsqueeze(1), images[index])
