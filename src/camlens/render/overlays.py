"""Draws heatmaps over images: overlays, contour lines and signed gradients.

All functions draw a whole batch at once, on the tensors' device, in floating point; pictures are
rounded to uint8 once, at the end. Values are resized before they are coloured, as a blend of two
colours of a colormap is in general not a colour of that colormap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import heatmap
from .slices import cut

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


# Interpolation of values in [0, 1] can leave that range by a rounding error.
_ROUNDING = 1e-4


def overlay(
    images: Tensor,
    heatmaps: Tensor,
    *,
    colormap: str | Colormap = "turbo",
    alpha: float = 0.5,
    slices: int | Sequence[int] | None = None,
    axis: int = 0,
) -> Tensor:
    """Blend heatmaps over images, or over slices of volumes.

    Args:
        images: (N, 1, H, W) grey or (N, 3, H, W) RGB, uint8, or floating point in [0, 1]. Volumes
            and videos are (N, 1 or 3, D, H, W).
        heatmaps: (N, K, h, w) in [0, 1], for volumes (N, K, d, h, w); resized to the images' size.
        colormap: a matplotlib colormap or its name.
        alpha: weight of the heatmap's colour in [0, 1]; the image has the remaining weight.
        slices: slices of volumes to draw: an index, or several. None: for each heatmap the slice
            with the most heat (:func:`camlens.slices.hottest`).
        axis: the axis along which volumes are cut: 0 for D, 1 for H, 2 for W.

    Returns:
        uint8 on the images' device. For images (N, K, 3, H, W). For volumes the same, or
        (N, K, S, 3, H, W) if ``slices`` is a sequence of S indices; (H, W) are then the two axes
        that are not cut.

    Raises:
        TypeError: the images are neither uint8 nor floating point.
        IndexError: the volumes have no such slice.
        ValueError: a shape or range is wrong (normalised images are a common cause), the colormap
            is unknown, or ``slices`` or ``axis`` is given for images.

    Example:
        >>> images, heatmaps = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8)
        >>> overlay(images, heatmaps).shape
        torch.Size([2, 4, 3, 8, 8])
        >>> volumes, heatmaps = torch.rand(2, 1, 6, 8, 8), torch.rand(2, 4, 3, 4, 4)
        >>> overlay(volumes, heatmaps, slices=[0, 2, 4]).shape
        torch.Size([2, 4, 3, 3, 8, 8])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected alpha in [0, 1], got {alpha}")
    if isinstance(images, Tensor) and images.ndim == 5:
        heat = _fitting(heatmaps, len(images), images.shape[2:])
        base, heat = cut(_rgb(images), heat, slices=slices, axis=axis)
    elif slices is None and axis == 0:
        base = as_rgb(images).unsqueeze(1)
        heat = _fitting(heatmaps, len(images), images.shape[2:])
    else:
        raise ValueError(
            "slices and axis choose a cut through volumes as (N, 1 or 3, D, H, W), got images of "
            f"{tuple(images.shape)}"
        )
    return _blended(base.mul(255 * (1 - alpha)), heat, _table(colormap) * (255 * alpha))


def _blended(base: Tensor, heat: Tensor, table: Tensor) -> Tensor:
    """Add the heat's colours to (N, 1 or K, ..., 3, H, W) images; both are in [0, 255]."""
    intensities = table.to(heat.device).T.contiguous()
    entry = heat.mul(255).add_(0.5).long()
    pictures = torch.empty(
        *entry.shape[:-2], 3, *entry.shape[-2:], dtype=torch.uint8, device=heat.device
    )
    for channel in range(3):  # one plane at a time reads memory in order
        plane = intensities[channel].index_select(0, entry.flatten()).view(entry.shape)
        pictures.select(-3, channel).copy_(plane.add_(base.select(-3, channel)).add_(0.5))
    return pictures


def contours(
    pictures: Tensor,
    heatmaps: Tensor,
    *,
    level: float = 0.5,
    width: float = 1.5,
    color: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Draw the contour line at which each heatmap has a given value.

    A pixel's distance from the line is estimated as the difference between its value and the level,
    divided by the local rate of change, so the line is equally wide on flat and on steep slopes.

    Args:
        pictures: (N, 1, H, W) grey or (N, 3, H, W) RGB images, or the (N, K, 3, H, W) result of
            :func:`overlay`; uint8, or floating point in [0, 1].
        heatmaps: (N, K, h, w) in [0, 1].
        level: the value, in (0, 1); 0.5 encloses the pixels with at least half the maximum.
        width: width of the line in pixels.
        color: red, green and blue in [0, 1].

    Returns:
        (N, K, 3, H, W) uint8.

    Raises:
        TypeError: the pictures are neither uint8 nor floating point.
        ValueError: a shape or range is wrong, the level, width or color is out of range, or the
            number of heatmaps differs from the number of pictures.

    Example:
        >>> heat = torch.linspace(0, 1, 9).repeat(9, 1)[None, None]
        >>> line = contours(torch.zeros(1, 1, 9, 9), heat, width=1.0)
        >>> line[0, 0, 0, 4].tolist()
        [0, 0, 0, 0, 255, 0, 0, 0, 0]
    """
    if not 0 < level < 1 or width <= 0:
        raise ValueError(f"expected a level in (0, 1) and a width > 0, got {level} and {width}")
    if not all(0 <= part <= 1 for part in color):
        raise ValueError(f"expected a color of values in [0, 1], got {color}")
    flat = pictures.flatten(0, 1) if pictures.ndim == 5 else pictures
    base = as_rgb(flat).unflatten(0, (len(pictures), -1))
    heat = _fitting(heatmaps, len(base), base.shape[-2:])
    if base.shape[1] not in (1, heat.shape[1]):
        raise ValueError(
            f"expected {base.shape[1]} heatmaps per image, one per picture, got {heat.shape[1]}"
        )
    steepness = _steepness(heat)
    distance = (heat - level).abs() / steepness
    line = (width / 2 + 0.5 - distance).clamp(0, 1)
    line = line.where(steepness > 0, 0).unsqueeze(2)  # a plateau has no line, whatever its level
    return _uint8(
        base.lerp(torch.tensor(color, dtype=base.dtype, device=base.device).view(3, 1, 1), line)
    )


def _steepness(heat: Tensor) -> Tensor:
    """Return the rate of change at each pixel, towards the neighbour that differs more.

    The mean over both neighbours would halve the rate at a mask's edge, and with it the line.
    """
    down, right = heat.diff(dim=-2).abs(), heat.diff(dim=-1).abs()
    down = torch.maximum(pad(down, (0, 0, 1, 0)), pad(down, (0, 0, 0, 1)))
    right = torch.maximum(pad(right, (1, 0)), pad(right, (0, 1)))
    return torch.hypot(down, right)


def signed(gradients: Tensor) -> Tensor:
    """Draw signed gradients: grey is zero, lighter is positive, darker is negative.

    Args:
        gradients: (N, K, C, H, W) with C of 1 or 3, such as ``Explanation.gradients``. Each map is
            divided by its largest absolute value.

    Returns:
        (N, K, 3, H, W) uint8.

    Raises:
        ValueError: the shape is wrong.

    Example:
        >>> signed(torch.tensor([-2.0, 0.0, 1.0]).view(1, 1, 1, 1, 3))[0, 0, 0].tolist()
        [[0, 128, 191]]
    """
    if gradients.ndim != 5 or gradients.shape[2] not in (1, 3):
        raise ValueError(
            f"expected gradients as (N, K, 1 or 3, H, W), got {tuple(gradients.shape)}"
        )
    largest = gradients.abs().amax(dim=(2, 3, 4), keepdim=True)
    picture = gradients / largest.where(largest > 0, 1) / 2 + 0.5
    return _uint8(picture.expand(-1, -1, 3, -1, -1).clone())


def as_rgb(images: Tensor) -> Tensor:
    """Return images as (N, 3, H, W) floating point in [0, 1].

    Args:
        images: (N, 1, H, W) grey or (N, 3, H, W) RGB, uint8, or floating point in [0, 1].

    Raises:
        TypeError: the images are not a tensor, or neither uint8 nor floating point.
        ValueError: the shape or range is wrong.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"expected images as a tensor, got {type(images).__name__}")
    if images.ndim == 3:
        raise ValueError(
            f"expected images as (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}: add the "
            "batch dimension to a single image with images.unsqueeze(0); signals as (N, C, L) are "
            "drawn by explanation.show(signals)"
        )
    if images.ndim != 4:
        raise ValueError(
            f"expected images as (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}"
        )
    return _rgb(images)


def _rgb(images: Tensor) -> Tensor:
    """Return (N, 1 or 3, *size) images or volumes as (N, 3, *size) in [0, 1]."""
    if images.shape[1] not in (1, 3):
        size = "H, W" if images.ndim == 4 else "D, H, W"
        raise ValueError(
            f"expected images as (N, 1, {size}) or (N, 3, {size}), got {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        values = images.float() / 255
    elif images.is_floating_point():
        values = images.float()
        check_range(
            values,
            "images",
            "undo the normalisation (image * std + mean), or pass the uint8 pictures",
        )
    else:
        raise TypeError(f"expected uint8 or floating-point images, got {images.dtype}")
    return values.clamp(0, 1).expand(-1, 3, *images.shape[2:])


def _fitting(heatmaps: Tensor, count: int, size: Sequence[int]) -> Tensor:
    """Return (N, K, *size) heatmaps of N pictures, in [0, 1] and at the pictures' size."""
    if heatmaps.ndim != 2 + len(size) or len(heatmaps) != count:
        grid = "h, w" if len(size) == 2 else "d, h, w"
        raise ValueError(f"expected heatmaps as ({count}, K, {grid}), got {tuple(heatmaps.shape)}")
    check_range(heatmaps, "heatmaps", "pass explanation.heatmaps, or camlens.heatmap.scale(maps)")
    return heatmap.resize(heatmaps.float().clamp(0, 1), size)


def check_range(values: Tensor, kind: str, remedy: str) -> None:
    """Check that values are in [0, 1], up to a rounding error.

    Raises:
        ValueError: a value is out of range or NaN.
    """
    low, high = values.aminmax()
    if not (
        (low >= -_ROUNDING) & (high <= 1 + _ROUNDING)
    ).item():  # a single read from the device; false for NaN
        raise ValueError(
            f"expected {kind} in [0, 1], got values from {low:.3g} to {high:.3g}: {remedy}"
        )


def _table(colormap: str | Colormap) -> Tensor:
    """Return a colormap's 256 colours, (256, 3) in [0, 1]."""
    import matplotlib
    import numpy as np

    if isinstance(colormap, str):
        if colormap not in matplotlib.colormaps:
            raise ValueError(
                f"matplotlib has no colormap {colormap!r}; try 'turbo', 'viridis' or 'jet'"
            )
        colormap = matplotlib.colormaps[colormap]
    return torch.from_numpy(colormap(np.linspace(0, 1, 256))[:, :3]).float()


def _uint8(pictures: Tensor) -> Tensor:
    # Rounds half up, as no value is negative: several times as fast as round() on a CPU.
    return pictures.mul_(255).add_(0.5).to(torch.uint8)
