"""Converts images of any range, number of channels and size to pictures that can be drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Pictures are reduced to this many pixels a side.
_LONGEST_SIDE = 512

# Signals with more channels are unreadable in one panel.
_MOST_CHANNELS = 12

# Interpolation of values in [0, 1] can leave that range by a rounding error.
_ROUNDING = 1e-4

# Two sizes show the same view where their aspect ratios differ by less than this fraction.
_SAME_ASPECT = 0.02


def prepare(
    images: Tensor | None, size: tuple[int, ...], *, count: int, rows: int
) -> tuple[Tensor | None, list[str]]:
    """Return the first images as pictures, and notes on how they were converted.

    Args:
        images: (N, C, *size) uint8 or floating point of any range. None: no images.
        size: the size of the heatmaps, with one number for signals, two for images, three for
            volumes.
        count: the expected N.
        rows: number of images to return.

    Returns:
        Pictures (rows, 1 or 3, ...) in [0, 1], in main memory, with sides of at most 512 pixels.
        Signals are (rows, C, L) in their own units, with at most 12 channels.

    Raises:
        TypeError: the images are not a tensor, or neither uint8 nor floating point.
        ValueError: their number, shape or aspect ratio does not fit.
    """
    if images is None:
        return None, [
            "Maps alone: the explained images are no longer in memory, or have changed. "
            "explanation.show(images) draws them too."
        ]
    _check(images, size, count)
    values, channels = images[:rows].detach().cpu().float(), images.shape[1]
    if len(size) == 1:
        notes = [f"{_MOST_CHANNELS} of {channels} channels are shown."]
        return values[:, :_MOST_CHANNELS].nan_to_num(), notes * (channels > _MOST_CHANNELS)
    notes = []
    if channels not in (1, 3):
        values = values.mean(dim=1, keepdim=True)
        notes.append(f"The images have {channels} channels: their mean is drawn.")
    if images.dtype == torch.uint8:
        values = values / 255
    elif not _in_unit_range(images):
        values = _stretched(values)
        notes.append("The images are not in [0, 1]: each is stretched to full contrast.")
    return _reduced(values.clamp(0, 1)), notes


def _check(images: Tensor, size: tuple[int, ...], count: int) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"expected images as a tensor, got {type(images).__name__}")
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise TypeError(f"expected uint8 or floating-point images, got {images.dtype}")
    shape = tuple(images.shape)
    if len(shape) != 2 + len(size) or len(images) != count or 0 in shape:
        axes = {1: "L", 2: "H, W", 3: "D, H, W"}[len(size)]
        raise ValueError(f"expected {count} images as ({count}, C, {axes}), got {shape}")
    ratios = [pixels / length for pixels, length in zip(shape[2:], size, strict=True)]
    if (len(size) == 1 and shape[2:] != size) or max(ratios) > min(ratios) * (1 + _SAME_ASPECT):
        raise ValueError(
            f"expected images that show what the model saw, of size {size} or a multiple, got "
            f"{shape[2:]}: the heatmaps would be misplaced; crop the images as the model's "
            "input was cropped"
        )


def _in_unit_range(images: Tensor) -> bool:
    low, high = images.detach().aminmax()
    return bool((low >= -_ROUNDING) & (high <= 1 + _ROUNDING))  # false for NaN


def _stretched(images: Tensor) -> Tensor:
    """Map the smallest value of each image to 0 and the largest to 1, over all channels."""
    finite = images.nan_to_num(posinf=0.0, neginf=0.0)
    least, most = finite.flatten(1).aminmax(dim=1)
    shape = (-1, *(1,) * (images.ndim - 1))
    span = (most - least).where(most > least, 1)
    return (finite - least.view(shape)) / span.view(shape)


def _reduced(pictures: Tensor) -> Tensor:
    """Reduce (N, C, ..., H, W) pictures by averaging areas, if they are large."""
    height, width = pictures.shape[-2:]
    factor = _LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return pictures
    smaller = max(1, round(height * factor)), max(1, round(width * factor))
    if pictures.ndim == 4:
        return interpolate(pictures, smaller, mode="area")
    return interpolate(pictures, (pictures.shape[2], *smaller), mode="area")
