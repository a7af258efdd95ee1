"""From images and heatmaps to pictures: overlays, contour lines, signed gradients.

Everything is drawn for the whole batch at once, on the tensors' own device, as floating
point; pictures become uint8 once, at the end. Values are resized first and coloured after:
a resized colour is none of the colormap's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import heatmap

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


# Resizing a picture of values in [0, 1] can leave it by a rounding error.
_ROUNDING = 1e-4


def overlay(
    images: Tensor,
    heatmaps: Tensor,
    *,
    colormap: str | Colormap = "turbo",
    alpha: float = 0.5,
) -> Tensor:
    """Lay heatmaps over images.

    Args:
        images: (N, 1, H, W) grey or (N, 3, H, W) RGB, uint8, or floating point in [0, 1].
        heatmaps: (N, K, h, w) in [0, 1]; resized to the images where the size differs.
        colormap: a matplotlib colormap or its name.
        alpha: weight of the heatmap's colour in [0, 1]; the image has the rest.

    Returns:
        (N, K, 3, H, W) uint8, on the images' device.

    Raises:
        TypeError: the images are neither uint8 nor floating point.
        ValueError: a wrong shape or range (normalised images are a common cause), or an unknown
            colormap.

    Example:
        >>> images, heatmaps = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8)
        >>> overlay(images, heatmaps).shape
        torch.Size([2, 4, 3, 8, 8])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected alpha in [0, 1], got {alpha}")
    base = as_rgb(images).mul(255 * (1 - alpha)).unsqueeze(1)
    heat = _fitting(heatmaps, base)
    table = (_table(colormap).to(heat.device) * (255 * alpha)).T.contiguous()
    entry = heat.mul(255).add_(0.5).long()
    n, k, h, w = entry.shape
    pictures = torch.empty(n, k, 3, h, w, dtype=torch.uint8, device=heat.device)
    for channel, intensities in enumerate(table):  # plane by plane memory is read in order
        plane = intensities.index_select(0, entry.flatten()).view(n, k, h, w)
        pictures[:, :, channel] = plane.add_(base[:, :, channel]).add_(0.5)
    return pictures


def contours(
    pictures: Tensor,
    heatmaps: Tensor,
    *,
    level: float = 0.5,
    width: float = 1.5,
    color: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Draw the line on which each heatmap has a given value.

    A pixel's distance from the line is how far its value is from the level over how fast the
    value changes there, so the line has the same width in flat and in steep places.

    Args:
        pictures: images as :func:`overlay` takes them, or its (N, K, 3, H, W) result.
        heatmaps: (N, K, h, w) in [0, 1].
        level: the value, in (0, 1); 0.5 encloses what has at least half the maximum.
        width: of the line in pixels.
        color: red, green and blue in [0, 1].

    Returns:
        (N, K, 3, H, W) uint8.

    Raises:
        TypeError: see :func:`overlay`.
        ValueError: see :func:`overlay`; or the level, width or color is out of range, or there are
            not as many heatmaps as pictures.

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
    heat = _fitting(heatmaps, base)
    if base.shape[1] not in (1, heat.shape[1]):
        raise ValueError(
            f"expected {base.shape[1]} heatmaps an image, as many as pictures, got {heat.shape[1]}"
        )
    steepness = _steepness(heat)
    distance = (heat - level).abs() / steepness
    line = (width / 2 + 0.5 - distance).clamp(0, 1)
    line = line.where(steepness > 0, 0).unsqueeze(2)  # a plateau has no line, whatever its level
    return _uint8(
        base.lerp(torch.tensor(color, dtype=base.dtype, device=base.device).view(3, 1, 1), line)
    )


def _steepness(heat: Tensor) -> Tensor:
    """Return how fast values change at each pixel, towards the neighbour that differs more.

    The mean over both neighbours would halve it at the edge of a mask, and with it the line.
    """
    down, right = heat.diff(dim=-2).abs(), heat.diff(dim=-1).abs()
    down = torch.maximum(pad(down, (0, 0, 1, 0)), pad(down, (0, 0, 0, 1)))
    right = torch.maximum(pad(right, (1, 0)), pad(right, (0, 1)))
    return torch.hypot(down, right)


def signed(gradients: Tensor) -> Tensor:
    """Show signed gradients in colour: grey is zero, lighter is positive, darker negative.

    Args:
        gradients: (N, K, C, H, W) with C of 1 or 3, as of ``Explanation.gradients``. Each map is
            divided by the largest absolute value in it.

    Returns:
        (N, K, 3, H, W) uint8.

    Raises:
        ValueError: a wrong shape.

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
        TypeError: they are no tensor, or neither uint8 nor floating point.
        ValueError: a wrong shape or range.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"expected images as a tensor, got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"expected images as (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}"
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
    return values.clamp(0, 1).expand(-1, 3, -1, -1)


def _fitting(heatmaps: Tensor, pictures: Tensor) -> Tensor:
    """Return (N, K, H, W) heatmaps in [0, 1] of the pictures' number and size."""
    size = (pictures.shape[-2], pictures.shape[-1])
    if heatmaps.ndim != 4 or len(heatmaps) != len(pictures):
        raise ValueError(
            f"expected heatmaps as ({len(pictures)}, K, h, w), got {tuple(heatmaps.shape)}"
        )
    check_range(heatmaps, "heatmaps", "pass explanation.heatmaps, or camlens.heatmap.scale(maps)")
    return heatmap.resize(heatmaps.float().clamp(0, 1), size)


def check_range(values: Tensor, kind: str, remedy: str) -> None:
    """Check that values are in [0, 1], but for what rounding adds.

    Raises:
        ValueError: they are not, or are not numbers.
    """
    low, high = values.aminmax()
    if not (
        (low >= -_ROUNDING) & (high <= 1 + _ROUNDING)
    ).item():  # a single look at the device; false for NaN
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
    # Half up, since nothing is negative: several times as fast as round() on a processor.
    return pictures.mul_(255).add_(0.5).to(torch.uint8)
