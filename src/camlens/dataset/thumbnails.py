"""The pictures that the model saw, before normalisation, and small ones of them as files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .. import render

#: The longest side of a thumbnail, in pixels.
LONGEST = 224

#: JPEG, since PNG takes longer to write and twice the bytes; of full resolution in colour too.
_FORMAT: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": 0}


def pictures_of(images: Tensor, picture: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return (N, 1 or 3, H, W) uint8 pictures of images as the model takes them.

    Args:
        images: (N, C, H, W) floating point.
        picture: undoes the normalisation: from the images to (N, 1 or 3, H, W), floating point in
            [0, 1] or uint8. None: images in [0, 1] are taken as they are; others are stretched
            each from its own minimum to its own maximum, which shows what is in them but neither
            brightness nor contrast. Of other numbers of channels than 1 and 3 their mean is shown.

    Raises:
        TypeError: the function returned no tensor of such a type.
        ValueError: it returned a wrong shape or range.

    Example:
        >>> pictures_of(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).flatten().tolist()
        [0, 128, 255]
    """
    if picture is not None:
        return _made(picture(images), images)
    shown = images.float()
    if shown.shape[1] not in (1, 3):
        shown = shown.mean(dim=1, keepdim=True)
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    span = (high - low).where(high > low, 1)
    fits = (low >= 0) & (high <= 1)
    return _to_uint8(torch.where(fits, shown, (shown - low) / span))


def _made(made: object, images: Tensor) -> Tensor:
    if not isinstance(made, Tensor) or not (made.is_floating_point() or made.dtype == torch.uint8):
        kind = made.dtype if isinstance(made, Tensor) else type(made).__name__
        raise TypeError(
            f"expected picture= to return floating point in [0, 1] or uint8, got {kind}"
        )
    n, _, h, w = images.shape
    if (
        made.ndim != 4
        or made.shape[1] not in (1, 3)
        or (made.shape[0], *made.shape[2:]) != (n, h, w)
    ):
        raise ValueError(
            f"expected picture= to return ({n}, 1 or 3, {h}, {w}), got {tuple(made.shape)}"
        )
    if made.dtype == torch.uint8:
        return made
    render.check_range(made, "what picture= returned", "undo all of the normalisation")
    return _to_uint8(made.float().clamp(0, 1))


def _to_uint8(values: Tensor) -> Tensor:
    return (values * 255).round().to(torch.uint8)


def thumbnails(pictures: Tensor) -> list[bytes]:
    """Encode pictures as JPEG of at most :data:`LONGEST` pixels a side.

    Args:
        pictures: (N, 1 or 3, H, W) uint8 in main memory.
    """
    from PIL import Image

    h, w = pictures.shape[-2:]
    longest = max(h, w)
    if longest > LONGEST:
        size = max(1, round(h * LONGEST / longest)), max(1, round(w * LONGEST / longest))
        smaller = interpolate(pictures.float(), size, mode="bilinear", antialias=True)
        pictures = smaller.clamp(0, 255).round().to(torch.uint8)
    channels = pictures.numpy()
    grey = (channels == channels[:, :1]).all(axis=(1, 2, 3))
    found = []
    for one, pixels in zip(grey, channels, strict=True):
        file = io.BytesIO()
        # A third of the bytes, and the same to look at.
        picture = pixels[0] if one else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        Image.fromarray(picture).save(file, **_FORMAT)
        found.append(file.getvalue())
    return found
