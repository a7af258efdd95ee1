"""From images and heatmaps to pictures: overlays, contour lines, contact sheets.

Everything is drawn for the whole batch at once, on the tensors' own device, as floating
point; pictures become uint8 once, at the end. Values are resized first and coloured after:
a resized colour is none of the colormap's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import heatmap

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


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
    base = _rgb(images).mul(255 * (1 - alpha)).unsqueeze(1)
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
        ValueError: see :func:`overlay`; or the level or width is out of range.

    Example:
        >>> heat = torch.linspace(0, 1, 9).repeat(9, 1)[None, None]
        >>> line = contours(torch.zeros(1, 1, 9, 9), heat, width=1.0)
        >>> line[0, 0, 0, 4].tolist()
        [0, 0, 0, 0, 255, 0, 0, 0, 0]
    """
    if not 0 < level < 1 or width <= 0:
        raise ValueError(f"expected a level in (0, 1) and a width > 0, got {level} and {width}")
    n, *_, h, w = pictures.shape
    base = _rgb(pictures.reshape(-1, *pictures.shape[-3:])).view(n, -1, 3, h, w)
    heat = _fitting(heatmaps, base)
    steepness = torch.stack(torch.gradient(heat, dim=(-2, -1))).norm(dim=0)
    distance = (heat - level).abs() / steepness
    line = (width / 2 + 0.5 - distance).clamp(0, 1)
    line = line.where(steepness > 0, 0).unsqueeze(2)  # a plateau has no line, whatever its level
    return _uint8(
        base.lerp(torch.tensor(color, dtype=base.dtype, device=base.device).view(3, 1, 1), line)
    )


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


def sheet(
    pictures: Tensor,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    scale: float = 1.0,
) -> Figure:
    """Arrange pictures in a labelled contact sheet.

    Args:
        pictures: (rows, columns, 3, H, W) uint8, such as an overlay's (N, K, 3, H, W).
        rows: a label for each row, to its left.
        columns: a label for each column, above it.
        title: a line above everything.
        scale: size of a picture's pixel on the sheet; best a whole number.

    Returns:
        A matplotlib figure; notebooks show it, ``figure.savefig("sheet.png")`` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a wrong shape, or not as many labels as rows or columns.
    """
    if pictures.ndim != 5 or pictures.shape[2] != 3 or pictures.dtype != torch.uint8:
        raise ValueError(
            "expected pictures as (rows, columns, 3, H, W) uint8, got "
            f"{tuple(pictures.shape)} {pictures.dtype}"
        )
    r, c, _, h, w = pictures.shape
    for labels, count, kind in ((rows, r, "row"), (columns, c, "column")):
        if labels and len(labels) != count:
            raise ValueError(f"expected {count} {kind} labels, got {len(labels)}")
    gap = max(2, w // 32)
    canvas = pictures.new_full((3, r * (h + gap) - gap, c * (w + gap) - gap), 255)
    for top in range(r):
        y = top * (h + gap)
        canvas[:, y : y + h].unfold(2, w, w + gap).copy_(pictures[top].permute(1, 2, 0, 3))
    return _labelled(
        canvas, (h + gap, w + gap), rows=rows, columns=columns, title=title, scale=scale
    )


def _labelled(
    canvas: Tensor,
    pitch: tuple[int, int],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    scale: float,
) -> Figure:
    """Put the canvas on a figure with room for the labels; lengths are in pixels."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=100)
    height, width = canvas.shape[1] * scale, canvas.shape[2] * scale
    longest = max((len(line) for label in rows for line in label.split("\n")), default=0)
    most = max((label.count("\n") + 1 for label in columns), default=0)
    left, top = 10 + 8 * longest, 10 + 17 * most + (30 if title else 0)
    total = (left + width + 10, top + height + 10)
    figure.set_size_inches(total[0] / 100, total[1] / 100)
    box = (left / total[0], 10 / total[1], width / total[0], height / total[1])
    axes = figure.add_axes(box)
    axes.imshow(canvas.permute(1, 2, 0).cpu().numpy(), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    at = [(i + 0.5) * pitch[1] for i in range(len(columns))]
    for x, label in zip(at, columns, strict=True):
        axes.text(x, -4, label, ha="center", va="bottom", fontsize=9)
    for i, label in enumerate(rows):
        axes.text(-8, (i + 0.5) * pitch[0], label, ha="right", va="center", fontsize=9)
    if title:
        figure.text(0.5, 1 - 8 / total[1], title, ha="center", va="top", fontsize=12)
    return figure


def _rgb(images: Tensor) -> Tensor:
    """Return (N, 3, H, W) floating point in [0, 1]."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"expected images as (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        values = images.float() / 255
    elif images.is_floating_point():
        values = images.float()
        low, high = values.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"expected images in [0, 1], got values from {low:.3g} to {high:.3g}: undo the "
                "normalisation (image * std + mean), or pass the uint8 pictures"
            )
    else:
        raise TypeError(f"expected uint8 or floating-point images, got {images.dtype}")
    return values.expand(-1, 3, -1, -1)


def _fitting(heatmaps: Tensor, pictures: Tensor) -> Tensor:
    """Return (N, K, H, W) heatmaps in [0, 1] of the pictures' number and size."""
    size = (pictures.shape[-2], pictures.shape[-1])
    if heatmaps.ndim != 4 or len(heatmaps) != len(pictures):
        raise ValueError(
            f"expected heatmaps as ({len(pictures)}, K, h, w), got {tuple(heatmaps.shape)}"
        )
    low, high = heatmaps.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"expected heatmaps in [0, 1], got values from {low:.3g} to {high:.3g}: pass "
            "explanation.heatmaps, or camlens.heatmap.scale(maps)"
        )
    return heatmap.resize(heatmaps.float(), size)


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
